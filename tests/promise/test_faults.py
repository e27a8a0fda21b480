"""Callers that leave at any moment and in any way leave nothing behind.

`make proof` has ten times as many of them leave.
"""

from __future__ import annotations

import asyncio
import random
from collections import Counter
from pathlib import Path
from typing import Any, ClassVar

import grpc
import pytest

from tests.promise.mixes import Kind, draw_mix
from tests.promise.processes import Watched, nothing_runs
from tests.promise.readings import SMALL_WINDOW
from unroll.v1 import unroll_pb2 as pb
from unroll.v1 import unroll_pb2_grpc

KINDS = (
    Kind("letters", False, "abcdefghij klmn", 64, 200, 16),
    Kind("speller", True, "abcdefghij klmn", 10, 60, 8, symbols=tuple("PQRSTUV"), has_gaps=True),
)
ROWS = 6
CALLERS = 40
# What a service that has served some thousand callers may grow by, garbage and free pages not
# counted. A leak of one kilobyte a call would be more.
RESIDENT_BYTES = 6e6
# So little that the warm-up of `make proof` fills them: a cache that takes its size is no leak, and
# would be most of what is seen otherwise.
CACHES = {"prefix_cache_bytes": 50_000, "constraint_bytes": 2**20}

EXPECTED = {"DEADLINE_EXCEEDED", "CANCELLED", "RESOURCE_EXHAUSTED"}

CANCEL, DEADLINE, DISCONNECT = "cancel", "deadline", "disconnect"


class Trimmed(Watched):
    """Without Python's own allocator, whose arenas keep what a burst of callers once took: the C
    library's gives its free pages back, and what is resident is what is held."""

    variables: ClassVar[dict[str, str]] = {"PYTHONMALLOC": "malloc"}


class Leavers:
    """Callers that give up. Each has a channel of its own, and a new one where it closed it."""

    def __init__(self, target: str, seed: int) -> None:
        self.target = target
        self.counts: Counter[str] = Counter()
        self.statuses: Counter[str] = Counter()
        self._choose = random.Random(seed)

    async def leave(self, requests: list[pb.GenerateRequest]) -> None:
        waiting = iter(requests)
        await asyncio.gather(*(self._caller(waiting) for _ in range(CALLERS)))

    async def _caller(self, waiting: Any) -> None:
        channel = grpc.aio.insecure_channel(self.target, SMALL_WINDOW)
        try:
            for request in waiting:
                how = self._choose.choice((CANCEL, CANCEL, DEADLINE, DEADLINE, DISCONNECT))
                await self._leave(channel, request, how)
                if how == DISCONNECT:
                    await channel.close()
                    channel = grpc.aio.insecure_channel(self.target, SMALL_WINDOW)
        finally:
            await channel.close()

    async def _leave(self, channel: grpc.aio.Channel, request: pb.GenerateRequest, how: str):
        """After a few messages, a few milliseconds, or at once."""
        seconds = self._choose.choice((0.001, 0.003, 0.01, 0.05)) if how == DEADLINE else 60.0
        messages = self._choose.choice((0, 0, 1, 1, 2, 5, 30))
        call = unroll_pb2_grpc.UnrollServiceStub(channel).Generate(request, timeout=seconds)
        try:
            for _ in range(messages if how != DEADLINE else 1000):
                if await call.read() is grpc.aio.EOF:
                    self.counts["finished"] += 1
                    return
            if how == CANCEL:
                call.cancel()
        except grpc.aio.AioRpcError as error:
            self.statuses[error.code().name] += 1
        self.counts[how] += 1


async def leave_paused(watched: Watched, count: int) -> None:
    """Streams that wait for their readers are left, half of them by a disconnect."""
    request = pb.GenerateRequest(
        model="letters", prompt="ab", max_tokens=400, samples=12, top_log_probabilities=17
    )
    channels = [grpc.aio.insecure_channel(watched.target, SMALL_WINDOW) for _ in range(count)]
    stubs = [unroll_pb2_grpc.UnrollServiceStub(channel) for channel in channels]
    calls = [stub.Generate(request, timeout=60) for stub in stubs]
    for call in calls:
        await call.read()
    seen = await asyncio.to_thread(watched.wait_until, nothing_runs, 30.0)
    assert seen["models"]["letters"]["paused"] > 0
    for call in calls[::2]:
        call.cancel()
    for channel in channels:
        await channel.close()


def requests_of(seed: int, count: int) -> list[pb.GenerateRequest]:
    """Of every kind: samples, beams, long prompts, many reported, resume points, constraints."""
    return [draw.request for draw in draw_mix(f"leave {seed}", KINDS, count, unspelt=0.0)]


def leave_all(loop: asyncio.Runner, watched: Watched, seed: int, count: int) -> Counter[str]:
    leavers = Leavers(watched.target, seed)
    loop.run(leavers.leave(requests_of(seed, count)))
    assert leavers.statuses.keys() <= EXPECTED, leavers.statuses
    loop.run(leave_paused(watched, 10))
    watched.check_all_is_released()
    return leavers.counts


@pytest.mark.timeout(900)
def test_callers_that_leave_leave_nothing_behind(tiny_models: Path, tmp_path: Path, proof) -> None:
    """Rows allocated are rows freed, clean; no canary is read; memory stays flat."""
    keys = tmp_path / "keys"
    keys.write_text("00112233445566778899aabbccddeeff\n")
    settings = {"max_streams": ROWS, "max_queue": 200, "step_seconds": 0.0005, **CACHES}
    counts: Counter[str] = Counter()
    with (
        asyncio.Runner() as loop,
        Trimmed(models=tiny_models, resume_keys=keys, **settings) as watched,
    ):
        resident = []
        for lot in range(6):
            counts += leave_all(loop, watched, lot, proof.leaves // 5)
            seen = watched.report("memory")
            resident.append(seen["resident"])
    # The first two lots are warm-up: pools, caches and arenas take their size.
    grown = resident[-1] - resident[1]
    rows = seen["models"].values()
    allocated, pauses = sum(r["allocated"] for r in rows), sum(r["pauses"] for r in rows)
    counted = ", ".join(f"{counts[what]} {what}" for what in sorted(counts))
    proof.report(
        f"faults: {counted}; {allocated} rows allocated and freed, {pauses} pauses, "
        f"{grown / 1e6:+.1f} MB resident"
    )
    for model in rows:
        assert model["allocated"] == model["freed"]
        assert model["dirty_rows"] == model["canaries_read"] == model["spoilt_rows"] == 0
    assert all(seen["models"][kind.name]["allocated"] > 100 for kind in KINDS)
    assert min(counts[how] for how in (CANCEL, DEADLINE, DISCONNECT)) > proof.leaves / 20
    assert grown < RESIDENT_BYTES
