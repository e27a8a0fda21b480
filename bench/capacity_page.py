"""docs/capacity.md: what was measured, and the arithmetic from it."""

from __future__ import annotations

import textwrap
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from bench.machine import Machine
from service.workers.count import FRONT_END_CORES, WORKERS_OF_ENVOY, envoy_count

# Tokens a second that a stream makes on the average; prose makes characters, and a person reads
# some twenty of them a second.
RATES = (1, 5, 20)
FLEETS = (1_000, 10_000, 100_000, 1_000_000)
# Of a core, beyond which queues grow faster than they empty when load comes in bursts.
BUSY = 0.6
_CORES_OF_A_MACHINE = 16
# One machine's, in the model of several workers; what a core carries beside others, of what it
# carries alone; and an Envoy with the relay.
MACHINES = (2, 4, 8, 16, 32)
EFFICIENCY = 0.9
_ENVOY_BYTES = 100e6
_WIDTH = 140

Costs = Mapping[str, Mapping[str, float]]


@dataclass(frozen=True)
class Findings:
    """streams: by their number and precision. models: by name and precision. replicas: by their
    number and precision. Each a Cost. parameters, vocabularies: of each model. stream_bytes: that
    a further open stream takes. state_bytes: of them, its state. process_bytes: without any stream.
    """

    streams: Mapping[str, Costs]
    models: Costs
    replicas: Costs
    parameters: Mapping[str, int]
    vocabularies: Mapping[str, int]
    stream_bytes: float
    state_bytes: int
    process_bytes: int


def page(found: Findings, machine: Machine, rounds: int, tokens: int) -> str:
    """The whole page in Markdown, its prose at most 140 characters wide."""
    most = max(found.streams, key=int)
    best = {p: cost["cpu_us"] for p, cost in found.streams[most].items()}
    lines = (
        "# Capacity",
        "",
        "Written by `make capacity`; do not edit. The server has one core and its callers "
        f"another; medians of {rounds} rounds in turns. {machine.sentence()}.",
        "",
        "## What one core carries",
        "",
        f"`prose` (2 × 512 LSTM), {tokens} tokens a stream, all opened at once. Server CPU is "
        "what the process used, from /proc, everything included: gRPC, batching, prefill.",
        "",
        *_by_streams(found),
        "",
        "The batch is what makes a token cheap: one stream pays for reading all weights, a "
        "thousand share it. Above some 64 streams what is left is the network's side of a "
        "message and the product itself.",
        "",
        "## How cost grows with the model",
        "",
        *_by_model(found),
        "",
        "A large vocabulary costs more than weights: top-p sorts the probabilities of every word, "
        "in each row and step.",
        "",
        "## How cost grows with replicas",
        "",
        "The same 64 streams of `prose`, all in one replica or shared between two on the same "
        "core. Two replicas step half the rows each: more processes on one machine cost, and "
        "pay only where they have cores of their own, or for the sake of a rollout.",
        "",
        *_by_replicas(found),
        "",
        "## What an open stream takes",
        "",
        f"{found.stream_bytes / 1e3:.0f} kB of resident memory a further stream that nobody "
        f"reads ({found.state_bytes / 1e3:.1f} kB of it are its state, the rest are gRPC's "
        f"buffers and a task), beside {found.process_bytes / 1e6:.0f} MB for a process with "
        "every bundled model. Rows are set aside at start: `--max-streams` decode at once, "
        "further streams wait their turn; a stream whose reader is behind gives its row up.",
        "",
        "## One machine with many cores",
        "",
        "**A model, not a measurement**: no machine with more than two cores was at hand. "
        f"`--workers auto` starts a worker for each {1 + FRONT_END_CORES:g} cores, of which the "
        f"worker uses one and Envoy the rest, and an Envoy for each {WORKERS_OF_ENVOY} workers, "
        "beyond which its relay, one interpreter, would be what all wait for. A core is taken to "
        f"carry {EFFICIENCY:g} of what it carries alone: two workers on two cores carried 0.89 to "
        "0.98 (`make bench`, part workers); caches and memory that 32 cores share may take more.",
        "",
        "    workers  = cores / " + f"{1 + FRONT_END_CORES:g}",
        "    tokens/s = cores in use / CPU seconds a token × " + f"{EFFICIENCY:g}",
        "    memory   = workers × a process with every model + Envoys × 100 MB",
        "",
        *_many_cores(found, best),
        "",
        "The client of a load test needs cores of its own, about a third as many. `max_streams` is "
        "each worker's, so rows grow with the workers.",
        "",
        "## Up to a million streams",
        "",
        f"    cores  = streams × tokens a second of one stream × CPU seconds a token / {BUSY:g}",
        "    memory = streams × what an open stream takes",
        "",
        f"CPU a token: {_sentence(best)}, as measured with {most} streams on a core; {BUSY:g} "
        "is how busy a core may be on the average. Cores here are cores like the measured one.",
        "",
        *_fleets(found, best),
        "",
        f"A million streams of int8 that make five tokens a second need "
        f"{_cores(1_000_000, 5, best['int8']):,.0f} cores, which are "
        f"{_machines(1_000_000, 5, best['int8']):,.0f} machines of {_CORES_OF_A_MACHINE}, and "
        f"{1e6 * found.stream_bytes / 1e9:,.0f} GB of memory between them: "
        f"{1e6 / _machines(1_000_000, 5, best['int8']):,.0f} streams and "
        f"{1e6 * found.stream_bytes / 1e9 / _machines(1_000_000, 5, best['int8']):.1f} GB "
        "each. Nothing is shared between replicas but the key of resume tokens, so they add "
        "up; what balances the calls must hold a million of them too, or the clients balance "
        "by themselves (`round_robin` over a headless service). Not measured: more than two "
        "replicas, and more than one machine.",
        "",
    )
    return "\n".join(map(_wrapped, lines))


