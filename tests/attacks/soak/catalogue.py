"""Every attack that a running service can be under beside others, by name.

What they send is what tests/attacks/test_*.py send. Those tests measure one attack at a time; here
an attack only says what it got, and the soak evaluates all of them together. Each ends within some
twenty seconds where the service answers, and leaves files and processes as it found them.
"""

from __future__ import annotations

import asyncio
import gzip
import itertools
import math
import os
import random
import secrets
import signal
import time
from collections import Counter
from collections.abc import Awaitable, Callable, Iterable
from contextlib import ExitStack
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import grpc
from grpc_health.v1 import health_pb2

from tests.attacks import frames, spoiling
from tests.attacks.frame_fuzzer import FrameFuzzer
from tests.attacks.harness import BUNDLES, MEBIBYTE
from tests.attacks.messages import empty_items, step_of, tensors_of
from tests.attacks.soak.site import Site
from tests.attacks.test_refusals import METHODS, TestNamesThatArePaths, bodies
from tests.attacks.test_shares import LETTERS
from tests.attacks.traffic import (
    HEALTH,
    INFERENCE,
    LOAD,
    UNLOAD,
    UNROLL,
    Outcome,
    Raw,
    at_once,
    call,
    statuses,
)
from unroll.inference import grpc_service_pb2 as inference
from unroll.v1 import unroll_pb2 as pb

Run = Callable[[Site, random.Random], dict[str, int]]
Each = Callable[[grpc.aio.Channel, int], Awaitable[Outcome]]

# Who attacks, with both roles. The witness has a name of its own.
ATTACKER = "mallory"
# What attacks may load and unload; the witness does not call it.
SPARE = "cloze"
# Whose files attacks change, while the witness calls them.
SPOILED = ("sentiment", "pos", "pos-online", "prose")

# What a call may end with whatever the attack: answered, refused, or ended by us.
_ALWAYS = frozenset(
    ("OK", "INVALID_ARGUMENT", "RESOURCE_EXHAUSTED", "UNAUTHENTICATED", "DEADLINE_EXCEEDED")
)
# Of attacks that take models away, and those that call them.
_MODELS = frozenset(("NOT_FOUND", "FAILED_PRECONDITION", "ABORTED"))
_LATE_SECONDS = 20.0


@dataclass(frozen=True)
class Attack:
    """also: statuses that it may get beside the usual ones. group: two of one never run at once."""

    run: Run
    also: frozenset[str] = frozenset()
    group: str = ""

    def unexpected(self, got: Iterable[str]) -> list[str]:
        return sorted(set(got) - _ALWAYS - self.also)


def _calls(site: Site, count: int, each: Each, **how: int) -> dict[str, int]:
    return statuses(asyncio.run(at_once(site, count, each, **how)))


def _call_as_attacker(
    site: Site, method: str, body: object, *, timeout: float = _LATE_SECONDS, **how: bool
) -> Each:
    async def one(channel: grpc.aio.Channel, _: int) -> Outcome:
        token = site.tokens[ATTACKER]
        return await call(channel, method, body, token=token, timeout=timeout, **how)

    return one


def _as_raw(site: Site, **how: int) -> Raw:
    return Raw(site, token=site.tokens[ATTACKER], **how)


_NAMES = {
    "": "none yet", "0": "OK", "3": "INVALID_ARGUMENT", "4": "DEADLINE_EXCEEDED",
    "5": "NOT_FOUND", "8": "RESOURCE_EXHAUSTED", "13": "INTERNAL", "14": "UNAVAILABLE",
    "16": "UNAUTHENTICATED",
}  # fmt: skip
_UNREAD = frozenset(("none yet", "UNAVAILABLE"))


def _statuses_of(*raws: Raw) -> dict[str, int]:
    numbers = (answer.status for raw in raws for answer in raw.answers.values())
    return dict(Counter(_NAMES.get(number, number) for number in numbers))


# -- callers without a token ------------------------------------------------------------------


