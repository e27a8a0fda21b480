"""A vector that becomes a sequence, and a generator without a state, over real channels."""

import re
from concurrent.futures import ThreadPoolExecutor

import pytest

from tests.tiny import NUTRIENTS
from unroll import Beam, RequestFailed, Sampling
from unroll.v1 import unroll_pb2 as pb

VECTOR = (37.02, 0.1, 22.87)
OTHERS = [(float(number), 400.0 / (1 + number), 0.0) for number in range(12)]


@pytest.fixture
def ask(caller):
    def call(model="foods", **options):
        pieces = list(caller.generate(model, log_probabilities=True, **options))
        return pieces, [(t.id, t.text, t.log_probability) for p in pieces for t in p.tokens]

    return call


def test_a_vector_becomes_a_sequence(ask):
    pieces, tokens = ask(vector=VECTOR, sampling=Sampling(seed=3), max_tokens=30)
    assert pieces[-1].answer.input_tokens == len(VECTOR)
    assert pieces[-1].answer.unknown_symbols == 0
    assert len(tokens) == pieces[-1].answer.output_tokens > 0
    _, other = ask(vector=OTHERS[5], sampling=Sampling(seed=3), max_tokens=30)
    assert other != tokens, "the vector conditions what is made"


def test_a_vector_gets_the_same_bits_alone_and_among_others(ask):
    requests = [
        {"vector": vector, "sampling": Sampling(seed=number), "max_tokens": 5 + number}
        for number, vector in enumerate(OTHERS)
    ]
    alone = [ask(**request)[1] for request in requests]
    with ThreadPoolExecutor(len(requests)) as pool:
        together = [tokens for _, tokens in pool.map(lambda request: ask(**request), requests)]
    assert together == alone


def test_score_is_what_generation_reports(ask, caller):
    """Of a vector's own sequence, the end among its tokens, whatever is scored beside it."""
    pieces, reported = ask(vector=VECTOR, sampling=Sampling(temperature=0), max_tokens=8)
    text = "".join(piece.text for piece in pieces)
    scored, *_ = caller.score("foods", [text, "P", "Q R"], vectors=[VECTOR, *OTHERS[:2]])
    assert caller.score("foods", [text], vectors=[VECTOR]) == [scored]
    assert [token.id for token in scored.tokens[:-1]] == [token for token, _, _ in reported]
    for token, (_, _, log_probability) in zip(scored.tokens, reported, strict=False):
        assert token.log_probability == pytest.approx(log_probability, abs=1e-5)


def test_a_beam_and_samples_start_from_the_vector_as_well(ask):
    pieces, _ = ask(vector=VECTOR, beam=Beam(3, 2), max_tokens=10)
    assert [end.sample for piece in pieces for end in piece.ends] == [0, 1]
    pieces, _ = ask(vector=VECTOR, samples=3, max_tokens=10)
    assert sum(len(piece.ends) for piece in pieces) == 3


@pytest.mark.parametrize(
    ("model", "given"), [("foods", {"vector": VECTOR}), ("bigrams", {"prompt": "abc"})]
)
def test_a_stream_goes_on_from_its_resume_point(ask, model, given):
    """A vector is prefilled again from its own bits; without a state, the last token is all."""
    options = {"sampling": Sampling(seed=8), "min_tokens": 40, "max_tokens": 40}
    pieces, whole = ask(model, **given, **options, resume_every=16)
    (first, second) = [point for piece in pieces for point in piece.resume_points]
    assert (first.next_position, second.next_position) == (16, 32)
    for point in (first, second):
        again, rest = ask(model, resume_token=point.token)
        assert rest == whole[point.next_position :]
        assert again[-1].answer.input_tokens == 3