def _wrapped(line: str) -> str:
    """Tables and formulas stay as they are."""
    return line if line.startswith(("|", " ", "#")) else textwrap.fill(line, _WIDTH)


def _by_streams(found: Findings) -> Iterable[str]:
    yield from _head("streams", "fp32 tokens/s", "fp32 CPU µs a token", "int8 tokens/s",
                     "int8 CPU µs a token")  # fmt: skip
    for streams, costs in found.streams.items():
        yield _row(
            f"{int(streams):,}",
            *(
                f"{costs[p][what]:,.0f}"
                for p in ("fp32", "int8")
                for what in ("tokens_per_second", "cpu_us")
            ),
        )


def _by_model(found: Findings) -> Iterable[str]:
    yield from _head("model, 64 streams", "weights", "vocabulary", "tokens/s", "CPU µs a token")
    for name, cost in found.models.items():
        model = name.split()[0]
        yield _row(
            name,
            f"{found.parameters[model] / 1e6:.1f} M",
            f"{found.vocabularies[model]:,}",
            f"{cost['tokens_per_second']:,.0f}",
            f"{cost['cpu_us']:,.0f}",
        )


def _by_replicas(found: Findings) -> Iterable[str]:
    yield from _head("replicas, precision", "tokens/s", "CPU µs a token")
    for name, cost in found.replicas.items():
        yield _row(name, f"{cost['tokens_per_second']:,.0f}", f"{cost['cpu_us']:,.0f}")


def _fleets(found: Findings, best: Mapping[str, float]) -> Iterable[str]:
    columns = [f"{p} cores at {rate}/s" for p in best for rate in RATES]
    yield from _head("streams", *columns, "memory")
    for fleet in FLEETS:
        cores = [f"{_cores(fleet, rate, best[p]):,.1f}" for p in best for rate in RATES]
        yield _row(f"{fleet:,}", *cores, f"{fleet * found.stream_bytes / 1e9:,.2f} GB")


def _many_cores(found: Findings, best: Mapping[str, float]) -> Iterable[str]:
    yield from _head("cores", "workers", "Envoys", *(f"{p} tokens/s" for p in best), "memory")
    for cores in MACHINES:
        workers = int(cores / (1 + FRONT_END_CORES)) or 1
        in_use = min(cores, workers * (1 + FRONT_END_CORES))
        share = EFFICIENCY if workers > 1 else 1.0
        # Of one process Envoy is a part already.
        envoys = envoy_count(workers)
        memory = workers * found.process_bytes + (envoys if workers > 1 else 0) * _ENVOY_BYTES
        yield _row(
            str(cores),
            str(workers),
            str(envoys),
            *(f"{in_use * share * 1e6 / cpu_us:,.0f}" for cpu_us in best.values()),
            f"{memory / 1e9:.1f} GB",
        )


def _cores(streams: int, rate: float, cpu_us: float) -> float:
    return streams * rate * cpu_us / 1e6 / BUSY


def _machines(streams: int, rate: float, cpu_us: float) -> float:
    return -(-_cores(streams, rate, cpu_us) // _CORES_OF_A_MACHINE)


def _sentence(best: Mapping[str, float]) -> str:
    return " and ".join(f"{cpu_us:.0f} µs in {precision}" for precision, cpu_us in best.items())


def _head(*names: str) -> Sequence[str]:
    return _row(*names), _row(*("---" for _ in names))


def _row(*cells: str) -> str:
    return "| " + " | ".join(cells) + " |"
