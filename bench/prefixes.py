"""What a prefix cache costs a prompt that it does not know, and saves one that it knows."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial

import numpy as np
from tqdm import tqdm

from bench.loops import BareStep, Discard, StepGraph, open_engine
from bench.medians import median_round, take_turns
from bench.settings import TEMPERATURE, TOP_P, Settings
from service.engine.decode import GenerateEngine
from service.engine.prefixes import Found
from service.engine.requests import GenerateRequest, Sampling, State
from service.serving.prefix_cache import PrefixCache

_LIMIT = 64 << 20  # bytes
_OWNER = ("digest", "precision", "fingerprint", "")


@dataclass(frozen=True)
class _Prompt:
    """One prompt: processor time, and the time to its first token, in seconds."""

    cpu: float
    wall: float


@dataclass(frozen=True)
class PrefixRow:
    """tokens: of a prompt. without_us, miss_us: processor time of a token read, of a prompt that
    leaves the cache alone and of one that it does not know. miss_cost: what the second adds, as a
    share: the median of pairs that were read one after the other. hit_ms: to the first token of one
    that it knows. hit_steps: that as bare steps of one row.
    """

    precision: str
    tokens: int
    without_us: float
    miss_us: float
    miss_cost: float
    hit_ms: float
    hit_steps: float


class _Cache:
    """The service's, of one model."""

    def __init__(self) -> None:
        self._cache = PrefixCache(_LIMIT)

    def find(self, caller: str, path: bytes, whole: bool) -> Found:
        return self._cache.find(_OWNER, path, whole)

    def keep(self, caller: str, path: bytes, state: State) -> None:
        self._cache.keep(_OWNER, path, state)


def measure_prefixes(graphs: Sequence[StepGraph], settings: Settings) -> tuple[PrefixRow, ...]:
    return tuple(_measure(graph, settings) for graph in graphs)


def _measure(graph: StepGraph, settings: Settings) -> PrefixRow:
    tokens, random = settings.prefix_tokens, np.random.default_rng(0)
    symbols = len(graph.bundle.tokenizers["input"].vocabulary) - 1

    def prompt() -> tuple[int, ...]:
        return tuple(random.integers(1, symbols, tokens).tolist())

    # One engine for all: two of them differ by more than what a cache may cost.
    engine, known = open_engine(graph, 1, _Cache()), prompt()
    _read(engine, known)  # learns what prefill costs, and the cache its prompt
    contestants: dict[str, Callable[[], _Prompt]] = {
        "without": lambda: _read(engine, prompt(), no_cache=True),
        "miss": lambda: _read(engine, prompt()),
        "hit": partial(_read, engine, known),
    }
    rounds = 8 * settings.rounds
    with tqdm(total=rounds * len(contestants), desc=f"prefixes {graph.precision}") as bar:
        turns = take_turns(contestants, rounds, bar)
    found = {what: median_round(measured) for what, measured in turns.items()}
    pairs = zip(turns["miss"], turns["without"], strict=True)
    step = 1 / BareStep(graph, 1).run(settings.loop_seconds).tokens_per_second
    return PrefixRow(
        graph.precision,
        tokens,
        1e6 * found["without"].cpu / tokens,
        1e6 * found["miss"].cpu / tokens,
        statistics.median(miss.cpu / without.cpu for miss, without in pairs) - 1,
        1e3 * found["hit"].wall,
        found["hit"].wall / step,
    )


def _read(engine: GenerateEngine, tokens: tuple[int, ...], no_cache: bool = False) -> _Prompt:
    """Until its first token is made."""
    sampling = Sampling.of(0, temperature=TEMPERATURE, top_p=TOP_P)
    request = GenerateRequest(
        tokens, sampling, max_tokens=1, stop=(), arrived=0.0, no_cache=no_cache
    )
    cpu, wall = time.process_time(), time.perf_counter()
    engine.arrive(engine.open(request, Discard()))
    while not engine.is_idle:
        engine.step()
    return _Prompt(time.process_time() - cpu, time.perf_counter() - wall)
