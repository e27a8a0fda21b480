import asyncio

import pytest

from service.engine.dynamic_batcher import BatchEngine
from service.engine.errors import QueueFull, ReaderStalled
from service.engine.open_work import UNREAD_SECONDS, OpenWork
from service.engine.requests import TokenMade
from service.engine.shares import NOBODY, SHARE, Share
from service.serving.output_stream import FULL, ON_GIVEN_UP, TokenStream
from service.serving.worker import EngineThread
from tests.service.engine.fakes import Reader, make_engine, request

GREEDY, POLITE = Share("greedy"), Share("polite")


class Clock:
    def __init__(self):
        self.now = 100.0

    def __call__(self):
        return self.now


@pytest.fixture
def clock():
    return Clock()


class Sink(Reader):
    unread_since = None


def thread_of(engine, limit, clock):
    """A thread that is never started: what it is handed stays on the way."""
    return EngineThread("toy", "test", engine, limit, lambda sinks: None, lambda: None, clock=clock)


def submit(thread, share=NOBODY, size=1, sink=None, **options):
    token = SHARE.set(share)
    try:
        return thread.submit(request(**options), sink or Sink(), size)
    finally:
        SHARE.reset(token)


def step(thread):
    """What the thread does before and in a step."""
    while not thread._inbox.empty():
        for message in thread._inbox.get():
            thread._handle(message)
    return thread.engine.step()


# -- the limit is shared ---------------------------------------------------------------------------


def test_one_caller_alone_may_have_the_whole_limit(clock):
    thread = thread_of(make_engine(), 8, clock)
    for _ in range(8):
        submit(thread, GREEDY)
    with pytest.raises(QueueFull, match="takes 8, of which 8 are your share and 8 are yours"):
        submit(thread, GREEDY)


def test_a_caller_below_its_share_is_let_in_beyond_the_limit(clock):
    """Up to a quarter of the limit, for all such callers together."""
    thread = thread_of(make_engine(), 8, clock)
    for _ in range(8):
        submit(thread, GREEDY)
    kept = [submit(thread, POLITE), submit(thread, Share("another"))]
    with pytest.raises(QueueFull, match="of which 2 are your share and 1 are yours"):
        submit(thread, POLITE)
    thread.release(kept[0])
    with pytest.raises(QueueFull):
        submit(thread, GREEDY)
    submit(thread, POLITE)
    assert thread.open_work == 10


def test_shares_of_the_limit_follow_the_weights(clock):
    work = OpenWork(12, clock)
    work.open("a", Sink(), GREEDY, 12, 0.0)
    assert work.fair_size(Share("heavy", weight=3.0)) == 9.0
    assert work.fair_size(GREEDY) == 12.0
    work.open("b", Sink(), Share("heavy", weight=3.0), 1, 0.0)
    assert work.fair_size(GREEDY) == 3.0
    work.close("a")
    work.close("b")
    assert work.size == 0
    assert work.fair_size(POLITE) == 12.0


# -- unread streams give up their places first -----------------------------------------------------


async def unread(thread, share=GREEDY, size=1, on_given_up=None):
    """A stream that paused, and whose reader is writing what it got."""
    tokens = SHARE.set(share), ON_GIVEN_UP.set(on_given_up)
    stream = TokenStream.open(thread, request(max_tokens=10**6), size=size)
    SHARE.reset(tokens[0])
    ON_GIVEN_UP.reset(tokens[1])
    for position in range(2 * FULL * size):
        stream.put(TokenMade(1, "a", position, -1.0))
    assert stream.mark_if_full()
    stream.wake()
    messages = aiter(stream)
    await anext(messages)
    for position in range(2 * FULL * size):
        stream.put(TokenMade(1, "a", position, -1.0))
    assert stream.mark_if_full()
    return stream, messages


def test_unread_streams_give_up_their_places_the_longest_unread_first(clock):
    async def run():
        thread = thread_of(make_engine(), 4, clock)
        streams = []
        for _ in range(4):
            streams.append(await unread(thread))
            clock.now += 0.5
        submit(thread, POLITE)
        assert (thread.open_work, thread.given_up) == (4, 1)
        with pytest.raises(ReaderStalled, match=r"nothing was read for 2.0 s while others waited"):
            await anext(streams[0][1])
        for stream, _ in streams:
            stream.close()
        assert thread.open_work == 1, "each place is given back once"
        assert len(await asyncio.wait_for(anext(streams[1][1]), 5)) == FULL

    asyncio.run(run())


def test_a_reader_that_is_only_slow_keeps_its_place(clock):
    async def run():
        thread = thread_of(make_engine(), 1, clock)
        await unread(thread)
        clock.now += UNREAD_SECONDS - 0.1
        with pytest.raises(QueueFull):
            submit(thread, GREEDY)
        clock.now += 0.2
        with pytest.raises(QueueFull):
            submit(thread, GREEDY)  # it was looked through a moment ago
        clock.now += 0.2
        submit(thread, GREEDY)
        assert thread.given_up == 1

    asyncio.run(run())


def test_a_stream_that_waits_for_tokens_is_not_unread(clock):
    """Whoever has read all there is, is not behind, however long that was ago."""

    async def run():
        thread = thread_of(make_engine(), 1, clock)
        stream = TokenStream.open(thread, request())
        stream.put(TokenMade(1, "a", 0, -1.0))
        stream.wake()
        messages = aiter(stream)
        await anext(messages)
        waiting = asyncio.ensure_future(anext(messages))
        await asyncio.sleep(0)
        clock.now += 100.0
        with pytest.raises(QueueFull):
            submit(thread, POLITE, size=2)
        assert stream.unread_since is None
        waiting.cancel()

    asyncio.run(run())


