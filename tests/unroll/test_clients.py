"""Both clients over a wire: a stream whose server breaks goes on, one that is closed ends."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import queue
import threading
import time
from contextlib import aclosing

import grpc
import pytest

from tests.unroll.fakes import Act, FakeServer, label
from unroll import AsyncClient, Client, RequestFailed, Retries, Sampling, clients
from unroll.tag_streams import to_tag_chunk
from unroll.v1 import unroll_pb2 as pb

RETRIES = Retries(attempts=4, first_seconds=0.01, longest_seconds=0.05)
REQUEST = {"prompt": "abc", "max_tokens": 33, "resume_every": 8, "sampling": Sampling(seed=5)}
BREAKS, HANDS_OVER = Act(breaks_after=5), Act(hands_over_after=7)


@pytest.fixture
def start():
    servers = []

    def start(*acts):
        servers.append(FakeServer(list(acts)))
        return servers[-1]

    yield start
    for server in servers:
        server.stop()


def synchronously(target, method, *arguments, timeout=20, **options):
    with Client(target, timeout, retries=RETRIES) as client:
        return list(getattr(client, method)("m", *arguments, **options))


def asynchronously(target, method, *arguments, timeout=20, **options):
    async def later(parts):
        for part in parts:
            yield part

    async def run():
        async with AsyncClient(target, timeout, retries=RETRIES) as client:
            chunks = getattr(client, method)("m", *map(later, arguments), **options)
            return [chunk async for chunk in chunks]

    return asyncio.run(run())


@pytest.fixture(params=[synchronously, asynchronously])
def call(request):
    return request.param


def tokens_of(chunks):
    return [token for chunk in chunks for token in chunk.tokens]


@pytest.mark.parametrize("samples", [1, 3])
def test_a_stream_goes_on_where_servers_break_and_hand_over(start, call, samples):
    server = start()
    options = REQUEST | {"samples": samples, "log_probabilities": True}
    whole = call(server.target, "generate", **options)
    server.acts += [BREAKS, HANDS_OVER, BREAKS]
    chunks = call(server.target, "generate", **options)
    by_place = [sorted(tokens_of(p), key=lambda t: (t.sample, t.position)) for p in (chunks, whole)]
    assert by_place[0] == by_place[1]
    assert [chunk.seed for chunk in chunks if chunk.seed is not None] == [5]
    assert chunks[-1].answer.output_tokens == whole[-1].answer.output_tokens


class Stuck(FakeServer):
    """Says nothing more after some messages, for as long as it is there."""

    def Generate(self, request, context):
        yield from itertools.islice(super().Generate(request, context), 11)
        self.stuck.set()
        while context.is_active():
            time.sleep(0.01)


def test_it_goes_on_at_another_server(start, call):
    """The first one is gone in the midst of a stream."""
    first, second = Stuck(), start()
    first.stuck = threading.Event()
    stopping = threading.Thread(target=lambda: (first.stuck.wait(20), first.stop()))
    stopping.start()
    while not first.calls:
        chunks = call(f"{first.target},{second.target}", "generate", **REQUEST)
        assert [token.position for token in tokens_of(chunks)] == list(range(33))
    stopping.join(20)
    assert '"made": 8' in second.requests[-1].resume_token.decode()


def test_words_go_on_too(start, call):
    server = start(Act(breaks_after=4), Act(hands_over_after=3))
    words = [f"w{n}" for n in range(20)]
    tokens = tokens_of(
        call(server.target, "stream_tag", [[word] for word in words], resume_every=3)
    )
    befores = ["", *words]
    assert [t.label for t in tokens] == [label(w, b) for w, b in zip(words, befores, strict=False)]
    assert server.calls == 3


def test_without_failover_it_ends_as_the_server_ends_it(start, call):
    server = start(BREAKS, HANDS_OVER, BREAKS, Act(hands_over_after=2))
    with pytest.raises(RequestFailed, match="UNAVAILABLE"):
        call(server.target, "generate", failover=False, **REQUEST)
    (*_, last) = call(server.target, "generate", failover=False, **REQUEST)
    assert last.answer.reason == "handed_over"
    assert last.resume_points[-1].next_position == 7
    with pytest.raises(RequestFailed, match="UNAVAILABLE"):
        call(server.target, "stream_tag", ["a"] * 9, failover=False)
    (*_, last) = call(server.target, "stream_tag", ["a b"] * 9, failover=False)
    assert (last.end.handed_over, last.end.requests_read, last.end.tokens) == (True, 2, 4)
    assert [request.resume_every for request in server.requests[:2]] == [8, 8]


REFUSES = Act(breaks_after=5, code="INVALID_ARGUMENT", message="a word is empty; send none")


@pytest.mark.parametrize("act", [HANDS_OVER, BREAKS, REFUSES])
def test_what_is_sent_while_the_server_ends_hides_no_answer_and_no_reason(start, act):
    """gRPC then puts an error of its own in the place of the status, now and then."""
    server = start()

    async def words():
        for _ in range(50):
            yield ["a"]
            await asyncio.sleep(0)

    async def read():
        chunks, failure = [], ""
        async with AsyncClient(server.target, 20, retries=RETRIES) as client:
            try:
                async for chunk in client.stream_tag("m", words(), failover=False):
                    chunks.append(chunk)
            except RequestFailed as failed:
                failure = str(failed)
        return len(chunks), chunks[-1].end is not None, failure

    reason = f"{act.code}: {act.message}"
    expected = (8, True, "") if act is HANDS_OVER else (5, False, reason)
    for _ in range(60):
        server.acts = [act]
        assert asyncio.run(read()) == expected


@pytest.mark.parametrize(
    ("ended", "code", "details", "expected"),
    [
        (True, "INTERNAL", "Internal error from Core", None),
        (False, "INTERNAL", "Internal error from Core", "UNAVAILABLE: .* did not keep its reason"),
        (True, "INTERNAL", "it broke", "INTERNAL: it broke"),
        (False, "RESOURCE_EXHAUSTED", "later", "RESOURCE_EXHAUSTED: later"),
    ],
)
def test_a_last_message_stands_for_a_status_that_was_lost(ended, code, details, expected):
    class Ended:
        def __init__(self):
            self.is_cancelled = False

        def cancel(self):
            self.is_cancelled = True

        def add_done_callback(self, callback):
            """Nobody sets a status that is not lost."""

        async def __aiter__(self):
            yield pb.StreamTagResponse(tokens=[pb.TaggedToken(text="a", label="x")])
            if ended:
                yield pb.StreamTagResponse(usage=pb.Usage(output_tokens=1))
            status, none = grpc.StatusCode[code], grpc.aio.Metadata()
            raise grpc.aio.AioRpcError(status, none, none, details)

    call, chunks = Ended(), []

    async def read():
        read = clients._answers_of(call, to_tag_chunk, lambda chunk: chunk.end is not None)
        async for chunk in read:
            chunks.append(chunk)

    with pytest.raises(RequestFailed, match=expected) if expected else contextlib.nullcontext():
        asyncio.run(read())
    assert [chunk.end is not None for chunk in chunks] == ([False, True] if ended else [False])
    assert call.is_cancelled


def test_what_is_given_up_fails_with_the_last_reason(start, call):
    server = start(BREAKS, *[Act(breaks_after=0, message="gone for good")] * 9)
    with pytest.raises(RequestFailed, match="UNAVAILABLE: gone for good"):
        call(server.target, "generate", **REQUEST)
    assert server.calls == 4


def test_the_deadline_is_that_of_all_calls(start, call):
    server = start(*[Act(breaks_after=5, refuses="")] * 2, *[Act(breaks_after=0)] * 50)
    started = time.monotonic()
    with pytest.raises(RequestFailed, match=r"DEADLINE_EXCEEDED|UNAVAILABLE"):
        call(server.target, "generate", timeout=0.05, **REQUEST)
    assert time.monotonic() - started < 10


def test_a_refusal_says_when_to_come_back(start, call):
    server = start(Act(refuses="RESOURCE_EXHAUSTED", retry_after_seconds=80.5))
    with pytest.raises(RequestFailed) as refused:
        call(server.target, "generate", **REQUEST)
    assert refused.value.retry_after_seconds == 80.5
    assert server.calls == 1


def test_what_was_not_begun_is_tried_again_when_the_server_says(start, call):
    server = start(Act(refuses="RESOURCE_EXHAUSTED", retry_after_seconds=0.02), Act())
    chunks = call(server.target, "generate", **REQUEST)
    assert server.calls == 2
    assert chunks


def test_a_stream_that_was_carried_on_and_closed_leaves_no_call_behind(start):
    ended = []

    class Endless(FakeServer):
        def Generate(self, request, context):
            context.add_callback(lambda: ended.append(request))
            yield from super().Generate(request, context)
            while context.is_active():
                time.sleep(0.01)

    async def close_early():
        async with (
            AsyncClient(server.target, 20, retries=RETRIES) as client,
            aclosing(client.generate("m", **REQUEST)) as chunks,
        ):
            async for chunk in chunks:
                if chunk.tokens[0].position == 9:
                    break

    server = Endless([BREAKS, Act(), BREAKS])
    with Client(server.target, 20, retries=RETRIES) as client:
        stream = client.generate("m", **REQUEST)
        while next(stream).tokens[0].position != 9:
            pass
        stream.close()
        wait_until(lambda: len(ended) == 2)
    asyncio.run(close_early())
    wait_until(lambda: len(ended) == 4)
    server.stop()


ENDS = [Act(breaks_after=1), Act(hands_over_after=1)]


@pytest.mark.parametrize("act", ENDS, ids=["breaks", "hands over"])
def test_a_word_that_comes_while_the_server_ends_is_not_lost(start, act):
    """The call that ended was waiting for it."""
    server = start(act)
    words = queue.Queue()
    with Client(server.target, 20, retries=RETRIES) as client:
        chunks = client.stream_tag("m", iter(words.get, None))
        words.put(["a"])
        words.put(["b"])
        tokens = tokens_of([next(chunks), next(chunks)])
        words.put(["c"])
        tokens += tokens_of([next(chunks)])
        words.put(None)
        rest = list(chunks)
    assert [token.text for token in tokens] == ["a", "b", "c"]
    assert rest[-1].end.tokens == 3


@pytest.mark.parametrize("act", ENDS, ids=["breaks", "hands over"])
def test_a_word_that_is_awaited_while_the_server_ends_is_not_lost(start, act):
    server = start(act)

    async def run():
        words = asyncio.Queue()

        async def parts():
            while (word := await words.get()) is not None:
                yield [word]

        async with AsyncClient(server.target, 20, retries=RETRIES) as client:
            chunks = client.stream_tag("m", parts())
            words.put_nowait("a")
            words.put_nowait("b")
            tokens = tokens_of([await anext(chunks), await anext(chunks)])
            words.put_nowait("c")
            tokens += tokens_of([await anext(chunks)])
            words.put_nowait(None)
            return tokens, [chunk async for chunk in chunks]

    tokens, rest = asyncio.run(run())
    assert [token.text for token in tokens] == ["a", "b", "c"]
    assert rest[-1].end.tokens == 3


def test_what_a_callers_words_raise_is_raised_once_all_before_are_answered(start, call):
    server = start(Act(breaks_after=1))

    def words():
        yield from (["a"], ["b"])
        raise LookupError("the caller's own")

    with pytest.raises(LookupError, match="the caller's own"):
        call(server.target, "stream_tag", words())
    assert server.calls == 2


def wait_until(condition, seconds=10.0):
    until = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < until, "it did not come to pass in time"
        time.sleep(0.01)
