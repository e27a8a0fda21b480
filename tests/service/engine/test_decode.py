import random
from dataclasses import replace

import numpy as np
import pytest

from service.engine.decode import GenerateEngine
from service.engine.errors import EngineFailed
from service.engine.requests import (
    Beam,
    Checkpoint,
    Failed,
    Finished,
    FinishReason,
    ResumePolicy,
    SampleFinished,
)
from tests.service.engine.fakes import VOCABULARY, Reader, make_engine, request, run, run_alone


def ids(tokens):
    return [made.token for made in tokens]


def timeless(finished):
    return replace(finished, queue_seconds=0.0, first_token_seconds=0.0)


def test_a_stream_makes_its_tokens_and_ends():
    reader = run_alone(request(max_tokens=4))
    assert [made.position for made in reader.tokens] == [0, 1, 2, 3]
    finished = reader.last
    assert finished.reason is FinishReason.LENGTH
    assert (finished.input_tokens, finished.output_tokens) == (3, 4)
    assert 0 < finished.queue_seconds < finished.first_token_seconds
    (ended,) = reader.of(SampleFinished)
    assert ended.log_probability == pytest.approx(sum(t.log_probability for t in reader.tokens))


def test_late_request_joins_running_batch():
    """A request that arrives mid-generation decodes in the next step, and no row changes."""
    engine, early, late = make_engine(), Reader(), Reader()
    engine.arrive(engine.open(request(max_tokens=6, seed=1), early))
    for _ in range(2):
        engine.step()
    engine.arrive(engine.open(request((4, 5), max_tokens=6, seed=2), late))
    engine.step()
    assert (len(early.tokens), len(late.tokens)) == (3, 1)
    assert engine.runner.step_rows == [1, 1, 2]
    run(engine)
    assert late.tokens == run_alone(request((4, 5), max_tokens=6, seed=2)).tokens


def test_cancel_frees_the_row_at_once():
    """The row is there for the next request before another step runs."""
    engine, second = make_engine(capacity=1), Reader()
    first = engine.open(request(max_tokens=50), Reader())
    engine.arrive(first)
    engine.arrive(engine.open(request(max_tokens=2), second))
    engine.step()
    engine.cancel(first)
    assert engine.scheduler.free_rows == 1
    assert not engine.slots.current()["hidden"].any()
    engine.step()
    assert len(second.tokens) == 1
    assert engine.observer.ended == [(FinishReason.CANCELLED, 3, 1)]


def test_a_cancelled_stream_gets_no_further_event():
    engine, gone = make_engine(), Reader()
    progress = engine.open(request(max_tokens=50), gone)
    engine.arrive(progress)
    engine.cancel(progress)
    engine.cancel(progress)
    assert engine.is_idle
    assert engine.step() == []
    assert gone.events == []


def test_the_end_token_ends_a_stream_and_is_not_delivered():
    alone = run_alone(request(max_tokens=8, temperature=0.0)).tokens
    end = alone[5].token
    first = ids(alone).index(end)
    reader = run_alone(request(max_tokens=8, temperature=0.0), end_id=end)
    assert reader.tokens == alone[:first]
    assert reader.last.reason is FinishReason.END


def test_the_end_token_waits_for_min_tokens():
    """Before so many tokens it is not drawn; what comes instead is the next best."""
    alone = run_alone(request(max_tokens=12, temperature=0.0)).tokens
    end = alone[2].token
    reader = run_alone(request(max_tokens=12, temperature=0.0, min_tokens=6), end_id=end)
    assert len(reader.tokens) >= 6
    assert end not in ids(reader.tokens)


def test_a_stop_text_ends_a_stream():
    alone = run_alone(request(max_tokens=8)).tokens
    stop = "".join(made.text for made in alone[3:5])
    reader = run_alone(request(max_tokens=8, stop=(stop,)))
    assert reader.tokens == alone[:3]
    assert (reader.last.reason, reader.last.output_tokens) == (FinishReason.STOP, 3)


