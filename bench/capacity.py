"""python -m bench.capacity [--rounds 3] [--quick] [--output docs]

What one core carries, how the cost of a token grows with streams, model and replicas, and what an
open stream takes: measured with the server on one core and its callers on another. What a second
worker costs and takes, on all cores. Writes docs/capacity.md, with the arithmetic for many cores
and up to a million streams, all of it from this run, and docs/bench/capacity.json.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from statistics import median

from tqdm import tqdm

from bench.callers import Caller, make_request
from bench.capacity_page import Findings, WorkersCost, page
from bench.machine import this_machine
from bench.medians import alternate
from bench.memory import Memory, measure_memory
from bench.servers import Server, start_service
from bench.settings import Settings, quick
from bench.workers import COUNTS, STREAMED, measure_workers
from bundle.manifest import Manifest
from bundle.store import read_bundle, read_weights
from unroll.v1 import unroll_pb2 as pb

PRECISIONS = ("fp32", "int8")
STREAMS = (1, 4, 16, 64, 256, 1024)
TOKENS = 128
SIZED_MODELS = ("food", "g2p", "prose")
SIZED = 64  # streams of each model that is compared by size
WORKERS_PRECISION = "int8"  # where a token costs the least, the front end's share is the largest
_WORD = "unrolledunrolledunrolled"


@dataclass(frozen=True)
class Cost:
    """tokens_per_second: of all streams together. cpu_us: of the servers, a token."""

    tokens_per_second: float
    cpu_us: float


@contextmanager
def on_core(core: int | None) -> Iterator[None]:
    """What is started meanwhile stays on ``core``; None leaves it to the system."""
    before = os.sched_getaffinity(0)
    if core is not None:
        os.sched_setaffinity(0, {core})
    try:
        yield
    finally:
        os.sched_setaffinity(0, before)


def request_of(model: str, seed: int, tokens: int, fields: int = 0) -> pb.GenerateRequest:
    """A request for exactly so many tokens, whatever the model reads. fields: of a vector."""
    request = make_request(model, seed, tokens)
    request.min_tokens = tokens
    if model == "g2p":
        request.source = _WORD
    if fields:  # what is in it does not matter: only the cost of a step counts here
        request.vector.values.extend([1.0] * fields)
    return request


async def _round(
    servers: Sequence[Server], model: str, streams: int, tokens: int, fields: int
) -> Cost:
    """``streams`` at once, shared out among the servers."""
    async with _callers(servers) as callers:
        for caller in callers:
            await caller.read(request_of(model, 0, 4, fields))  # connects
        before = sum(server.cpu_seconds() for server in servers)
        started = time.perf_counter()
        readings = await asyncio.gather(
            *(
                callers[seed % len(callers)].read(request_of(model, seed, tokens, fields))
                for seed in range(streams)
            )
        )
        wall = time.perf_counter() - started
        cpu = sum(server.cpu_seconds() for server in servers) - before
    made = sum(count for reading in readings for _, count in reading.token_arrivals())
    if made != streams * tokens:
        raise RuntimeError(f"{made} tokens came where {streams * tokens} were requested")
    return Cost(made / wall, 1e6 * cpu / made)


class _callers:
    def __init__(self, servers: Sequence[Server]) -> None:
        self._callers = [Caller(server.target) for server in servers]

    async def __aenter__(self) -> list[Caller]:
        return self._callers

    async def __aexit__(self, *_: object) -> None:
        for caller in self._callers:
            await caller.channel.close()


class Run:
    """rounds: of each comparison, in turns. is_quick: whether figures do not matter."""

    def __init__(
        self,
        models: Path,
        rounds: int,
        streams: Sequence[int],
        tokens: int,
        is_quick: bool = False,
    ) -> None:
        self.models = models
        self.is_quick = is_quick
        self.rounds = rounds
        self.streams = streams
        self.tokens = tokens
        # Two cores at least: a caller on the server's own would be measured with it.
        cores = sorted(os.sched_getaffinity(0))
        self.core: int | None = cores[0] if len(cores) > 1 else None
        self.callers_core = cores[-1]

    def start(self, precision: str, children: ExitStack) -> Server:
        with on_core(self.core):
            return children.enter_context(start_service(self.models, precision))

    def compare(
        self, what: str, contestants: dict[str, Callable[[], Cost]]
    ) -> dict[str, dict[str, float]]:
        with tqdm(total=self.rounds * len(contestants), desc=what, unit="round") as bar:
            found = alternate(contestants, self.rounds, bar)
        return {name: asdict(cost) for name, cost in found.items()}

    def cost(
        self, servers: Sequence[Server], model: str, streams: int, tokens: int
    ) -> Callable[[], Cost]:
        fields = len(read_bundle(self.models / model / "1").manifest.vector)
        return lambda: asyncio.run(_round(servers, model, streams, tokens, fields))

    def by_streams(self, servers: dict[str, Server]) -> dict[str, dict[str, dict[str, float]]]:
        found = {}
        for streams in self.streams:
            contestants = {
                precision: self.cost([server], "prose", streams, self.tokens)
                for precision, server in servers.items()
            }
            found[str(streams)] = self.compare(f"{streams} streams", contestants)
        return found

    @property
    def sized_tokens(self) -> int:
        """As many of each model, so that what a stream costs once is shared out alike."""
        return min(self.tokens, *(m.limits["output_tokens"] for m in self._manifests().values()))

    def _manifests(self) -> dict[str, Manifest]:
        return {m: read_bundle(self.models / m / "1").manifest for m in SIZED_MODELS}

    def by_model(self, servers: dict[str, Server]) -> dict[str, dict[str, float]]:
        contestants, tokens = {}, self.sized_tokens
        for model, manifest in self._manifests().items():
            for precision in ("fp32", *manifest.precisions):
                name = f"{model} {precision}"
                contestants[name] = self.cost([servers[precision]], model, SIZED, tokens)
        return self.compare("models", contestants)

    def by_replicas(self, pairs: Mapping[str, Sequence[Server]]) -> dict[str, dict[str, float]]:
        contestants = {
            f"{len(servers)} {precision}": self.cost(servers, "prose", SIZED, self.tokens)
            for precision, pair in pairs.items()
            for servers in (pair[:1], pair)
        }
        return self.compare("replicas", contestants)

    def measure(self, settings: Settings) -> Findings:
        with ExitStack() as children, on_core(self.callers_core):
            servers = {p: self.start(p, children) for p in PRECISIONS}
            streams, models = self.by_streams(servers), self.by_model(servers)
            pairs = {p: (servers[p], self.start(p, children)) for p in PRECISIONS}
            replicas = self.by_replicas(pairs)
        manifest = read_bundle(self.models / "prose" / "1").manifest
        looks = [self._memory(manifest, settings) for _ in range(self.rounds)]
        stream_bytes = median(look.resident_bytes_per_stream for look, _ in looks)
        return Findings(
            streams, models, replicas, self.sized_tokens, self.parameters(), self.vocabularies(),
            stream_bytes, looks[0][0].state_bytes, int(median(base for _, base in looks)),
            self.by_workers(settings),
        )  # fmt: skip

    def by_workers(self, settings: Settings) -> dict[str, WorkersCost]:
        """Of a token, for each number of workers: they have all cores, and the callers too."""
        bundle, classifier = (read_bundle(self.models / m / "1") for m in ("prose", "sentiment"))
        settings = replace(settings, rounds=self.rounds, tokens=self.tokens)
        found = measure_workers(bundle, classifier, WORKERS_PRECISION, settings)
        costs = {}
        for count in COUNTS:
            if row := found.row(STREAMED, count):
                costs[str(count)] = WorkersCost(
                    found.callers, row.server_cpu_us, row.front_end_cpu_us, row.client_cpu_us,
                    found.proportional_bytes[count],
                )  # fmt: skip
        return costs

    def _memory(self, manifest: Manifest, settings: Settings) -> tuple[Memory, int]:
        """What a stream takes in a process that has served nothing yet, and what that takes."""
        with start_service(self.models) as fresh:
            memory = measure_memory(fresh, manifest, settings)
        # So few streams as a quick look opens come to rest too soon to be seen.
        if not (memory.is_valid or self.is_quick):
            raise RuntimeError("streams did not come to rest, so what one takes is not known")
        return memory, fresh.ready_bytes

    def vocabularies(self) -> dict[str, int]:
        """Tokens that each model chooses among."""
        return {
            model: len(read_bundle(self.models / model / "1").tokenizers["output"].vocabulary)
            for model in SIZED_MODELS
        }

    def parameters(self) -> dict[str, int]:
        """Of each model, in fp32."""
        found = {}
        for model in SIZED_MODELS:
            weights = read_weights(read_bundle(self.models / model / "1"))
            found[model] = sum(
                tensor.size for name, tensor in weights.items() if not name.startswith("int8.")
            )
        return found


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m bench.capacity")
    parser.add_argument(
        "--models", type=Path, default=Path("models"), help="folder of bundles (default: models)"
    )
    parser.add_argument(
        "--rounds",
        type=int,
        default=3,
        metavar="N",
        help="rounds per comparison, of which medians are reported (default: 3)",
    )
    parser.add_argument(
        "--quick", action="store_true", help="a short run that only shows whether everything works"
    )
    parser.add_argument(
        "--output",
        type=Path,
        help="folder of the page and the figures (default: docs for a whole run, else none)",
    )
    chosen = parser.parse_args(arguments)
    if chosen.quick:
        run, settings = Run(chosen.models, 1, (1, 4), 8, is_quick=True), quick(Settings())
    else:
        run, settings = Run(chosen.models, chosen.rounds, STREAMS, TOKENS), Settings()
    machine = this_machine()
    findings = run.measure(settings)
    text = page(findings, machine, run.rounds, run.tokens)
    output = chosen.output or (None if chosen.quick else Path("docs"))
    if output:
        (output / "bench").mkdir(parents=True, exist_ok=True)
        (output / "capacity.md").write_text(text)
        content = {"machine": asdict(machine), "rounds": run.rounds, **asdict(findings)}
        (output / "bench" / "capacity.json").write_text(json.dumps(content, indent=1) + "\n")
    print(text)
    return 0


if __name__ == "__main__":
    sys.exit(main())
