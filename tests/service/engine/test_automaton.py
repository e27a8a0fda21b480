import weakref

import numpy as np
import pytest

from service.engine.automaton import (
    REGEX,
    UNBOUNDED,
    ConstrainedText,
    Constraint,
    ConstraintSpec,
    TokenAutomaton,
)
from service.engine.beam_search import BeamSearch
from service.engine.logits_processor import LogitsProcessor
from service.engine.requests import (
    Beam,
    Checkpoint,
    FinishReason,
    ResumePolicy,
    SampleFinished,
    Sampling,
)
from tests.service.engine.fakes import END, VOCABULARY, make_engine, request, run, run_alone
from tests.service.engine.fakes import Reader as FakeReader

A, B, C = 1, 2, 3


def automaton(transitions, accepting, longest, end_id=None, vocabulary=VOCABULARY):
    """transitions: of each state, the state after each token."""
    tokens = [sorted(state) for state in transitions]
    return TokenAutomaton(
        np.cumsum([0, *map(len, tokens)]),
        np.array([t for each in tokens for t in each], np.int32),
        np.array(
            [s[t] for s, each in zip(transitions, tokens, strict=True) for t in each], np.int32
        ),
        np.array(accepting),
        np.array(longest, np.int32),
        vocabulary,
        end_id,
        "digest",
    )


def constraint(*args, **others):
    return Constraint(ConstraintSpec(REGEX, ("…",)), automaton(*args, **others))


def ab_c(end_id=None):
    """One or more of a and b, then c: (a|b)+c."""
    loop = {A: 1, B: 1}
    return constraint(
        [loop, {**loop, C: 2}, {}], [False, False, True], [UNBOUNDED, UNBOUNDED, 0], end_id
    )


def either(end_id):
    """ab, or abab: what has a longest text."""
    return constraint(
        [{A: 1}, {B: 2}, {A: 3}, {B: 4}, {}],
        [False, False, True, False, True],
        [4, 3, 2, 1, 0],
        end_id,
    )


def made(reader, sample=0):
    return [token.token for token in reader.tokens if token.sample == sample]


def reason_of(reader):
    (ended,) = reader.of(SampleFinished)
    return ended.reason


def test_a_mask_lets_through_what_may_follow():
    one = ab_c(END).automaton
    assert np.flatnonzero(one.mask(0) == 0).tolist() == [A, B]
    assert np.flatnonzero(one.mask(1) == 0).tolist() == [A, B, C]
    assert np.flatnonzero(one.mask(2) == 0).tolist() == [END]
    assert np.isneginf(np.delete(one.mask(0), [A, B])).all()


def test_a_token_that_may_not_follow_is_no_transition():
    with pytest.raises(AssertionError):
        ab_c().automaton.next(0, C)


@pytest.mark.parametrize("seed", range(8))
def test_a_stream_makes_what_its_constraint_lets_through_and_ends(seed):
    reader = run_alone(request(max_tokens=60, seed=seed, constraint=ab_c()))
    tokens = made(reader)
    assert tokens[-1] == C
    assert tokens[:-1]
    assert set(tokens[:-1]) <= {A, B}
    assert reason_of(reader) is FinishReason.END


def test_too_few_tokens_to_finish_is_said():
    unfinished = run_alone(request(max_tokens=1, constraint=ab_c()))
    assert reason_of(unfinished) is FinishReason.UNFINISHED
    whole = run_alone(request(max_tokens=2, constraint=either(None)))
    assert made(whole) == [A, B]
    assert reason_of(whole) is FinishReason.LENGTH


def test_the_end_token_comes_only_where_the_text_may_end():
    reader = run_alone(request(max_tokens=9, constraint=either(END)), end_id=END)
    assert made(reader) in ([A, B], [A, B, A, B])
    assert reason_of(reader) is FinishReason.END


@pytest.mark.parametrize("end_id", [None, END])
def test_before_min_tokens_only_what_can_become_long_enough_follows(end_id):
    reader = run_alone(
        request(max_tokens=9, min_tokens=3, constraint=either(end_id)), end_id=end_id
    )
    assert made(reader) == [A, B, A, B]


def test_min_tokens_leaves_a_choice_that_is_long_enough():
    """Of a|bc with two tokens at least, only bc."""
    for seed in range(5):
        two = constraint([{A: 1, B: 2}, {}, {C: 1}], [False, True, False], [2, 0, 1])
        reader = run_alone(request(max_tokens=9, seed=seed, min_tokens=2, constraint=two))
        assert made(reader) == [B, C]


