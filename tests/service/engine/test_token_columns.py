"""Tokens in columns: a row is looked at when it is due, and nothing of it is lost or another's."""

import math
import random
from dataclasses import replace

import pytest

from service.engine.requests import Beam, Checkpoint, Failed, Finished, ResumePolicy
from service.engine.token_columns import MOST_STEPS, TokenColumns
from tests.service.engine.fakes import END, Reader, make_engine, request, run, run_alone
from tests.service.engine.test_finiteness import POISON, poison


class Rows:
    """A row's tokens as they should be: each token is (stream, position in it)."""

    def __init__(self, end_id=None):
        self.columns, self.streams, self.step = TokenColumns(end_id), [], 0
        self.made, self.taken = {}, {}

    def admit(self, stream):
        self.columns.admit()
        self.streams.append(stream)
        self.made[stream] = self.taken[stream] = 0

    def leave(self, row):
        last = len(self.streams) - 1
        self.take(row)
        self.columns.give(row, last)
        self.streams[row] = self.streams[last]
        self.streams.pop()

    def take(self, row, wait=1):
        tokens, known = self.columns.read(row)
        self.columns.take(row, wait)
        stream = self.streams[row]
        expected = range(self.taken[stream], self.made[stream])
        assert tokens == [1000 * stream + position for position in expected]
        assert known == [-float(token) for token in tokens]
        self.taken[stream] = self.made[stream]
        return len(tokens)

    def add(self):
        tokens = [1000 * stream + self.made[stream] for stream in self.streams]
        for stream in self.streams:
            self.made[stream] += 1
        return list(self.columns.add(tokens, [-float(token) for token in tokens]))


def test_rows_that_come_go_and_move_keep_their_own_tokens():
    draw, rows, streams = random.Random(3), Rows(), 0
    waits = {}
    for _ in range(3000):
        while len(rows.streams) < 6 and draw.random() < 0.4:
            rows.admit(streams)
            waits[streams] = 1
            streams += 1
        while rows.streams and draw.random() < 0.15:
            rows.leave(draw.randrange(len(rows.streams)))
        if not rows.streams:
            continue
        due = rows.add()
        for row, stream in enumerate(rows.streams):
            waited = rows.made[stream] - rows.taken[stream]
            assert rows.columns.count(row) == waited
            assert (row in due) or waited < waits[stream]
            assert waited <= MOST_STEPS
        for row in due:
            waits[rows.streams[row]] = wait = draw.randrange(1, 100)
            rows.take(row, wait)
        rows.columns.settle()
    assert streams > 100


def test_nothing_is_due_in_between():
    rows = Rows()
    for stream in range(3):
        rows.admit(stream)
    for row in rows.add():
        rows.take(row, 4 + row)
    rows.columns.settle()
    assert [rows.add() for _ in range(4)] == [[], [], [], [0]]


def test_a_row_that_made_the_end_token_is_due_at_once():
    columns = TokenColumns(end_id=7)
    columns.admit()
    columns.admit()
    for row in columns.add([1, 2], [-1.0, -1.0]):
        columns.take(row, 9)
    columns.settle()
    assert not columns.add([3, 4], [-1.0, -1.0])
    assert list(columns.add([5, 7], [-1.0, -2.0])) == [1]
    assert columns.read(1) == ([4, 7], [-1.0, -2.0])


# -- in an engine ---------------------------------------------------------------------------------


def drawn_request(draw, number):
    kind = draw.randrange(8)
    others = {
        3: {"stop": ("cd", "fgh")},
        4: {"top": 2},
        5: {"frequency_penalty": 0.5},
        6: {"checkpoints": ResumePolicy(every=draw.randrange(1, 7), at_end=True)},
        7: {"samples": 3},
    }
    prompt = tuple(draw.randrange(1, END) for _ in range(draw.randrange(1, 9)))
    return request(prompt, draw.randrange(1, 90), number, **others.get(kind, {}))


def timeless(events):
    return [
        replace(event, queue_seconds=0.0, first_token_seconds=0.0)
        if isinstance(event, Finished)
        else event
        for event in events
    ]


