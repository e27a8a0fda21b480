import asyncio

import pytest

from bundle.tokenizer import Tokenizer
from bundle.vocabulary import Vocabulary
from service.access.memory_budget import MemoryBudget
from service.engine.errors import Overloaded, WrongInput
from service.engine.requests import ResumePolicy
from service.serving.coalescing import Coalescer
from service.serving.online_tagger import MOST_WAITING, TagStreamParams, TagStreams
from service.serving.resume_token import ResumeTokens
from tests.service.engine.fakes import card
from tests.service.engine.test_online_tagging import LABELS, make_engine

READER = Tokenizer("words", Vocabulary(("the", "man", "went")), lowercase=True)


class Thread:
    """An engine's thread whose steps are taken by hand."""

    are_buffers_small = False

    def __init__(self, engine):
        self.engine, self.coalescer = engine, Coalescer(0.0)
        self.released = 0

    def submit(self, request, sink, size):
        work = self.engine.open(request, sink)
        self.engine.arrive(work)
        return work

    def do(self, action, work):
        action(work)

    def resume(self, work):
        self.engine.resume(work)

    def clock(self):
        return 0.0

    def release(self, work, has_ended=False):
        self.released += 1
        self.engine.cancel(work)

    def count_message(self, tokens):
        pass

    def step(self):
        for sink in self.engine.step():
            if sink.is_due:
                sink.wake()

    def run(self):
        while not self.engine.is_idle:
            self.step()


@pytest.fixture
def streams():
    engine = make_engine()
    return TagStreams(
        card("pos", "tag", tuple(LABELS)), READER, engine, Thread(engine), ResumeTokens(),
        MemoryBudget(1 << 22), clock=engine.clock,
    )  # fmt: skip


async def settle():
    for _ in range(5):
        await asyncio.sleep(0)


def test_words_are_reported_as_they_were_sent_with_their_labels(streams):
    async def ask():
        stream = streams.open(TagStreamParams(top=2))
        await stream.push_text("The man, went")
        await stream.push(["zz top"])
        stream.close_input()
        streams.thread.run()
        messages = [message async for message in stream]
        stream.close()
        return stream, messages

    stream, messages = asyncio.run(ask())
    tokens = [token for message in messages for token in message.tokens]
    assert [t.text for t in tokens] == ["The", "man", ",", "went", "zz top"]
    assert all(t.top[0] == (t.label, t.probability) and len(t.top) == 2 for t in tokens)
    assert stream.unknown_symbols == 2
    assert messages[-1].finished.input_tokens == 5
    assert streams.thread.released == 1


def test_nothing_further_is_taken_while_much_waits_for_its_labels(streams):
    """Whoever pushes waits until enough was read, and not until all was."""

    async def ask():
        stream = streams.open(TagStreamParams())
        pushing = asyncio.ensure_future(stream.push(["the"] * MOST_WAITING))
        await settle()
        assert not pushing.done()
        streams.thread.run()
        await settle()
        assert not pushing.done(), "labelled, and not read"
        messages = aiter(stream)
        reported = len((await anext(messages)).tokens)
        await settle()
        assert pushing.done()
        assert stream.waiting == MOST_WAITING - reported > 0
        stream.close()

    asyncio.run(ask())


def test_what_has_nothing_to_say_is_no_message(streams):
    """That a stream has caught up wakes its reader, who has all of it already."""

    async def ask():
        stream = streams.open(TagStreamParams())
        found = []

        async def read():
            found.extend([message async for message in stream])

        reading = asyncio.ensure_future(read())
        for _ in range(3):
            await stream.push(["the"])
            streams.thread.run()
            await settle()
        stream.close_input()
        streams.thread.run()
        await reading
        stream.close()
        return found

    messages = asyncio.run(ask())
    assert [len(message.tokens) for message in messages] == [1, 1, 1, 0]
    assert messages[-1].finished


@pytest.mark.parametrize(
    ("params", "message"),
    [
        (TagStreamParams(top=21), "top_labels is 21; choose up to 20"),
        (TagStreamParams(tokens_per_message=1025), "tokens_per_message is 1025"),
        (TagStreamParams(checkpoints=ResumePolicy(15)), "resume_every is 15"),
    ],
)
def test_what_cannot_be_asked_is_refused(streams, params, message):
    with pytest.raises(WrongInput, match=message):
        streams.open(params)


def test_a_stream_that_finds_no_room_takes_no_place(streams):
    streams.budget.reserve("answers", streams.budget.limit)
    with pytest.raises(Overloaded):
        streams.open(TagStreamParams())
    assert not streams.engine.scheduler.everyone()
