"""Generate over real channels: every control does what the contract says."""

import threading
import time
from contextlib import contextmanager, suppress

import grpc
import numpy as np
import pytest

from tests.conftest import running
from tests.tiny import edit_manifest
from unroll import Beam, Client, RequestFailed, Sampling
from unroll.v1 import unroll_pb2 as pb
from unroll.v1 import unroll_pb2_grpc

LONG = 400  # the output limit of the tiny generator
EVERY = 17  # tokens of its vocabulary: the letters between padding and unknown
SUPPRESSED = (0, 16)  # of them, those that stand for no symbol
GREEDY = Sampling(temperature=0)

# A caller that takes little ahead of its reads, on a connection of its own.
SMALL_WINDOW = (
    ("grpc.http2.lookahead_bytes", 4096),
    ("grpc.http2.bdp_probe", 0),
    ("grpc.use_local_subchannel_pool", 1),
)


class Answer:
    """All messages of a stream, gathered."""

    def __init__(self, pieces):
        self.pieces = list(pieces)
        self.tokens = [token for piece in self.pieces for token in piece.tokens]
        self.ends = [end for piece in self.pieces for end in piece.ends]
        self.points = [point for piece in self.pieces for point in piece.resume_points]
        self.answer = self.pieces[-1].answer

    @property
    def ids(self):
        return [token.id for token in self.tokens]

    @property
    def text(self):
        return "".join(token.text for token in self.tokens)

    @property
    def reported(self):
        return [(t.id, t.text, t.position, t.log_probability, t.top) for t in self.tokens]

    def of(self, sample):
        return [(t.id, t.log_probability) for t in self.tokens if t.sample == sample]


def wait_until(condition, seconds=20.0):
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "it did not come to pass in time"
        time.sleep(0.005)


@pytest.fixture(scope="module")
def keys(tmp_path_factory):
    path = tmp_path_factory.mktemp("keys") / "keys"
    path.write_text("00112233445566778899aabbccddeeff\n")
    return path


@pytest.fixture(scope="module")
def shared(tiny_models, keys):
    with running(tiny_models, resume_keys=keys) as service:
        yield service


@pytest.fixture(scope="module")
def elsewhere(tiny_models, keys):
    """Another server with the same bundles and keys."""
    with running(tiny_models, resume_keys=keys) as service:
        yield service


@pytest.fixture
def ask(shared):
    with Client(shared.target, timeout=30) as client:
        yield lambda model="letters", **options: Answer(
            client.generate(model, log_probabilities=True, **options)
        )


@pytest.fixture
def ask_elsewhere(elsewhere):
    with Client(elsewhere.target, timeout=30) as client:
        yield lambda model="letters", **options: Answer(
            client.generate(model, log_probabilities=True, **options)
        )


# -- samples and beams ----------------------------------------------------------------------


def test_a_sample_is_the_same_whatever_their_number(ask):
    """And each one's end comes with its own length and log-probability."""
    make_request = {"prompt": "abc", "max_tokens": 20, "sampling": Sampling(seed=5)}
    five = ask(samples=5, **make_request)
    assert [t.position for t in five.tokens if t.sample == 4] == list(range(20))
    assert len({tuple(five.of(sample)) for sample in range(5)}) == 5
    for count in (1, 2, 4):
        some = ask(samples=count, **make_request)
        assert all(some.of(sample) == five.of(sample) for sample in range(count))
    assert sorted(end.sample for end in five.ends) == list(range(5))
    for end in five.ends:
        assert (end.reason, end.output_tokens, end.score) == ("length", 20, None)
        total = sum(log_probability for _, log_probability in five.of(end.sample))
        assert end.log_probability == pytest.approx(total, abs=1e-4)
    assert five.answer.output_tokens == 100


def test_more_samples_than_rows_are_the_same_samples(ask, tiny_models):
    make_request = {"prompt": "ab", "max_tokens": 12, "samples": 7, "sampling": Sampling(seed=8)}
    with (
        running(tiny_models, max_streams=2) as narrow,
        Client(narrow.target, timeout=30) as client,
    ):
        few = Answer(client.generate("letters", log_probabilities=True, **make_request))
    many = ask(**make_request)
    assert [few.of(sample) for sample in range(7)] == [many.of(sample) for sample in range(7)]


