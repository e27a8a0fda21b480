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
# One machine's, in the model of several workers; and what a further Envoy with its relay is taken
# to need, which no run here starts.
MACHINES = (2, 4, 8, 16, 32)
_ENVOY_BYTES = 100e6
_WIDTH = 140

Costs = Mapping[str, Mapping[str, float]]


@dataclass(frozen=True)
class WorkersCost:
    """Of a service of some workers. streams: of each worker. server_cpu_us: of all its processes, a
    token; front_end_cpu_us: of them, Envoy's and the parent's. client_cpu_us: of the callers.
    memory_bytes: of all processes when ready, what they share counted once."""

    streams: int
    server_cpu_us: float
    front_end_cpu_us: float
    client_cpu_us: float
    memory_bytes: int


@dataclass(frozen=True)
class Findings:
    """streams: by their number and precision. models: by name and precision. replicas: by their
    number and precision. Each a Cost. sized_tokens: of a stream of each of models. parameters,
    vocabularies: of each model. stream_bytes: that a further open stream takes. state_bytes: of
    them, its state. process_bytes: without any stream. workers: by their number, of one and of two.
    """

    streams: Mapping[str, Costs]
    models: Costs
    replicas: Costs
    sized_tokens: int
    parameters: Mapping[str, int]
    vocabularies: Mapping[str, int]
    stream_bytes: float
    state_bytes: int
    process_bytes: int
    workers: Mapping[str, WorkersCost]

    @property
    def efficiency(self) -> float:
        """What a core carries beside another one, of what it carries alone: at most all of it."""
        return min(1.0, self.workers["1"].server_cpu_us / self.workers["2"].server_cpu_us)

    @property
    def worker_bytes(self) -> int:
        """Of a further worker."""
        return max(0, self.workers["2"].memory_bytes - self.workers["1"].memory_bytes)


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
        f"{found.sized_tokens} tokens a stream, the least that all of them may make, so what a "
        "stream costs once, its call and its prefill, weighs more than above.",
        "",
        *_by_vocabulary(found),
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
        f"reads ({found.state_bytes / 1e3:.1f} kB of it are its state, the rest is what waits for "
        "its reader in the service and in the front end, and what a call takes in both), beside "
        f"{found.process_bytes / 1e6:.0f} MB for a service with every bundled model. Rows "
        "are set aside at start: `--max-streams` decode at once, further streams wait their turn; "
        "a stream whose reader is behind gives its row up.",
        "",
        "## One machine with many cores",
        "",
        *_assumptions(found, best, most),
        "",
        "    workers  = cores / " + f"{1 + FRONT_END_CORES:g}",
        "    tokens/s = cores in use / CPU seconds a token × " + f"{found.efficiency:.2f}",
        "    memory   = one worker's + (workers - 1) × a further one's + (Envoys - 1) × "
        f"{_ENVOY_BYTES / 1e6:.0f} MB",
        "",
        *_many_cores(found, best, int(most)),
        "",
        f"The client of a load test needs cores of its own: here {_client_share(found):.0%} of the "
        "server's. `max_streams` is each worker's, so rows grow with the workers.",
        "",
        "## Up to a million streams",
        "",
        f"    cores  = streams × tokens a second of one stream × CPU seconds a token / {BUSY:g} "
        f"/ {found.efficiency:.2f}",
        "    memory = streams × what an open stream takes that nobody reads",
        "",
        f"CPU a token: {_sentence(best)}, as measured with {int(most):,} streams on a core; "
        f"{BUSY:g} is how busy a core may be on the average, {found.efficiency:.2f} what it "
        "carries beside others.",
        "",
        *_fleets(found, best),
        "",
        _million(found, best["int8"]),
        "",
    )
    return "\n".join(map(_wrapped, lines))


def _wrapped(line: str) -> str:
    """Tables and formulas stay as they are."""
    if line.startswith(("|", " ", "#")):
        return line
    return textwrap.fill(line, _WIDTH, subsequent_indent="  " if line.startswith("- ") else "")


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


def _by_vocabulary(found: Findings) -> Iterable[str]:
    """Nothing where not both were measured."""
    food, prose = found.models.get("food fp32"), found.models.get("prose fp32")
    if food and prose:
        words = found.vocabularies["food"] / found.vocabularies["prose"]
        weights = found.parameters["food"] / found.parameters["prose"]
        yield (
            f"`food` chooses among {words:,.0f} times as many tokens as `prose`, with "
            f"{weights:.2f} of its weights: a token costs {food['cpu_us'] / prose['cpu_us']:.2f} "
            "times as much, drawn with top-p, and with a bias in each row and step that holds its "
            "end token back (`min_tokens`); `prose` has none."
        )