def test_a_stop_text_before_min_tokens_is_text():
    alone = run_alone(request(max_tokens=8)).tokens
    stop = alone[1].text
    reader = run_alone(request(max_tokens=8, stop=(stop,), min_tokens=2))
    assert reader.tokens[:2] == alone[:2]


def test_a_source_model_starts_from_its_begin_token():
    engine = make_engine(begin_id=7)
    engine.arrive(engine.open(request((1, 2, 3)), Reader()))
    engine.step()
    assert engine.runner.prefill_calls == [[3]]


def test_banned_tokens_are_never_made_and_allowed_ones_alone():
    free = run_alone(request(max_tokens=30)).tokens
    banned = free[0].token
    bias = ((banned, -np.inf),)
    assert banned not in ids(run_alone(request(max_tokens=30, bias=bias)).tokens)
    assert set(ids(run_alone(request(max_tokens=30, allowed=(3, 5))).tokens)) <= {3, 5}


def test_a_frequency_penalty_grows_with_each_time():
    """The favourite loses its place once it was made often enough, and not before."""
    greedy = {"temperature": 0.0, "bias": ((4, 30.0),), "max_tokens": 12}
    reader = run_alone(request(**greedy, frequency_penalty=5.0))
    assert ids(reader.tokens)[:2] == [4, 4]
    assert set(ids(reader.tokens)) != {4}
    assert set(ids(run_alone(request(**greedy)).tokens)) == {4}


def test_presence_and_repetition_penalties_look_at_what_was_there():
    greedy = {"temperature": 0.0, "max_tokens": 2, "bias": ((4, 2.5), (5, 2.0))}
    plain = ids(run_alone(request(**greedy)).tokens)
    assert run_alone(request(**greedy, presence_penalty=2.0)).tokens[0].token == plain[0]
    prompted = run_alone(request((plain[0], 1), **greedy, repetition_penalty=50.0)).tokens
    unpenalised = run_alone(request((plain[0], 1), **greedy)).tokens
    assert prompted[0].token != plain[0] or unpenalised[0].token != plain[0]


def test_a_source_is_not_what_a_repetition_penalty_looks_at():
    """A source's ids are of another vocabulary, which may be larger than that of the output."""
    beyond = request((VOCABULARY + 5, 3), max_tokens=20, repetition_penalty=4.0)
    engine, reader = make_engine(begin_id=7), Reader()
    engine.arrive(engine.open(beyond, reader))
    engine.step()
    first = reader.tokens[0].token
    _, seen = engine.slots.adjust(0)
    assert np.flatnonzero(seen).tolist() == [first]


def test_samples_fork_one_prefilled_prompt():
    """The prompt is read once; sample i is what it is for any number of samples."""
    engine, reader = make_engine(), Reader()
    engine.arrive(engine.open(request((1, 2, 3, 4), max_tokens=6, samples=5), reader))
    run(engine)
    assert engine.runner.prefill_calls == [[3]]
    by_sample = [[t for t in reader.tokens if t.sample == i] for i in range(5)]
    assert len({tuple(ids(tokens)) for tokens in by_sample}) > 1
    two = run_alone(request((1, 2, 3, 4), max_tokens=6, samples=2)).tokens
    assert [t for t in two if t.sample == 1] == by_sample[1]
    assert [ended.sample for ended in reader.of(SampleFinished)] == [0, 1, 2, 3, 4]
    assert reader.last.output_tokens == 30


def test_more_samples_than_rows_take_turns():
    reader = run_alone(request(max_tokens=3, samples=5), capacity=2)
    assert reader.last.output_tokens == 15
    wide = run_alone(request(max_tokens=3, samples=5)).tokens
    key = lambda made: (made.sample, made.position)  # noqa: E731
    assert sorted(reader.tokens, key=key) == sorted(wide, key=key)


