"""A stream of tags over several calls: each word answered once, by what came before it."""

from __future__ import annotations

import pytest

from tests.unroll import fakes
from tests.unroll.fakes import WELL, Act
from unroll import replay_buffer
from unroll.channel import Retries
from unroll.replay_buffer import ReadParts
from unroll.tag_failover import ResumableTagStream
from unroll.types import RequestFailed, StateChange

RETRIES = Retries(attempts=4, first_seconds=1.0, longest_seconds=8.0)
# One word a request, and several.
WORDS = [["w0"], ["w1", "w2", "w3"], [], *([f"w{n}"] for n in range(4, 20)), ["a", "b", "c"]]
TEXTS = ["one two", "three", "", "four five six", "seven", "eight nine"]


class Received:
    """What a caller got for ``parts`` from calls that become of ``acts``, one after the other.

    starts, sent: of each call. waits: before each, in seconds.
    """

    def __init__(self, parts, acts=(), **options):
        read = ReadParts(parts, buffers=True)
        stream = ResumableTagStream("m", options, RETRIES, read, draw=lambda: 1.0)
        self.chunks, self.starts, self.sent, self.waits = [], [], [], []
        left = iter(acts)
        while not stream.is_over:
            attempt = stream.attempt
            self.starts.append(attempt.start)
            self.waits.append(attempt.wait_seconds)
            self.sent.append([])
            call = fakes.tag(self._noted(attempt, stream, read), next(left, WELL))
            while stream.attempt is attempt and not stream.is_over:
                try:
                    response = next(call)
                except StopIteration:
                    stream.end()
                except RequestFailed as failure:
                    stream.fail(failure)
                else:
                    chunk = stream.take(response)
                    self.chunks += [chunk] if chunk else []
        self.read = read

    def _noted(self, attempt, stream, read):
        requests = read.requests(
            attempt.start, attempt.first, attempt.skip, lambda: stream.attempt is attempt
        )
        for request in requests:
            if not request.HasField("start"):
                is_text = request.HasField("text")
                self.sent[-1].append(request.text if is_text else list(request.words.words))
            yield request

    @property
    def tokens(self):
        return [token for chunk in self.chunks for token in chunk.tokens]

    @property
    def points(self):
        return [point.next_position for chunk in self.chunks for point in chunk.resume_points]

    @property
    def end(self):
        return self.chunks[-1].end


def same(received, whole):
    assert received.tokens == whole.tokens
    assert [token.position for token in received.tokens] == list(range(len(received.tokens)))
    assert received.end.tokens == whole.end.tokens == len(received.tokens)
    return True


@pytest.mark.parametrize("how", ["breaks_after", "hands_over_after"])
@pytest.mark.parametrize("parts", [WORDS, TEXTS, [*WORDS[:9], *TEXTS, *WORDS[9:]]])
def test_a_stream_that_breaks_anywhere_is_whole(parts, how):
    whole = Received(parts)
    for number in range(len(parts) + 1):
        if how == "hands_over_after" and number == len(parts):
            continue  # by then it has ended
        acts = [Act(**{how: number}), Act(**{how: 3})]
        received = Received(parts, acts, resume_every=4)
        assert same(received, whole)
        assert len(received.starts) >= 2
        assert received.points == sorted(set(received.points))


def test_words_go_on_from_the_last_resume_token():
    """In the midst of a request, if that is where it is."""
    received = Received(WORDS, [Act(breaks_after=2)], resume_every=3)
    assert '"made": 3' in received.starts[1].resume_token.decode()
    assert received.sent[1] == [["w3"], [], *WORDS[3:]]
    assert same(received, Received(WORDS))
    between = Received(WORDS, [Act(breaks_after=2)], resume_every=4)
    assert between.sent[1] == WORDS[2:]


def test_what_is_answered_is_not_kept():
    received = Received(([f"w{n}"] for n in range(1000)), resume_every=16)
    assert len(received.read._buffered) < 16
    texts = Received(f"w{n}" for n in range(1000))
    assert len(texts.read._buffered) == 1000


