"""What a reader gets of a stream's events, and when."""

import asyncio

import pytest

from service.engine.pacing import Pace
from service.engine.requests import Checkpoint, Finished, FinishReason, TokenMade
from service.engine.streams import FULL, TokenStream

END = Finished(FinishReason.LENGTH, 1, 0, 0.0, 0.0)


class Engine:
    """The thread that a stream tells that its reader has caught up."""

    def __init__(self):
        self.resumed = 0

    def resume(self, work):
        self.resumed += 1

    def release(self, work, size):
        pass


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
        stream = TokenStream(Pace(0.0), tokens_per_message=3)
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
        stream = TokenStream(Pace(0.0), tokens_per_message=3)
        put_tokens(stream, 0, 4)
        stream.put(Checkpoint(0, None))
        put_tokens(stream, 4, 1)
        stream.put(END)
        stream.wake()
        return [len(events) async for events in stream]

    assert asyncio.run(read()) == [3, 4]


@pytest.mark.parametrize("tokens_per_message", [0, 1, 3, 100, 250, 256, 1000])
def test_a_full_stream_goes_on_once_it_was_read(tokens_per_message):
    """However many tokens a message should hold: what paused is read out, and goes on."""

    async def read():
        stream = TokenStream(Pace(0.0), tokens_per_message)
        stream._thread = engine = Engine()
        put_tokens(stream, 0, FULL)
        assert stream.is_full
        assert stream.is_due
        stream.wake()
        messages = aiter(stream)
        while not engine.resumed:
            last = await next_message(messages)
        assert engine.resumed == 1
        if isinstance(last, asyncio.Future):
            last.cancel()

    asyncio.run(read())