def refused_without_a_token(site: Site, rng: random.Random) -> dict[str, int]:
    kinds = list(itertools.product(METHODS, bodies("pos").values()))

    async def refused(channel: grpc.aio.Channel, _: int) -> Outcome:
        (method, streams), (body, zipped) = rng.choice(kinds)
        token = secrets.token_urlsafe(32) if rng.random() < 0.6 else ""
        return await call(channel, method, body, token=token, zipped=zipped, streams=streams)

    return _calls(site, 400, refused, channels=2, side_by_side=4)


def unread_watches(site: Site, rng: random.Random) -> dict[str, int]:
    with Raw(site) as unread:
        for name in ("", SPARE, "pos", "nobody") * 8:
            unread.call(f"{HEALTH}/Watch", health_pb2.HealthCheckRequest(service=name))
        unread.pump(rng.uniform(1, 8))
        return _statuses_of(unread)


def zip_bombs(site: Site, rng: random.Random) -> dict[str, int]:
    bomb = gzip.compress(bytes(256 * MEBIBYTE), 1)
    frame = b"\1" + len(bomb).to_bytes(4, "big") + bomb
    got: Counter[str] = Counter()
    for _ in range(4):
        with Raw(site, window=65535, reads=True) as caller:
            number = caller.call(f"{UNROLL}/Classify", end=False, zipped=True)
            caller._send(number, frame, True, _LATE_SECONDS)
            caller.pump(_LATE_SECONDS, caller.all_ended)
            got.update(_statuses_of(caller))
    return dict(got)


def unfinished_bodies(site: Site, rng: random.Random, connections: int) -> dict[str, int]:
    path = rng.choice((f"{UNROLL}/Classify", f"{UNROLL}/StreamTag"))
    with ExitStack() as stack:
        held, _ = frames.unfinished_bodies(
            stack, site.port, calls=600, connections=connections, path=path
        )
        return _ends_of(held)


def header_bombs(site: Site, rng: random.Random) -> dict[str, int]:
    """On one connection: those of many wait for the proxy at the edge."""
    with ExitStack() as stack:
        held = frames.header_bombs(stack, site.port, blocks=600, acknowledges=rng.random() < 0.5)
        return _ends_of(held)


def flood(site: Site, rng: random.Random, name: str) -> dict[str, int]:
    sent, amount = frames.FLOODS[name]
    with ExitStack() as stack:
        return _ends_of(sent(stack, site.port, amount))


def silent(
    site: Site, rng: random.Random, kind: Callable[..., list[frames.FrameConnection]], on_http: bool
) -> dict[str, int]:
    with ExitStack() as stack:
        held = kind(stack, site.http_port if on_http else site.port, 1100)
        time.sleep(rng.uniform(1, 8))
        frames.closed(held, 1)
        return _ends_of(held)


def mutated_frames(site: Site, rng: random.Random) -> dict[str, int]:
    fuzzer = FrameFuzzer(str(rng.random()))
    for number in range(150):
        with frames.FrameConnection(site.port, speaks=False) as connection:
            for step in fuzzer.draw(number):
                connection.send(step)
                connection.turn(0.005)
            connection.pump(0.02)
            if number % 3 == 0:
                connection.abort()
    return {"connections": 150}


def _ends_of(held: Iterable[frames.FrameConnection]) -> dict[str, int]:
    return dict(Counter("closed" if one.is_closed else "open" for one in held))


# -- messages of a caller who may call --------------------------------------------------------


def wrong_requests(site: Site, rng: random.Random) -> dict[str, int]:
    megabyte = 2**20 - 64
    tensors = inference.ModelInferRequest(model_name="pos.tensors").SerializeToString()
    kinds = [
        (f"{UNROLL}/Tag", empty_items("pos", 3)),
        (f"{UNROLL}/Score", empty_items("prose", 3)),
        (f"{UNROLL}/Classify", empty_items("nobody", 3)),
        (f"{UNROLL}/Fill", b"\xff" * megabyte),
        (f"{UNROLL}/Classify", pb.ClassifyRequest(model="nationality", texts=["a" * megabyte])),
        # Empty inputs, outputs and raw tensors of ModelInfer; fields 5, 6 and 7.
        *((f"{INFERENCE}/ModelInfer", tensors + bytes([f << 3 | 2, 0]) * 500_000) for f in (5, 6)),
        (f"{INFERENCE}/ModelInfer", tensors + b"\x3a\0" * 500_000),
        (f"{INFERENCE}/ModelInfer", _many_numbers(megabyte - 64)),
    ]

    async def refused(channel: grpc.aio.Channel, _: int) -> Outcome:
        method, body = rng.choice(kinds)
        token, zipped = site.tokens[ATTACKER], rng.random() < 0.5
        return await call(channel, method, body, token=token, zipped=zipped, timeout=60)

    return _calls(site, 150, refused, channels=2, side_by_side=4)


