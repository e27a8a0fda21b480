"""What a newcomer waits for beside running streams, and what they wait for it."""

from __future__ import annotations

import asyncio
import statistics
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from tqdm import tqdm

from bench.callers import Caller, Reading, inter_token_seconds, make_request
from bench.medians import Seconds, p50_p99
from bench.servers import Server
from bench.settings import PROMPT, Settings, prompt_of
from bundle.manifest import Manifest
from unroll.v1 import unroll_pb2 as pb

_LONG_PROMPT_CHARACTERS, _CACHED_PROMPT_CHARACTERS = 8000, 2000
_JOINER_TOKENS = 4
# Long enough that joins do not meet, and no multiple of a step.
_BETWEEN_JOINS_SECONDS = 0.117

Window = tuple[float, float]  # from, until; seconds of time.perf_counter


@dataclass(frozen=True)
class Joining:
    """running: streams beside the newcomer. step_ms: the median inter-token time of the
    running streams, which is a decode step. Times to first token are medians of the joins; that
    of the long prompt alone is beside nobody. Percentiles are of the running streams' tokens, with
    and without a long prompt joining.
    cached_first_token_ms: of a prompt whose state is in the prefix cache.
    """

    what: str
    running: int
    step_ms: float
    first_token_ms: float
    long_prompt_characters: int
    long_first_token_ms: float
    long_alone_ms: float
    inter_token_ms_p99_without: float
    inter_token_ms_p99_with: float
    tokens_per_message: float
    cached_prompt_characters: int = 0
    cached_first_token_ms: float = 0.0

    @property
    def cached_first_token_steps(self) -> float:
        return self.cached_first_token_ms / self.step_ms

    @property
    def first_token_steps(self) -> float:
        return self.first_token_ms / self.step_ms

    @property
    def long_ratio(self) -> float:
        """The long prompt's time to first token beside the running streams / alone."""
        return self.long_first_token_ms / self.long_alone_ms

    @property
    def p99_ratio(self) -> float:
        return self.inter_token_ms_p99_with / self.inter_token_ms_p99_without


def measure_joining(server: Server, manifest: Manifest, settings: Settings) -> Joining:
    return asyncio.run(_measure(server, manifest, settings))


async def _measure(server: Server, manifest: Manifest, settings: Settings) -> Joining:
    """Short prompts, and one that is cached, beside streams as they are by default; a long one
    beside streams of one token a message, since tokens that share a message hide the time between
    them."""
    long_prompt, cached_prompt = (
        _long_prompt(min(characters, manifest.limits["input_tokens"]))
        for characters in (_LONG_PROMPT_CHARACTERS, _CACHED_PROMPT_CHARACTERS)
    )
    joins = settings.joins
    total = 2 * joins + 2 * settings.long_joins
    with tqdm(total=total, desc=f"joining {server.what}", unit="join") as bar:
        async with Caller(server.target) as caller:
            # Those of numbers that no running stream has.
            prompts = [prompt_of(settings.running + number) for number in range(joins)]
            short = await _phase(caller, manifest, settings, False, prompts, bar)
            await caller.read(make_request(manifest.name, 0, 1, cached_prompt, no_cache=False))
            cached = await _phase(
                caller, manifest, settings, False, [cached_prompt] * joins, bar, no_cache=False
            )
            long_prompts = [long_prompt] * settings.long_joins
            lone = make_request(
                manifest.name, 0, _JOINER_TOKENS, long_prompt, one_a_message=True, no_cache=True
            )
            alone = [await _join(caller, lone, _BETWEEN_JOINS_SECONDS, bar) for _ in long_prompts]
            long = await _phase(caller, manifest, settings, True, long_prompts, bar)
    found = _summary(server.what, settings, len(long_prompt), short, long, alone)
    return replace(
        found,
        cached_prompt_characters=len(cached_prompt),
        cached_first_token_ms=_first_token_ms(cached.joined),
    )