def test_the_likeliest_tokens_are_reported():
    reader = run_alone(request(max_tokens=3, temperature=0.0, top=4))
    for made in reader.tokens:
        assert len(made.top) == 4
        assert made.top[0] == (made.token, made.log_probability)
        values = [value for _, value in made.top]
        assert values == sorted(values, reverse=True)


def test_a_full_reader_pauses_its_stream_and_nobody_else():
    """Its row leaves the batch, its state stays, and it goes on with the same tokens."""
    engine, slow, fast = make_engine(), Reader(room=3), Reader()
    held = engine.open(request(max_tokens=20, seed=1), slow)
    engine.arrive(held)
    engine.arrive(engine.open(request(max_tokens=8, seed=2), fast))
    run(engine)
    assert (len(slow.tokens), len(fast.tokens)) == (3, 8)
    assert engine.scheduler.free_rows == 8
    assert engine.observer.waiting_for_readers == 1
    for room in (4, 9, 10**9):
        slow.room = room
        engine.resume(held)
        run(engine)
    assert slow.tokens == run_alone(request(max_tokens=20, seed=1)).tokens
    assert engine.observer.waiting_for_readers == 0


def test_a_paused_stream_can_be_cancelled():
    engine, slow = make_engine(), Reader(room=2)
    held = engine.open(request(max_tokens=20), slow)
    engine.arrive(held)
    run(engine)
    engine.cancel(held)
    engine.resume(held)
    assert engine.is_idle
    assert engine.observer.ended == [(FinishReason.CANCELLED, 3, 2)]


@pytest.mark.parametrize(
    "drawing",
    [
        {},
        {"frequency_penalty": 0.7, "presence_penalty": 0.2},
        {"repetition_penalty": 1.3, "bias": ((3, 1.5),)},
        {"stop": ("bcb", "sst")},
    ],
    ids=["plain", "penalties", "repetition", "stops"],
)
@pytest.mark.parametrize("begin_id", [None, 7])
def test_a_stream_goes_on_from_any_of_its_checkpoints(drawing, begin_id):
    """What follows is what would have followed, as often as it is taken up."""
    wanted = request((1, 2, 3), max_tokens=90, seed=11, **drawing)
    whole = run_alone(wanted, begin_id=begin_id)
    reported = run_alone(replace(wanted, checkpoints=ResumePolicy(16)), begin_id=begin_id)
    assert reported.tokens == whole.tokens
    checkpoints = reported.of(Checkpoint)
    assert len(checkpoints) == 5
    for checkpoint in checkpoints:
        snapshot = checkpoint.snapshot
        before = reported.events.index(checkpoint)
        got = [e for e in reported.events[:before] if e in whole.tokens]
        resumed = replace(wanted, tokens=snapshot.tokens, resumed=snapshot)
        reader = run_alone(resumed, begin_id=begin_id)
        assert got + reader.tokens == whole.tokens
        assert reader.last.reason is whole.last.reason


def test_a_stream_that_ended_can_be_taken_further():
    short = run_alone(request(max_tokens=10, checkpoints=ResumePolicy(at_end=True)))
    (checkpoint,) = short.of(Checkpoint)
    further = request(tokens=(), max_tokens=25, resumed=checkpoint.snapshot)
    reader = run_alone(further)
    assert short.tokens + reader.tokens == run_alone(request(max_tokens=25)).tokens
    assert (reader.last.input_tokens, reader.last.output_tokens) == (3, 15)


def test_a_resumed_stream_accounts_for_its_own_tokens():
    """Held-back tokens belong to the stream that delivers them; earlier ones to none again."""
    plain = run_alone(request(max_tokens=40, seed=11)).tokens
    stop = plain[14].text + plain[15].text + "?"
    wanted = request(max_tokens=40, seed=11, stop=(stop,), checkpoints=ResumePolicy(16))
    snapshot = run_alone(wanted).of(Checkpoint)[0].snapshot
    assert len(snapshot.held) == 2
    engine, reader = make_engine(), Reader()
    engine.arrive(engine.open(replace(wanted, tokens=(), resumed=snapshot), reader))
    run(engine)
    (ended,) = reader.of(SampleFinished)
    assert ended.output_tokens == len(reader.tokens) == 26
    assert ended.log_probability == pytest.approx(sum(t.log_probability for t in reader.tokens))
    assert engine.observer.ended == [(FinishReason.LENGTH, 3, 26)]