def _many_numbers(count: int) -> inference.ModelInferRequest:
    """A byte each on the wire, eight and more in memory."""
    request = inference.ModelInferRequest(model_name="pos.tensors")
    tensor = request.inputs.add(name="tokens", datatype="INT64", shape=(1, count))
    tensor.contents.int64_contents.extend([5] * count)
    return request


def large_answers(site: Site, rng: random.Random) -> dict[str, int]:
    """Valid, small requests with large answers, and read."""
    names = pb.ClassifyRequest(
        model="nationality", texts=[f"Ada {rng.random()} Lovelace" for _ in range(1024)]
    )
    items = [pb.TagItem(words=["the", "old", "man"] * 10)] * 200
    bodies_ = [
        (f"{UNROLL}/Classify", names),
        (f"{UNROLL}/Tag", pb.TagRequest(model="pos", top_labels=20, items=items)),
        (f"{INFERENCE}/ModelInfer", tensors_of("pos", 128, 170)),
    ]

    async def answered(channel: grpc.aio.Channel, number: int) -> Outcome:
        method, body = bodies_[number % 3]
        return await call(channel, method, body, token=site.tokens[ATTACKER], timeout=_LATE_SECONDS)

    return _calls(site, 18, answered, side_by_side=3)


def unread_answers(site: Site, rng: random.Random) -> dict[str, int]:
    request = tensors_of("pos", 128, 170).SerializeToString()
    with _as_raw(site) as unread:
        for _ in range(40):
            unread.call(f"{INFERENCE}/ModelInfer", request, zipped=True)
        unread.pump(rng.uniform(5, 15), unread.all_ended)
        return _statuses_of(unread)


def long_sequence_ids(site: Site, rng: random.Random) -> dict[str, int]:
    async def step(channel: grpc.aio.Channel, number: int) -> Outcome:
        request = step_of("prose", sequence_start=True, sequence_id=f"{number}{'x' * 900_000}")
        return await call(channel, f"{INFERENCE}/ModelInfer", request, token=site.tokens[ATTACKER])

    return _calls(site, 60, step, side_by_side=2)


def long_request_ids(site: Site, rng: random.Random) -> dict[str, int]:
    request = inference.ModelInferRequest(model_name="prose", id="x" * 900_000)
    request.inputs.add(name="prompt", datatype="BYTES", shape=(1,)).contents.bytes_contents.append(
        b"In the"
    )
    request.parameters["max_tokens"].int64_param = 2000
    with _as_raw(site, window=2**20, reads=True) as caller:
        caller.call(f"{INFERENCE}/ModelStreamInfer", request)
        caller.pump(5, caller.all_ended)
        return _statuses_of(caller)


def unread_tags(site: Site, rng: random.Random) -> dict[str, int]:
    start = pb.StreamTagRequest(start=pb.StreamTagStart(model="pos-online", top_labels=20))
    words = pb.StreamTagRequest(words=pb.Words(words=["the", "old", "man", "b"] * 32_768))
    with _as_raw(site) as unread:
        for _ in range(40):
            unread.call(f"{UNROLL}/StreamTag", start, words, end=False, seconds=0.5)
        unread.pump(2)
        return _statuses_of(unread)


def unread_streams(site: Site, rng: random.Random) -> dict[str, int]:
    request = pb.GenerateRequest(model="prose", prompt="In the", max_tokens=8000, samples=64)
    with _as_raw(site) as unread:
        for _ in range(75):
            unread.call(f"{UNROLL}/Generate", request)
            unread.pump(0.01)
        unread.pump(rng.uniform(3, 12))
        return _statuses_of(unread)


