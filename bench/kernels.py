"""What a step costs without network, against the machine's limit; all taking turns."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial

from tqdm import tqdm

from bench.loops import BareStep, EngineLoop, LoopRound, StepGraph
from bench.medians import alternate
from bench.products import Product, ProductRound, step_matrices
from bench.settings import Settings

# The engine is compared where it costs most and where it matters most.
ENGINE_ROWS = (1, 64)
# And with all of each stream's state beside its tokens.
WATCHED_ROWS = 64
BARE, ENGINE, WATCHED = "bare", "engine", "engine, whole state watched"


@dataclass(frozen=True)
class LoopRow:
    """what: BARE, ENGINE or WATCHED; rates are medians."""

    what: str
    precision: str
    rows: int
    tokens_per_second: float
    cpu_us: float  # a token


@dataclass(frozen=True)
class Kernels:
    """inner, outer: sizes of the matrix product. flops_per_token: of a step's products.
    product_gflops: the product's rate by its rows.
    """

    loops: tuple[LoopRow, ...]
    inner: int
    outer: int
    flops_per_token: int
    product_gflops: dict[int, float]

    def rate(self, what: str, precision: str, rows: int) -> float | None:
        """Tokens a second, None where it was not measured."""
        key = (what, precision, rows)
        rates = {(r.what, r.precision, r.rows): r.tokens_per_second for r in self.loops}
        return rates.get(key)

    @property
    def machine_gflops(self) -> float:
        return max(self.product_gflops.values())

    def step_gflops(self, rows: int) -> float | None:
        rate = self.rate(BARE, "fp32", rows)
        return 1e-9 * rate * self.flops_per_token if rate else None


def measure_kernels(graphs: Sequence[StepGraph], settings: Settings) -> Kernels:
    matrices = step_matrices(graphs[0].bundle.path_of("step"))
    outer, inner = max(matrices, key=lambda shape: shape[0] * shape[1])
    loops = _loops(graphs, settings)
    seconds = settings.loop_seconds
    contestants: dict[str, Callable[[], LoopRound | ProductRound]] = {
        f"{what} {precision}, {rows} rows": partial(loop.run, seconds)
        for (what, precision, rows), loop in loops.items()
    }
    for rows in settings.product_rows:
        contestants[str(rows)] = partial(Product(rows, inner, outer).run, seconds)
    total = settings.rounds * len(contestants)
    with tqdm(total=total, desc="kernels", unit="round") as bar:
        found = alternate(contestants, settings.rounds, bar)
    rounds = [one for one in found.values() if isinstance(one, LoopRound)]
    products = {what: one for what, one in found.items() if isinstance(one, ProductRound)}
    return Kernels(
        tuple(
            LoopRow(*key, one.tokens_per_second, one.cpu_us)
            for key, one in zip(loops, rounds, strict=True)
        ),
        inner,
        outer,
        sum(2 * rows * columns for rows, columns in matrices),
        {int(what): one.gflops for what, one in products.items()},
    )


def _loops(
    graphs: Sequence[StepGraph], settings: Settings
) -> dict[tuple[str, str, int], BareStep | EngineLoop]:
    loops: dict[tuple[str, str, int], BareStep | EngineLoop] = {}
    for graph in graphs:
        for rows in settings.loop_rows:
            loops[BARE, graph.precision, rows] = BareStep(graph, rows)
            if rows in ENGINE_ROWS:
                loops[ENGINE, graph.precision, rows] = EngineLoop(graph, rows)
            if rows == WATCHED_ROWS:
                loops[WATCHED, graph.precision, rows] = EngineLoop(graph, rows, watched=True)
    return loops
