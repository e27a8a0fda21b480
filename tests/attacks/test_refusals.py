"""What is refused costs nothing afterwards: by whatever method, size, status and caller."""

from __future__ import annotations

import asyncio
import gzip
import itertools
import json
import secrets

import pytest

from service.access.roles import NEEDED
from service.constraints.compiling import CompileLimits
from service.serving.constraints import AT_ONCE
from tests.attacks.harness import MEBIBYTE, Threat
from tests.attacks.messages import empty_items
from tests.attacks.traffic import INFERENCE, UNROLL, Raw, at_once, call, statuses
from unroll.inference import grpc_service_pb2
from unroll.inference import grpc_service_pb2 as inference
from unroll.v1 import unroll_pb2 as pb

SIDE_BY_SIDE = 4
# At least so many before a connection is ended for them.
RESETS_OF_A_CONNECTION = 500
# Beyond what a few refused calls need while they last.
FLAT_BYTES = 150 * MEBIBYTE
SERVICES = {
    UNROLL: pb.DESCRIPTOR.services_by_name["UnrollService"],
    INFERENCE: grpc_service_pb2.DESCRIPTOR.services_by_name["GRPCInferenceService"],
}
METHODS = [
    (f"{path}/{method.name}", method.server_streaming)
    for path, service in SERVICES.items()
    for method in service.methods
    if NEEDED[method.name]
]


def bodies(model: str) -> dict[str, tuple[bytes, bool]]:
    """Messages, and whether they are sent zipped."""
    return {
        "empty": (b"", False),
        "unreadable": (b"\xff" * 64, False),
        "of a megabyte": (b"\x0a" + b"\xfc\xff\x3b" + b"a" * (2**20 - 260), False),
        "of empty items": (empty_items(model, 3), True),
    }


class TestRefusedCalls:
    """Refused calls, with and without a token, of every method, empty to a megabyte, zipped too.

    Bound: the memory of the calls under way; a caller without a token is known before its
    message is read. Setting: max_message_bytes.
    """

    threat = Threat(
        "10,000 refused calls of every method and kind: no token, a forged one, unreadable, wrong, "
        "a zipped kilobyte that holds 524,000 items",
        "memory stays flat; nothing of a refused call outlives it",
        ("max_message_bytes",),
    )

    def test_of_callers_without_a_token(self, attacked, attacks):
        calls = attacks.amount(150, 10_000)
        kinds = list(itertools.product(METHODS, bodies("pos").items()))

        async def refused(channel, number):
            (method, streams), (_, (body, zipped)) = kinds[number * 7919 % len(kinds)]
            forged = secrets.token_urlsafe(32) if number % 3 else ""
            return await call(channel, method, body, token=forged, zipped=zipped, streams=streams)

        with attacked(callers=("ann",), caller="ann") as (service, _):
            outcomes = asyncio.run(
                at_once(service, calls, refused, channels=2, side_by_side=SIDE_BY_SIDE)
            )
            attacks.report(
                f"{calls} refused without a token: {statuses(outcomes)}, "
                f"{service.usage.grown() / 1e6:+.0f} MB at the peak"
            )
            # A message beyond the limit is refused by its length, before a token is checked. Calls
            # that are refused before they were sent whole are reset by their callers, and many
            # resets end a connection with what is under way on it, as TestFloods has it.
            lost = sum(o.status == "UNAVAILABLE" for o in outcomes)
            assert lost <= SIDE_BY_SIDE * calls / RESETS_OF_A_CONNECTION
            refusals = {"UNAUTHENTICATED", "RESOURCE_EXHAUSTED", "UNAVAILABLE"}
            assert {o.status for o in outcomes} <= refusals
            assert service.usage.grown() < FLAT_BYTES

    def test_of_wrong_requests(self, attacked, attacks):
        calls = attacks.amount(30, 3_000)
        wrong = {
            "empty items": (f"{UNROLL}/Tag", empty_items("pos", 3), True),
            "empty items to score": (f"{UNROLL}/Score", empty_items("prose", 3), True),
            "no such model": (f"{UNROLL}/Classify", empty_items("nobody", 3), True),
            "a megabyte": (
                f"{UNROLL}/Classify",
                pb.ClassifyRequest(model="nationality", texts=["a" * (2**20 - 64)]),
                False,
            ),
            "unreadable": (f"{UNROLL}/Fill", b"\xff" * (2**20 - 64), False),
            "tensors": (
                f"{INFERENCE}/ModelInfer",
                inference.ModelInferRequest(
                    model_name="pos.tensors", raw_input_contents=[bytes(2**20 - 64)]
                ),
                False,
            ),
        }
        kinds = list(wrong.values())

        async def refused(channel, number):
            method, body, zipped = kinds[number % len(kinds)]
            return await call(channel, method, body, zipped=zipped)

        with attacked() as (service, _):
            outcomes = asyncio.run(at_once(service, calls, refused, side_by_side=2))
            attacks.report(
                f"{calls} wrong requests: {statuses(outcomes)}, "
                f"{service.usage.grown() / 1e6:+.0f} MB at the peak"
            )
            refusals = {"INVALID_ARGUMENT", "NOT_FOUND", "RESOURCE_EXHAUSTED"}
            assert {outcome.status for outcome in outcomes} <= refusals
            assert service.usage.grown() < FLAT_BYTES