def many_sequences(site: Site, rng: random.Random) -> dict[str, int]:
    name = f"{rng.random()}"

    async def step(channel: grpc.aio.Channel, number: int) -> Outcome:
        request = step_of("prose", sequence_start=True, sequence_id=f"{name} {number}")
        return await call(channel, f"{INFERENCE}/ModelInfer", request, token=site.tokens[ATTACKER])

    return _calls(site, 1500, step, side_by_side=8)


def new_prompts(site: Site, rng: random.Random) -> dict[str, int]:
    """Each with a place in the prefix cache."""

    async def read(channel: grpc.aio.Channel, _: int) -> Outcome:
        prompt = "".join(rng.choices(LETTERS, k=72))
        request = pb.GenerateRequest(model="prose", prompt=prompt, max_tokens=1)
        token = site.tokens[ATTACKER]
        return await call(channel, f"{UNROLL}/Generate", request, token=token, streams=True)

    return _calls(site, 500, read, side_by_side=4)


def many_states(site: Site, rng: random.Random) -> dict[str, int]:
    name = f"{rng.random()}"

    async def create(channel: grpc.aio.Channel, number: int) -> Outcome:
        request = pb.CreateStateRequest(
            name=f"{name}-{number}", model="prose", prompt="In the beginning", ttl_seconds=10
        )
        return await call(channel, f"{UNROLL}/CreateState", request, token=site.tokens[ATTACKER])

    return _calls(site, 1000, create, side_by_side=4)


def leaving_callers(site: Site, rng: random.Random) -> dict[str, int]:
    kinds = [
        (f"{UNROLL}/Generate", (pb.GenerateRequest(model="prose", prompt="In", max_tokens=500),)),
        (
            f"{UNROLL}/StreamTag",
            (
                pb.StreamTagRequest(start=pb.StreamTagStart(model="pos-online")),
                pb.StreamTagRequest(words=pb.Words(words=["the"] * 50)),
            ),
        ),
        (f"{UNROLL}/Tag", (pb.TagRequest(model="pos", items=[pb.TagItem(text="the old man")]),)),
        (f"{INFERENCE}/ModelStreamInfer", (tensors_of("pos", 2, 5),)),
    ]
    got: Counter[str] = Counter()
    for round_ in range(8):
        with _as_raw(site, window=65535 * (round_ % 2), reads=True) as caller:
            for _ in range(100):
                method, requests = rng.choice(kinds)
                call = caller.call(method, *requests, end=rng.random() < 0.7)
                caller.pump(0.001)
                if rng.random() < 0.5 and not caller.answers[call].ended:
                    caller.reset(call)
            got.update(_statuses_of(caller))
    return dict(got)


def paths_for_names(site: Site, rng: random.Random) -> dict[str, int]:
    methods = {
        "RepositoryModelLoad": lambda n: inference.RepositoryModelLoadRequest(model_name=n),
        "RepositoryModelUnload": lambda n: inference.RepositoryModelUnloadRequest(model_name=n),
        "ModelMetadata": lambda n: inference.ModelMetadataRequest(name=n),
        "ModelInfer": lambda n: inference.ModelInferRequest(model_name=n, id=n),
    }
    cases = list(itertools.product(methods, TestNamesThatArePaths.NAMES))

    async def refused(channel: grpc.aio.Channel, number: int) -> Outcome:
        method, name = cases[number]
        body = methods[method](name)
        return await call(channel, f"{INFERENCE}/{method}", body, token=site.tokens[ATTACKER])

    return _calls(site, len(cases), refused, side_by_side=4)


# -- more work than there is room for ---------------------------------------------------------


def burst(site: Site, rng: random.Random) -> dict[str, int]:
    request = pb.ClassifyRequest(model="nationality", texts=["Ada Lovelace"])
    one = _call_as_attacker(site, f"{UNROLL}/Classify", request, timeout=60)
    return _calls(site, 2000, one, channels=8)


def long_prompts(site: Site, rng: random.Random) -> dict[str, int]:
    async def read(channel: grpc.aio.Channel, number: int) -> Outcome:
        prompt = f"{number} {LETTERS * 200}"[:8000]
        request = pb.GenerateRequest(model="prose", prompt=prompt, max_tokens=1)
        token = site.tokens[ATTACKER]
        how = {"token": token, "streams": True, "timeout": _LATE_SECONDS}
        return await call(channel, f"{UNROLL}/Generate", request, **how)

    return _calls(site, 100, read)