@pytest.mark.parametrize("length_penalty", [None, 0.0, 2.0])
def test_a_beam_answers_its_best_hypotheses_best_first(ask, length_penalty):
    """Each score is the log-probability / tokens ^ length_penalty, an end token counted."""
    beam = Beam(6, 4, length_penalty)
    found = ask("speller", source="abcd", max_tokens=15, beam=beam)
    assert [end.sample for end in found.ends] == [0, 1, 2, 3]
    scores = [end.score for end in found.ends]
    assert scores == sorted(scores, reverse=True)
    power = 1.0 if length_penalty is None else length_penalty
    for end in found.ends:
        length = end.output_tokens + (end.reason == "end")
        assert end.score == pytest.approx(end.log_probability / length**power)
        assert len(found.of(end.sample)) == end.output_tokens
    texts = [tuple(found.of(sample)) for sample in range(4)]
    assert len(set(texts)) == 4


def test_a_beam_that_chooses_no_penalty_takes_the_models(models_copy):
    edit_manifest(models_copy / "speller" / "1", lambda c: c.update(length_penalty=2.5))
    with running(models_copy) as service, Client(service.target, timeout=30) as client:
        for chosen, power in ((None, 2.5), (0.5, 0.5)):
            beam = Beam(6, 4, chosen)
            found = Answer(client.generate("speller", source="abcd", max_tokens=15, beam=beam))
            assert len(found.ends) == 4
            for end in found.ends:
                length = end.output_tokens + (end.reason == "end")
                assert end.score == pytest.approx(end.log_probability / length**power)


def test_a_beam_finds_what_score_values(ask, shared):
    """A hypothesis is as probable as Score says, and no less than the greedy one."""
    found = ask(prompt="ab", max_tokens=8, beam=Beam(8, 3))
    greedy = ask(prompt="ab", max_tokens=8, sampling=GREEDY)
    assert found.ends[0].log_probability >= greedy.ends[0].log_probability - 1e-4
    texts = ["".join(t.text for t in found.tokens if t.sample == n) for n in range(3)]
    with Client(shared.target, timeout=30) as client:
        scored = client.score("letters", ["ab" + text for text in texts])
    for end, one in zip(found.ends, scored, strict=True):
        total = sum(token.log_probability for token in one.tokens[2:])
        assert end.log_probability == pytest.approx(total, abs=1e-4)


def test_a_beam_of_one_is_the_greedy_stream(ask):
    beam = ask("speller", source="fgh", max_tokens=20, beam=Beam(1))
    assert beam.reported == ask("speller", source="fgh", max_tokens=20, sampling=GREEDY).reported


# -- what may be drawn ----------------------------------------------------------------------


def test_only_allowed_tokens_are_drawn_and_banned_ones_never(ask):
    make_request = {"prompt": "abc", "max_tokens": 60}
    allowed = ask(sampling=Sampling(seed=1, allowed_tokens=(3, 5, 7)), **make_request)
    assert set(allowed.ids) == {3, 5, 7}
    some = ask(
        sampling=Sampling(seed=1, allowed_tokens=(3, 5, 7), banned_tokens=(5,)), **make_request
    )
    assert set(some.ids) == {3, 7}
    free = ask(sampling=Sampling(seed=1), **make_request)
    banned = tuple(sorted(set(free.ids))[:4])
    assert not set(banned) & set(
        ask(sampling=Sampling(seed=1, banned_tokens=banned), **make_request).ids
    )
    beam = ask(beam=Beam(3), sampling=Sampling(allowed_tokens=(4, 6)), **make_request)
    assert set(beam.ids) <= {4, 6}


@pytest.mark.parametrize(
    "sampling",
    [
        {"logit_bias": {3: 4.0, 9: -6.0, 12: 2.5}},
        {"frequency_penalty": 1.5},
        {"frequency_penalty": -0.5, "presence_penalty": 2.0},
        {"presence_penalty": -1.0, "logit_bias": {5: 1.0}},
        {"frequency_penalty": 0.3, "banned_tokens": (6, 8)},
    ],
    ids=["bias", "frequency", "both", "negative presence", "with a ban"],
)
def test_the_greedy_token_is_the_best_after_bias_and_penalties(ask, sampling):
    """Reported log-probabilities are the model's own; adding the bias finds each token."""
    make_request = {"prompt": "abc", "max_tokens": 60, "top_log_probabilities": EVERY}
    made = ask(sampling=Sampling(temperature=0, **sampling), **make_request)
    assert made.ids != ask(sampling=GREEDY, **make_request).ids
    counts = {}

    def value(token, log_probability):
        if token in (*SUPPRESSED, *sampling.get("banned_tokens", ())):
            return float("-inf")
        count = counts.get(token, 0)
        return (
            log_probability
            + sampling.get("logit_bias", {}).get(token, 0.0)
            - sampling.get("frequency_penalty", 0.0) * count
            - sampling.get("presence_penalty", 0.0) * bool(count)
        )

    for token in made.tokens:
        known = {number: value(number, reported) for number, _, reported in token.top}
        assert known[token.id] >= max(known.values()) - 1e-4, token.position
        counts[token.id] = counts.get(token.id, 0) + 1


