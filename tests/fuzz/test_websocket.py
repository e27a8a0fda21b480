"""Mutated calls over WebSocket: each is closed in time, and leaves nothing behind."""

from __future__ import annotations

import random
import threading
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from tests.fuzz.http_seeds import GENERATE, TAGGED, UNROLL, dump
from tests.fuzz.rest_requests import mutate
from tests.fuzz.test_fuzz import FAULTS, RESIDENT_BYTES, ROUNDS, SETTINGS
from tests.promise.processes import Watched
from tests.service.connect.sockets import BINARY, CLOSE, PING, TEXT, Socket, frame

# Each opens a connection, which ends after the second in which a server lets its client close it
# first: so there are fewer than of messages over one.
SHARE, AT_ONCE = 50, 8
CALLS: tuple[tuple[str, list[Any]], ...] = (
    (f"{UNROLL}/Generate", [GENERATE]),
    (f"{UNROLL}/StreamTag", TAGGED),
)
# Of a failure of the server: unknown, internal, data loss.
FAILED = {4002, 4013, 4015, 1011}
# Closed while it was still sent.
CUT_OFF = 0


@dataclass(frozen=True)
class Call:
    """sent: all frames. is_framed: whether they are frames still, so that a close must follow."""

    path: str
    sent: bytes
    is_framed: bool


def calls(name: str, count: int) -> Iterator[Call]:
    draw = random.Random(name)
    for _ in range(count):
        path, messages = draw.choice(CALLS)
        changed = [mutate(draw, each) if draw.random() < 0.6 else each for each in messages]
        texts = [dump(message) for message in changed]
        if draw.random() < 0.1:
            texts *= draw.choice((2, 30))
        sent = b"".join(_framed(draw, text) for text in (*texts, b""))
        is_framed = draw.random() < 0.7
        yield Call(path, sent if is_framed else _spoilt(draw, sent), is_framed)


def _framed(draw: random.Random, text: bytes) -> bytes:
    """One message, now and then in two parts with a ping between, or as what it is not."""
    way = draw.random()
    if way < 0.1:
        at = draw.randrange(len(text) + 1)
        parts = (TEXT, text[:at], False), (PING, b"there?", True), (0, text[at:], True)
    else:
        parts = ((BINARY if way < 0.15 else TEXT, text, True),)
    return b"".join(frame(*part, mask=draw.randbytes(4)) for part in parts)


def _spoilt(draw: random.Random, sent: bytes) -> bytes:
    data = bytearray(sent)
    for _ in range(draw.randint(1, 3)):
        at = draw.randrange(len(data))
        match draw.randrange(3):
            case 0:
                data[at] = draw.randrange(256)
            case 1:
                data[at:at] = draw.randbytes(8)
            case 2:
                del data[at : at + draw.randint(1, 12)]
        data = data or bytearray(b"\0")
    return bytes(data)


def code_of(received: bytes) -> int | None:
    """Of the close that ends what a server sent, whose frames are never in parts; None without."""
    while len(received) >= 2:
        opcode, size, start = received[0] & 0x0F, received[1], 2
        if size > 125:
            start = 4 if size == 126 else 10
            size = int.from_bytes(received[2:start])
        if opcode == CLOSE:
            return int.from_bytes(received[start : start + 2])
        received = received[start + size :]
    return None


def send_all(target: str, some: list[Call]) -> tuple[Counter[int | None], list[str]]:
    """How many ended with each code, and what should not have happened."""
    codes: Counter[int | None] = Counter()
    findings: list[str] = []
    lock = threading.Lock()

    def send(call: Call) -> None:
        try:
            opened = Socket(target, call.path, "unroll.json")
            opened.send_raw(call.sent)
            code = code_of(opened.until_closed(shuts=not call.is_framed))
        except ConnectionError:
            code = CUT_OFF
        except OSError as error:
            findings.append(f"{call}: {error!r}")
            return
        with lock:
            codes[code] += 1
        if code in FAILED or (call.is_framed and code is None):
            findings.append(f"{call}: {code}")

    with ThreadPoolExecutor(AT_ONCE) as pool:
        for done in [pool.submit(send, call) for call in some]:
            done.result()
    return codes, findings


@pytest.mark.timeout(3600)
def test_mutated_calls_break_nothing(fuzzed_models: Path, tmp_path: Path, fuzz: Any) -> None:
    """Whatever comes, the server closes the call or answers it, and has failed in none."""
    log, keys = tmp_path / "log", tmp_path / "keys"
    keys.write_text("00112233445566778899aabbccddeeff\n")
    settings = {"models": fuzzed_models, "resume_keys": keys, "front_end": "envoy", **SETTINGS}
    codes: Counter[int | None] = Counter()
    resident = []
    every = list(calls(fuzz.name, fuzz.messages // SHARE))
    with Watched(log, **settings) as watched:
        for number in range(ROUNDS):
            found, findings = send_all(watched.target, every[number::ROUNDS])
            codes += found
            assert not findings, "\n".join(finding[:1500] for finding in findings[:5])
            assert not FAULTS.search(logged := log.read_text()), logged[-10_000:]
            watched.check_all_is_released()
            resident.append(watched.report("memory")["resident"])
    grown = resident[-1] - resident[0]
    counts = ", ".join(f"{count} {code}" for code, count in codes.most_common())
    fuzz.report(
        f"fuzz over WebSocket: {len(every)} calls, {counts}; {grown / 1e6:+.1f} MB resident"
    )
    assert sum(codes.values()) == len(every)
    assert codes[1000] > len(every) / 20
    assert grown < RESIDENT_BYTES
