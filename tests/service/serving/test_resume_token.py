from dataclasses import replace

import numpy as np
import pytest

from bundle.sampling import SAMPLING_PARAMETERS
from service.engine.errors import ResumeInvalid, ResumeRefused
from service.engine.requests import Sampling, Snapshot, TokenMade
from service.serving.resume_token import STREAM_TAG, KeyInvalid, ResumeTokens, ServedBundle

BUNDLE = ServedBundle("prose", "d" * 64, "fp32", "f" * 64)
KEYS = [b"a" * 16, b"b" * 16]
SNAPSHOT = Snapshot(
    sampling=Sampling.of(
        2**64 - 1,
        ((2, float("-inf")),),
        (1, 2),
        **{p.name: p.parity[-1] if p.parity else 0.4 for p in SAMPLING_PARAMETERS},
    ),
    sample=3,
    max_tokens=90,
    min_tokens=2,
    stop=("·end", "\n"),
    input_tokens=12,
    tokens=(4, 5),
    token=7,
    made=40,
    delivered=38,
    held=(TokenMade(1, "·", 38, -0.123456789, 3, ((1, -0.1), (2, -3.0))),),
    counts={7: 2},
    state={
        "hidden": np.arange(5, dtype=np.float32) / 7,
        "cell": np.full((2, 3), np.float32(1e-30)),
    },
    changed="c" * 64,
)


class Now:
    def __init__(self):
        self.seconds = 1000.0

    def __call__(self):
        return self.seconds


@pytest.fixture
def now():
    return Now()


@pytest.fixture
def tokens(now):
    return ResumeTokens(KEYS, lifetime_seconds=60, largest_bytes=4096, clock=now)


def same(one, other):
    for name, array in one.state.items():
        assert array.tobytes() == other.state[name].tobytes()
        assert array.shape == other.state[name].shape
    return replace(one, state={}) == replace(other, state={})


def test_what_is_opened_is_what_was_sealed(tokens):
    """Every field to the last bit, an infinite bias and a seed above 2⁶³ among them."""
    signed = tokens.sign(SNAPSHOT, BUNDLE, "someone")
    assert same(tokens.open(signed, BUNDLE, "someone", False), SNAPSHOT)


def test_any_changed_byte_is_noticed(tokens):
    signed = tokens.sign(SNAPSHOT, BUNDLE, "")
    for place in range(len(signed)):
        changed = bytearray(signed)
        changed[place] ^= 1
        with pytest.raises((ResumeInvalid, ResumeRefused)):
            tokens.open(bytes(changed), BUNDLE, "", True)
    for length in (0, 3, 20, len(signed) - 1):
        with pytest.raises((ResumeInvalid, ResumeRefused)):
            tokens.open(signed[:length], BUNDLE, "", True)


def test_keys_rotate(now):
    """A new key signs, the old one verifies until it is dropped."""
    before, between, after = (
        ResumeTokens(keys, clock=now) for keys in (KEYS[:1], KEYS[::-1], KEYS[1:])
    )
    old, new = (one.sign(SNAPSHOT, BUNDLE, "") for one in (before, between))
    assert same(between.open(old, BUNDLE, "", False), SNAPSHOT)
    assert same(after.open(new, BUNDLE, "", False), SNAPSHOT)
    with pytest.raises(ResumeRefused, match="a key that this server does not have"):
        after.open(old, BUNDLE, "", False)


def test_a_key_of_the_process_alone_says_so_elsewhere(tokens):
    own = ResumeTokens()
    signed = own.sign(SNAPSHOT, BUNDLE, "")
    assert same(own.open(signed, BUNDLE, "", False), SNAPSHOT)
    with pytest.raises(ResumeRefused, match="give all replicas the same resume_keys"):
        tokens.open(signed, BUNDLE, "", False)
    with pytest.raises(ResumeRefused, match="only that very process"):
        tokens.open(signed, BUNDLE, "", False)


def test_tokens_expire(tokens, now):
    signed = tokens.sign(SNAPSHOT, BUNDLE, "")
    now.seconds += 61
    with pytest.raises(ResumeRefused, match="has expired"):
        tokens.open(signed, BUNDLE, "", False)


def test_large_tokens_are_not_read(tokens):
    with pytest.raises(ResumeInvalid, match="has 5000 bytes, this server reads 4096"):
        tokens.open(b"x" * 5000, BUNDLE, "", False)


@pytest.mark.parametrize(
    ("change", "subject", "message"),
    [
        ({"name": "verse"}, "", "for model 'prose', this server runs 'verse'"),
        ({"digest": "e" * 64}, "", "for bundle"),
        ({"digest": "d" * 63 + "e"}, "", "another bundle"),
        ({"precision": "int8"}, "", "for precision 'fp32', this server runs 'int8'"),
        ({"fingerprint": "e" * 64}, "", "round otherwise"),
        ({}, "another", "issued to another caller"),
    ],
)
def test_a_token_for_something_else_is_refused(tokens, change, subject, message):
    signed = tokens.sign(SNAPSHOT, BUNDLE, "")
    with pytest.raises(ResumeRefused, match=message):
        tokens.open(signed, replace(BUNDLE, **change), subject, False)


def test_a_token_of_another_method_is_refused_before_all_else(tokens):
    signed = tokens.sign(SNAPSHOT, BUNDLE, "")
    other = replace(BUNDLE, name="pos", method=STREAM_TAG)
    with pytest.raises(ResumeRefused, match="goes on with a call of Generate, not of StreamTag"):
        tokens.open(signed, other, "", True)


def test_other_kernels_are_taken_when_asked_for(tokens):
    signed = tokens.sign(SNAPSHOT, BUNDLE, "")
    elsewhere = replace(BUNDLE, fingerprint="e" * 64)
    assert same(tokens.open(signed, elsewhere, "", True), SNAPSHOT)


def test_short_keys_are_refused():
    with pytest.raises(KeyInvalid, match="fewer than 16 bytes"):
        ResumeTokens([b"short"])
