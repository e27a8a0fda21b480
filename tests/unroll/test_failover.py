"""A stream over several calls is the stream of one: nothing lost, nothing twice, one seed."""

from __future__ import annotations

import itertools
import json

import pytest

from tests.unroll import fakes
from tests.unroll.fakes import WELL, Act
from unroll.channel import NO_RETRIES, Retries
from unroll.failover import RESUME_EVERY, ResumableStream
from unroll.sampling import Sampling
from unroll.types import Beam, RequestFailed

RETRIES = Retries(attempts=4, first_seconds=1.0, longest_seconds=8.0)
REQUEST = {"prompt": "abc", "max_tokens": 33, "resume_every": 8}


class Received:
    """What a caller got of a request whose calls become of ``acts``, one after the other.

    retries, requests: as they were used. waits: before each call, in seconds.
    """

    def __init__(self, options, acts=(), retries=RETRIES, most_calls=50):
        stream = ResumableStream("m", options, retries, draw=lambda: 1.0, choose_seed=lambda: 7)
        self.chunks, self.requests, self.waits = [], [], []
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
                    chunk = stream.take(attempt, response)
                    self.chunks += [chunk] if chunk else []

    @property
    def tokens(self):
        """By sample, in the order in which they came."""
        tokens = [token for chunk in self.chunks for token in chunk.tokens]
        return {n: [t for t in tokens if t.sample == n] for n in {t.sample for t in tokens}}

    @property
    def ends(self):
        return sorted((end for chunk in self.chunks for end in chunk.ends), key=lambda e: e.sample)

    @property
    def points(self):
        points = [point for chunk in self.chunks for point in chunk.resume_points]
        return sorted((point.sample, point.next_position) for point in points)

    @property
    def answers(self):
        return [chunk.answer for chunk in self.chunks if chunk.answer]

    @property
    def seeds(self):
        return [chunk.seed for chunk in self.chunks if chunk.seed is not None]

    @property
    def echo(self):
        return [token.text for chunk in self.chunks for token in chunk.echo]


def same(received, whole):
    """But for the text of a few resume points more."""
    assert received.tokens == whole.tokens
    assert received.ends == whole.ends
    assert (received.seeds, received.echo) == (whole.seeds, whole.echo)
    (answer,), (expected,) = received.answers, whole.answers
    assert received.chunks[-1].answer is answer
    assert answer.output_tokens == expected.output_tokens == sum(map(len, received.tokens.values()))
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
    options = REQUEST | options
    whole = Received(options)
    for number in range(34):
        received = Received(options, [HOWS[how](number)])
        assert same(received, whole)
        assert len(received.requests) >= 2 or number == 33
        assert set(whole.points) <= set(received.points) or how == "held back"
        assert len(received.points) == len(set(received.points))


@pytest.mark.parametrize("samples", [1, 3])
def test_one_that_breaks_again_and_again_is_whole(samples):
    """As long as each call brings something new."""
    options = REQUEST | {"samples": samples, "resume_every": 4}
    whole = Received(options)
    for one, other in itertools.product((2, 5, 9), (1, 6)):
        acts = [Act(breaks_after=one), Act(hands_over_after=other), Act(breaks_after=one)] * 3
        assert same(Received(options, acts), whole)


def test_it_goes_on_from_the_last_resume_token():
    received = Received(REQUEST, [Act(breaks_after=20), Act(breaks_after=7)])
    first, second, third = received.requests
    assert first.sampling.seed == 7
    assert not first.resume_token
    for request, made in ((second, 16), (third, 16)):
        assert f'"made": {made}' in request.resume_token.decode()
        # A resumed stream keeps what its token holds, and refuses to be given.
        assert not request.HasField("max_tokens")
        assert not request.HasField("sampling")
        assert request.resume_every == 8


def test_samples_that_have_ended_are_left_alone():
    received = Received(REQUEST | {"samples": 4}, [Act(breaks_after=25)])
    # Samples end after 33, 28, 23 and 18 tokens.
    assert len(received.requests) == 3
    assert same(received, Received(REQUEST | {"samples": 4}))


