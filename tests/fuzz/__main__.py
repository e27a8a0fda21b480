"""Sends a call of the fuzzer again: python -m tests.fuzz TARGET PATH [--status] HEX...

TARGET: HOST:PORT of a running server. The rest as a failing test prints it: HEX is a message,
"-" an empty one; with --status the first error of a stream is to be its status.
"""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Sequence
from dataclasses import dataclass

import grpc

from tests.fuzz.drawing import WANTS_STATUS
from tests.fuzz.faults import Answer, fault_of
from tests.fuzz.methods import BY_PATH, Method
from tests.fuzz.sending import send


@dataclass(frozen=True)
class Replay:
    method: Method
    messages: tuple[bytes, ...]
    wants_status: bool
    reads: int | None = None


def replay_of(path: str, sent: Sequence[str]) -> Replay:
    """sent: each message in hexadecimal, perhaps after --status."""
    data = tuple(bytes.fromhex(text.strip("-")) for text in sent if text != WANTS_STATUS)
    return Replay(BY_PATH[path], data, WANTS_STATUS in sent)


async def run(target: str, replay: Replay) -> Answer:
    async with grpc.aio.insecure_channel(target) as channel:
        return await send(channel, replay)


def main(target: str, path: str, *sent: str) -> int:
    replay = replay_of(path, sent)
    answer = asyncio.run(run(target, replay))
    for data in answer.messages:
        print(replay.method.response.FromString(data))
    fault = fault_of(replay.method, len(replay.messages), answer)
    print(f"{answer.status} {answer.details} {fault}")
    return int(bool(fault))


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