def test_whoever_writes_for_an_unread_stream_is_interrupted(clock):
    async def run():
        interrupted = []
        thread = thread_of(make_engine(), 1, clock)
        await unread(thread, on_given_up=interrupted.append)
        clock.now += 2.0
        submit(thread, POLITE)
        assert [type(error) for error in interrupted] == [ReaderStalled]

    asyncio.run(run())


def test_rows_of_unread_samples_are_free_for_whoever_comes(clock):
    """Their streams leave the engine before the new one arrives there."""

    async def run():
        engine = make_engine(capacity=2)
        thread = thread_of(engine, 4, clock)
        SHARE.set(GREEDY)
        stream = TokenStream.open(thread, request(max_tokens=10**6, samples=4), size=4)
        messages = aiter(stream)
        while not engine.scheduler.paused or not engine.is_idle:
            step(thread)
        stream.wake()
        await anext(messages)
        clock.now += 2.0
        reader = Sink()
        submit(thread, POLITE, sink=reader, max_tokens=1)
        step(thread)
        assert reader.tokens
        assert not engine.scheduler.everyone()

    asyncio.run(run())


# -- deadlines -------------------------------------------------------------------------------------


class Ticking(Clock):
    """Each step takes a second."""

    def tick(self, engine):
        step_of = engine.runner.step

        def step(side, rows):
            self.now += 1.0
            step_of(side, rows)

        engine.runner.step = step
        engine.clock = self


@pytest.fixture
def busy():
    """Two rows, and a caller with six streams of twenty tokens, one of which a step makes."""
    clock, engine = Ticking(), make_engine(capacity=2)
    clock.tick(engine)
    thread = thread_of(engine, 100, clock)
    for _ in range(6):
        submit(thread, GREEDY, max_tokens=20)
    for _ in range(4):
        step(thread)
    return thread, clock


def test_what_cannot_be_met_is_refused_at_once_with_the_wait_that_it_would_be(busy):
    """Six streams of twenty tokens on two rows: a seventh begins after about fifty steps."""
    thread, clock = busy
    late = Share("greedy", deadline=clock.now + 8)
    with pytest.raises(
        QueueFull, match=r"would wait about 50 s for a row of model 'toy'"
    ) as caught:
        submit(thread, late, max_tokens=20)
    assert "its deadline is in 8.0 s" in str(caught.value)
    assert caught.value.retry_after_seconds == pytest.approx(50, rel=0.1)
    assert thread.too_late == 1
    submit(thread, Share("greedy", deadline=clock.now + 80), max_tokens=20)


def test_a_caller_below_its_share_is_not_refused(busy):
    thread, clock = busy
    submit(thread, Share("polite", deadline=clock.now + 8), max_tokens=20)
    assert thread.too_late == 0


def test_nothing_is_refused_while_nothing_is_known(clock):
    thread = thread_of(make_engine(capacity=2), 100, clock)
    for _ in range(50):
        submit(thread, Share("greedy", deadline=clock.now + 0.001), max_tokens=1000)


def test_nothing_is_refused_while_rows_are_free():
    clock, engine = Ticking(), make_engine(capacity=2)
    clock.tick(engine)
    thread = thread_of(engine, 100, clock)
    held = [Sink(room=1) for _ in range(5)]
    for sink in held:
        submit(thread, GREEDY, sink=sink, max_tokens=1000)
    for _ in range(20):
        step(thread)
    assert engine.scheduler.free_rows == 2, "all of them pause"
    submit(thread, Share("greedy", deadline=clock.now + 1), max_tokens=1000)


def test_the_wait_is_until_a_running_stream_ends():
    """Two streams that began together end together: a third waits for all that they have left."""
    clock, engine = Ticking(), make_engine(capacity=2)
    clock.tick(engine)
    thread = thread_of(engine, 100, clock)
    for _ in range(2):
        submit(thread, GREEDY, max_tokens=1000)
    for _ in range(64):
        step(thread)
    with pytest.raises(QueueFull) as caught:
        submit(thread, Share("greedy", deadline=clock.now + 8), max_tokens=20)
    assert caught.value.retry_after_seconds == pytest.approx(1000 - 64, rel=0.02)


def test_streams_that_end_early_are_known_to(clock):
    """Where streams make a tenth of what they may, the wait is a tenth as well."""
    engine = make_engine()
    assert engine.cost(request(max_tokens=100)) == 100
    for _ in range(200):
        engine._throughput.ended(0.1)
    assert engine.cost(request(max_tokens=100, samples=2)) == pytest.approx(20, rel=0.01)


class Item:
    length = 1


class SlowRunner:
    def __init__(self, clock):
        self.clock = clock

    def run(self, items):
        self.clock.now += len(items)
        yield [None] * len(items)


class Unheard:
    def batch_ran(self, rows, tokens, seconds):
        pass

    def began(self, queue_seconds):
        pass

    def answered(self, queue_seconds, compute_seconds):
        pass

    def not_finite(self):
        pass


class Answer:
    unread_since = None

    def put(self, event):
        pass


def test_texts_are_refused_by_the_rate_of_batches(clock):
    """A text takes a second, and forty wait before the next."""
    thread = thread_of(BatchEngine(SlowRunner(clock), 4, clock, Unheard()), 100, clock)
    SHARE.set(GREEDY)
    thread.submit([Item()] * 44, Answer(), 44)
    step(thread)
    SHARE.set(Share("greedy", deadline=clock.now + 9))
    with pytest.raises(QueueFull, match="for a batch of model 'toy'") as caught:
        thread.submit([Item()], Answer(), 1)
    assert caught.value.retry_after_seconds == pytest.approx(44)
    SHARE.set(NOBODY)