def test_a_repetition_penalty_turns_away_from_what_was_there(ask):
    """The first token that differs from the free stream's was in the prompt or the stream."""
    free = ask(prompt="abcdefg", max_tokens=30, sampling=GREEDY)
    held = ask(
        prompt="abcdefg", max_tokens=30, sampling=Sampling(temperature=0, repetition_penalty=50.0)
    )
    assert len(set(held.ids)) > len(set(free.ids))
    first = next(n for n in range(30) if free.ids[n] != held.ids[n])
    letters = "abcdefg" + "".join(token.text for token in free.tokens[:first])
    assert free.tokens[first].text in letters


def test_a_repetition_penalty_of_a_source_model_looks_at_its_output_alone(ask):
    """Sources of other symbols beyond the output's vocabulary are served as any."""
    sampling = Sampling(temperature=0, repetition_penalty=3.0)
    for source in ("nml", "nmlk abc", "a"):
        free = ask("speller", source=source, max_tokens=20, sampling=GREEDY)
        held = ask("speller", source=source, max_tokens=20, sampling=sampling)
        assert held.tokens[0] == free.tokens[0], "nothing was made before the first"


def test_min_p_cuts_what_is_too_improbable(ask):
    make_request = {"prompt": "abc", "max_tokens": 60, "top_log_probabilities": EVERY}
    made = ask(sampling=Sampling(seed=3, min_p=0.3), **make_request)
    for token in made.tokens:
        assert token.log_probability >= token.top[0][2] + -1.2040 - 1e-3  # ln 0.3
    assert made.ids != ask(sampling=Sampling(seed=3), **make_request).ids
    assert (
        ask(sampling=Sampling(seed=3, min_p=1.0), **make_request).ids
        == ask(sampling=GREEDY, **make_request).ids
    )


@pytest.mark.parametrize("typical_p", [0.2, 0.7])
def test_typical_p_keeps_what_surprises_as_much_as_the_whole_does(ask, typical_p):
    """Every drawn token is of the smallest set nearest to the entropy that has this mass."""
    make_request = {"prompt": "abc", "max_tokens": 60, "top_log_probabilities": EVERY}
    made = ask(sampling=Sampling(seed=3, typical_p=typical_p), **make_request)
    for token in made.tokens:
        # Padding and the unknown token are never drawn: what is left is the distribution.
        known = {number: np.exp(value) for number, _, value in token.top if 0 < number < 16}
        mass = sum(known.values())
        surprise = {number: -np.log(p / mass) for number, p in known.items()}
        entropy = sum(p / mass * surprise[number] for number, p in known.items())
        near = sorted(known, key=lambda number: abs(surprise[number] - entropy))
        closer = sum(known[number] / mass for number in near[: near.index(token.id)])
        assert closer < typical_p + 1e-4
    assert made.ids != ask(sampling=Sampling(seed=3), **make_request).ids
    assert (
        ask(sampling=Sampling(seed=3, typical_p=1.0), **make_request).ids
        == ask(sampling=Sampling(seed=3), **make_request).ids
    )


def test_nothing_ends_a_stream_before_min_tokens(ask):
    """Neither the end token nor a stop text."""
    for seed in range(12):
        sampling = Sampling(temperature=1.0, seed=seed)
        make_request = {"source": "abc", "max_tokens": 30, "sampling": sampling}
        assert len(ask("speller", min_tokens=12, **make_request).tokens) >= 12
    stopped = ask(prompt="a", max_tokens=60, stop=list("abcdefghij klmn"), min_tokens=7)
    assert len(stopped.tokens) == 7
    assert stopped.answer.reason == "stop"
    beam = ask("speller", source="abc", max_tokens=30, min_tokens=9, beam=Beam(4, 4))
    assert all(end.output_tokens >= 9 for end in beam.ends)


# -- what comes beside a token ---------------------------------------------------------------


