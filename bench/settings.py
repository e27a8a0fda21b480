"""How much a run measures; the load itself is fixed, so that runs can be compared."""

from __future__ import annotations

import random
from dataclasses import dataclass, replace
from pathlib import Path

PROMPT = "Before we proceed any further, h"  # 32 characters
TEMPERATURE = 0.8
TOP_P = 0.95


def prompt_of(number: int) -> str:
    """The characters of PROMPT in an order of that number: as long, and like no other."""
    return "".join(random.Random(number).sample(PROMPT, len(PROMPT)))


PARTS = (
    "kernels", "words", "constrained", "streams", "joining", "prefixes", "predict", "doors",
    "workers", "frames", "memory", "start",
)  # fmt: skip

# Rounds of this many streams and more take so long that three must do.
MANY_STREAMS = 256
ROUNDS_OF_MANY = 3
# The peer makes the same tokens a second whatever the streams, so more of them show nothing new.
PEER_STREAMS = 64


@dataclass(frozen=True)
class Settings:
    """device: what the service and the loops compute on; one loop a request is the CPU's.
    bundle: the generator; classifier: what predict calls; both in one folder of models. vectors: a
    model of vectors with a vocabulary of thousands; left out where it is not in that folder.
    parts: which of PARTS run. streams: at once, each count a comparison of its own.
    tokens: made by each stream. round_tokens: the least of a round; few streams run repeatedly.
    loop_seconds: of one round of a loop without network.
    loop_rows: batch sizes of the loops; product_rows: of the matrix product.
    word_sizes: words and units of generators with random weights.
    running: streams that run while another joins. joins, long_joins: of a short and a long prompt.
    steady_seconds: between two joins of a long prompt. prefix_tokens: of prompts that are looked
    up in the prefix cache.
    clients, texts: callers at once, and texts a request. predict_seconds: of one round.
    idle_streams: opened twice. idle_seconds: the longest wait for them to start and to settle.
    starts: of the service with each front end.
    single_streams: numbers of streams that have one token a message, too; cached_streams: that have
    equal prompts, too, and food_streams: that are of vectors, too.
    door_callers: callers at once, or streams, of each front end, and of each worker.
    door_seconds: of one round.
    frame_streams: numbers of streams of frames. frame_seconds, frame_rounds: of one round of each,
    and how many at most.
    front_end: of the service where only one is measured; None for its default.
    """

    device: str = "cpu"
    bundle: Path = Path("models/prose/1")
    classifier: Path = Path("models/sentiment/1")
    vectors: Path = Path("models/food/1")
    parts: tuple[str, ...] = PARTS
    rounds: int = 5
    streams: tuple[int, ...] = (1, 16, 64, 256, 1024)
    tokens: int = 128
    round_tokens: int = 1024
    loop_seconds: float = 0.5
    loop_rows: tuple[int, ...] = (1, 16, 64, 128)
    product_rows: tuple[int, ...] = (16, 32, 64, 128, 256)
    word_sizes: tuple[tuple[int, int], ...] = ((10_000, 256), (10_000, 512), (50_000, 256))
    running: int = 63
    joins: int = 21
    long_joins: int = 2
    steady_seconds: float = 1.5
    prefix_tokens: int = 2000
    clients: tuple[int, ...] = (1, 64)
    texts: tuple[int, ...] = (1, 32)
    predict_seconds: float = 1.5
    idle_streams: int = 200
    idle_seconds: float = 100.0
    starts: int = 5
    single_streams: tuple[int, ...] = (16, 64)
    cached_streams: tuple[int, ...] = (64,)
    food_streams: tuple[int, ...] = (64,)
    door_callers: int = 64
    door_seconds: float = 1.5
    frame_streams: tuple[int, ...] = (16, 64, 256, 1000)
    frame_seconds: float = 3.0
    frame_rounds: int = 3
    front_end: str | None = None

    def rounds_of(self, streams: int) -> int:
        return min(self.rounds, ROUNDS_OF_MANY) if streams >= MANY_STREAMS else self.rounds


def quick(settings: Settings) -> Settings:
    """So little that only whether everything runs is learnt."""
    return replace(
        settings,
        rounds=1,
        streams=(1, 3),
        tokens=8,
        round_tokens=8,
        loop_seconds=0.02,
        loop_rows=(1, 64),
        product_rows=(16,),
        word_sizes=((300, 8),),
        running=3,
        joins=2,
        long_joins=1,
        steady_seconds=0.1,
        prefix_tokens=300,
        clients=(1, 3),
        predict_seconds=0.1,
        idle_streams=3,
        idle_seconds=1.0,
        starts=1,
        single_streams=(3,),
        cached_streams=(3,),
        food_streams=(3,),
        door_callers=3,
        door_seconds=0.1,
        frame_streams=(3,),
        frame_seconds=0.3,
    )
