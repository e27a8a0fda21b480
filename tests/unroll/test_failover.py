"""A stream over several calls is the stream of one: nothing lost, nothing twice, one seed."""

from __future__ import annotations

import itertools
import json

import pytest

from tests.unroll import fakes
from tests.unroll.fakes import WELL, Act
from unroll.channel import NO_RETRIES, Retries
from unroll.failover import RESUME_EVERY, ResumableStream
from unroll.types import Beam, RequestFailed, Sampling

RETRIES = Retries(attempts=4, first_seconds=1.0, longest_seconds=8.0)
ASKED = {"prompt": "abc", "max_tokens": 33, "resume_every": 8}


class Received:
    """What a caller got of a request whose calls become of ``acts``, one after the other.

    retries, requests: as they were used. waits: before each call, in seconds.
    """

    def __init__(self, options, acts=(), retries=RETRIES, most_calls=50):
        stream = ResumableStream("m", options, retries, draw=lambda: 1.0, choose_seed=lambda: 7)
        self.pieces, self.requests, self.waits = [], [], []
        left = iter(acts)
        while stream.open_attempts:
            for attempt in list(stream.open_attempts):
                if attempt.call is None:
                    self.requests.append(attempt.request)
                    self.waits.append(attempt.wait_seconds)
                    assert len(self.requests) <= most_calls, "it never ends"
                    attempt.call = fakes.generate(attempt.request, next(left, WELL))
                try:
                    response = next(attempt.call)
                except StopIteration:
                    stream.end(attempt)
                except RequestFailed as failure:
                    stream.fail(attempt, failure)
                else:
                    piece = stream.take(attempt, response)
                    self.pieces += [piece] if piece else []

    @property
    def tokens(self):
        """By sample, in the order in which they came."""
        tokens = [token for piece in self.pieces for token in piece.tokens]
        return {n: [t for t in tokens if t.sample == n] for n in {t.sample for t in tokens}}

    @property
    def ends(self):
        return sorted((end for piece in self.pieces for end in piece.ends), key=lambda e: e.sample)

    @property
    def points(self):
        points = [point for piece in self.pieces for point in piece.resume_points]
        return sorted((point.sample, point.next_position) for point in points)

    @property
    def answers(self):
        return [piece.answer for piece in self.pieces if piece.answer]

    @property
    def seeds(self):
        return [piece.seed for piece in self.pieces if piece.seed is not None]

    @property
    def echo(self):
        return [token.text for piece in self.pieces for token in piece.echo]


def same(told, whole):
    """But for the text of a few resume points more."""
    assert told.tokens == whole.tokens
    assert told.ends == whole.ends
    assert (told.seeds, told.echo) == (whole.seeds, whole.echo)
    (answer,), (expected,) = told.answers, whole.answers
    assert told.pieces[-1].answer is answer
    assert answer.output_tokens == expected.output_tokens == sum(map(len, told.tokens.values()))
    assert answer.input_tokens == expected.input_tokens
    return True


HOWS = {
    "broken": lambda number: Act(breaks_after=number),
    "broken by a proxy": lambda number: Act(
        breaks_after=number, code="UNKNOWN", message="Stream removed (END_STREAM)"
    ),
    "reset": lambda number: Act(
        breaks_after=number, code="INTERNAL", message="Received RST_STREAM with error code 2"
    ),
    "cancelled": lambda number: Act(breaks_after=number, code="CANCELLED", message="CANCELLED"),
    "handed over": lambda number: Act(hands_over_after=number),
    "held back": lambda number: Act(breaks_after=number, held=3),
}


@pytest.mark.parametrize("how", HOWS)
@pytest.mark.parametrize(
    "options",
    [
        {},
        {"resume_every": 0},
        {"samples": 4},
        {"samples": 4, "resume_every": 0},
        {"echo": True, "log_probabilities": True, "sampling": Sampling(seed=3)},
        {"resume_at_end": True, "samples": 2},
    ],
    ids=str,
)
def test_a_stream_that_breaks_anywhere_is_whole(how, options):
    options = ASKED | options
    whole = Received(options)
    for number in range(34):
        told = Received(options, [HOWS[how](number)])
        assert same(told, whole)
        assert len(told.requests) >= 2 or number == 33
        assert set(whole.points) <= set(told.points) or how == "held back"
        assert len(told.points) == len(set(told.points))


@pytest.mark.parametrize("samples", [1, 3])
def test_one_that_breaks_again_and_again_is_whole(samples):
    """As long as each call brings something new."""
    options = ASKED | {"samples": samples, "resume_every": 4}
    whole = Received(options)
    for one, other in itertools.product((2, 5, 9), (1, 6)):
        acts = [Act(breaks_after=one), Act(hands_over_after=other), Act(breaks_after=one)] * 3
        assert same(Received(options, acts), whole)