def test_texts_are_sent_again_from_where_they_were_handed_over():
    received = Received(TEXTS, [Act(hands_over_after=2), Act(breaks_after=2)])
    assert received.sent == [TEXTS[:3], TEXTS[2:5], TEXTS[2:]]
    assert ['"made": 3' in start.resume_token.decode() for start in received.starts] == [
        False,
        True,
        True,
    ]


def test_a_long_stream_of_texts_can_only_be_handed_over(monkeypatch):
    monkeypatch.setattr(replay_buffer, "MOST_BUFFERED", 4)
    assert same(Received(TEXTS, [Act(hands_over_after=5)]), Received(TEXTS))
    with pytest.raises(RequestFailed, match="Socket closed"):
        Received(TEXTS, [Act(breaks_after=5)])
    again = Received(TEXTS, [Act(hands_over_after=4), Act(breaks_after=1)])
    assert same(again, Received(TEXTS)), "from where it was handed over, all is buffered again"


def test_only_what_was_asked_for_is_reported():
    assert Received(WORDS).points == []
    assert Received(WORDS, [Act(breaks_after=9)], resume_at_end=True).points == [23]
    every = Received(WORDS, [Act(breaks_after=9)], resume_every=4, resume_at_end=True)
    assert every.points == [4, 8, 12, 16, 20, 23]


def test_a_callers_resume_token_is_gone_on_with():
    point = Received(WORDS[:4], resume_at_end=True).chunks[-1].resume_points[-1]
    rest = WORDS[4:]
    for number in range(len(rest)):
        received = Received(
            rest, [Act(breaks_after=number)], resume_token=point.token, resume_every=4
        )
        assert received.tokens == Received(WORDS).tokens[5:]
        assert received.end.tokens == 18


def test_a_state_is_changed_once():
    """A call that goes on from a later resume token does not change it again."""
    point = Received(WORDS[:4], resume_at_end=True).chunks[-1].resume_points[-1]
    options = {"resume_token": point.token, "set_state": [StateChange("hidden_0", [1], [0.5])]}
    acts = [Act(breaks_after=0), Act(breaks_after=9)]
    received = Received(WORDS[4:], acts, **options, resume_every=4)
    assert [len(start.set_state) for start in received.starts] == [1, 1, 0]
    assert received.starts[1].resume_token == point.token != received.starts[2].resume_token


def test_two_streams_are_never_joined():
    other = Act(bundle="other")
    with pytest.raises(RequestFailed, match="gives other labels here"):
        Received(TEXTS, [Act(breaks_after=3), other, other, other])
    assert same(Received(TEXTS, [Act(breaks_after=3), other]), Received(TEXTS))
    inexact = Received(TEXTS, [Act(breaks_after=3), other], allow_inexact=True)
    assert len(inexact.starts) == 2


def test_calls_that_bring_nothing_are_few_and_far_between():
    with pytest.raises(RequestFailed, match="Socket closed"):
        Received(WORDS, [Act(breaks_after=0)] * 4)
    received = Received(
        WORDS, [Act(breaks_after=3), *[Act(breaks_after=0)] * 2, Act(hands_over_after=4)]
    )
    assert received.waits == [0.0, 1.0, 2.0, 4.0, 0.0]
    with pytest.raises(RequestFailed, match="4 servers in a row stopped"):
        Received(WORDS, [Act(hands_over_after=0)] * 4)


def test_a_refusal_is_final_at_first_and_another_server_is_asked_later():
    with pytest.raises(RequestFailed, match="NOT_FOUND"):
        Received(WORDS, [Act(refuses="NOT_FOUND")])
    acts = [Act(breaks_after=9), Act(refuses="FAILED_PRECONDITION", tokens_only=True)]
    assert same(Received(WORDS, acts, resume_every=4), Received(WORDS))