def test_beam_search_runs_beside_other_streams():
    """Its rows leave together, its best hypothesis is at least as probable as greedy."""
    engine, beam, other = make_engine(end_id=18), Reader(), Reader()
    engine.arrive(engine.open(request(max_tokens=9, seed=3), other))
    wide = request(max_tokens=6, temperature=0.0, beam=Beam(3, 2))
    engine.arrive(engine.open(wide, beam))
    run(engine)
    assert engine.runner.step_rows[0] == 4
    assert other.tokens == run_alone(request(max_tokens=9, seed=3), end_id=18).tokens
    ends = beam.of(SampleFinished)
    assert [end.sample for end in ends] == [0, 1]
    assert ends[0].score >= ends[1].score
    greedy = run_alone(request(max_tokens=6, temperature=0.0), end_id=18)
    assert ends[0].log_probability >= sum(t.log_probability for t in greedy.tokens) - 1e-6
    assert engine.scheduler.free_rows == 8


def test_a_beam_of_one_is_greedy():
    beam = run_alone(request(max_tokens=7, temperature=0.0, beam=Beam(1, 1)))
    greedy = run_alone(request(max_tokens=7, temperature=0.0))
    assert [(t.token, t.position) for t in beam.tokens] == [
        (t.token, t.position) for t in greedy.tokens
    ]


def random_request(choose):
    """Any mix of controls, as a caller might send it."""
    others = {}
    if choose.random() < 0.3:
        others |= {"repetition_penalty": 1.2, "frequency_penalty": choose.random()}
    if choose.random() < 0.2:
        others["bias"] = ((choose.randrange(1, VOCABULARY), choose.uniform(-3, 3)),)
    if choose.random() < 0.2:
        others["samples"] = choose.randint(2, 4)
    elif choose.random() < 0.15:
        others["beam"] = Beam(choose.randint(1, 2), 1, early_stop=choose.random() < 0.5)
    if choose.random() < 0.2:
        others["top"] = 3
    if choose.random() < 0.2:
        others["min_tokens"] = 3
    return request(
        [choose.randrange(18) for _ in range(choose.randint(1, 600))],
        max_tokens=choose.randint(3, 90),
        seed=choose.randrange(2**64),
        temperature=choose.choice((0.0, 1.0)),
        stop=() if "beam" in others else choose.choice(((), ("ab",), ("c", "dd"))),
        **others,
    )


@pytest.mark.parametrize("seed", range(25))
def test_no_request_depends_on_another(seed):
    """Random arrivals, cancels, pauses and controls: every request gets what it gets alone.

    Rows that are given back hold NaN-free zeros, and all rows come back.
    """
    choose = random.Random(seed)
    engine = make_engine(capacity=choose.randint(2, 6), end_id=11)
    wanted = {}  # by the progress of the request: (request, reader)
    for _ in range(60):
        for _ in range(choose.randint(0, 2)):
            one, reader = random_request(choose), Reader(choose.choice((4, 10**9)))
            progress = engine.open(one, reader)
            wanted[progress] = one, reader
            engine.arrive(progress)
        if wanted and choose.random() < 0.2:
            engine.cancel(progress := choose.choice(list(wanted)))
            del wanted[progress]
        for progress, (_, reader) in wanted.items():
            if reader.mark_if_full() and choose.random() < 0.3:
                reader.room += choose.randint(1, 20)
                engine.resume(progress)
        engine.step()
    for progress, (_, reader) in wanted.items():
        reader.room = 10**9
        engine.resume(progress)
    run(engine)
    assert wanted
    key = lambda made: (made.sample, made.position)  # noqa: E731
    for one, reader in wanted.values():
        alone = run_alone(one, end_id=11)
        assert sorted(reader.tokens, key=key) == sorted(alone.tokens, key=key), one
        assert timeless(reader.last).output_tokens == timeless(alone.last).output_tokens
    assert engine.scheduler.free_rows == engine.scheduler.capacity
    for side in engine.slots.sides():
        assert not side.inputs["hidden"].any()