def test_a_sample_that_has_a_call_gets_no_second_one():
    """Only the one whose token was refused is requested again when the whole request breaks."""
    options = REQUEST | {"samples": 2}
    refused = Act(refuses="FAILED_PRECONDITION", tokens_only=True)
    received = Received(options, [Act(breaks_after=10), WELL, refused, Act(breaks_after=1)])
    assert same(received, Received(options))
    tokens = [request.resume_token for request in received.requests]
    assert [token and json.loads(token)["sample"] for token in tokens] == [b"", 0, 1, b"", 1]


def test_without_a_token_the_request_is_sent_again_with_its_seed():
    received = Received(REQUEST | {"resume_every": 0, "echo": True}, [Act(breaks_after=20)])
    first, second = received.requests
    assert (second.prompt, second.max_tokens, second.sampling.seed) == ("abc", 33, 7)
    assert (first.echo, second.echo) == (True, False)
    again = Received(REQUEST | {"resume_every": 0, "echo": True}, [Act(breaks_after=0)])
    assert again.requests[1].echo, "it was not delivered yet"


def test_a_callers_seed_is_kept():
    received = Received(REQUEST | {"sampling": Sampling(seed=0)}, [Act(breaks_after=3)])
    assert [request.sampling.seed for request in received.requests] == [0, 0]
    assert received.seeds == [0]


def test_a_callers_resume_token_is_sent_again_without_a_seed():
    points = (point for chunk in Received(REQUEST).chunks for point in chunk.resume_points)
    token = next(points).token
    options = {"resume_token": token, "resume_every": 8}
    whole = Received(options)
    assert [token.position for token in whole.tokens[0]] == list(range(8, 33))
    for number in range(25):
        received = Received(options, [Act(breaks_after=number)])
        assert same(received, whole)
        assert not any(request.HasField("sampling") for request in received.requests)


def test_a_beam_is_sent_again_as_it_was():
    options = {"prompt": "abc", "max_tokens": 9, "beam": Beam(2)}
    received = Received(options, [Act(breaks_after=4)])
    assert same(received, Received(options))
    first, second = received.requests
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
    received = Received({"prompt": "a"}, [Act(breaks_after=5)])
    assert received.points == []
    assert {token.log_probability for token in received.tokens[0]} == {None}
    at_end = Received(
        {"prompt": "a", "resume_at_end": True, "max_tokens": 300}, [Act(breaks_after=5)]
    )
    assert at_end.points == [(0, 300)]


def test_the_worth_of_a_sample_counts_all_its_tokens():
    (end,) = Received(REQUEST, [Act(breaks_after=20), Act(hands_over_after=5)]).ends
    assert end.log_probability == sum(fakes.worth(fakes.made(7, 0, n)) for n in range(33))


# -- where it ends, and is refused ----------------------------------------------------------


def test_a_refused_token_is_made_up_for_by_the_whole_request():
    """Another key or another bundle: the same tokens are made anew, as long as they are."""
    acts = [Act(breaks_after=20), Act(refuses="FAILED_PRECONDITION", tokens_only=True)]
    received = Received(REQUEST, acts)
    assert same(received, Received(REQUEST))
    assert [bool(request.resume_token) for request in received.requests] == [False, True, False]


def test_two_streams_are_never_joined():
    """A server with another bundle makes other tokens: the right one is called again."""
    other = Act(refuses="FAILED_PRECONDITION", tokens_only=True, bundle="other")
    received = Received(REQUEST, [Act(breaks_after=20), other, other])
    assert same(received, Received(REQUEST))
    assert [bool(request.resume_token) for request in received.requests] == [
        False,
        True,
        False,
        True,
    ]
    with pytest.raises(RequestFailed, match=r"FAILED_PRECONDITION.*not here|other tokens"):
        Received(REQUEST, [Act(breaks_after=20), *[other] * 9])
    whole_only = REQUEST | {"resume_every": 0}
    with pytest.raises(RequestFailed, match="makes other tokens here"):
        Received(whole_only, [Act(breaks_after=20), *[Act(bundle="other")] * 9])


def test_a_caller_may_go_on_with_other_tokens():
    received = Received(
        REQUEST | {"resume_every": 0, "allow_inexact": True},
        [Act(breaks_after=20), Act(bundle="other")],
    )
    assert [token.position for token in received.tokens[0]] == list(range(33))


