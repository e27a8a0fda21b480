"""Two replicas behind a proxy: one is killed, one is drained, and no stream notices."""

from __future__ import annotations

import asyncio
import random
import signal
import threading
import time
from dataclasses import dataclass, field

import pytest

from tests.ops.proxies import Proxy, free_ports
from tests.ops.replicas import Replica
from unroll import AsyncClient, Sampling

pytestmark = [pytest.mark.ops, pytest.mark.timeout(280)]

STREAMS = 64
# So many have delivered something, and have a third left, when a replica is killed.
BEGUN = 48
LEFT_SHARE = 1 / 3
PROGRAMS = {"haproxy": "haproxy", "envoy": "envoy"}


@dataclass
class Wanted:
    """One request, and what came of it."""

    options: dict
    tokens: list = field(default_factory=list)
    seeds: list = field(default_factory=list)
    answer: object = None

    @property
    def share(self):
        """Of its tokens that are delivered."""
        return len(self.tokens) / (self.options["max_tokens"] * self.options.get("samples", 1))

    @property
    def received(self):
        """Everything that must be the same bits, in the order of each sample's positions."""
        return sorted((t.sample, t.position, t.id, t.text, t.log_probability) for t in self.tokens)


def requests():
    """Of many kinds, each with a seed and a length of its own."""
    choose = random.Random(6)
    wanted = []
    for number in range(STREAMS):
        sampling = {"seed": number, "temperature": choose.choice((0.7, 1.0))}
        if number % 4 == 1:
            sampling |= {"repetition_penalty": 1.1, "frequency_penalty": 0.2}
        if number % 4 == 2:
            sampling |= {"top_k": 20, "min_p": 0.02}
        options = {
            "prompt": choose.choice(("ROMEO:\n", "JULIET:\n", "First Citizen:\nWe ")),
            "max_tokens": choose.randint(1800, 2200),
            "sampling": Sampling(**sampling),
            "log_probabilities": True,
        }
        if number % 16 == 3:
            options |= {"samples": 2, "max_tokens": 1000}
        if number % 8 == 4:
            options["stop"] = ["\nzzzz"]  # never comes, and holds text back
        # Those that request no resume tokens get the client's own.
        if number % 2:
            options["resume_every"] = choose.choice((32, 64))
        wanted.append(Wanted(options))
    return wanted


async def read(client, wanted):
    async for piece in client.generate("prose", **wanted.options):
        wanted.tokens += piece.tokens
        if piece.seed is not None:
            wanted.seeds.append(piece.seed)
        if piece.answer:
            assert wanted.answer is None, "one end is received"
            wanted.answer = piece.answer


async def read_all(target, everyone):
    async with AsyncClient(target, timeout=200) as client:
        await asyncio.gather(*(read(client, wanted) for wanted in everyone))


def wait_until(condition, seconds=60.0):
    until = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < until, "it did not come to pass in time"
        time.sleep(0.01)


class Reading:
    """All streams, read on a thread."""

    def __init__(self, target, everyone):
        self.everyone = everyone
        self.failure = None
        self._thread = threading.Thread(target=self._run, args=(target,), daemon=True)
        self._thread.start()

    def _run(self, target):
        try:
            asyncio.run(read_all(target, self.everyone))
        except BaseException as failure:
            self.failure = failure

    def may_be_disturbed(self):
        """Whether enough have begun and have enough left."""
        assert self.failure is None, self.failure
        return sum(0 < w.share < 1 - LEFT_SHARE for w in self.everyone) >= BEGUN

    def wait(self):
        self._thread.join(200)
        assert not self._thread.is_alive()
        if self.failure:
            raise self.failure


def undisturbed(replica):
    everyone = requests()
    asyncio.run(read_all(replica.target, everyone))
    return everyone


@pytest.mark.parametrize("kind", PROGRAMS)
def test_streams_outlive_a_kill_and_a_drain(kind, need, start_replica, tmp_path, saw):
    (program,) = need(PROGRAMS[kind])
    keys = tmp_path / "keys"
    keys.write_text("00112233445566778899aabbccddeeff\n")
    flags = (
        "--resume-keys", str(keys), "--precision", "int8", "--threads", "1",
        "--propagation-seconds", "2.5", "--grace-seconds", "0.5",
    )  # fmt: skip
    ports = free_ports(4)

    def start(number):
        port, http_port = ports[2 * number : 2 * number + 2]
        return start_replica(*flags, port=port, http_port=http_port)

    first, second = start(0), start(1)
    expected = undisturbed(first)
    places = ((first.port, first.http_port), (second.port, second.http_port))
    proxy = Proxy(kind, program, places, tmp_path)
    try:
        proxy.wait_for(2)
        everyone = requests()
        reading = Reading(proxy.target, everyone)
        wait_until(reading.may_be_disturbed)
        wait_until(lambda: min(rows(first), rows(second)) >= STREAMS // 4, 10)
        assert reading.may_be_disturbed()
        shares = [wanted.share for wanted in everyone]
        split = [rows(replica) for replica in (first, second)]
        first.process.send_signal(signal.SIGKILL)
        first.wait()
        first = start(0)
        proxy.wait_for(2)
        drained_at = [wanted.share for wanted in everyone]
        second.terminate()
        code = second.wait()
        reading.wait()
    finally:
        proxy.stop()
    assert code == 0
    assert "stopped, every call finished or was handed over" in second.output
    unfinished = sum(share < 1 for share in drained_at)
    assert unfinished >= BEGUN, "the drain met streams that were under way"
    for wanted, alone in zip(everyone, expected, strict=True):
        places = [(t.sample, t.position) for t in wanted.tokens]
        assert len(places) == len(set(places)), "no token is doubled"
        assert wanted.received == alone.received, "no token is lost or another one"
        assert wanted.seeds == alone.seeds == [wanted.options["sampling"].seed]
        assert wanted.answer.output_tokens == alone.answer.output_tokens == len(wanted.tokens)
        assert wanted.answer.reason == alone.answer.reason
    began = sum(0 < share < 1 - LEFT_SHARE for share in shares)
    saw(
        f"{STREAMS} seeded streams through {kind} ({split[0]} + {split[1]}): one replica killed "
        f"when {began} had tokens and a third left, restarted, the other drained with {unfinished} "
        f"under way (exit {code}); {sum(len(w.tokens) for w in everyone):,} tokens, each the bits "
        "of an undisturbed run, none lost or doubled"
    )


def rows(replica: Replica) -> int:
    """Streams of prose that it runs now."""
    for line in replica.metrics().splitlines():
        if line.startswith("unroll_active_rows{") and 'model="prose"' in line:
            return int(float(line.rsplit(" ", 1)[1]))
    return 0
