"""The bars: what is wanted of which ratio, and whether a run met it. Decides nothing."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial

from bench.doors import INFER
from bench.findings import Findings
from bench.loads import LoadRound
from bench.words import GREEDY, NUCLEUS, TEMPERATURE_ALONE
from bench.workers import CALLED, STREAMED

NO_INT8 = "no int8 in this bundle"
NOT_MEASURED = "not measured"


@dataclass(frozen=True)
class Bar:
    """aim: what would be good, None where the bar is all that is wanted.
    at_most: the bar is an upper bound, else a lower one.
    """

    what: str
    bound: float
    aim: float | None
    measure: Callable[[Findings], float | None]
    at_most: bool = False
    unit: str = ""
    is_int8: bool = False

    def is_met(self, value: float, bound: float) -> bool:
        return value <= bound if self.at_most else value >= bound


@dataclass(frozen=True)
class Verdict:
    """value: None where nothing was measured; ``outcome`` says why."""

    what: str
    wanted: str
    value: float | None
    unit: str
    outcome: str
    is_met: bool | None


def evaluate(findings: Findings, bars: Sequence[Bar] | None = None) -> list[Verdict]:
    return [_evaluate(bar, findings) for bar in (BARS if bars is None else bars)]


def _evaluate(bar: Bar, findings: Findings) -> Verdict:
    sign = "≤" if bar.at_most else "≥"
    wanted = f"{sign} {bar.bound:g}{bar.unit}"
    if bar.aim is not None:
        wanted += f" (aim {bar.aim:g}{bar.unit})"
    value = bar.measure(findings)
    if value is None:
        why = NO_INT8 if bar.is_int8 and not findings.has_int8 else NOT_MEASURED
        return Verdict(bar.what, wanted, None, bar.unit, why, None)
    met = bar.is_met(value, bar.bound)
    aimed = met and (bar.aim is None or bar.is_met(value, bar.aim))
    outcome = "met, aim too" if aimed and bar.aim is not None else "met" if met else "MISSED"
    return Verdict(bar.what, wanted, value, bar.unit, outcome, met)


def _idle_kib(findings: Findings) -> float | None:
    """KiB of an idle stream beyond its state; None where streams did not become idle."""
    memory = findings.memory
    if memory is None or not memory.is_valid:
        return None
    return (memory.resident_bytes_per_stream - memory.state_bytes) / 1024


def _joined(findings: Findings, precision: str, ratio: str) -> float | None:
    """ratio: a property of Joining."""
    joined = findings.joined(precision)
    return getattr(joined, ratio) if joined else None


def _infer(findings: Findings) -> LoadRound | None:
    return findings.doors.best(INFER) if findings.doors else None


def _infer_cpu_us(findings: Findings) -> float | None:
    found = _infer(findings)
    return found.server_cpu_us if found else None


def _infer_per_second(findings: Findings) -> float | None:
    found = _infer(findings)
    return found.per_second if found else None


def _workers_gain(findings: Findings, unit: str) -> float | None:
    return findings.workers.gain(unit) if findings.workers else None


# Of ModelInfer, Classify and the start: with Envoy, where that can run. All else is of the front
# end that the run was given, or of the service's default.
BARS = (
    Bar("engine loop without network / bare step, fp32, batch 64", 0.95, 0.98,
        lambda f: f.engine_share(64)),
    Bar("engine loop without network / bare step, fp32, batch 1", 0.9, 0.95,
        lambda f: f.engine_share(1)),
    Bar("engine loop without network / bare step, int8, batch 64", 0.92, 0.97,
        lambda f: f.engine_share(64, "int8"), is_int8=True),
    Bar("engine loop, whole state watched / not watched, fp32, batch 64", 0.5, 0.8,
        Findings.watched_share),
    Bar("tokens/s at 64 streams / one loop a request, fp32", 6, 7,
        lambda f: f.speed_up("fp32", 64)),
    Bar("tokens/s at 64 streams / one loop a request, int8", 8, 12,
        lambda f: f.speed_up("int8", 64), is_int8=True),
    Bar("server CPU a token at 64 streams / bare step's, fp32", 1.25, 1.1,
        lambda f: f.cpu_overhead("fp32", 64), at_most=True),
    Bar("server CPU a token at 64 streams / bare step's, int8", 1.6, 1.3,
        lambda f: f.cpu_overhead("int8", 64), at_most=True, is_int8=True),
    *(
        Bar(f"tokens/s at {streams} streams / bare step, int8", bound, aim,
            partial(Findings.bare_share, precision="int8", streams=streams), is_int8=True)
        for streams, bound, aim in ((1, 0.6, 0.8), (16, 0.55, 0.7), (64, 0.65, 0.8),
                                    (256, 0.8, 0.95))
    ),
    *(
        Bar(f"tokens/s at {streams} streams, one token a message / bare step, int8", bound, aim,
            partial(Findings.bare_share, precision="int8", streams=streams, one_a_message=True),
            is_int8=True)
        for streams, bound, aim in ((16, 0.5, 0.65), (64, 0.55, 0.7))
    ),
    Bar("server CPU a ModelInfer of one text, 64 callers", 300, 220,
        _infer_cpu_us, at_most=True, unit=" µs"),
    Bar("ModelInfer of one text, 64 callers", 3600, 5000,
        _infer_per_second, unit="/s"),
    Bar("server CPU a text of Classify, 32 a request / bare graph's", 1.4, 1.15,
        lambda f: f.doors.classify_overhead() if f.doors else None, at_most=True),
    Bar("ModelStreamInfer at 64, one token a message: envoy / grpcio", 1.8, 2.5,
        lambda f: f.doors.envoy_gain() if f.doors else None),
    Bar("server CPU a token at 64, one a message: server-sent events / gRPC", 1.3, 1.1,
        lambda f: f.doors.events_overhead() if f.doors else None, at_most=True),
    *(
        Bar(f"two workers on two cores / one on one, {unit}", 1.85, 1.95,
            partial(_workers_gain, unit=unit))
        for unit in (STREAMED, CALLED)
    ),
    Bar("streams of frames a core, p99 at most 32 ms / one session a stream", 4, None,
        lambda f: f.frames.gain() if f.frames else None),
    Bar("server CPU a frame at 64 streams / bare step's of 64 rows", 2.5, None,
        lambda f: f.frames.overhead() if f.frames else None, at_most=True),
    Bar("int8 step / fp32 step, worst of batch 16, 64, 128", 1.8, 2,
        lambda f: f.int8_gain(16, 64, 128), is_int8=True),
    Bar("int8 step / fp32 step, batch 1", 2, 2.5,
        lambda f: f.int8_gain(1), is_int8=True),
    Bar("fp32 step's matrix products / machine's rate, batch 64", 0.85, 0.95,
        lambda f: f.product_share(64)),
    *(
        Bar(f"step at {words:,} words, 64 rows, top-p / its products", bound, aim,
            partial(Findings.word_ratio, words=words, ways=(NUCLEUS,)), at_most=True)
        for words, bound, aim in ((10_000, 2.5, 1.7), (50_000, 3, 2))
    ),
    *(
        Bar(f"step at {words:,} words, 64 rows, greedy or temperature / its products", 1.8, 1.4,
            partial(Findings.word_ratio, words=words, ways=(GREEDY, TEMPERATURE_ALONE)),
            at_most=True)
        for words in (10_000, 50_000)
    ),
    Bar("server CPU a token at 64 streams, of 4,801 foods / of prose, fp32", 1, 0.5,
        lambda f: f.food_overhead(64), at_most=True),
    Bar("a constrained token's mask at 10,000 words, µs", 10, 5,
        Findings.constrained_us, at_most=True),
    *(
        Bar(f"time to first token beside 63 streams, in decode steps, {precision}", bound, 2,
            partial(_joined, precision=precision, ratio="first_token_steps"),
            at_most=True, is_int8=precision == "int8")
        for precision, bound in {"fp32": 3, "int8": 4}.items()
    ),
    *(
        Bar(f"first token of 8,000 characters beside 63 streams / alone, {precision}", 2, None,
            partial(_joined, precision=precision, ratio="long_ratio"),
            at_most=True, is_int8=precision == "int8")
        for precision in ("fp32", "int8")
    ),
    Bar("time to first token of a cached prompt beside 63 streams, in decode steps", 2, None,
        partial(_joined, precision="fp32", ratio="cached_first_token_steps"), at_most=True),
    Bar("processor time of a prompt that the prefix cache does not know / without one", 2, None,
        Findings.miss_cost, at_most=True, unit=" % more"),
    Bar("p99 inter-token time while 8,000 characters join / without", 2, 1.3,
        partial(_joined, precision="fp32", ratio="p99_ratio"), at_most=True),
    Bar("tokens/s at 1,024 streams / at the best number, fp32", 0.9, 1,
        lambda f: f.many_share("fp32", 1024)),
    Bar("tokens/s at 1,024 streams / at the best number, int8", 0.9, 1,
        lambda f: f.many_share("int8", 1024), is_int8=True),
    Bar("memory of a further idle stream, beyond its state", 64, 16,
        _idle_kib, at_most=True, unit=" KiB"),
    Bar("from process start to ready, all models", 2.2, 1.2,
        lambda f: f.start.best.seconds if f.start else None, at_most=True, unit=" s"),
    Bar("resident when ready, all models", 380, 300,
        lambda f: f.start.best.resident_bytes / 1e6 if f.start else None,
        at_most=True, unit=" MB"),
)  # fmt: skip