def greedy_streams(site: Site, rng: random.Random) -> dict[str, int]:
    request = pb.GenerateRequest(model="prose", prompt="In the", max_tokens=2000, min_tokens=2000)
    how = {"timeout": rng.uniform(8, 15), "streams": True}
    return _calls(
        site, 300, _call_as_attacker(site, f"{UNROLL}/Generate", request, **how), channels=4
    )


def hopeless_deadlines(site: Site, rng: random.Random) -> dict[str, int]:
    request = pb.GenerateRequest(model="prose", prompt="In the", max_tokens=4000, min_tokens=4000)
    how = {"timeout": 5.0, "streams": True}
    return _calls(
        site, 300, _call_as_attacker(site, f"{UNROLL}/Generate", request, **how), channels=6
    )


# -- bundles ----------------------------------------------------------------------------------


def copied_over(site: Site, rng: random.Random) -> dict[str, int]:
    for _ in range(20):
        for name in SPOILED:
            spoiling.copy_over(BUNDLES / name / "1", site.models / name / "1")
    return {"files copied over": 80}


def spoiled(site: Site, rng: random.Random, spoil: Callable[[Path], object]) -> dict[str, int]:
    """Spoil a bundle, have it loaded, and put it back."""
    name = rng.choice(SPOILED)
    folder = site.models / name / "1"
    try:
        spoil(folder)
        return _load(site, name)
    finally:
        spoiling.copy_over(BUNDLES / name / "1", folder)
        _load(site, name)


def held_reloads(site: Site, rng: random.Random) -> dict[str, int]:
    request = pb.GenerateRequest(model="prose", prompt="In the", max_tokens=8000)
    folder, got = site.models / "prose" / "1", Counter[str]()
    try:
        with _as_raw(site, window=1000) as caller:
            for _ in range(12):
                caller.call(f"{UNROLL}/Generate", request)
                caller.pump(0.2)
                spoiling.describe(folder, f"{rng.random()}")
                got.update(_load(site, "prose"))
    finally:
        spoiling.copy_over(BUNDLES / "prose" / "1", folder)
        _load(site, "prose")
    return dict(got)


def departed_loads(site: Site, rng: random.Random) -> dict[str, int]:
    request = inference.RepositoryModelLoadRequest(model_name=SPARE)
    one = _call_as_attacker(site, LOAD, request, timeout=0.5)
    return _calls(site, 400, one, channels=8)


def racing_loads(site: Site, rng: random.Random) -> dict[str, int]:
    kinds = [
        (LOAD, inference.RepositoryModelLoadRequest(model_name=SPARE)),
        (f"{UNROLL}/Fill", pb.FillRequest(model=SPARE, texts=["The man went to the ___"])),
        (UNLOAD, inference.RepositoryModelUnloadRequest(model_name=SPARE)),
    ]

    async def each(channel: grpc.aio.Channel, _: int) -> Outcome:
        method, request = rng.choice(kinds)
        token = site.tokens[ATTACKER]
        return await call(channel, method, request, token=token, timeout=_LATE_SECONDS)

    return _calls(site, 200, each, channels=2, side_by_side=8)


def _load(site: Site, name: str) -> dict[str, int]:
    request = inference.RepositoryModelLoadRequest(model_name=name)
    return _calls(site, 1, _call_as_attacker(site, LOAD, request))


# -- the process ------------------------------------------------------------------------------


def hang_up(site: Site, rng: random.Random) -> dict[str, int]:
    for _ in range(10):
        os.kill(site.pid, signal.SIGHUP)
        time.sleep(0.1)
    return {"signals": 10}


def stopped(site: Site, rng: random.Random) -> dict[str, int]:
    return _stopped(site.pid, rng.uniform(1, 5))


def unread_log(site: Site, rng: random.Random) -> dict[str, int]:
    """Every request is logged; what reads the log stands still."""
    os.kill(site.log_pid, signal.SIGSTOP)
    try:
        request = pb.ClassifyRequest(model="nationality", texts=["Ada " * 25])
        one = _call_as_attacker(site, f"{UNROLL}/Classify", request)
        return _calls(site, 2000, one, side_by_side=16)
    finally:
        os.kill(site.log_pid, signal.SIGCONT)


