"""Classify over gRPC: requests a second and what one costs the server."""

from __future__ import annotations

import asyncio
import itertools
import random
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial

import numpy as np
from tqdm import tqdm

from bench.callers import Caller
from bench.medians import alternate, p50_p99
from bench.servers import Server
from bench.settings import Settings
from bundle.store import Bundle
from unroll.v1 import unroll_pb2 as pb

_TEXTS = 2048  # different ones
_WORDS = (3, 40)  # of a text, the fewest and the most
SENTENCE_WORDS = 24


@dataclass(frozen=True)
class PredictRound:
    requests_per_second: float
    server_cpu_us: float  # a request
    answer_ms_p50: float
    answer_ms_p99: float


@dataclass(frozen=True)
class PredictRow:
    """Each client sends its next request when the last one was answered."""

    clients: int
    texts: int
    medians: PredictRound


def measure_predict(server: Server, bundle: Bundle, settings: Settings) -> list[PredictRow]:
    texts = sentences(bundle)
    loads = {
        f"{clients} clients, {size} texts": (clients, size)
        for clients, size in itertools.product(settings.clients, settings.texts)
    }
    contestants: dict[str, Callable[[], PredictRound]] = {
        what: partial(
            _measured, server, _requests(bundle, texts, size), clients, settings.predict_seconds
        )
        for what, (clients, size) in loads.items()
    }
    with tqdm(total=settings.rounds * len(loads), desc="predict", unit="round") as bar:
        found = alternate(contestants, settings.rounds, bar)
    return [PredictRow(*loads[what], medians) for what, medians in found.items()]


def sentences(bundle: Bundle) -> list[str]:
    """Texts of the bundle's own words, always the same ones."""
    words = [w for w in bundle.tokenizers["input"].vocabulary.symbols if w[0].isalpha()]
    chance = random.Random(0)
    longest = min(_WORDS[1], bundle.manifest.limits["input_tokens"])
    return [
        " ".join(chance.choices(words, k=chance.randint(_WORDS[0], longest))) for _ in range(_TEXTS)
    ]


def sentence(bundle: Bundle) -> str:
    """One text of usual length, always the same one."""
    words = " ".join(sentences(bundle)).split()
    return " ".join(words[: min(SENTENCE_WORDS, bundle.manifest.limits["input_tokens"])])


def _requests(bundle: Bundle, texts: Sequence[str], size: int) -> list[pb.ClassifyRequest]:
    return [
        pb.ClassifyRequest(model=bundle.manifest.name, texts=texts[start : start + size])
        for start in range(0, len(texts), size)
    ]


def _measured(
    server: Server, requests: Sequence[pb.ClassifyRequest], clients: int, seconds: float
) -> PredictRound:
    return asyncio.run(_round(server, requests, clients, seconds))


async def _round(
    server: Server, requests: Sequence[pb.ClassifyRequest], clients: int, seconds: float
) -> PredictRound:
    turn = itertools.cycle(requests)
    async with Caller(server.target) as caller:
        await caller.classify(next(turn))  # connects
        cpu, started = server.cpu_seconds(), time.perf_counter()
        until = started + seconds
        waits = await asyncio.gather(*(_classify(caller, turn, until) for _ in range(clients)))
        wall = time.perf_counter() - started
        cpu = server.cpu_seconds() - cpu
    answers = np.array([wait for one in waits for wait in one])
    return PredictRound(len(answers) / wall, 1e6 * cpu / len(answers), *p50_p99(answers))


async def _classify(
    caller: Caller, turn: Iterator[pb.ClassifyRequest], until: float
) -> list[float]:
    """Calls until then, at least one; the seconds that each answer took."""
    waits: list[float] = []
    while not waits or time.perf_counter() < until:
        sent = time.perf_counter()
        await caller.classify(next(turn))
        waits.append(time.perf_counter() - sent)
    return waits