def test_the_likeliest_tokens_are_reported_with_the_drawn_ones_value(ask, shared):
    with Client(shared.target, timeout=30) as client:
        vocabulary = client.get_model("letters", with_vocabulary=True).vocabulary
    make_request = {"prompt": "abc", "max_tokens": 25, "sampling": Sampling(seed=3)}
    made = ask(top_log_probabilities=EVERY, **make_request)
    assert [t.id for t in made.tokens] == ask(**make_request).ids, "telling changes nothing"
    for token in made.tokens:
        values = [value for _, _, value in token.top]
        assert values == sorted(values, reverse=True)
        by_id = {number: (text, value) for number, text, value in token.top}
        assert by_id[token.id] == (token.text, token.log_probability)
        assert all(text == vocabulary[number] for number, text, _ in token.top)
    few = ask(top_log_probabilities=3, **make_request)
    assert [t.top for t in few.tokens] == [t.top[:3] for t in made.tokens]


def test_echo_reports_the_prompt_as_score_does(ask, shared):
    prompt = "abc defg"
    with Client(shared.target, timeout=30) as client:
        (scored,) = client.score("letters", [prompt])
        plain = list(client.generate("letters", prompt=prompt, max_tokens=3, echo=True))
    reported = ask(prompt=prompt, max_tokens=3, echo=True)
    assert reported.pieces[0].echo == scored.tokens
    assert not any(piece.echo for piece in reported.pieces[1:])
    assert "".join(token.text for token in plain[0].echo) == prompt
    assert all(token.log_probability is None for token in plain[0].echo)
    assert [t.position for t in reported.tokens] == [0, 1, 2], "the stream itself begins at 0"
    one = ask(prompt="a", max_tokens=1, echo=True)
    assert [(t.text, t.log_probability) for t in one.pieces[0].echo] == [("a", None)]


@pytest.mark.parametrize("count", [1, 3, 16])
def test_messages_hold_as_many_tokens_as_were_asked_for(ask, count):
    """But for the first token, which waits for no other, and the last message."""
    made = ask(prompt="ab", max_tokens=100, tokens_per_message=count, sampling=Sampling(seed=2))
    sizes = [len(piece.tokens) for piece in made.pieces]
    assert sum(sizes) == 100
    assert all(size == count for size in sizes[1:-1])
    assert 1 <= sizes[0] <= count
    assert sizes[-1] <= count
    automatic = ask(prompt="ab", max_tokens=100, sampling=Sampling(seed=2))
    assert automatic.reported == made.reported


def test_the_vocabulary_is_listed_when_asked_for(shared):
    with Client(shared.target, timeout=30) as client:
        assert not client.get_model("letters").vocabulary
        vocabulary = client.get_model("letters", with_vocabulary=True).vocabulary
        assert list(vocabulary) == ["", *"abcdefghij klmn", "\ufffd"]
        phones = client.get_model("speller", with_vocabulary=True).vocabulary
        assert {"P", "V"} <= set(phones)


# -- resume tokens --------------------------------------------------------------------------

RESUMED = {
    "plain": {"sampling": Sampling(seed=9)},
    "penalties": {
        "sampling": Sampling(seed=9, frequency_penalty=0.6, repetition_penalty=1.4, min_p=0.01)
    },
    "typical": {"sampling": Sampling(seed=9, typical_p=0.7)},
    "bias": {"sampling": Sampling(seed=9, logit_bias={4: 2.0}, banned_tokens=(6,))},
    "stops": {"sampling": Sampling(seed=9), "stop": ["abcabcabc", "kkkkk", "n?"]},
    "likeliest": {"sampling": Sampling(seed=9), "top_log_probabilities": 4},
}


@pytest.mark.parametrize("case", RESUMED)
def test_a_stream_goes_on_elsewhere_from_each_resume_point(ask, ask_elsewhere, case):
    """Another server with the same keys makes the tokens that would have followed."""
    make_request = RESUMED[case]
    whole = ask(prompt="abc", max_tokens=70, resume_every=16, **make_request)
    assert len(whole.points) == 4
    top = {k: v for k, v in make_request.items() if k.startswith("top")}
    for point in whole.points:
        rest = ask_elsewhere(resume_token=point.token, **top)
        assert rest.reported == whole.reported[point.next_position :]
        assert rest.answer.reason == whole.answer.reason
        assert rest.answer.input_tokens == 3
        (end,) = rest.ends
        assert end.output_tokens == len(rest.tokens)


def test_a_source_model_goes_on_elsewhere(ask, ask_elsewhere):
    make_request = {"source": "abcdef", "max_tokens": 40, "min_tokens": 40}
    whole = ask(
        "speller", sampling=Sampling(temperature=1.0, seed=2), resume_every=16, **make_request
    )
    assert len(whole.points) == 2
    for point in whole.points:
        rest = ask_elsewhere("speller", resume_token=point.token)
        assert rest.reported == whole.reported[point.next_position :]


