import asyncio

import pytest

from service.engine.errors import EngineFailed
from service.engine.requests import (
    Checkpoint,
    Failed,
    Finished,
    FinishReason,
    TokenMade,
    TokensMade,
)
from service.serving.coalescing import Coalescer
from service.serving.output_stream import FULL, Dispatcher, TokenStream

END = Finished(FinishReason.LENGTH, 1, 1, 0.0, 0.0)


def made(position):
    return TokenMade(1, "a", position, -1.0)


class Thread:
    """What a stream needs of an engine's thread."""

    are_buffers_small = False

    def __init__(self):
        self.coalescer = Coalescer(0.0)
        self.resumed, self.released = [], []
        self.messages = []
        self.now = 0.0

    def clock(self):
        return self.now

    def submit(self, request, sink, size):
        return request

    def resume(self, work):
        self.resumed.append(work)

    def release(self, work, has_ended=False):
        self.released.append(work)

    def count_message(self, tokens):
        self.messages.append(tokens)


@pytest.fixture
def thread():
    return Thread()


def feed(stream, *events):
    """As an engine and its hand do it; returns whether the reader was woken."""
    for event in events:
        stream.put(event)
    due = stream.is_due
    if due:
        stream.wake()
    return due


async def messages(stream):
    return [[getattr(e, "position", "end") for e in events] async for events in stream]


def test_the_first_token_and_the_end_wait_for_no_other(thread):
    async def run():
        stream = TokenStream.open(thread, "r", tokens_per_message=4)
        reader = asyncio.ensure_future(messages(stream))
        assert feed(stream, made(0))
        await asyncio.sleep(0)
        woken = [feed(stream, made(n)) for n in range(1, 5)]
        assert woken == [False, False, False, True]
        await asyncio.sleep(0)
        assert not feed(stream, made(5))
        assert feed(stream, made(6), END)
        return await reader

    assert asyncio.run(run()) == [[0], [1, 2, 3, 4], [5, 6, "end"]]
    assert thread.messages == [1, 4, 2]


def test_one_token_a_message_can_be_forced(thread):
    """However many have gathered; what ends a stream goes with its last token."""

    async def run():
        stream = TokenStream.open(thread, "r", tokens_per_message=1)
        feed(stream, made(0), made(1), made(2), END)
        return await messages(stream)

    assert asyncio.run(run()) == [[0], [1], [2, "end"]]


def test_the_pace_of_the_engine_decides_otherwise(thread):
    async def run():
        stream = TokenStream.open(thread, "r")
        reader = asyncio.ensure_future(messages(stream))
        feed(stream, made(0))
        await asyncio.sleep(0)
        thread.coalescer.tokens_per_message = 3
        assert [feed(stream, made(n)) for n in (1, 2, 3)] == [False, False, True]
        await asyncio.sleep(0)
        feed(stream, END)
        return await reader

    assert asyncio.run(run()) == [[0], [1, 2, 3], ["end"]]


def test_a_full_stream_is_resumed_once_it_is_read(thread):
    async def run():
        stream = TokenStream.open(thread, "r")
        feed(stream, *(made(n) for n in range(FULL - 1)))
        assert not stream.mark_if_full()
        feed(stream, made(FULL - 1))
        assert stream.mark_if_full()
        reader = asyncio.ensure_future(messages(stream))
        while not thread.resumed:
            await asyncio.sleep(0)
        assert not stream.mark_if_full()
        feed(stream, END)
        return await reader

    assert asyncio.run(run()) == [list(range(FULL)), ["end"]]
    assert thread.resumed == ["r"]


def test_a_stream_that_fills_up_after_it_was_read_empty_is_resumed_too(thread):
    """The engine finds it full after the reader's last look: the wake that follows resumes it."""

    async def run():
        stream = TokenStream.open(thread, "r")
        reader = asyncio.ensure_future(messages(stream))
        for number in range(FULL):
            stream.put(made(number))
        stream.wake()
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        stream._was_full = True  # what mark_if_full() notes, had the engine asked just before
        assert feed(stream)
        while not thread.resumed:
            await asyncio.sleep(0)
        feed(stream, END)
        await reader

    asyncio.run(run())


def test_a_given_up_request_raises_its_error(thread):
    async def run():
        stream = TokenStream.open(thread, "r")
        feed(stream, made(0), Failed(EngineFailed("broken")))
        await messages(stream)

    with pytest.raises(EngineFailed, match="broken"):
        asyncio.run(run())


def test_closing_releases_once(thread):
    async def run():
        stream = TokenStream.open(thread, "r", size=3)
        stream.close()
        stream.close()

    asyncio.run(run())
    assert thread.released == ["r"]


def put_tokens(stream, first, count):
    for position in range(first, first + count):
        stream.put(TokenMade(1, "a", position, -1.0))


async def next_message(messages):
    """The next message, or a future of it while nothing is due."""
    asked = asyncio.ensure_future(anext(messages))
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    if not asked.done():
        return asked
    return asked.result()


