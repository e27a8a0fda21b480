"""Everything one run measured, and the ratios that the bars are about."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from bench.constrained import Constrained
from bench.doors import Doors
from bench.frames import Frames
from bench.joining import Joining
from bench.kernels import BARE, ENGINE, WATCHED, WATCHED_ROWS, Kernels
from bench.memory import Memory
from bench.predicting import PredictRow
from bench.prefixes import PrefixRow
from bench.starting import Starts
from bench.streams import StreamRow, of_foods, single
from bench.words import Words
from bench.workers import Workers

PEER = "one loop a request"
_FP32 = "unroll fp32"


@dataclass(frozen=True)
class Findings:
    """What was not measured is None or empty."""

    has_int8: bool
    kernels: Kernels | None = None
    words: Words | None = None
    constrained: Constrained | None = None
    streams: tuple[StreamRow, ...] = ()
    joining: tuple[Joining, ...] = ()
    prefixes: tuple[PrefixRow, ...] = ()
    predict: tuple[PredictRow, ...] = ()
    doors: Doors | None = None
    workers: Workers | None = None
    frames: Frames | None = None
    memory: Memory | None = None
    start: Starts | None = None

    def row(self, what: str, streams: int) -> StreamRow | None:
        return next((r for r in self.streams if (r.what, r.streams) == (what, streams)), None)

    def rate(self, what: str, streams: int) -> float | None:
        """Tokens a second over gRPC, or of the bare step."""
        row = self.row(what, streams)
        return row.tokens_per_second if row else None

    def loop_rate(self, what: str, precision: str, rows: int) -> float | None:
        """Tokens a second of a loop without network."""
        return self.kernels.rate(what, precision, rows) if self.kernels else None

    def engine_share(self, rows: int, precision: str = "fp32") -> float | None:
        """The engine loop's rate against the bare step's."""
        return ratio(self.loop_rate(ENGINE, precision, rows), self.loop_rate(BARE, precision, rows))

    def watched_share(self) -> float | None:
        """The engine loop's rate with the whole state beside each token against without, fp32."""
        watched, plain = (self.loop_rate(what, "fp32", WATCHED_ROWS) for what in (WATCHED, ENGINE))
        return ratio(watched, plain)

    def int8_gain(self, *rows: int) -> float | None:
        """The int8 step's rate against the fp32 step's, the worst of these batch sizes."""
        gains = [
            ratio(self.loop_rate(BARE, "int8", n), self.loop_rate(BARE, "fp32", n)) for n in rows
        ]
        known = [gain for gain in gains if gain is not None]
        return min(known) if len(known) == len(rows) else None

    def product_share(self, rows: int) -> float | None:
        """The rate of the fp32 step's products against the machine's measured one."""
        if self.kernels is None:
            return None
        return ratio(self.kernels.step_gflops(rows), self.kernels.machine_gflops)

    def speed_up(self, precision: str, streams: int) -> float | None:
        """Tokens a second against one loop a request in fp32."""
        return ratio(self.rate(f"unroll {precision}", streams), self.rate(PEER, streams))

    def cpu_overhead(self, precision: str, streams: int) -> float | None:
        """Server CPU a decoded token against the bare step's."""
        ours = self.row(f"unroll {precision}", streams)
        bare = self.row(f"bare step {precision}", streams)
        return ours.decode_cpu_us / bare.decode_cpu_us if ours and bare else None

    def food_overhead(self, streams: int) -> float | None:
        """Server CPU a decoded token of foods against one of prose, fp32."""
        ours, prose = self.row(of_foods(_FP32), streams), self.row(_FP32, streams)
        return ratio(ours.decode_cpu_us, prose.decode_cpu_us) if ours and prose else None

    def bare_share(self, precision: str, streams: int, one_a_message: bool = False) -> float | None:
        """Tokens a second over gRPC against the bare step's."""
        what = f"unroll {precision}"
        ours = self.rate(single(what) if one_a_message else what, streams)
        return ratio(ours, self.rate(f"bare step {precision}", streams))

    def many_share(self, precision: str, streams: int) -> float | None:
        """Tokens a second at so many streams against the best number of them."""
        what = f"unroll {precision}"
        rates = [row.tokens_per_second for row in self.streams if row.what == what]
        return ratio(self.rate(what, streams), max(rates, default=None))

    def constrained_us(self) -> float | None:
        """Of a token's mask at 10,000 words, the dearest constraint's."""
        return self.constrained.worst_us if self.constrained else None

    def word_ratio(self, words: int, ways: Sequence[str]) -> float | None:
        """A step's time against its products' at so many words, the worst of these ways."""
        return self.words.worst(words, *ways) if self.words else None

    def miss_cost(self) -> float | None:
        """What looking a prompt up in vain adds to reading it, in per cent, of the worst
        precision."""
        return max((100 * row.miss_cost for row in self.prefixes), default=None)

    def joined(self, precision: str) -> Joining | None:
        return next((j for j in self.joining if j.what == f"unroll {precision}"), None)


def ratio(value: float | None, against: float | None) -> float | None:
    """None where either was not measured."""
    return value / against if value is not None and against else None
