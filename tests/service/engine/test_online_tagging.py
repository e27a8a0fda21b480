import random
from dataclasses import dataclass

import numpy as np
import pytest

from service.engine.errors import EngineFailed
from service.engine.online_tagging import TURN, OnlineTagEngine
from service.engine.requests import (
    CAUGHT_UP,
    Checkpoint,
    Failed,
    Finished,
    FinishReason,
    ResumePolicy,
    TagRequest,
    TokenMade,
)
from service.engine.shares import NOBODY
from service.engine.step_engine import GenerationModel
from service.runtime.devices import CPU_PROVIDER
from service.runtime.repository import load_models
from service.runtime.runners import TagRunner, generate_runner
from service.runtime.sessions import SessionSettings
from service.serving.resume_token import STREAM_TAG, ResumeTokens, ServedBundle
from tests import tiny
from tests.service.engine.fakes import HIDDEN, VOCABULARY, Clock, FakeRunner, Reader, Recorder, run
from training.models.options import RecurrentOptions

LABELS = [f"label {number}" for number in range(VOCABULARY)]
TOKENS = random.Random(5).choices(range(VOCABULARY), k=60)


def make_engine(capacity=8):
    model = GenerationModel((HIDDEN,), None, None, (LABELS, LABELS))
    return OnlineTagEngine(model, FakeRunner(), capacity, Clock(), Recorder())


def params(**options):
    return TagRequest(100.0, **options)


class Caller:
    """Pushes into one stream and reads it."""

    def __init__(self, engine, room=10**9, share=NOBODY, **options):
        self.engine, self.reader = engine, Reader(room)
        self.work = engine.open(params(**options), self.reader, share)
        engine.arrive(self.work)

    def push(self, *tokens, at=100.0):
        self.engine.push(self.work, tokens, at)

    def close(self):
        self.engine.close_input(self.work)

    def cancel(self):
        self.engine.cancel(self.work)

    def read(self):
        """Everything that came, and room for as much again."""
        events, self.reader.events = self.reader.events, []
        self.engine.resume(self.work)
        return events

    @property
    def reported(self):
        return [(e.token, e.position, e.log_probability) for e in self.reader.tokens]


def labelled(tokens, **options):
    """What a stream alone, which gets all tokens at once, answers."""
    engine = make_engine()
    caller = Caller(engine, **options)
    caller.push(*tokens)
    caller.close()
    run(engine)
    return caller


def test_each_pushed_token_is_answered_once_and_the_stream_waits_without_a_row():
    engine = make_engine()
    caller = Caller(engine)
    assert engine.is_idle, "nothing was pushed"
    caller.push(3, 4)
    run(engine)
    assert [e.position for e in caller.reader.tokens] == [0, 1]
    assert [e.text for e in caller.reader.tokens] == [LABELS[e.token] for e in caller.reader.tokens]
    assert caller.reader.events[-1] is CAUGHT_UP
    assert engine.scheduler.free_rows == engine.scheduler.capacity
    caller.push(5)
    run(engine)
    assert caller.reported == labelled((3, 4, 5)).reported


def test_the_stream_ends_once_its_input_is_closed_and_answered():
    caller = labelled(TOKENS)
    assert caller.reader.last.reason is FinishReason.CLOSED
    assert caller.reader.last.input_tokens == caller.reader.last.output_tokens == len(TOKENS)
    assert caller.engine.observer.ended == [(FinishReason.CLOSED, len(TOKENS), len(TOKENS))]


def test_closing_ends_a_stream_that_waits_for_tokens_or_never_had_any():
    engine = make_engine()
    fresh, read = Caller(engine), Caller(engine)
    read.push(1)
    run(engine)
    for caller in (fresh, read):
        caller.close()
    assert not engine.is_idle
    assert engine.step() == [fresh.reader, read.reader]
    assert [c.reader.last.output_tokens for c in (fresh, read)] == [0, 1]
    assert engine.is_idle
    assert not engine.scheduler.everyone()
    assert engine.observer.waiting_for_readers == 0


