"""What a token costs of a large vocabulary: a step with its sampler, against its products alone."""

from __future__ import annotations

import subprocess
import sys
import tempfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from tqdm import tqdm

from bench.loops import BareStep, LoopRound, open_step
from bench.medians import alternate
from bench.products import Product, ProductRound, step_matrices
from bench.settings import TEMPERATURE, TOP_P, Settings
from bundle.manifest import FP32
from bundle.store import Bundle, read_bundle

# Ways to draw a token, by what is sent.
GREEDY, TEMPERATURE_ALONE, NUCLEUS = "greedy", "temperature alone", "top-p"
_WAYS: Mapping[str, Mapping[str, float]] = {
    GREEDY: {"temperature": 0.0},
    TEMPERATURE_ALONE: {"temperature": TEMPERATURE},
    NUCLEUS: {"temperature": TEMPERATURE, "top_p": TOP_P},
    "top-k 50": {"temperature": TEMPERATURE, "top_k": 50},
}
ROWS = 64


@dataclass(frozen=True)
class WordRow:
    """A step of so many words and units; step_us, products_us: a token, medians."""

    words: int
    units: int
    way: str
    step_us: float
    products_us: float

    @property
    def ratio(self) -> float:
        return self.step_us / self.products_us


@dataclass(frozen=True)
class Words:
    """rows: of generators with random weights."""

    rows: tuple[WordRow, ...]

    def worst(self, words: int, *ways: str) -> float | None:
        """The largest ratio at so many words, None where none was measured."""
        found = [row.ratio for row in self.rows if row.words == words and row.way in ways]
        return max(found, default=None)


def measure_words(settings: Settings) -> Words:
    """Raises RuntimeError where no generator could be made."""
    rows: list[WordRow] = []
    with tempfile.TemporaryDirectory() as folder:
        for words, units in settings.word_sizes:
            bundle = _random_generator(Path(folder) / f"{words}-{units}", words, units)
            rows += _measure(bundle, words, units, settings)
    return Words(tuple(rows))


def _random_generator(folder: Path, words: int, units: int) -> Bundle:
    """Made in a process of its own: the bench knows no training and no export."""
    command = [sys.executable, "-m", "export.word_generator", str(folder)]
    command += ["--words", str(words), "--units", str(units)]
    made = subprocess.run(command, capture_output=True, text=True)
    if made.returncode:
        raise RuntimeError(f"{' '.join(command[1:])} failed: {made.stderr[-500:]}")
    return read_bundle(folder / "words" / "1")


def _measure(bundle: Bundle, words: int, units: int, settings: Settings) -> list[WordRow]:
    matrices = step_matrices(bundle.path_of("step"))
    contestants: dict[str, Callable[[], LoopRound | ProductRound]] = {
        way: _step(bundle, sampling, settings) for way, sampling in _WAYS.items()
    }
    for outer, inner in matrices:
        product = Product(ROWS, inner, outer)
        contestants[f"{inner} × {outer}"] = partial(product.run, settings.loop_seconds)
    total = settings.rounds * len(contestants)
    with tqdm(total=total, desc=f"{words:,} words", unit="round") as bar:
        found = alternate(contestants, settings.rounds, bar)
    products_us = 0.0
    for outer, inner in matrices:
        product_round = found[f"{inner} × {outer}"]
        assert isinstance(product_round, ProductRound), "a product's rounds are"
        products_us += 1e-3 * 2 * inner * outer / product_round.gflops
    steps = {way: one for way, one in found.items() if isinstance(one, LoopRound)}
    return [
        WordRow(words, units, way, 1e6 / one.tokens_per_second, products_us)
        for way, one in steps.items()
    ]


def _step(
    bundle: Bundle, sampling: Mapping[str, float], settings: Settings
) -> Callable[[], LoopRound]:
    step = BareStep(open_step(bundle, FP32), ROWS, sampling)
    return partial(step.run, settings.loop_seconds)