class TestEvilPatterns:
    """Constraints whose automata would take hours and gigabytes, each another one.

    Bound: each is compiled by a process that the kernel ends; two at once. What they hold comes
    back. Setting: constraint_seconds.
    """

    threat = Threat(
        "200 regular expressions of a line, and JSON schemas, whose automata have millions of "
        "states, each another one",
        "compiled by two processes of 128 MiB at most, which the kernel ends; INVALID_ARGUMENT, "
        "or RESOURCE_EXHAUSTED with a delay where too many wait",
        ("constraint_seconds", "constraint_bytes"),
    )

    def test_of_callers_that_send_another_each_time(self, attacked, attacks):
        calls = attacks.amount(12, 200)

        async def refused(channel, number):
            constraint = pb.Constraint(regex=f"[ab]*a[ab]{{{30 + number}}}")
            if number % 4 == 3:
                schema = {"type": "string", "pattern": f"^[ab]*a[ab]{{{30 + number}}}$"}
                constraint = pb.Constraint(json_schema=json.dumps(schema))
            request = pb.GenerateRequest(model="prose", prompt="In the", constraint=constraint)
            return await call(channel, f"{UNROLL}/Generate", request, streams=True, timeout=120)

        with attacked() as (service, _):
            before = service.usage.samples[-1].resident_bytes
            outcomes = asyncio.run(at_once(service, calls, refused, side_by_side=8))
            attacks.report(
                f"{calls} evil patterns: {statuses(outcomes)}, "
                f"{service.usage.grown() / 1e6:+.0f} MB at the peak"
            )
            refusals = {"INVALID_ARGUMENT", "RESOURCE_EXHAUSTED"}
            assert {outcome.status for outcome in outcomes} <= refusals
            assert service.usage.grown() < AT_ONCE * CompileLimits.size + 50 * MEBIBYTE
            service.usage.restart()
            assert service.usage.peak() < before + 50 * MEBIBYTE


class TestForgedTokens:
    """Tokens that are none, random and nearly right.

    Bound: each is hashed and compared, and nothing of it is stored. Setting: auth_tokens.
    """

    threat = Threat(
        "10,000 forged tokens: random, nearly right, overlong, of other bytes",
        "UNAUTHENTICATED each; nothing of them is kept or logged",
        ("auth_tokens", "max_metadata_bytes"),
    )

    def test_are_refused_and_forgotten(self, attacked, attacks):
        calls = attacks.amount(200, 10_000)
        with attacked(callers=("ann",), caller="ann") as (service, _):
            right = service.tokens["ann"]
            forged = [
                lambda n: secrets.token_urlsafe(32),
                lambda n: right[: n % len(right)],
                lambda n: f"{right}{n}",
                lambda n: right.swapcase(),
                lambda n: secrets.token_hex(4000),
                lambda n: f"{right} {right}",
            ]

            async def refused(channel, number):
                token = forged[number % len(forged)](number)
                request = pb.ListModelsRequest()
                return await call(channel, f"{UNROLL}/ListModels", request, token=token)

            outcomes = asyncio.run(at_once(service, calls, refused, side_by_side=8))
            assert {o.status for o in outcomes} == {"UNAUTHENTICATED"}, statuses(outcomes)
            assert service.usage.grown() < 50 * MEBIBYTE
            assert right not in service.log()
            assert not any(right[:20] in outcome.details for outcome in outcomes)