def test_each_sample_goes_on_by_itself(ask, ask_elsewhere):
    whole = ask(prompt="ab", max_tokens=40, samples=3, resume_every=20, sampling=Sampling(seed=4))
    halfway = [point for point in whole.points if point.next_position == 20]
    assert sorted(point.sample for point in halfway) == [0, 1, 2]
    for point in halfway:
        rest = ask_elsewhere(resume_token=point.token)
        assert {token.sample for token in rest.tokens} == {point.sample}
        assert rest.of(point.sample) == whole.of(point.sample)[20:]


def test_an_ended_stream_goes_further(ask, ask_elsewhere):
    """resume_at_end brings a token after the last token of a full length or a stop text."""
    make_request = {"prompt": "abc", "sampling": Sampling(seed=6)}
    long = ask(max_tokens=60, **make_request)
    short = ask(max_tokens=25, resume_at_end=True, **make_request)
    (point,) = short.points
    assert point.next_position == 25
    assert (
        short.reported + ask_elsewhere(resume_token=point.token, max_tokens=35).reported
        == long.reported
    )
    stop = long.text[30:33]
    stopped = ask(max_tokens=60, stop=[stop], resume_at_end=True, **make_request)
    assert stopped.answer.reason == "stop"
    (point,) = stopped.points
    further = ask_elsewhere(resume_token=point.token, max_tokens=5)
    assert further.ids == long.ids[point.next_position : point.next_position + 5]
    with pytest.raises(RequestFailed, match=r"INVALID_ARGUMENT.*had made all of its 25 tokens"):
        ask_elsewhere(resume_token=short.points[0].token)


def test_a_new_seed_forks_a_stream(ask, ask_elsewhere):
    """The same point and seed make the same fork anywhere; another seed another one."""
    (point, *_) = ask(
        prompt="abc", max_tokens=60, resume_every=16, sampling=Sampling(seed=1)
    ).points
    fork = ask(resume_token=point.token, sampling=Sampling(seed=77))
    assert (
        fork.reported
        == ask_elsewhere(resume_token=point.token, sampling=Sampling(seed=77)).reported
    )
    assert fork.tokens[0].position == point.next_position
    assert fork.pieces[0].seed == 77
    others = [ask(resume_token=point.token, sampling=Sampling(seed=seed)) for seed in (78, 79)]
    assert len({tuple(made.ids) for made in (fork, *others)}) == 3


def a_point(ask, model="letters"):
    source = {"source": "abc", "min_tokens": 20} if model == "speller" else {"prompt": "abc"}
    return ask(model, max_tokens=40, resume_every=16, **source).points[0].token