def _stopped(pid: int, seconds: float) -> dict[str, int]:
    os.kill(pid, signal.SIGSTOP)
    try:
        time.sleep(seconds)
    finally:
        os.kill(pid, signal.SIGCONT)
    return {"stops": 1}


# Names of what comes of connections, signals and files, and not of calls.
_COUNTS = frozenset(("open", "closed", "connections", "files copied over", "signals", "stops"))
_CONNECTIONS = _COUNTS | {"UNAVAILABLE"}
# While new connections are refused because of another attack.
_REFUSED = frozenset(("UNAVAILABLE",))

ATTACKS: dict[str, Attack] = {
    "refused without a token": Attack(refused_without_a_token, _REFUSED),
    "unread Health.Watch": Attack(unread_watches, _UNREAD),
    # gRPC's own refusal of what cannot be unzipped.
    "zip bombs": Attack(zip_bombs, _UNREAD | {"INTERNAL"}),
    "unfinished bodies, one connection": Attack(
        partial(unfinished_bodies, connections=1), _CONNECTIONS
    ),
    "unfinished bodies, 60 connections": Attack(
        partial(unfinished_bodies, connections=60), _CONNECTIONS
    ),
    "header bombs, one connection": Attack(header_bombs, _CONNECTIONS),
    **{f"flood: {name}": Attack(partial(flood, name=name), _CONNECTIONS) for name in frames.FLOODS},
    "silent connections": Attack(
        partial(silent, kind=frames.silent_connections, on_http=False), _CONNECTIONS, "connections"
    ),
    "slow handshakes": Attack(
        partial(silent, kind=frames.slow_handshakes, on_http=False), _CONNECTIONS, "connections"
    ),
    "silent HTTP connections": Attack(
        partial(silent, kind=frames.silent_connections, on_http=True), _CONNECTIONS, "connections"
    ),
    "mutated frames": Attack(mutated_frames, _CONNECTIONS),
    "wrong requests": Attack(wrong_requests, _REFUSED | {"NOT_FOUND"}),
    "large answers": Attack(large_answers, _REFUSED),
    "unread answers": Attack(unread_answers, _UNREAD),
    "long sequence ids": Attack(long_sequence_ids, _REFUSED),
    "long request ids": Attack(long_request_ids, _UNREAD),
    "unread tags": Attack(unread_tags, _UNREAD),
    "unread streams": Attack(unread_streams, _UNREAD),
    "many sequences": Attack(many_sequences, _REFUSED),
    "new prompts": Attack(new_prompts, _REFUSED | _MODELS),
    "many states": Attack(many_states, _REFUSED | _MODELS),
    "leaving callers": Attack(leaving_callers, _UNREAD | _MODELS),
    "paths for names": Attack(paths_for_names, _REFUSED | {"NOT_FOUND"}),
    "burst of 2,000": Attack(burst, _REFUSED),
    "long prompts": Attack(long_prompts, _REFUSED),
    "greedy streams": Attack(greedy_streams, _REFUSED),
    "hopeless deadlines": Attack(hopeless_deadlines, _REFUSED),
    "bundles copied over": Attack(copied_over, _COUNTS, "bundles"),
    "weights overwritten": Attack(
        partial(spoiled, spoil=spoiling.overwrite), _REFUSED | _MODELS, "bundles"
    ),
    "weights of NaN": Attack(
        partial(spoiled, spoil=partial(spoiling.with_number, number=math.nan)),
        _REFUSED | _MODELS,
        "bundles",
    ),
    "reloads held by streams": Attack(held_reloads, _REFUSED | _MODELS, "bundles"),
    "loads of the departed": Attack(departed_loads, _REFUSED | _MODELS),
    "racing loads": Attack(racing_loads, _REFUSED | _MODELS),
    "SIGHUP": Attack(hang_up, _COUNTS, "signals"),
    "SIGSTOP": Attack(stopped, _COUNTS, "signals"),
    "unread log": Attack(unread_log, _REFUSED, "log"),
}