@pytest.mark.parametrize("gathered", [7, 8, 9])
def test_a_reader_that_lags_gets_whole_messages(gathered):
    """What gathered beyond whole messages waits for its message to become whole."""

    async def read():
        stream = TokenStream(Coalescer(0.0), tokens_per_message=3)
        put_tokens(stream, 0, gathered)
        stream.wake()
        messages = aiter(stream)
        sizes = [len(await next_message(messages)) for _ in range(gathered // 3)]
        waiting = await next_message(messages)
        assert isinstance(waiting, asyncio.Future), "nothing is due"
        put_tokens(stream, gathered, 3 - gathered % 3)
        assert stream.is_due
        stream.wake()
        return [*sizes, len(await waiting)]

    assert asyncio.run(read()) == [3] * (gathered // 3 + 1)


def test_what_is_no_token_waits_for_no_other():
    """A checkpoint or an end that lies behind a whole message follows it at once."""

    async def read():
        stream = TokenStream(Coalescer(0.0), tokens_per_message=3)
        put_tokens(stream, 0, 4)
        stream.put(Checkpoint(0, None))
        put_tokens(stream, 4, 1)
        stream.put(END)
        stream.wake()
        return [len(events) async for events in stream]

    assert asyncio.run(read()) == [3, 4]


@pytest.mark.parametrize("tokens_per_message", [0, 1, 3, 100, 250, 256, 1000])
def test_a_full_stream_goes_on_once_it_was_read(thread, tokens_per_message):
    """However many tokens a message should hold: what paused is read out, and goes on."""

    async def read():
        stream = TokenStream(Coalescer(0.0), tokens_per_message)
        stream._thread = thread
        position = 0
        while not stream.mark_if_full():
            put_tokens(stream, position, 1)
            position += 1
        assert stream.is_due
        stream.wake()
        messages = aiter(stream)
        while not thread.resumed:
            last = await next_message(messages)
        assert len(thread.resumed) == 1
        if isinstance(last, asyncio.Future):
            last.cancel()

    asyncio.run(read())


# -- past the reader ----------------------------------------------------------------------------


class Direct:
    """A DirectWriter. has: messages that it takes before it has no room."""

    def __init__(self, has=1000):
        self.has, self.written = has, []

    def has_room(self):
        return self.has > 0

    def write(self, tokens):
        self.has -= 1
        one_by_one = [
            made
            for event in tokens
            for made in (event.one_by_one() if type(event) is TokensMade else [event])
        ]
        self.written.append([made.position for made in one_by_one])


async def read_all(stream, into):
    async for events in stream:
        into.append([getattr(event, "position", "end") for event in events])


async def settle():
    for _ in range(5):
        await asyncio.sleep(0)


async def begun(thread, direct, tokens_per_message=0):
    """A stream whose first token its reader got; what else the reader gets, and its task."""
    stream, got = TokenStream(thread.coalescer, tokens_per_message), []
    stream._thread = thread
    stream.write_through(direct)
    reading = asyncio.ensure_future(read_all(stream, got))
    await settle()
    feed(stream, made(0))
    await settle()
    return stream, got, reading


def test_tokens_pass_the_reader_by_and_what_is_none_does_not(thread):
    async def run():
        direct = Direct()
        stream, got, reading = await begun(thread, direct)
        assert (got, direct.written) == ([[0]], [])
        feed(stream, made(1))
        feed(stream, made(2), made(3))
        assert direct.written == [[1], [2, 3]]
        feed(stream, made(4), END)
        await reading
        assert (got, direct.written[2:]) == ([[0], [4, "end"]], [])
        assert thread.messages == [1, 1, 2, 1]

    asyncio.run(run())


def test_a_first_token_leaves_before_the_tokens_of_others(thread):
    """Its reader is a task, and theirs is none."""

    async def run():
        written = []

        class Noting(Direct):
            def write(self, tokens):
                written.append("other")

        others = [await begun(thread, Noting()) for _ in range(3)]
        newcomer = TokenStream(thread.coalescer, 0)

        async def first():
            async for _ in newcomer:
                written.append("first")

        readers = [asyncio.ensure_future(first()), *(reading for _, _, reading in others)]
        await settle()
        streams = [*(stream for stream, _, _ in others), newcomer]
        for stream in streams:
            stream.put(made(1))
        Dispatcher(asyncio.get_running_loop()).deliver(streams)
        await settle()
        assert written == ["first", "other", "other", "other"]
        for reader in readers:
            reader.cancel()

    asyncio.run(run())


def test_a_stream_that_is_paused_while_its_tokens_are_taken_goes_on(thread):
    """Its engine has found too many; by the time that it pauses the stream they are gone."""

    async def run():
        stream, _, reading = await begun(thread, Direct())
        feed(stream, made(1))
        stream._was_full = True  # the last that mark_if_full() does
        stream.wake()  # after the step in which it was paused
        assert thread.resumed == [stream.work]
        reading.cancel()

    asyncio.run(run())


def test_the_reader_takes_over_where_there_is_no_room_and_nothing_is_lost(thread):
    async def run():
        direct = Direct(has=1)
        stream, got, reading = await begun(thread, direct)
        for position in range(1, 5):
            feed(stream, made(position))
            await settle()
        direct.has = 1
        feed(stream, made(5))
        feed(stream, made(6), END)
        await reading
        assert direct.written == [[1], [5]]
        assert got == [[0], [2], [3], [4], [6, "end"]]

    asyncio.run(run())


def test_what_comes_while_the_reader_writes_comes_after_it(thread):
    async def run():
        direct, hold, got = Direct(has=0), asyncio.Event(), []
        stream = TokenStream(thread.coalescer)
        stream._thread = thread
        stream.write_through(direct)

        async def read():
            async for events in stream:
                await hold.wait()  # for a caller that does not read
                direct.written.append([getattr(e, "position", "end") for e in events])

        reading = asyncio.ensure_future(read())
        await settle()
        feed(stream, made(0))
        await settle()
        direct.has = 10
        feed(stream, made(1))  # there is room, and an earlier message is not written yet
        await settle()
        assert (direct.written, got) == ([], [])
        hold.set()
        feed(stream, END)
        await reading
        assert [p for message in direct.written for p in message] == [0, 1, "end"]

    asyncio.run(run())


def test_past_the_reader_too_a_message_has_as_many_tokens_as_were_asked_for(thread):
    async def run():
        direct = Direct()
        stream, got, reading = await begun(thread, direct, tokens_per_message=3)
        feed(stream, made(1), made(2))
        await settle()
        assert (got, direct.written) == ([[0]], [])
        feed(stream, made(3), made(4))
        feed(stream, made(5), END)
        await reading
        assert direct.written == [[1, 2, 3]]
        assert got == [[0], [4, 5, "end"]]

    asyncio.run(run())


@pytest.mark.parametrize(
    ("size", "written", "left"), [(1, [[1], [2], [3]], []), (2, [[1, 2]], [3])]
)
def test_past_the_reader_whole_messages_that_wait_leave_together(thread, size, written, left):
    async def run():
        direct = Direct()
        stream, got, reading = await begun(thread, direct, tokens_per_message=size)
        feed(stream, made(1), made(2), made(3))
        assert direct.written == written
        feed(stream, END)
        await reading
        assert got == [[0], [*left, "end"]]

    asyncio.run(run())


def test_a_write_that_fails_ends_its_own_stream_and_no_later_token_is_written(thread):
    async def run():
        direct = Direct()
        stream, got, reading = await begun(thread, direct)
        direct.write = lambda tokens: 1 / 0
        feed(stream, made(1))
        del direct.write
        feed(stream, made(2))
        with pytest.raises(ZeroDivisionError):
            await reading
        assert (got, direct.written) == ([[0]], [])

    asyncio.run(run())


# -- several tokens in one event ---------------------------------------------------------------


def together(first, count):
    return TokensMade([1] * count, [-1.0] * count, first, 0, ["-", "a"])


def test_readers_get_one_event_a_token(thread):
    async def run():
        stream = TokenStream.open(thread, "r")
        feed(stream, made(0), together(1, 5), END)
        return [events async for events in stream]

    (events,) = asyncio.run(run())
    assert events == [*(made(position) for position in range(6)), END]
    assert thread.messages == [6]


@pytest.mark.parametrize("passes", [False, True])
def test_a_message_has_as_many_as_were_asked_for_however_they_come(thread, passes):
    async def run():
        direct = Direct(has=1000 if passes else 0)
        stream, got, reading = await begun(thread, direct, tokens_per_message=3)
        assert not feed(stream, together(1, 2))
        for event in (together(3, 5), together(8, 1), made(9), together(10, 1), together(11, 2)):
            feed(stream, event)
            await settle()
        feed(stream, END)
        await reading
        return direct.written, got

    written, got = asyncio.run(run())
    messages = [[1, 2, 3], [4, 5, 6], [7, 8, 9], [10, 11, 12]]
    assert bool(written) == passes
    assert got[0] == [0]
    assert sorted([*written, *got[1:-1]]) == messages
    assert thread.messages == [1, 3, 3, 3, 3]


def test_tokens_that_come_together_count_one_by_one(thread):
    async def run():
        stream = TokenStream.open(thread, "r")
        stream.put(together(1, FULL - 1))
        assert not stream.mark_if_full()
        stream.put(together(FULL, 1))
        assert stream.mark_if_full()
        assert stream.is_due

    asyncio.run(run())


def test_samples_share_what_a_message_holds(thread):
    """So many tokens of each sample at once as make a message together."""

    async def run():
        wanted = [(1, 1), (4, 1), (8, 4), (8, 16)]
        streams = [TokenStream.open(thread, "r", each, size) for each, size in wanted]
        return [stream.tokens_at_once for stream in streams]

    assert asyncio.run(run()) == [1, 4, 2, 1]