def test_it_goes_on_from_the_last_resume_token():
    told = Received(ASKED, [Act(breaks_after=20), Act(breaks_after=7)])
    first, second, third = told.requests
    assert first.sampling.seed == 7
    assert not first.resume_token
    for request, made in ((second, 16), (third, 16)):
        assert f'"made": {made}' in request.resume_token.decode()
        # A resumed stream keeps what its token holds, and refuses to be told.
        assert not request.HasField("max_tokens")
        assert not request.HasField("sampling")
        assert request.resume_every == 8


def test_samples_that_have_ended_are_left_alone():
    told = Received(ASKED | {"samples": 4}, [Act(breaks_after=25)])
    # Samples end after 33, 28, 23 and 18 tokens.
    assert len(told.requests) == 3
    assert same(told, Received(ASKED | {"samples": 4}))


def test_a_sample_that_has_a_call_gets_no_second_one():
    """Only the one whose token was refused is asked for again when the whole request breaks."""
    options = ASKED | {"samples": 2}
    refused = Act(refuses="FAILED_PRECONDITION", tokens_only=True)
    told = Received(options, [Act(breaks_after=10), WELL, refused, Act(breaks_after=1)])
    assert same(told, Received(options))
    tokens = [request.resume_token for request in told.requests]
    assert [token and json.loads(token)["sample"] for token in tokens] == [b"", 0, 1, b"", 1]


def test_without_a_token_the_request_is_sent_again_with_its_seed():
    told = Received(ASKED | {"resume_every": 0, "echo": True}, [Act(breaks_after=20)])
    first, second = told.requests
    assert (second.prompt, second.max_tokens, second.sampling.seed) == ("abc", 33, 7)
    assert (first.echo, second.echo) == (True, False)
    again = Received(ASKED | {"resume_every": 0, "echo": True}, [Act(breaks_after=0)])
    assert again.requests[1].echo, "it was not told yet"


def test_a_callers_seed_is_kept():
    told = Received(ASKED | {"sampling": Sampling(seed=0)}, [Act(breaks_after=3)])
    assert [request.sampling.seed for request in told.requests] == [0, 0]
    assert told.seeds == [0]


def test_a_callers_resume_token_is_sent_again_without_a_seed():
    points = (point for piece in Received(ASKED).pieces for point in piece.resume_points)
    token = next(points).token
    options = {"resume_token": token, "resume_every": 8}
    whole = Received(options)
    assert [token.position for token in whole.tokens[0]] == list(range(8, 33))
    for number in range(25):
        told = Received(options, [Act(breaks_after=number)])
        assert same(told, whole)
        assert not any(request.HasField("sampling") for request in told.requests)


def test_a_beam_is_sent_again_as_it_was():
    options = {"prompt": "abc", "max_tokens": 9, "beam": Beam(2)}
    told = Received(options, [Act(breaks_after=4)])
    assert same(told, Received(options))
    first, second = told.requests
    assert first == second
    assert not first.resume_every
    assert not first.HasField("sampling")


@pytest.mark.parametrize(
    ("max_tokens", "every"), [(None, RESUME_EVERY), (RESUME_EVERY, 0), (257, RESUME_EVERY)]
)
def test_only_streams_that_may_be_long_ask_for_resume_tokens(max_tokens, every):
    (request,) = Received({"prompt": "a", "max_tokens": max_tokens}).requests
    assert request.resume_every == every


def test_what_was_not_asked_for_is_not_told():
    told = Received({"prompt": "a"}, [Act(breaks_after=5)])
    assert told.points == []
    assert {token.log_probability for token in told.tokens[0]} == {None}
    at_end = Received(
        {"prompt": "a", "resume_at_end": True, "max_tokens": 300}, [Act(breaks_after=5)]
    )
    assert at_end.points == [(0, 300)]


def test_the_worth_of_a_sample_counts_all_its_tokens():
    (end,) = Received(ASKED, [Act(breaks_after=20), Act(hands_over_after=5)]).ends
    assert end.log_probability == sum(fakes.worth(fakes.made(7, 0, n)) for n in range(33))


# -- where it ends, and is refused ----------------------------------------------------------


def test_a_refused_token_is_made_up_for_by_the_whole_request():
    """Another key or another bundle: the same tokens are made anew, as long as they are."""
    acts = [Act(breaks_after=20), Act(refuses="FAILED_PRECONDITION", tokens_only=True)]
    told = Received(ASKED, acts)
    assert same(told, Received(ASKED))
    assert [bool(request.resume_token) for request in told.requests] == [False, True, False]


def test_two_streams_are_never_joined():
    """A server with another bundle makes other tokens: the right one is asked again."""
    other = Act(refuses="FAILED_PRECONDITION", tokens_only=True, bundle="other")
    told = Received(ASKED, [Act(breaks_after=20), other, other])
    assert same(told, Received(ASKED))
    assert [bool(request.resume_token) for request in told.requests] == [False, True, False, True]
    with pytest.raises(RequestFailed, match=r"FAILED_PRECONDITION.*not here|other tokens"):
        Received(ASKED, [Act(breaks_after=20), *[other] * 9])
    whole_only = ASKED | {"resume_every": 0}
    with pytest.raises(RequestFailed, match="makes other tokens here"):
        Received(whole_only, [Act(breaks_after=20), *[Act(bundle="other")] * 9])