def test_without_a_state_the_last_token_of_a_prompt_is_all_that_counts(ask, caller):
    """Greedily: what is drawn depends on the whole prompt, which is mixed into the seed."""
    options = {"sampling": Sampling(temperature=0), "max_tokens": 30}
    prompts = ["a", "dca", "abcdefgh" * 7 + "a", "b"]
    with ThreadPoolExecutor(4) as pool:
        answers = list(pool.map(lambda prompt: ask("bigrams", prompt=prompt, **options), prompts))
    reported = [tokens for _, tokens in answers]
    assert reported[0] == reported[1] == reported[2] != reported[3]
    assert [pieces[-1].answer.input_tokens for pieces, _ in answers] == [1, 3, 57, 1]
    made = "".join(text for _, text, _ in reported[0])
    scored, other = caller.score("bigrams", ["a" + made, "ba"])
    for token, (_, _, log_probability) in zip(scored.tokens[1:], reported[0], strict=True):
        assert token.log_probability == pytest.approx(log_probability, abs=1e-5)
    assert len(other.tokens) == 2


def test_a_model_says_what_its_vector_holds(caller):
    model = caller.get_model("foods", with_vocabulary=True)
    assert (model.task, tuple(model.vector_fields)) == (pb.TASK_VECTOR_TO_SEQUENCE, NUTRIENTS)
    assert model.HasField("default_sampling")
    assert "P" in model.vocabulary
    assert not caller.get_model("speller").vector_fields


def generate(model="foods", **fields):
    return "Generate", pb.GenerateRequest(model=model, **fields)


def score(model="foods", **fields):
    return "Score", pb.ScoreRequest(model=model, items=[pb.ScoreItem(text="P", **fields)])


def vector(*values):
    return pb.Vector(values=values)


REFUSED = {
    "too few": (generate(vector=vector(1, 2)), "vector has 2 values, the model takes 3; send one"),
    "none": (generate(vector=vector()), "vector has 0 values"),
    "not a number": (
        generate(vector=vector(1, float("nan"), 2)),
        r"vector.values\[1\] is nan; vector_fields\[1\], 'Energy \(kcal\)', is a number from 0",
    ),
    "infinite": (generate(vector=vector(1, 2, float("inf"))), r"vector.values\[2\] is inf"),
    "below zero": (generate(vector=vector(-0.5, 2, 3)), r"vector.values\[0\] is -0.5"),
    "a prompt": (generate(prompt="a"), "takes a vector, the request has a prompt; set 'vector'"),
    "no input": (generate(), "takes a vector, the request has no input"),
    "a vector for a prompt": (
        generate("letters", vector=vector(1)),
        "takes a prompt, the request has a vector",
    ),
    "echo": (
        generate(vector=vector(*VECTOR), echo=True),
        "reads a vector, which has no tokens to echo",
    ),
    "scored without": (score(), r"items\[0\].vector is empty; model 'foods' scores texts given a"),
    "scored with a source": (
        score(source="a", vector=vector(*VECTOR)),
        r"items\[0\].source is set, model 'foods' scores texts given a vector; leave it",
    ),
    "scored with too few": (score(vector=vector(1)), r"items\[0\].vector has 1 values"),
    "a vector for a source": (
        score("speller", source="a", vector=vector(1)),
        r"items\[0\].vector is set, model 'speller' scores texts given a source",
    ),
    "a vector for a text alone": (
        score("letters", vector=vector(1)),
        r"items\[0\].vector is set, model 'letters' scores texts alone",
    ),
}


@pytest.mark.parametrize("case", REFUSED)
def test_what_cannot_prefill_is_refused_and_says_what_to_do(refusal, case):
    request, message = REFUSED[case]
    assert re.search(message, refusal(*request))


def test_a_resumed_stream_keeps_its_vector(ask):
    """It goes on with the values it was made from, and takes no other."""
    pieces, _ = ask(vector=VECTOR, max_tokens=2, min_tokens=2, resume_at_end=True)
    (point,) = [point for piece in pieces for point in piece.resume_points]
    with pytest.raises(RequestFailed, match="FAILED_PRECONDITION"):
        ask("bigrams", resume_token=point.token)
    assert ask(resume_token=point.token, max_tokens=3)[1]
