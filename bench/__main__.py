"""python -m bench [--only kernels streams …] [--rounds 5] [--streams 1 16 …] [--quick]
                [--device cuda] [--front-end envoy]

Compares this service over gRPC with one loop a request, with the bare step and with the
machine's own limit, in one run with alternating order, and prints a table against the bars.
The last line is JSON. A whole run writes docs/bench.md, docs/bench/results.json and plots;
a part of one writes them only where --output says. It takes no decision: a timing is not a
test, so the exit code is 0 whether or not the bars were met, and 1 where a part broke.
"""

from __future__ import annotations

import argparse
import json
import signal
import sys
import time
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import grpc

from bench.bars import evaluate
from bench.before import read_before
from bench.constrained import measure_constrained
from bench.doors import measure_doors
from bench.findings import Findings
from bench.frames import measure_frames
from bench.front_ends import FRONT_ENDS, front_end_arguments
from bench.joining import measure_joining
from bench.kernels import measure_kernels
from bench.loops import StepGraph, open_steps
from bench.machine import this_machine
from bench.memory import measure_memory
from bench.predicting import measure_predict
from bench.prefixes import measure_prefixes
from bench.report import write_report
from bench.servers import Missing, Server, start_peer, start_service
from bench.settings import PARTS, PEER_STREAMS, Settings, quick
from bench.starting import measure_starts
from bench.streams import compare_streams
from bench.words import measure_words
from bench.workers import measure_workers
from bundle.manifest import FP32
from bundle.store import Bundle, read_bundle


class Run:
    """One run: its servers, which all end with it, and what it has found so far."""

    def __init__(self, settings: Settings, children: ExitStack) -> None:
        self.settings = settings
        self.bundle: Bundle = read_bundle(settings.bundle)
        self.models = settings.bundle.parent.parent
        self.graphs: list[StepGraph] = open_steps(self.bundle, settings.device)
        self.findings = Findings(has_int8=len(self.graphs) > 1)
        self.seconds: dict[str, float] = {}
        self.failures: dict[str, str] = {}
        self._children = children
        self._services: list[Server] = []

    def measure(self) -> Findings:
        """Every part that was requested, in the order of PARTS."""
        for part in (part for part in PARTS if part in self.settings.parts):
            started = time.perf_counter()
            try:
                found = _MEASURES[part](self)
            except (grpc.RpcError, RuntimeError, OSError, Missing) as error:
                # Minutes of other parts must not be lost with it.
                self.failures[part] = str(error)
            else:
                self.findings = replace(self.findings, **{part: found})
            self.seconds[part] = round(time.perf_counter() - started, 1)
        return self.findings

    def services(self) -> list[Server]:
        """The service in each precision the bundle has, started once."""
        if not self._services:
            self._services = [
                self._children.enter_context(self._start(self.models, graph.precision))
                for graph in self.graphs
            ]
        return self._services

    def _start(self, models: Path, precision: str = FP32, queue: int | None = None) -> Server:
        """The service with the front end of the settings. Raises Missing."""
        name = self.settings.front_end
        arguments = front_end_arguments(name) if name else ()
        return start_service(models, precision, queue, self.settings.device, arguments)

    def kernels(self) -> Any:
        return measure_kernels(self.graphs, self.settings)

    def words(self) -> Any:
        return measure_words(self.settings)

    def constrained(self) -> Any:
        return measure_constrained()

    def streams(self) -> Any:
        vectors = self.settings.vectors
        is_served = vectors.parent.parent == self.models and vectors.exists()
        food = read_bundle(vectors) if is_served else None
        with start_peer(self.settings.bundle, PEER_STREAMS) as peer:
            return tuple(compare_streams(self.services(), peer, self.graphs, self.settings, food))

    def joining(self) -> Any:
        manifest = self.bundle.manifest
        return tuple(measure_joining(s, manifest, self.settings) for s in self.services())

    def prefixes(self) -> Any:
        return measure_prefixes(self.graphs, self.settings)

    def predict(self) -> Any:
        classifier = read_bundle(self.settings.classifier)
        # Every caller's texts may wait at once: a refusal would be answered by a pause.
        queue = max(self.settings.clients) * max(self.settings.texts)
        folder = classifier.folder.parent.parent
        with self._start(folder, queue=queue) as server:
            return tuple(measure_predict(server, classifier, self.settings))

    def doors(self) -> Any:
        classifier = read_bundle(self.settings.classifier)
        return measure_doors(self.bundle, classifier, self.graphs[-1].precision, self.settings)

    def workers(self) -> Any:
        classifier = read_bundle(self.settings.classifier)
        return measure_workers(self.bundle, classifier, self.graphs[-1].precision, self.settings)

    def frames(self) -> Any:
        name = self.settings.front_end
        return measure_frames(self.settings, tuple(front_end_arguments(name)) if name else ())

    def memory(self) -> Any:
        # The quicker precision has the unread streams full in half the time; their state is alike.
        with self._start(self.models, self.graphs[-1].precision) as fresh:
            return measure_memory(fresh, self.bundle.manifest, self.settings)

    def start(self) -> Any:
        return measure_starts(self.models, self.settings.starts, self.settings.device)