def test_a_caller_may_go_on_with_other_tokens():
    told = Received(
        ASKED | {"resume_every": 0, "allow_inexact": True},
        [Act(breaks_after=20), Act(bundle="other")],
    )
    assert [token.position for token in told.tokens[0]] == list(range(33))


def test_a_lost_message_is_noticed():
    with pytest.raises(RequestFailed, match="FAILED_PRECONDITION"):
        Received(ASKED, [Act(loses=4)])


def test_a_stream_without_a_last_message_is_a_broken_one():
    """A proxy may end a call as if it had gone well."""
    assert same(Received(ASKED, [Act(loses=32)]), Received(ASKED))


def test_calls_that_bring_nothing_are_few_and_far_between():
    with pytest.raises(RequestFailed, match="UNAVAILABLE: Socket closed"):
        Received(ASKED, [Act(breaks_after=0)] * 4)
    assert same(Received(ASKED, [Act(breaks_after=0)] * 3), Received(ASKED))
    acts = [Act(breaks_after=20), *[Act(breaks_after=0)] * 2, Act(hands_over_after=9), WELL]
    told = Received(ASKED, acts)
    # Doubled while nothing comes; at once after a server has handed over.
    assert told.waits == [0.0, 1.0, 2.0, 4.0, 0.0]
    with pytest.raises(RequestFailed):
        Received(ASKED, [Act(breaks_after=20), *[Act(breaks_after=0)] * 3])


def test_servers_that_only_hand_over_are_given_up():
    with pytest.raises(RequestFailed, match="4 servers in a row stopped"):
        Received(ASKED, [Act(hands_over_after=0)] * 9)


def test_a_full_queue_is_waited_for_once_the_stream_has_begun():
    full = Act(refuses="RESOURCE_EXHAUSTED", retry_after_seconds=6.0)
    told = Received(ASKED, [Act(breaks_after=20), full])
    assert told.waits == [0.0, 1.0, 6.0]
    assert same(told, Received(ASKED))
    assert told.requests[-1].resume_token, "it is still good"


def test_what_was_refused_before_it_began_is_sent_again_if_that_is_soon():
    told = Received(ASKED, [Act(refuses="RESOURCE_EXHAUSTED", retry_after_seconds=6.0)])
    assert told.waits == [0.0, 6.0]
    assert same(told, Received(ASKED))
    with pytest.raises(RequestFailed, match="RESOURCE_EXHAUSTED"):
        Received(ASKED, [Act(refuses="RESOURCE_EXHAUSTED", retry_after_seconds=600.0)])


@pytest.mark.parametrize("code", ["INVALID_ARGUMENT", "NOT_FOUND", "UNAUTHENTICATED", "INTERNAL"])
def test_what_is_said_of_the_request_is_final(code):
    with pytest.raises(RequestFailed, match=code):
        Received(ASKED, [Act(refuses=code)])
    with pytest.raises(RequestFailed, match=code):
        Received(ASKED, [Act(breaks_after=0), Act(refuses=code)])


@pytest.mark.parametrize(
    ("code", "message"),
    [
        ("ABORTED", "the caller did not read"),
        ("INTERNAL", "the engine failed"),
        ("DEADLINE_EXCEEDED", "Deadline Exceeded"),
        ("CANCELLED", "Channel closed!"),
    ],
)
def test_what_ends_a_stream_for_good_is_final(code, message):
    with pytest.raises(RequestFailed, match=code):
        Received(ASKED, [Act(breaks_after=5, code=code, message=message)])


def test_without_retries_a_broken_stream_fails_and_one_handed_over_goes_on():
    with pytest.raises(RequestFailed, match="UNAVAILABLE"):
        Received(ASKED, [Act(breaks_after=5)], NO_RETRIES)
    assert same(Received(ASKED, [Act(hands_over_after=5)], NO_RETRIES), Received(ASKED))
    (request,) = Received({"prompt": "a"}, retries=NO_RETRIES).requests
    assert request.resume_every == 0


def test_a_point_made_at_the_end_is_not_gone_on_with():
    """It lies behind the end: what came after it would be more than was asked for."""
    options = {"prompt": "a", "max_tokens": 9, "resume_at_end": True}
    stream = ResumableStream("m", options, RETRIES, draw=lambda: 0.0)
    (attempt,) = stream.open_attempts
    *responses, last = fakes.generate(attempt.request, WELL)
    early = type(last)(tokens=last.tokens, resume_points=last.resume_points)
    for response in [*responses, early]:
        stream.take(attempt, response)
    stream.fail(attempt, RequestFailed("UNAVAILABLE", "before the end was told"))
    assert not stream.open_attempts[0].request.resume_token