@pytest.mark.parametrize("seed", range(30))
def test_labels_are_the_same_bits_alone_and_beside_others_in_pieces_of_any_size(seed):
    """Streams of random lengths, pushed in random pieces, to readers that lag, leave or stay."""
    choose = random.Random(seed)
    engine = make_engine(choose.randint(1, 4))
    inputs = [[choose.randrange(VOCABULARY) for _ in range(choose.randint(0, 60))] for _ in "12345"]
    callers = [Caller(engine, room=choose.choice((3, 10**9))) for _ in inputs]
    left = [list(tokens) for tokens in inputs]
    got = [[] for _ in inputs]
    gone = choose.choice((None, 0))
    closed = set()
    for _ in range(2000):
        if engine.is_idle and len(closed) == len(callers) and not engine.scheduler.paused:
            break
        number = choose.randrange(len(callers))
        action, caller = choose.random(), callers[number]
        if number == gone and action < 0.1:
            caller.cancel()
            closed.add(number)
        elif action < 0.4:
            count = choose.randint(0, 9)
            caller.push(*left[number][:count])
            del left[number][:count]
            if not left[number] and number not in closed:
                closed.add(number)
                caller.close()
        elif action < 0.5:
            got[number] += caller.read()
        else:
            engine.step()
        assert all(len(c.reader.events) <= c.reader.room + 3 for c in callers)
    for number, caller in enumerate(callers):
        events = got[number] + caller.read()
        reported = [
            (e.token, e.position, e.log_probability) for e in events if type(e) is TokenMade
        ]
        expected = labelled(inputs[number]).reported
        assert reported == expected[: len(reported)]
        if number != gone:
            assert reported == expected
            assert type(events[-1]) is Finished
    assert engine.scheduler.free_rows == engine.scheduler.capacity


def test_a_full_sink_and_an_empty_inbox_are_two_reasons_to_pause():
    """A stream goes on when neither holds, whichever ends first."""
    engine = make_engine()
    caller = Caller(engine, room=2)
    caller.push(1, 2)
    run(engine)
    caller.push(3)
    assert engine.is_idle, "its reader is behind"
    caller.read()
    assert not engine.is_idle
    run(engine)
    caller.push(4)
    run(engine)
    caller.read()
    assert engine.is_idle, "there is nothing to read"
    caller.push(5)
    assert not engine.is_idle


def test_a_closed_stream_whose_reader_is_behind_ends_when_all_is_answered():
    engine = make_engine()
    caller = Caller(engine, room=2)
    caller.push(1, 2, 3)
    caller.close()
    run(engine)
    assert [type(e) for e in caller.read()] == [TokenMade, TokenMade]
    run(engine)
    assert caller.reader.last.output_tokens == 3


def test_a_step_waits_for_nobody():
    """One stream has tokens, the other none: the batch is of one row."""
    engine = make_engine()
    one, other = Caller(engine), Caller(engine)
    one.push(1, 2, 3)
    other.push(4)
    run(engine)
    assert engine.runner.step_rows == [2, 1, 1]


def test_streams_that_never_end_take_turns():
    """With one row, a stream of many tokens makes room for one that came later."""
    engine = make_engine(capacity=1)
    endless, late = Caller(engine), Caller(engine)
    endless.push(*[1] * (3 * TURN))
    engine.step()
    late.push(2)
    while not late.reader.tokens:
        engine.step()
    assert len(endless.reader.tokens) == TURN
    run(engine)
    assert endless.reported == labelled([1] * (3 * TURN)).reported


def test_waiting_counts_from_the_first_token():
    """A caller that opens a stream and is silent has not been kept waiting."""
    engine = make_engine()
    caller = Caller(engine)
    engine.clock.now += 1000
    caller.push(1, at=engine.clock())
    caller.close()
    run(engine)
    assert 0 < caller.reader.last.queue_seconds < 1
    assert 0 < caller.reader.last.first_token_seconds < 1


@pytest.mark.parametrize("every", [16, 20])
def test_a_stream_goes_on_elsewhere_from_each_checkpoint(every):
    whole = labelled(TOKENS, checkpoints=ResumePolicy(every, at_end=True))
    points = whole.reader.of(Checkpoint)
    assert [p.snapshot.made for p in points] == [*range(every, len(TOKENS) + 1, every), len(TOKENS)]
    for point in points:
        made = point.snapshot.made
        resumed = labelled(TOKENS[made:], resumed=point.snapshot)
        assert resumed.reported == whole.reported[made:]
        assert resumed.reader.last.output_tokens == len(TOKENS) - made


def test_a_paused_stream_reports_at_its_end_where_it_is():
    engine = make_engine()
    caller = Caller(engine, checkpoints=ResumePolicy(at_end=True))
    caller.push(*TOKENS[:7])
    run(engine)
    caller.close()
    run(engine)
    (point,) = caller.reader.of(Checkpoint)
    assert labelled(TOKENS[7:], resumed=point.snapshot).reported == labelled(TOKENS).reported[7:]


def test_a_stream_that_got_nothing_can_be_gone_on_with_from_its_start():
    empty = labelled((), checkpoints=ResumePolicy(at_end=True))
    (point,) = empty.reader.of(Checkpoint)
    assert np.array_equal(point.snapshot.state["hidden"], np.zeros(2))
    assert labelled(TOKENS, resumed=point.snapshot).reported == labelled(TOKENS).reported


def test_the_likeliest_labels_are_reported():
    caller = labelled((1, 2), top=3)
    for made in caller.reader.tokens:
        assert len(made.top) == 3
        assert made.top[0] == (made.token, made.log_probability)