class TestZipBombs:
    """Zipped bodies that are larger than any message may be.

    Bound: reading stops at max_message_bytes. Setting: max_message_bytes.
    """

    threat = Threat(
        "zipped messages of 64 MiB in 64 KB, without a token",
        "read up to the largest message and refused",
        ("max_message_bytes",),
    )

    def test_are_read_up_to_the_largest_message(self, attacked, attacks):
        bomb = gzip.compress(bytes(64 * MEBIBYTE), 6)
        frame = b"\1" + len(bomb).to_bytes(4, "big") + bomb
        with attacked(callers=("ann",), caller="ann") as (service, _):
            for _ in range(attacks.amount(2, 40)):
                with Raw(service, window=65535, reads=True) as caller:
                    number = caller.call(f"{UNROLL}/Classify", end=False, zipped=True)
                    caller._send(number, frame, True, 20.0)
                    assert caller.pump(20, caller.all_ended)
                    # Of the message, or of the caller: whichever is looked at first.
                    assert caller.answers[number].status in ("8", "13", "16")
            assert service.usage.grown() < 100 * MEBIBYTE


class TestNamesThatArePaths:
    """Names of models that lead elsewhere, or onto other lines of the log.

    Bound: a name is looked up among those that the folder holds, and logged escaped.
    """

    threat = Threat(
        "names that are paths, or hold line breaks and terminal codes",
        "NOT_FOUND or INVALID_ARGUMENT; a line of the log stays one line",
        ("models", "log_format"),
    )
    NAMES = (
        "..", "../models/pos", "/etc", "pos/1", "pos/../pos", "./pos", "pos\0", "%2e%2e", "~",
        "pos\n2026-01-01 00:00:00,000 ERROR forged", "pos\r\nforged", "\x1b[2Jpos", "a" * 100_000,
        "\u2028forged", "po\u200bs", "", ".", "pos/", "C:\\", "file:///etc/passwd",
    )  # fmt: skip

    @pytest.mark.parametrize(
        "log_format", ["json", pytest.param("console", marks=pytest.mark.attacks)]
    )
    def test_load_nothing_and_forge_no_line(self, attacked, log_format):
        methods = {
            "RepositoryModelLoad": lambda n: inference.RepositoryModelLoadRequest(model_name=n),
            "RepositoryModelUnload": lambda n: inference.RepositoryModelUnloadRequest(model_name=n),
            "ModelMetadata": lambda n: inference.ModelMetadataRequest(name=n),
            "ModelInfer": lambda n: inference.ModelInferRequest(model_name=n, id=n),
        }
        cases = list(itertools.product(methods, self.NAMES))

        async def refused(channel, number):
            method, name = cases[number]
            return await call(channel, f"{INFERENCE}/{method}", methods[method](name))

        how = {"log_requests": True, "log_texts": True, "log_format": log_format}
        with attacked(("pos",), **how) as (service, _):
            outcomes = asyncio.run(at_once(service, len(cases), refused, side_by_side=4))
            assert {o.status for o in outcomes} <= {"NOT_FOUND", "INVALID_ARGUMENT"}, statuses(
                outcomes
            )
            lines = service.log().split("\n")
            assert not [
                line for line in lines if line.lstrip().startswith(("forged", "2026-01-01"))
            ]
            assert "\x1b" not in service.log()
            if log_format == "json":
                assert all(line.startswith("{") for line in lines if line)
