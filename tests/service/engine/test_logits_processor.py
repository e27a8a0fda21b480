import numpy as np

from service.engine.logits_processor import LogitsProcessor
from service.engine.requests import Sampling


def sampling(**others):
    return Sampling.of(0, **others)


def rows():
    return np.full(6, np.nan, np.float32), np.zeros(6, bool)


def test_a_request_that_adjusts_nothing_has_no_adjustments():
    assert LogitsProcessor.of(sampling(), (1, 2), {}, 5, 0) is None
    assert LogitsProcessor.of(sampling(), (1, 2), {}, None, 4) is None
    assert LogitsProcessor.of(sampling(min_p=0.2), (1, 2), {}, 5, 3) is not None


def test_following_and_filling_anew_give_the_same_bits():
    """A stream that moves to a new row goes on as if it had stayed."""
    one = LogitsProcessor(
        sampling(
            frequency_penalty=0.1, presence_penalty=0.3, repetition_penalty=1.2, bias=((2, 0.7),)
        ),
        prompt=(1,),
        counts={},
        held_back=5,
        min_tokens=3,
    )
    bias, seen = rows()
    one.fill(bias, seen, 0)
    assert bias[5] == -np.inf
    for made, token in enumerate((2, 3, 2, 2), start=1):
        one.follow(token, bias, seen, made)
        fresh_bias, fresh_seen = rows()
        one.fill(fresh_bias, fresh_seen, made)
        assert bias.tobytes() == fresh_bias.tobytes()
        assert seen.tolist() == fresh_seen.tolist()
    assert bias[5] == 0
    assert seen.tolist() == [False, True, True, True, False, False]


def test_allowed_tokens_leave_nothing_else():
    one = LogitsProcessor(sampling(allowed=(1, 4), bias=((4, -np.inf), (2, 9.0))), (), {}, None, 0)
    bias, seen = rows()
    one.fill(bias, seen, 0)
    assert np.isneginf(bias[[0, 2, 3, 4, 5]]).all()
    assert bias[1] == 0