def by_sample(events):
    """What a caller sees of each sample, and of the whole: the order between samples is free."""
    found = {}
    for event in events:
        found.setdefault(getattr(event, "sample", None), []).append(event)
    return found


def comparable(events):
    """States are arrays: as lists, to be compared."""
    return [
        (
            e.sample,
            e.snapshot.made,
            e.snapshot.token,
            {k: v.tolist() for k, v in e.snapshot.state.items()},
        )
        if isinstance(e, Checkpoint)
        else e
        for e in timeless(events)
    ]


@pytest.mark.parametrize("seed", range(6))
@pytest.mark.parametrize("end_id", [None, END])
def test_events_are_the_same_however_many_tokens_come_together(seed, end_id):
    """Streams of all kinds join, pause and leave; each gets what it gets alone, one by one."""
    draw = random.Random(seed)
    engine, open_ones = make_engine(capacity=5, end_id=end_id), []
    for number in range(25):
        generation, reader = (
            drawn_request(draw, number),
            Reader(tokens_at_once=draw.randrange(1, 80)),
        )
        progress = engine.open(generation, reader)
        engine.arrive(progress)
        open_ones.append((generation, reader))
        for _ in range(draw.randrange(12)):
            engine.step()
    run(engine)
    together = [size for _, reader in open_ones for size in reader.runs]
    assert max(together) > 8
    for generation, reader in open_ones:
        alone = run_alone(generation, end_id=end_id)
        assert by_sample(comparable(reader.events)) == by_sample(comparable(alone.events))


def test_a_stream_that_is_left_pauses_or_stops_has_what_it_made():
    engine = make_engine()
    readers = [Reader(tokens_at_once=50) for _ in range(2)]
    requests = [
        engine.open(
            replace(request(max_tokens=60, seed=n), checkpoints=ResumePolicy(on_stop=True)), reader
        )
        for n, reader in enumerate(readers)
    ]
    for progress in requests:
        engine.arrive(progress)
    for _ in range(9):
        engine.step()
    assert [len(reader.tokens) for reader in readers] == [1, 1]
    engine.cancel(requests[0])
    assert engine.observer.ended[0][2] == 9
    engine.hand_over(None)
    (checkpoint,) = readers[1].of(Checkpoint)
    assert checkpoint.snapshot.made == checkpoint.snapshot.delivered == len(readers[1].tokens) == 9
    assert readers[1].tokens == run_alone(request(max_tokens=60, seed=1)).tokens[:9]


def test_what_was_made_before_nan_comes_and_the_broken_token_does_not():
    engine = poison(make_engine(), from_token=5)
    broken, other = Reader(tokens_at_once=40), Reader(tokens_at_once=40)
    engine.arrive(engine.open(request(max_tokens=30, seed=1, temperature=POISON), broken))
    engine.arrive(engine.open(request(max_tokens=30, seed=2), other))
    run(engine)
    assert len(broken.tokens) == 5
    assert isinstance(broken.last, Failed)
    assert all(math.isfinite(token.log_probability) for token in broken.tokens)
    assert other.tokens == run_alone(request(max_tokens=30, seed=2)).tokens


def test_a_full_reader_pauses_its_stream_and_goes_on_where_it_was():
    engine, reader = make_engine(), Reader(room=20, tokens_at_once=8)
    progress = engine.open(request(max_tokens=50, seed=3), reader)
    engine.arrive(progress)
    run(engine)
    assert 20 <= len(reader.tokens) <= 20 + 8
    reader.room = 10**9
    engine.resume(progress)
    run(engine)
    assert reader.tokens == run_alone(request(max_tokens=50, seed=3)).tokens


def test_beams_beside_streams_in_columns_are_the_same():
    generation = request(max_tokens=20, samples=3, beam=Beam(3, 2))
    engine, reader, beside = make_engine(), Reader(), Reader(tokens_at_once=16)
    engine.arrive(engine.open(request(max_tokens=70, seed=4), beside))
    for _ in range(3):
        engine.step()
    engine.arrive(engine.open(generation, reader))
    run(engine)
    assert timeless(reader.events) == timeless(run_alone(generation).events)
    assert beside.tokens == run_alone(request(max_tokens=70, seed=4)).tokens