_MEASURES: dict[str, Callable[[Run], Any]] = {part: getattr(Run, part) for part in PARTS}


def main(arguments: Sequence[str] | None = None) -> int:
    chosen = _parser().parse_args(arguments)
    settings = _settings(chosen)
    machine = this_machine()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # so that children end as well
    with ExitStack() as children:
        run = Run(settings, children)
        findings = run.measure()
    verdicts = evaluate(findings)
    report = write_report(findings, verdicts, machine, settings, read_before())
    result = {
        "machine": asdict(machine),
        "model": run.bundle.manifest.name,
        "digest": run.bundle.digest,
        "settings": asdict(settings),
        "seconds": run.seconds,
        "failures": run.failures,
        "findings": asdict(findings),
        "bars": [asdict(verdict) for verdict in verdicts],
    }
    if output := _output(chosen):
        _write(output, report, result, findings)
    print(report)
    for part, error in run.failures.items():
        print(f"{part} broke: {error}", file=sys.stderr)
    print(json.dumps(result, default=str, ensure_ascii=False))
    return 1 if run.failures else 0


def _write(folder: Path, report: str, result: dict[str, Any], findings: Findings) -> None:
    # Imported late: only a run that draws needs what it takes.
    from bench.plots import draw_plots

    (folder / "bench").mkdir(parents=True, exist_ok=True)
    text = json.dumps(result, default=str, ensure_ascii=False, indent=1)
    (folder / "bench" / "results.json").write_text(text + "\n", encoding="utf8")
    plots = draw_plots(findings.streams, folder / "bench") if findings.streams else []
    images = "\n\n".join(f"![{p.stem.replace('_', ' ')}](bench/{p.name})" for p in plots)
    (folder / "bench.md").write_text(f"{report}\n{images}\n", encoding="utf8")


def _output(chosen: argparse.Namespace) -> Path | None:
    """A part of a run must not replace the page of a whole one unasked."""
    whole = set(chosen.only) == set(PARTS) and not chosen.quick
    return chosen.output or (Path("docs") if whole else None)


def _settings(chosen: argparse.Namespace) -> Settings:
    settings = Settings(
        chosen.device,
        chosen.bundle,
        chosen.classifier,
        chosen.vectors,
        front_end=chosen.front_end,
    )
    if chosen.quick:
        settings = quick(settings)
    overrides = {"rounds": chosen.rounds, "streams": chosen.streams and tuple(chosen.streams)}
    return replace(
        settings, parts=tuple(chosen.only), **{k: v for k, v in overrides.items() if v is not None}
    )


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m bench")
    parser.add_argument(
        "--bundle",
        type=Path,
        default=Settings.bundle,
        help="bundle of the generator (default: %(default)s)",
    )
    parser.add_argument(
        "--classifier",
        type=Path,
        default=Settings.classifier,
        help="bundle of the classifier (default: %(default)s)",
    )
    parser.add_argument(
        "--vectors",
        type=Path,
        default=Settings.vectors,
        help="bundle of the model of vectors, beside the generator's (default: %(default)s)",
    )
    parser.add_argument(
        "--device",
        choices=("cpu", "cuda"),
        default=Settings.device,
        help="device of the service and the loops (default: %(default)s)",
    )
    parser.add_argument(
        "--only",
        nargs="+",
        choices=PARTS,
        default=list(PARTS),
        metavar="PART",
        help=f"parts of the run: {', '.join(PARTS)} (default: all)",
    )
    parser.add_argument(
        "--front-end",
        choices=FRONT_ENDS,
        help="front end of the service, where a part measures one alone (default: the service's)",
    )
    parser.add_argument(
        "--rounds",
        type=int,
        metavar="N",
        help=f"rounds per comparison, of which medians are reported (default: {Settings.rounds})",
    )
    parser.add_argument(
        "--streams",
        type=int,
        nargs="+",
        metavar="N",
        help=f"numbers of streams opened at once (default: {' '.join(map(str, Settings.streams))})",
    )
    parser.add_argument(
        "--quick", action="store_true", help="a short run that only shows whether everything works"
    )
    parser.add_argument(
        "--output",
        type=Path,
        help="folder of the page and the plots (default: docs for a whole run, else none)",
    )
    return parser


if __name__ == "__main__":
    sys.exit(main())