def test_leaving_frees_the_row_and_later_tokens_go_nowhere():
    engine = make_engine()
    caller = Caller(engine)
    caller.push(1, 2, 3)
    engine.step()
    caller.cancel()
    caller.push(4)
    caller.close()
    assert engine.is_idle
    assert len(caller.reader.tokens) == 1
    assert engine.observer.ended == [(FinishReason.CANCELLED, 1, 1)]


def test_a_failure_reaches_streams_that_wait_for_tokens():
    engine = make_engine()
    silent, running = Caller(engine), Caller(engine)
    running.push(1, 2)
    assert set(engine.fail(EngineFailed("broken"))) == {silent.reader, running.reader}
    assert all(type(c.reader.last) is Failed for c in (silent, running))


# -- the graphs of a real tagger ---------------------------------------------------------------


@pytest.fixture(scope="module", params=["lstm", "gru"])
def tagger(request, tmp_path_factory):
    """One that feeds its labels back, which vary, loaded."""
    root = tmp_path_factory.mktemp("tagger")
    options = RecurrentOptions(request.param, 9, recurrence="hidden_and_output")
    tiny.export(
        tiny.tagger("tags", options, {"lstm": 43, "gru": 13}[request.param]), root / "tags/1"
    )
    (loaded,), _ = load_models(root, SessionSettings("cpu", CPU_PROVIDER, 1))
    return loaded


def real_engine(loaded, capacity=4):
    manifest = loaded.bundle.manifest
    state = manifest.state
    model = GenerationModel(state, None, None, (manifest.labels, manifest.labels))
    runner = generate_runner(loaded.sessions, manifest.state)
    return OnlineTagEngine(model, runner, capacity, Clock(), Recorder())


def real_tokens(seed):
    choose = random.Random(seed)
    return choose.choices(range(1, len(tiny.WORDS) + 2), k=choose.randint(1, 300))


def real_labels(loaded, tokens, **options):
    engine = real_engine(loaded)
    caller = Caller(engine, **options)
    caller.push(*tokens)
    caller.close()
    run(engine)
    return caller


@pytest.mark.parametrize("seed", range(5))
def test_a_real_tagger_gives_the_same_bits_alone_beside_others_and_in_pieces(tagger, seed):
    choose = random.Random(seed)
    inputs = [real_tokens(10 * seed + number) for number in range(7)]
    engine = real_engine(tagger)
    callers, left = [Caller(engine) for _ in inputs], [list(tokens) for tokens in inputs]
    while any(left):
        number = choose.randrange(len(callers))
        count = choose.randint(0, 40)
        callers[number].push(*left[number][:count])
        del left[number][:count]
        for _ in range(choose.randint(0, 30)):
            engine.step()
    run(engine)
    assert [c.reported for c in callers] == [
        real_labels(tagger, tokens).reported for tokens in inputs
    ]


def test_a_real_taggers_labels_are_those_of_its_predict_graph(tagger):
    inputs = [real_tokens(seed) for seed in range(6)]
    whole = next(TagRunner(tagger.sessions["predict"]).run([Item(tokens) for tokens in inputs]))
    seen = set()
    for tokens, probabilities in zip(inputs, whole, strict=True):
        labels = [token for token, _, _ in real_labels(tagger, tokens).reported]
        assert labels == probabilities.argmax(axis=1).tolist()
        seen.update(labels)
    assert len(seen) > 2, "labels vary"


def test_a_real_tagger_goes_on_from_a_sealed_checkpoint(tagger):
    """Its last label, a whole number without an axis, travels too."""
    tokens, tokens_of = real_tokens(3), ResumeTokens()
    bundle = ServedBundle("tags", "d", "fp32", "f", STREAM_TAG)
    whole = real_labels(tagger, tokens, checkpoints=ResumePolicy(16))
    for point in whole.reader.of(Checkpoint):
        snapshot = tokens_of.open_tags(
            tokens_of.sign(point.snapshot, bundle, ""), bundle, "", False
        )
        rest = real_labels(tagger, tokens[snapshot.made :], resumed=snapshot)
        assert rest.reported == whole.reported[snapshot.made :]


@dataclass
class Item:
    tokens: list[int]


def test_what_comes_for_a_rejected_stream_disturbs_nobody():
    """Its caller pushes before it learns that the stream never began."""
    engine = make_engine()
    reader = Reader(10**9)
    rejected = engine.open(params(), reader, NOBODY)
    assert engine.reject(rejected, EngineFailed("could not be begun")) == [reader]
    engine.push(rejected, (1, 2), 100.0)
    engine.resume(rejected)
    engine.close_input(rejected)
    engine.cancel(rejected)
    assert [type(event) for event in reader.events] == [Failed]
    other = Caller(engine)
    other.push(1, 2)
    run(engine)
    assert len(other.reported) == 2
    assert type(reader.last) is Failed