def test_other_rows_do_not_notice():
    plain = run_alone(request(max_tokens=6, seed=1)).tokens
    engine, one, other = make_engine(), FakeReader(), FakeReader()
    engine.arrive(engine.open(request(max_tokens=9, seed=2, constraint=ab_c()), other))
    engine.arrive(engine.open(request(max_tokens=6, seed=1), one))
    run(engine)
    assert one.tokens == plain
    alone = run_alone(request(max_tokens=9, seed=2, constraint=ab_c()))
    assert other.tokens == alone.tokens


def test_a_resumed_stream_goes_on_in_its_state():
    whole = run_alone(request(max_tokens=40, seed=3, constraint=ab_c()))
    policy = ResumePolicy(every=1)
    reader = run_alone(request(max_tokens=40, seed=3, constraint=ab_c(), checkpoints=policy))
    points = reader.of(Checkpoint)
    assert points
    for point in points:
        place = point.snapshot.constrained
        assert place.state == 1
        further = request(
            point.snapshot.tokens,
            max_tokens=40,
            seed=3,
            constraint=ab_c(),
            resumed=point.snapshot,
        )
        rest = run_alone(further)
        assert rest.tokens == whole.tokens[point.snapshot.made :]


def test_penalties_are_added_to_what_may_follow():
    """As bits, whether followed or filled anew; what the constraint forbids stays forbidden."""
    sampling = Sampling.of(0, frequency_penalty=0.5, bias=((B, 0.25), (5, 1.0)))
    text = ConstrainedText(ab_c())
    one = LogitsProcessor(sampling, (), {}, None, 0, text)
    bias, seen = np.full(VOCABULARY, np.nan, np.float32), np.zeros(VOCABULARY, bool)
    one.fill(bias, seen, 0)
    for count, token in enumerate((A, B, A), start=1):
        one.follow(token, bias, seen, count)
    assert bias[[A, B, C]].tolist() == [-1.0, -0.25, 0.0]
    assert np.isneginf(np.delete(bias, [A, B, C])).all()
    fresh = np.full(VOCABULARY, np.nan, np.float32)
    one.fill(fresh, seen, 3)
    assert fresh.tobytes() == bias.tobytes()


@pytest.mark.parametrize("width", [1, 3, 6])
def test_every_hypothesis_of_a_beam_satisfies_the_constraint(width):
    reader = run_alone(request(max_tokens=6, beam=Beam(width, width), constraint=ab_c()))
    ends = reader.of(SampleFinished)
    assert ends
    for end in ends:
        tokens = made(reader, end.sample)
        assert set(tokens[:-1]) <= {A, B}
        assert (tokens[-1] == C) == (end.reason is FinishReason.END)
        assert (end.reason is FinishReason.UNFINISHED) == (tokens[-1] != C)


def test_a_wide_beam_finds_the_best_constrained_text():
    """As wide as there are texts, the search is exhaustive: ab or abab, and nothing else."""
    known = np.log(np.random.default_rng(1).dirichlet(np.ones(5), 4))
    text = ConstrainedText(
        constraint(
            [{1: 1}, {2: 2}, {1: 3}, {2: 4}, {}],
            [False, False, True, False, True],
            [4, 3, 2, 1, 0],
            end_id=4,
            vocabulary=5,
        )
    )
    search = BeamSearch(Beam(8, 8, 0.0), 9, 0, 4, np.zeros(5), text)
    step = 0
    while search.advance(np.repeat(known[None, step], 8, axis=0)):
        step += 1
    found = {tuple(t for t, _ in h.tokens): h.log_probability for h in search.best()}
    short = known[0, 1] + known[1, 2]
    assert found == pytest.approx(
        {(1, 2): short + known[2, 4], (1, 2, 1, 2): short + known[2, 1] + known[3, 2]}
    )


@pytest.mark.parametrize("beam", [None, Beam(3, 2)])
def test_an_automaton_is_let_go_with_the_last_stream(beam):
    """Not when the last reference to the request is gone."""
    one = ab_c()
    engine, gone = make_engine(), weakref.ref(one.automaton)
    samples = 1 if beam else 3
    generation = request(max_tokens=40, constraint=one, samples=samples, beam=beam)
    progress = engine.open(generation, FakeReader())
    engine.arrive(progress)
    engine.step()
    assert gone() is not None
    run(engine)
    assert gone() is None
    assert progress.request is generation


def test_masks_that_are_not_kept_are_made_again():
    one = ab_c().automaton
    one._most_rows = 1
    rows = [one.mask(state).copy() for state in (0, 1, 2, 0)]
    assert (rows[0] == rows[3]).all()