def test_a_changed_resume_token_is_refused(ask):
    token = a_point(ask)
    for place in (30, 200, len(token) // 2, len(token) - 1):
        changed = bytearray(token)
        changed[place] ^= 1
        with pytest.raises(RequestFailed, match=r"INVALID_ARGUMENT.*was changed on its way"):
            ask(resume_token=bytes(changed))
    for part in (token[:20], token[1:], b"x", b""):
        with pytest.raises(RequestFailed, match=r"INVALID_ARGUMENT.*no resume token"):
            ask(resume_token=part)
    with pytest.raises(RequestFailed, match="INVALID_ARGUMENT"):
        ask(resume_token=token[:-1])


def test_a_resume_token_of_another_key_is_refused_and_says_what_to_share(
    ask, tiny_models, tmp_path
):
    other = tmp_path / "keys"
    other.write_text("ffeeddccbbaa99887766554433221100\n")
    token = a_point(ask)
    for setting in (other, None):
        with (
            running(tiny_models, resume_keys=setting) as service,
            Client(service.target, timeout=30) as client,
        ):
            with pytest.raises(RequestFailed, match=r"FAILED_PRECONDITION.*same resume_keys"):
                list(client.generate("letters", resume_token=token))
            own = a_point(
                lambda model, client=client, **options: Answer(client.generate(model, **options))
            )
        with pytest.raises(RequestFailed, match=r"FAILED_PRECONDITION.*same resume_keys"):
            ask(resume_token=own)


def test_a_resume_token_is_good_for_its_time_and_its_model(ask, tiny_models, keys):
    with pytest.raises(RequestFailed, match=r"FAILED_PRECONDITION.*is for model 'letters'"):
        ask("speller", resume_token=a_point(ask))
    with (
        running(tiny_models, resume_keys=keys, resume_seconds=1e-6) as service,
        Client(service.target, timeout=30) as client,
    ):
        token = a_point(lambda model, **options: Answer(client.generate(model, **options)))
    with pytest.raises(RequestFailed, match=r"FAILED_PRECONDITION.*has expired"):
        ask(resume_token=token)


@pytest.mark.parametrize(
    ("kept", "name"),
    [
        ({"sampling": Sampling(temperature=0.5)}, "temperature"),
        ({"sampling": Sampling(seed=3, banned_tokens=(3,))}, "banned_tokens"),
        ({"stop": ["a"]}, "stop"),
        ({"min_tokens": 3}, "min_tokens"),
        ({"samples": 2}, "samples"),
        ({"beam": Beam(2)}, "beam"),
        ({"echo": True}, "echo"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_a_resumed_stream_keeps_what_it_was_asked_with(ask, kept, name):
    with pytest.raises(RequestFailed, match=rf"INVALID_ARGUMENT.*keeps its {name}"):
        ask(resume_token=a_point(ask), **kept)


# -- refusals -------------------------------------------------------------------------------


def drawing(**fields):
    return {"sampling": Sampling(**fields)}


REFUSED = {
    "min_p above 1": (drawing(min_p=1.5), "min_p is 1.5; choose one from 0 to 1"),
    "typical_p of 0": (drawing(typical_p=0.0), "typical_p is 0; choose one above 0 and up to 1"),
    "typical_p above 1": (drawing(typical_p=1.5), "typical_p is 1.5; choose one above 0"),
    "min_p no number": (drawing(min_p=float("nan")), "min_p is nan"),
    "repetition of 0": (drawing(repetition_penalty=0.0), "repetition_penalty is 0; choose one"),
    "frequency of 3": (drawing(frequency_penalty=3.0), "frequency_penalty is 3; choose one from"),
    "presence of -3": (drawing(presence_penalty=-3.0), "presence_penalty is -3"),
    "bias too large": (drawing(logit_bias={3: 101.0}), r"logit_bias\[3\] is 101; choose one"),
    "bias infinite": (drawing(logit_bias={3: float("inf")}), r"logit_bias\[3\] is inf"),
    "bias of no token": (drawing(logit_bias={99: 1.0}), "logit_bias names token 99, model"),
    "allowed no token": (drawing(allowed_tokens=(17,)), "knows 0 to 16; GetModel with_vocabulary"),
    "banned no token": (drawing(banned_tokens=(2**32 - 1,)), "banned_tokens names token"),
    "all banned": (drawing(banned_tokens=range(EVERY)), "leave nothing to draw"),
    "allowed is banned": (
        drawing(allowed_tokens=(3,), banned_tokens=(3,)),
        "allowed_tokens and banned_tokens leave nothing to draw",
    ),
    "allowed but suppressed": (drawing(allowed_tokens=(0,)), "leave nothing to draw"),
    "too many samples": ({"samples": 65}, "samples is 65; choose 1 to 64"),
    "min above max": ({"min_tokens": 9, "max_tokens": 8}, "min_tokens is 9, max_tokens 8"),
    "too many likeliest": ({"top_log_probabilities": 21}, "is 21; choose up to 20"),
    "resume too often": ({"resume_every": 15}, "resume_every is 15; choose 0 for never or at"),
    "stop too long": ({"stop": ["x" * 257]}, r"stop\[0\] has 257 characters; send 1 to 256"),
    "beam of none": ({"beam": Beam(0)}, "beam.width is 0; choose 1 to 16"),
    "beam too wide": ({"beam": Beam(17)}, "beam.width is 17; choose 1 to 16"),
    "more best than wide": ({"beam": Beam(2, 3)}, r"beam.best is 3; choose 1 to beam.width \(2\)"),
    "beam penalty": ({"beam": Beam(2, 1, 11.0)}, "beam.length_penalty is 11"),
    "beam penalty no number": ({"beam": Beam(2, 1, float("nan"))}, "beam.length_penalty is nan"),
    "beam and stop": ({"beam": Beam(2), "stop": ["a"]}, "beam search goes without stop"),
    "beam and samples": ({"beam": Beam(2), "samples": 2}, "goes without samples"),
    "beam and seed": ({"beam": Beam(2)} | drawing(seed=1), "goes without seed"),
    "beam and bias": ({"beam": Beam(2)} | drawing(logit_bias={3: 1.0}), "goes without logit_bias"),
    "beam and likeliest": (
        {"beam": Beam(2), "top_log_probabilities": 2},
        "goes without top_log_probabilities",
    ),
    "beam and resume": ({"beam": Beam(2), "resume_every": 16}, "goes without resume tokens"),
    "beam and resume at end": (
        {"beam": Beam(2), "resume_at_end": True},
        "goes without resume tokens",
    ),
}


@pytest.mark.parametrize("case", REFUSED)
def test_what_cannot_be_asked_is_refused_and_says_what_to_choose(ask, case):
    options, message = REFUSED[case]
    with pytest.raises(RequestFailed, match=message) as caught:
        ask(prompt="abc", **options)
    assert caught.value.code == "INVALID_ARGUMENT"


def test_echo_of_a_source_is_its_tokens_as_they_are_read(ask):
    request = {"source": "ABé", "max_tokens": 8, "sampling": Sampling(seed=3)}
    reported, plain = ask("speller", echo=True, **request), ask("speller", **request)
    echo = reported.pieces[0].echo
    assert [token.text for token in echo] == ["a", "b", "\N{REPLACEMENT CHARACTER}"]
    assert [token.position for token in echo] == [0, 1, 2]
    assert all(token.log_probability is None for token in echo)
    assert not any(piece.echo for piece in reported.pieces[1:])
    assert reported.tokens == plain.tokens


def test_a_beam_wider_than_the_rows_is_refused(tiny_models):
    with (
        running(tiny_models, max_streams=3) as narrow,
        Client(narrow.target, timeout=30) as client,
    ):
        with pytest.raises(RequestFailed, match=r"beam.width is 4; choose 1 to 3"):
            list(client.generate("letters", prompt="a", beam=Beam(4)))
        assert list(client.generate("letters", prompt="a", max_tokens=3, beam=Beam(3)))


# -- slow readers ---------------------------------------------------------------------------


def much(seed, samples=10):
    """Some hundred kilobytes: more than a connection takes unread."""
    return pb.GenerateRequest(
        model="letters",
        prompt="ab",
        max_tokens=LONG,
        samples=samples,
        log_probabilities=True,
        top_log_probabilities=EVERY,
        sampling=pb.Sampling(seed=seed),
    )


@contextmanager
def reading_slowly(service, request):
    """A call whose first message was read, and nothing since."""
    with grpc.insecure_channel(service.target, SMALL_WINDOW) as channel:
        call = unroll_pb2_grpc.UnrollServiceStub(channel).Generate(request, timeout=120)
        try:
            yield next(call), call
        finally:
            call.cancel()


def tokens_of(messages):
    """The tokens of each sample, as they came."""
    found = {}
    for message in messages:
        for token in message.tokens:
            found.setdefault(token.sample, []).append(token)
    return found


def stalled(service):
    """Calls that were given up since nobody read."""
    aborted = {"model": "letters", "method": "Generate", "code": "ABORTED"}
    return service.metric("unroll_requests_total", **aborted)


def paused(service):
    return service.metric("unroll_paused_streams", model="letters")


def test_a_slow_readers_stream_pauses_and_then_goes_on_as_it_would_have(service):
    """Others finish meanwhile; what comes in the end is what a fast reader gets."""
    with grpc.insecure_channel(service.target) as channel:
        stub = unroll_pb2_grpc.UnrollServiceStub(channel)
        expected = tokens_of(stub.Generate(much(3), timeout=60))
    with (
        reading_slowly(service, much(3)) as (first, call),
        Client(service.target, timeout=30) as client,
    ):
        wait_until(lambda: paused(service) == 10)
        engine = service.app.registry.get("letters").thread.engine
        assert engine.scheduler.free_rows == engine.scheduler.capacity
        for seed in range(3):
            others = client.generate(
                "letters", prompt="b", max_tokens=LONG, sampling=Sampling(seed=seed)
            )
            assert len(Answer(others).tokens) == LONG
        assert paused(service) == 10, "nothing was read, nothing went on"
        assert tokens_of([first, *call]) == expected
    assert paused(service) == 0


def test_paused_streams_hold_no_row(start_service):
    """With two rows and two readers that do not read, a third request is answered."""
    service = start_service(max_streams=2)
    scheduler = service.app.registry.get("letters").thread.engine.scheduler
    with (
        reading_slowly(service, much(1)) as (first, call),
        reading_slowly(service, much(2)),
        Client(service.target, timeout=30) as client,
    ):
        # How many ended before depends on what the connection took.
        wait_until(lambda: scheduler.free_rows == scheduler.capacity and paused(service) >= 8)
        assert len(Answer(client.generate("letters", prompt="a", max_tokens=90)).tokens) == 90
        beam = Answer(client.generate("letters", prompt="a", max_tokens=9, beam=Beam(2, 2)))
        assert len(beam.ends) == 2
        assert {s: len(t) for s, t in tokens_of([first, *call]).items()} == dict.fromkeys(
            range(10), LONG
        )
    engine = service.app.registry.get("letters").thread.engine
    wait_until(lambda: not engine.scheduler.everyone() and service.app.inflight.calls == 0)
    assert paused(service) == 0


def test_a_reader_that_stalls_is_given_up(start_service):
    """It reads what was on its way, then ABORTED with what to do; nothing of it stays."""
    service = start_service(stall_seconds=0.2)
    engine = service.app.registry.get("letters").thread.engine
    with reading_slowly(service, much(1)) as (first, call):
        # It was given up, whether it ever reads on or not.
        wait_until(lambda: stalled(service) == 1)
        wait_until(lambda: not engine.scheduler.everyone())
        assert service.app.inflight.calls == 0
        messages = [first]
        with pytest.raises(grpc.RpcError) as caught:
            messages.extend(call)
    assert caught.value.code() is grpc.StatusCode.ABORTED
    assert "nothing was read for 0.2 s, so the stream was given up" in caught.value.details()
    assert paused(service) == 0


def test_unread_streams_give_up_their_places_to_whoever_comes(start_service):
    """Long before they would have stalled; the caller learns why, even in the midst of a write.

    Of so few places none is in reserve for another caller.
    """
    service = start_service(max_streams=2, max_queue=1)
    thread = service.app.registry.get("letters").thread
    with (
        reading_slowly(service, much(1)) as (_, call),
        Client(service.target, timeout=30) as client,
    ):
        # Two of the ten run first whenever there is room, and may be done before it is used up.
        wait_until(lambda: thread.engine.is_idle and paused(service) > 0)
        assert thread.open_work > thread.limit

        def answered():
            with suppress(RequestFailed):
                return len(Answer(client.generate("letters", prompt="a", max_tokens=9)).tokens)

        wait_until(lambda: answered() == 9)
        assert thread.given_up == 1
        wait_until(lambda: stalled(service) == 1)
        with pytest.raises(grpc.RpcError) as caught:
            list(call)
        assert caught.value.code() is grpc.StatusCode.ABORTED
        assert "while others waited for a place" in caught.value.details()
        assert service.app.inflight.calls == 0
    wait_until(lambda: thread.open_work == 0)


def test_a_stop_waits_for_no_reader_that_was_given_up(start_service):
    service = start_service(stall_seconds=0.2)
    with reading_slowly(service, much(1)) as (_, call):
        wait_until(lambda: stalled(service) == 1)
        assert service.stop() is True
        with suppress(grpc.RpcError):
            list(call)


@pytest.mark.parametrize("how", ["cancel", "disconnect"])
def test_a_paused_stream_can_be_left(service, how):
    engine = service.app.registry.get("letters").thread.engine
    channel = grpc.insecure_channel(service.target, SMALL_WINDOW)
    call = unroll_pb2_grpc.UnrollServiceStub(channel).Generate(much(1), timeout=60)
    next(call)
    wait_until(lambda: paused(service) == 10)
    if how == "cancel":
        call.cancel()
    channel.close()
    wait_until(lambda: not engine.scheduler.everyone() and service.app.inflight.calls == 0)
    assert paused(service) == 0
    assert service.app.registry.get("letters").thread.open_work == 0


def test_stopping_gives_up_readers_that_do_not_read(start_service):
    """A stop waits for the grace and no longer, and nobody is left in the engine."""
    service = start_service(grace_seconds=0.3)
    with reading_slowly(service, much(1)) as (_, call):
        wait_until(lambda: paused(service) == 10)
        assert service.stop() is False
        with suppress(grpc.RpcError):
            list(call)


def test_readers_that_stop_and_go_get_everything(service):
    """Eight readers of changing speed on eight connections: each gets its own tokens."""
    with grpc.insecure_channel(service.target) as channel:
        stub = unroll_pb2_grpc.UnrollServiceStub(channel)
        expected = [tokens_of(stub.Generate(much(n, 4), timeout=60)) for n in range(8)]
    found = [None] * 8

    def read(number, release):
        with reading_slowly(service, much(number, 4)) as (first, call):
            release.wait(30)
            found[number] = tokens_of([first, *call])

    releases = [threading.Event() for _ in range(8)]
    threads = [
        threading.Thread(target=read, args=(n, release)) for n, release in enumerate(releases)
    ]
    for thread in threads:
        thread.start()
    wait_until(lambda: paused(service) == 32, seconds=40)
    for release in releases:
        release.set()
    for thread in threads:
        thread.join(60)
    assert found == expected