@dataclass(frozen=True)
class _Phase:
    """readings: of the running streams. joined: one by one."""

    readings: list[Reading]
    joined: list[_Joined]


async def _phase(
    caller: Caller,
    manifest: Manifest,
    settings: Settings,
    one_a_message: bool,
    prompts: Sequence[str],
    bar: tqdm,
    no_cache: bool = True,
) -> _Phase:
    phase = _Phase([], [])
    pause = settings.steady_seconds if one_a_message else _BETWEEN_JOINS_SECONDS
    async with asyncio.TaskGroup() as group:
        running = [
            group.create_task(_run_on(caller, manifest, seed, phase.readings, one_a_message))
            for seed in range(settings.running)
        ]
        await _until_all_run(phase.readings, settings.running)
        for prompt in prompts:
            request = make_request(
                manifest.name, 0, _JOINER_TOKENS, prompt, one_a_message=True, no_cache=no_cache
            )
            phase.joined.append(await _join(caller, request, pause, bar))
        for task in running:
            task.cancel()
    return phase


async def _run_on(
    caller: Caller, manifest: Manifest, seed: int, readings: list[Reading], one_a_message: bool
) -> None:
    """A stream as long as the model allows, and then another one."""
    tokens = manifest.limits["output_tokens"]
    while True:
        request = make_request(manifest.name, seed, tokens, one_a_message=one_a_message)
        readings.append(Reading(time.perf_counter()))
        await caller.read(request, reading=readings[-1])
        seed += 1000


async def _until_all_run(readings: Sequence[Reading], streams: int) -> None:
    while len([reading for reading in readings if reading.arrivals]) < streams:
        await asyncio.sleep(0.01)


@dataclass(frozen=True)
class _Joined:
    """before: a window in which nobody joined; during: from sending to the first token."""

    first_token_seconds: float
    before: Window
    during: Window


async def _join(
    caller: Caller, request: pb.GenerateRequest, steady_seconds: float, bar: tqdm
) -> _Joined:
    quiet = time.perf_counter()
    await asyncio.sleep(steady_seconds)
    sent = time.perf_counter()
    reading = await caller.read(request)
    bar.update()
    # The leaving of the joiner before is over by now: half of the quiet time is left out.
    before = (quiet + (sent - quiet) / 2, sent)
    return _Joined(reading.first_token_seconds, before, (reading.sent, reading.arrivals[0]))


def _summary(
    what: str,
    settings: Settings,
    characters: int,
    short: _Phase,
    long: _Phase,
    alone: Sequence[_Joined],
) -> Joining:
    beside_short, beside_long = (
        [reading.token_arrivals() for reading in phase.readings] for phase in (short, long)
    )
    whole = (short.joined[0].before[0], short.joined[-1].during[1])
    step, _ = p50_p99(_waits(beside_short, [whole]))
    _, without = p50_p99(_waits(beside_long, [joined.before for joined in long.joined]))
    _, during = p50_p99(_waits(beside_long, [joined.during for joined in long.joined]))
    return Joining(
        what,
        settings.running,
        step,
        _first_token_ms(short.joined),
        characters,
        _first_token_ms(long.joined),
        _first_token_ms(alone),
        without,
        during,
        statistics.mean(count for stream in beside_short for _, count in stream),
    )


def _first_token_ms(joined: Sequence[_Joined]) -> float:
    return 1e3 * statistics.median(one.first_token_seconds for one in joined)


def _waits(arrivals: Sequence[Sequence[tuple[float, int]]], windows: Sequence[Window]) -> Seconds:
    """The inter-token times of all streams inside any of the windows."""
    return np.concatenate(
        [inter_token_seconds(stream, *window) for stream in arrivals for window in windows]
    )


def _long_prompt(characters: int) -> str:
    return (PROMPT * (characters // len(PROMPT) + 1))[:characters]
