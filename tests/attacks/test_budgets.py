"""What callers make the service hold: answers that nobody reads, words, names, streams, states."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from tests.attacks.harness import MEBIBYTE, Threat, wait_until
from tests.attacks.messages import step_of, tensors_of
from tests.attacks.traffic import INFERENCE, UNROLL, Raw, at_once, call, is_refusal_with_a_delay
from tests.attacks.traffic import statuses as counted
from tests.conftest import Attacks
from unroll.inference import grpc_service_pb2 as inference
from unroll.v1 import unroll_pb2 as pb

SEQUENCES = {"max_sequences": 64, "sequence_idle_seconds": 2}
# Callers with names, and so little room for what is kept of them that it is soon full.
KEPT = {
    "callers": ("ann", "eve"), "caller": "ann", "prefix_cache_bytes": MEBIBYTE, "max_states": 32,
}  # fmt: skip


def limits(attacks: Attacks) -> dict[str, Any]:
    """Those of the service as it is, or for the quick half lower ones, which are reached sooner."""
    low = {"memory_budget_bytes": 64 * MEBIBYTE, "max_streams": 16, "max_queue": 112}
    return {} if attacks.is_full else low | SEQUENCES


class TestUnreadAnswers:
    """Large answers to small requests that nobody reads.

    Bound: one budget of bytes for what requests, answers and streams hold; beyond it
    RESOURCE_EXHAUSTED with a delay. Setting: budget_bytes.
    """

    threat = Threat(
        "40 requests of 386 bytes for answers of 32 MiB that are never read",
        "the byte budget; beyond it RESOURCE_EXHAUSTED with a delay, near the memory limit sooner",
        ("memory_budget_bytes", "stall_seconds"),
    )

    def test_of_tensors(self, attacked, attacks):
        calls, rows = attacks.amount(12, 40), attacks.amount(64, 128)
        # Of so many tokens with 185 labels each: 128 rows are 16 MiB an output, of which are two.
        request = tensors_of("pos", rows, 170).SerializeToString()
        with attacked(seconds=30, **limits(attacks)) as (service, _), Raw(service) as unread:
            before = service.metrics()
            for _ in range(calls):
                unread.call(f"{INFERENCE}/ModelInfer", request, zipped=True)

            def codes():
                unread.pump(0.2)
                since = service.metrics().since(before)
                return since.by("unroll_requests_total", "code", method="ModelInfer")

            # OK is counted once an answer is there, whether or not it is ever read.
            assert wait_until(lambda: sum(codes().values()) >= calls, 120)
            attacks.report(
                f"{calls} unread answers of {rows >> 2} MiB: {codes()}, "
                f"{service.usage.grown() / 1e6:+.0f} MB at the peak"
            )
            assert codes()["RESOURCE_EXHAUSTED"] > 0
            assert service.usage.grown() < attacks.amount(280, 600) * MEBIBYTE


class TestLongNames:
    """Ids and names as large as a message may be, which the service keeps or sends back.

    Bound: 1,024 bytes or less, refused by name beyond. Setting: none.
    """

    threat = Threat(
        "a sequence_id or a request id of 1 MB, kept or sent back with each token",
        "INVALID_ARGUMENT that names it",
        ("max_sequences",),
    )
    LONG = "x" * 900_000

    def test_of_sequences(self, attacked, attacks):
        calls = attacks.amount(40, 172)

        async def step(channel, number):
            request = step_of("prose", sequence_start=True, sequence_id=f"{number}{self.LONG}")
            return await call(channel, f"{INFERENCE}/ModelInfer", request)

        with attacked(**limits(attacks)) as (service, _):
            outcomes = asyncio.run(at_once(service, calls, step, side_by_side=2))
            attacks.report(
                f"{calls} sequence ids of 900 KB: {counted(outcomes)}, "
                f"{service.usage.grown() / 1e6:+.0f} MB at the peak"
            )
            assert counted(outcomes) == {"INVALID_ARGUMENT": calls}
            assert all("sequence_id" in outcome.details for outcome in outcomes)
            assert service.usage.grown() < 60 * MEBIBYTE

    def test_of_requests(self, attacked, attacks):
        request = inference.ModelInferRequest(model_name="prose", id=self.LONG)
        tensor = request.inputs.add(name="prompt", datatype="BYTES", shape=(1,))
        tensor.contents.bytes_contents.append(b"In the")
        request.parameters["max_tokens"].int64_param = 2000
        with (
            attacked(seconds=20, **limits(attacks)) as (service, _),
            Raw(service, window=2**20, reads=True) as caller,
        ):
            number = caller.call(f"{INFERENCE}/ModelStreamInfer", request)
            caller.pump(5, caller.all_ended)
            answer = caller.answers[number]
            attacks.report(f"a request id of 900 KB: {answer.length / 1e6:.1f} MB sent back")
            # Once at most, in the refusal of that request.
            assert answer.length < 2 * MEBIBYTE


class TestUnreadTags:
    """Streams of tags that are sent 131,072 words in a message, and never read.

    Bound: what is pushed is counted before it is stored; the rest waits at the caller's or is
    refused. Setting: memory_budget_bytes, max_message_bytes.
    """

    threat = Threat(
        "100 StreamTag calls of 131,072 words a message, never read",
        "words are counted before they are kept; what is beyond waits or is refused",
        ("memory_budget_bytes", "max_message_bytes"),
    )

    def test_keep_few_words(self, attacked, attacks):
        calls = attacks.amount(25, 100)
        start = pb.StreamTagRequest(start=pb.StreamTagStart(model="pos-online", top_labels=20))
        words = pb.StreamTagRequest(words=pb.Words(words=["the", "old", "man", "b"] * 32_768))
        with attacked(seconds=20, **limits(attacks)) as (service, _), Raw(service) as unread:
            for _ in range(calls):
                unread.call(f"{UNROLL}/StreamTag", start, words, end=False, seconds=3.0)
            unread.pump(2)
            attacks.report(
                f"{calls} x 131,072 unread words: {service.usage.grown() / 1e6:+.0f} MB at the peak"
            )
            assert service.usage.grown() < 100 * MEBIBYTE


@pytest.mark.attacks
class TestUnreadRefusals:
    """Requests of a megabyte that are refused in their stream, and whose refusals nobody reads.

    Bound: a refusal keeps nothing of its request. Setting: max_message_bytes.
    """

    threat = Threat(
        "100 ModelStreamInfer calls of three refused megabytes each, never read",
        "a refusal that waits for its reader keeps nothing of its request",
        ("max_message_bytes",),
    )

    def test_keep_nothing_of_their_requests(self, attacked, attacks):
        request = inference.ModelInferRequest(
            model_name="pos.tensors", raw_input_contents=[bytes(2**20 - 64)]
        )
        how = limits(attacks)
        with attacked(seconds=20, **how) as (service, _), Raw(service) as unread:
            for _ in range(attacks.amount(40, 100)):
                unread.call(f"{INFERENCE}/ModelStreamInfer", *[request] * 3, end=False, seconds=3.0)
            unread.pump(1)
            assert service.usage.grown() < 100 * MEBIBYTE


class TestUnreadStreams:
    """Streams that nobody reads, as many as an engine takes.

    Bound: streams that are behind give up their place first: others are served. Setting:
    stall_seconds.
    """

    threat = Threat(
        "75 Generates with 64 samples each, never read: all the work that an engine takes",
        "unread streams give up their place first; others are served meanwhile",
        ("stall_seconds", "max_queue"),
    )

    def test_give_up_their_place(self, attacked, attacks):
        # With the usual limits, 68 calls of 64 samples take all that the engine takes.
        calls = attacks.amount(5, 75)
        request = pb.GenerateRequest(model="prose", prompt="In the", max_tokens=8000, samples=64)
        polite = pb.GenerateRequest(model="prose", prompt="In the", max_tokens=20)

        async def call_politely(channel, _):
            return await call(channel, f"{UNROLL}/Generate", polite, streams=True, timeout=30)

        with attacked(seconds=80, **limits(attacks)) as (service, witness), Raw(service) as unread:
            for _ in range(calls):
                unread.call(f"{UNROLL}/Generate", request)
                unread.pump(0.01)
            # Each call fills its buffers first, some 2,500 tokens.
            assert wait_until(lambda: self._all_wait_for_readers(service, unread), 75)
            witness.report()  # while they were read ahead, their prompts and rows were work
            outcomes = asyncio.run(at_once(service, 20, call_politely, side_by_side=2))
            attacks.report(f"behind {calls} x 64 unread streams: {counted(outcomes)}")
            assert counted(outcomes) == {"OK": 20}

    @staticmethod
    def _all_wait_for_readers(service, unread):
        """All that the engine holds, but for the witness's own, is behind its reader.

        How many of the calls those are differs: on a slow machine the first of them are behind,
        and give up their places, before the last of them come.
        """
        unread.pump(0.05)
        page = service.metrics()
        paused = page.sum("unroll_paused_streams", model="prose")
        return 0 <= page.sum("unroll_engine_work", model="prose") - paused <= 4 and paused >= 64


class TestManySequences:
    """Sequences that are begun and left: more than may be stored.

    Bound: max_sequences a model and the byte budget; each ends when it has been silent.
    """

    threat = Threat(
        "sequences that are begun and left, by the thousand",
        "beyond the limit RESOURCE_EXHAUSTED; those that are silent end",
        ("max_sequences", "sequence_idle_seconds"),
    )

    def test_are_bounded(self, attacked, attacks):
        calls = attacks.amount(100, 3_000)

        async def step(channel, number):
            request = step_of("prose", sequence_start=True, sequence_id=f"of {number}")
            return await call(channel, f"{INFERENCE}/ModelInfer", request)

        with attacked(**SEQUENCES | limits(attacks)) as (service, _):
            outcomes = asyncio.run(at_once(service, calls, step, side_by_side=4))
            refused = [o for o in outcomes if o.status != "OK"]
            assert 0 < len(refused) < calls, counted(outcomes)
            assert all(o.status == "RESOURCE_EXHAUSTED" for o in refused)
            assert all(map(is_refusal_with_a_delay, refused))


class TestManyPrompts:
    """Prompts that nobody sent before, beside a caller whose own one is in the prefix cache.

    Bound: the cache's bytes. What is used least recently goes first, whoever's it is, so a prompt
    in use stays. Settings: prefix_cache_bytes, prefix_cache_scope.
    """

    threat = Threat(
        "thousands of new prompts, beside a caller whose own one is in the prefix cache",
        "the cache keeps to its bytes, least recently used first: a prompt in use stays; nobody "
        "finds another's",
        ("prefix_cache_bytes", "prefix_cache_scope"),
    )
    OWN = "In the beginning was the word, and nobody else has sent it before. "
    EACH = 40  # new prompts between two of the other caller's; the cache holds some hundred

    def test_leave_one_in_use_where_it_is(self, attacked, attacks):
        calls = attacks.amount(240, 4_000)

        async def generate(channel, service, who, prompt):
            request = pb.GenerateRequest(model="prose", prompt=prompt, max_tokens=4)
            request.sampling.seed = 7
            return await call(
                channel, f"{UNROLL}/Generate", request, token=service.tokens[who], streams=True
            )

        with attacked(**KEPT) as (service, _):

            async def one_new(channel, number):
                return await generate(channel, service, "eve", _of_letters(number))

            def send(who):
                (outcome,) = asyncio.run(
                    at_once(
                        service, 1, lambda channel, _: generate(channel, service, who, self.OWN)
                    )
                )
                answer = pb.GenerateResponse.FromString(outcome.answer)
                return [token.id for token in answer.tokens], answer.usage.cached_tokens

            before = service.metrics()
            first, cached = send("ann")
            assert cached == 0
            assert send("eve") == (first, 0), "another's prompt is not known to her"
            for begin in range(0, calls, self.EACH):
                outcomes = asyncio.run(
                    at_once(
                        service,
                        self.EACH,
                        lambda channel, number, begin=begin: one_new(channel, begin + number),
                        side_by_side=4,
                    )
                )
                assert counted(outcomes) == {"OK": self.EACH}
                assert send("ann") == (first, len(self.OWN) - 1)
                assert service.metrics().sum("unroll_prefix_cache_bytes") <= MEBIBYTE
            evicted = service.metrics().since(before).sum("unroll_prefix_cache_evictions_total")
            attacks.report(
                f"{calls} new prompts: {evicted:.0f} states evicted, "
                f"{service.usage.grown() / 1e6:+.0f} MB at the peak"
            )
            assert evicted > calls / 3
            assert service.usage.grown() < 60 * MEBIBYTE


class TestManyStates:
    """Named states that are created without end, and never deleted.

    Bound: max_states of each caller, and the byte budget; each ends with its time. Settings:
    max_states, state_seconds.
    """

    threat = Threat(
        "named states, created by the thousand and never deleted",
        "so many of each caller, then RESOURCE_EXHAUSTED with a delay before anything is read; "
        "their bytes are back when their time is over",
        ("max_states", "state_seconds", "memory_budget_bytes"),
    )

    def test_are_so_many_of_a_caller_and_end(self, attacked, attacks):
        calls = attacks.amount(200, 5_000)

        async def create(channel, service, who, name):
            request = pb.CreateStateRequest(
                name=name, model="prose", prompt=_of_letters(0) * 4, ttl_seconds=4
            )
            return await call(channel, f"{UNROLL}/CreateState", request, token=service.tokens[who])

        with attacked(**KEPT) as (service, _):

            async def of_eve(channel, number):
                return await create(channel, service, "eve", f"state-{number}")

            outcomes = asyncio.run(at_once(service, calls, of_eve, side_by_side=4))
            refused = [outcome for outcome in outcomes if outcome.status != "OK"]
            (other,) = asyncio.run(
                at_once(service, 1, lambda channel, _: create(channel, service, "ann", "own"))
            )
            held = service.metrics().sum("unroll_named_states")
            attacks.report(
                f"{calls} named states: {counted(outcomes)}, {held:.0f} held, "
                f"{service.usage.grown() / 1e6:+.0f} MB at the peak"
            )
            assert len(refused) < calls
            assert refused
            assert all(map(is_refusal_with_a_delay, refused))
            assert other.status == "OK", "another caller's are counted by themselves"
            assert held <= KEPT["max_states"] + 1
            assert service.usage.grown() < 60 * MEBIBYTE
            # Nobody asks for them meanwhile; that their bytes are back is checked after this.
            assert wait_until(lambda: not service.metrics().sum("unroll_named_states"), 20)


def _of_letters(number: int) -> str:
    """72 letters, of each number others."""
    return "".join(chr(ord("a") + number // 26**place % 26) for place in range(3)) * 24


@pytest.mark.attacks
class TestLeavingCallers:
    """Callers that begin calls of every kind and leave, again and again.

    Bound: a call's rows, bytes and place go with it. Setting: none.
    """

    threat = Threat(
        "5,000 calls whose callers leave at any moment, with resets",
        "rows, places and bytes are back at once; no call is left over",
        ("max_calls_per_connection",),
    )

    def test_take_everything_with_them(self, attacked, attacks):
        generate = pb.GenerateRequest(model="prose", prompt="In the", max_tokens=500)
        start = pb.StreamTagRequest(start=pb.StreamTagStart(model="pos-online"))
        words = pb.StreamTagRequest(words=pb.Words(words=["the"] * 50))
        tag = pb.TagRequest(model="pos", items=[pb.TagItem(text="the old man the boat")])
        kinds = [
            (f"{UNROLL}/Generate", (generate,)),
            (f"{UNROLL}/StreamTag", (start, words)),
            (f"{UNROLL}/Tag", (tag,)),
            (f"{INFERENCE}/ModelStreamInfer", (tensors_of("pos", 2, 5),)),
        ]
        with attacked(seconds=30) as (service, _):
            for round_ in range(50):
                with Raw(service, window=65535 * (round_ % 2), reads=True) as caller:
                    for number in range(100):
                        method, requests = kinds[number % len(kinds)]
                        call = caller.call(method, *requests, end=number % 3 > 0)
                        caller.pump(0.001)
                        if number % 2 and not caller.answers[call].ended:
                            caller.reset(call)