def test_a_failed_step_ends_every_stream_with_a_reason():
    engine, readers = make_engine(capacity=1), [Reader(), Reader()]
    for reader in readers:
        engine.arrive(engine.open(request(), reader))
    engine.step()
    broken = EngineFailed("broken")
    assert engine.fail(broken) == [readers[1], readers[0]]
    assert [reader.events[-1] for reader in readers] == [Failed(broken)] * 2
    assert engine.is_idle


def test_the_observer_sees_one_call_a_step_and_the_end():
    engine = make_engine()
    for number in range(3):
        engine.arrive(engine.open(request(max_tokens=2, seed=number), Reader()))
    run(engine)
    assert engine.observer.rows == [3, 3]
    assert engine.observer.ended == [(FinishReason.LENGTH, 3, 2)] * 3
    assert engine.observer.idles == 1


def test_randomness_goes_on_across_blocks():
    """A stream longer than a block of uniforms draws as many different numbers as tokens."""
    seen = []
    engine = make_engine()
    engine.arrive(engine.open(request(max_tokens=200), Reader()))
    while not engine.is_idle:
        engine.step()
        seen.append(float(engine.runner.sides[0].inputs["uniform"][0]))
    assert len(seen) == 200
    assert len(np.unique(seen[:-1])) == 199


def test_warming_leaves_no_trace():
    engine = make_engine(capacity=4)
    engine.warm((1, 2, 4, 8))
    assert engine.runner.step_rows == [1, 1, 2, 2, 4, 4]
    for side in engine.slots.sides():
        assert not any(array.any() for array in (*side.inputs.values(), *side.outputs.values()))


def test_a_stream_that_ended_in_a_step_that_broke_is_still_to_be_delivered():
    """It is no work of the engine's any more, and its reader waits."""
    engine, ended, running = make_engine(), Reader(), Reader()
    for reader, tokens in ((ended, 1), (running, 9)):
        engine.arrive(engine.open(request(max_tokens=tokens), reader))
    engine.observer.stepped = None
    with pytest.raises(TypeError):
        run(engine)
    assert set(engine.fail(EngineFailed("broken"))) == {ended, running}
    assert isinstance(ended.last, Finished)
    assert isinstance(running.last, Failed)
    assert engine.fail(EngineFailed("broken")) == []


def test_a_request_is_opened_without_an_engine_and_streams_once_it_arrives():
    """Opening is the event loop's; whatever an engine keeps, its own thread makes."""
    work = GenerateEngine.open(request(samples=3, max_tokens=2), reader := Reader())
    assert (work.running, work.streams) == (3, [])
    engine = make_engine()
    engine.arrive(work)
    assert [stream.sample for stream in work.streams] == [0, 1, 2]
    run(engine)
    assert len(reader.tokens) == 6


def test_equal_seeds_draw_other_numbers_after_another_prompt():
    """Both prompts leave the model in the same state."""
    engines = []
    for tokens in ((1, 2, 3), (1 + 101, 2, 3)):
        engine, reader = make_engine(), Reader()
        engine.arrive(engine.open(request(tokens, seed=4), reader))
        engine.step()
        engines.append(engine.slots.controls["uniform"][0])
    assert engines[0] != engines[1]
    again, reader = make_engine(), Reader()
    again.arrive(again.open(request((1, 2, 3), seed=4), reader))
    again.step()
    assert again.slots.controls["uniform"][0] == engines[0]