def _assumptions(found: Findings, best: Mapping[str, float], most: str) -> Iterable[str]:
    """most: streams on one core, of which ``best`` is."""
    one, two = found.workers["1"], found.workers["2"]
    yield (
        "**A model, not a measurement**: no machine with more than two cores was at hand. It is "
        "arithmetic on figures of this run, and assumes:"
    )
    yield ""
    yield (
        f"- `--workers auto` as it is: a worker for each {1 + FRONT_END_CORES:g} cores, of which "
        "the worker uses one and Envoy the rest (here Envoy and the parent used "
        f"{two.front_end_cpu_us / (two.server_cpu_us - two.front_end_cpu_us):.2f} of a worker's), "
        f"and an Envoy for each {WORKERS_OF_ENVOY} workers, beyond which its relay, one "
        "interpreter, would be what all wait for"
    )
    yield (
        f"- CPU a token as with {int(most):,} streams on one core ({_sentence(best)}), so as many "
        "streams for each worker, and plain text"
    )
    yield (
        f"- a core beside others carries {found.efficiency:.2f} of what it carries alone: two "
        f"workers with {two.streams} streams each used "
        f"{two.server_cpu_us:.1f} µs a token of `prose` in int8, one a message, and one worker "
        f"{one.server_cpu_us:.1f}. That loss is taken not to grow beyond two: caches, memory's "
        "bandwidth, sockets and clocks that 32 cores share may take more"
    )
    yield "- cores are whole ones, not two threads of one, and like the measured one"
    yield (
        f"- memory of one worker {one.memory_bytes / 1e6:.0f} MB and of a further one "
        f"{found.worker_bytes / 1e6:.0f} MB, as measured with every bundled model; of a further "
        f"Envoy {_ENVOY_BYTES / 1e6:.0f} MB, which was not measured; open streams not counted"
    )


def _client_share(found: Findings) -> float:
    two = found.workers["2"]
    return two.client_cpu_us / two.server_cpu_us


def _fleets(found: Findings, best: Mapping[str, float]) -> Iterable[str]:
    columns = [f"{p} cores at {rate}/s" for p in best for rate in RATES]
    yield from _head("streams", *columns, "memory")
    for fleet in FLEETS:
        cores = [f"{_cores(found, fleet, rate, best[p]):,.1f}" for p in best for rate in RATES]
        yield _row(f"{fleet:,}", *cores, f"{fleet * found.stream_bytes / 1e9:,.2f} GB")


def _many_cores(found: Findings, best: Mapping[str, float], streams: int) -> Iterable[str]:
    """streams: of each worker."""
    yield from _head(
        "cores", "workers", "Envoys", "streams", *(f"{p} tokens/s" for p in best), "memory"
    )
    for cores in MACHINES:
        workers = int(cores / (1 + FRONT_END_CORES)) or 1
        in_use = min(cores, workers * (1 + FRONT_END_CORES))
        share = found.efficiency if workers > 1 else 1.0
        # Of one worker an Envoy is a part already.
        envoys = envoy_count(workers)
        memory: float = found.workers["1"].memory_bytes + (workers - 1) * found.worker_bytes
        memory += (envoys - 1) * _ENVOY_BYTES
        yield _row(
            str(cores),
            str(workers),
            str(envoys),
            f"{workers * streams:,}",
            *(f"{in_use * share * 1e6 / cpu_us:,.0f}" for cpu_us in best.values()),
            f"{memory / 1e9:.1f} GB",
        )


def _million(found: Findings, cpu_us: float) -> str:
    cores = _cores(found, 1_000_000, 5, cpu_us)
    machines = -(-cores // _CORES_OF_A_MACHINE)
    gigabytes = 1e6 * found.stream_bytes / 1e9
    return (
        f"A million streams of int8 that make five tokens a second need {cores:,.0f} cores, which "
        f"are {machines:,.0f} machines of {_CORES_OF_A_MACHINE}, and {gigabytes:,.0f} GB of memory "
        f"between them: {1e6 / machines:,.0f} streams and {gigabytes / machines:.1f} GB each, "
        "beside what their processes take. Nothing is shared between replicas but the key of "
        "resume tokens and the states of `--state-store`, so they add up; what balances the calls "
        "must hold a million of them too, or the clients balance by themselves (`round_robin` over "
        "a headless service). Not measured: more than two replicas, and more than one machine."
    )


def _cores(found: Findings, streams: int, rate: float, cpu_us: float) -> float:
    return streams * rate * cpu_us / 1e6 / BUSY / found.efficiency


def _sentence(best: Mapping[str, float]) -> str:
    return " and ".join(f"{cpu_us:.0f} µs in {precision}" for precision, cpu_us in best.items())


def _head(*names: str) -> Sequence[str]:
    return _row(*names), _row(*("---" for _ in names))


def _row(*cells: str) -> str:
    return "| " + " | ".join(cells) + " |"