def test_a_lost_message_is_noticed():
    with pytest.raises(RequestFailed, match="FAILED_PRECONDITION"):
        Received(REQUEST, [Act(loses=4)])


def test_a_stream_without_a_last_message_is_a_broken_one():
    """A proxy may end a call as if it had gone well."""
    assert same(Received(REQUEST, [Act(loses=32)]), Received(REQUEST))


def test_calls_that_bring_nothing_are_few_and_far_between():
    with pytest.raises(RequestFailed, match="UNAVAILABLE: Socket closed"):
        Received(REQUEST, [Act(breaks_after=0)] * 4)
    assert same(Received(REQUEST, [Act(breaks_after=0)] * 3), Received(REQUEST))
    acts = [Act(breaks_after=20), *[Act(breaks_after=0)] * 2, Act(hands_over_after=9), WELL]
    received = Received(REQUEST, acts)
    # Doubled while nothing comes; at once after a server has handed over.
    assert received.waits == [0.0, 1.0, 2.0, 4.0, 0.0]
    with pytest.raises(RequestFailed):
        Received(REQUEST, [Act(breaks_after=20), *[Act(breaks_after=0)] * 3])


def test_servers_that_only_hand_over_are_given_up():
    with pytest.raises(RequestFailed, match="4 servers in a row stopped"):
        Received(REQUEST, [Act(hands_over_after=0)] * 9)


def test_a_full_queue_is_waited_for_once_the_stream_has_begun():
    full = Act(refuses="RESOURCE_EXHAUSTED", retry_after_seconds=6.0)
    received = Received(REQUEST, [Act(breaks_after=20), full])
    assert received.waits == [0.0, 1.0, 6.0]
    assert same(received, Received(REQUEST))
    assert received.requests[-1].resume_token, "it is still good"


def test_what_was_refused_before_it_began_is_sent_again_if_that_is_soon():
    received = Received(REQUEST, [Act(refuses="RESOURCE_EXHAUSTED", retry_after_seconds=6.0)])
    assert received.waits == [0.0, 6.0]
    assert same(received, Received(REQUEST))
    with pytest.raises(RequestFailed, match="RESOURCE_EXHAUSTED"):
        Received(REQUEST, [Act(refuses="RESOURCE_EXHAUSTED", retry_after_seconds=600.0)])


@pytest.mark.parametrize("code", ["INVALID_ARGUMENT", "NOT_FOUND", "UNAUTHENTICATED", "INTERNAL"])
def test_what_is_said_of_the_request_is_final(code):
    with pytest.raises(RequestFailed, match=code):
        Received(REQUEST, [Act(refuses=code)])
    with pytest.raises(RequestFailed, match=code):
        Received(REQUEST, [Act(breaks_after=0), Act(refuses=code)])


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
        Received(REQUEST, [Act(breaks_after=5, code=code, message=message)])


def test_without_retries_a_broken_stream_fails_and_one_handed_over_goes_on():
    with pytest.raises(RequestFailed, match="UNAVAILABLE"):
        Received(REQUEST, [Act(breaks_after=5)], NO_RETRIES)
    assert same(Received(REQUEST, [Act(hands_over_after=5)], NO_RETRIES), Received(REQUEST))
    (request,) = Received({"prompt": "a"}, retries=NO_RETRIES).requests
    assert request.resume_every == 0


def test_a_point_made_at_the_end_is_not_gone_on_with():
    """It lies behind the end: what came after it would be more than was requested."""
    options = {"prompt": "a", "max_tokens": 9, "resume_at_end": True}
    stream = ResumableStream("m", options, RETRIES, draw=lambda: 0.0)
    (attempt,) = stream.open_attempts
    *responses, last = fakes.generate(attempt.request, WELL)
    early = type(last)(tokens=last.tokens, resume_points=last.resume_points)
    for response in [*responses, early]:
        stream.take(attempt, response)
    stream.fail(attempt, RequestFailed("UNAVAILABLE", "before the end came"))
    assert not stream.open_attempts[0].request.resume_token
