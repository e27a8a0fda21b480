"""Resume tokens: the position and state of a stream, signed; any replica can continue from one.

A token is signed, not encrypted: whoever holds it can read the hidden state and the text
that was held back. It is never logged.
"""

from __future__ import annotations

import hashlib
import hmac
import json
import math
import secrets
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from service.engine.errors import ResumeInvalid, ResumeRefused
from service.engine.requests import (
    LIKELIEST,
    Sampling,
    Snapshot,
    State,
    StepSnapshot,
    TagSnapshot,
    TokenMade,
)
from service.failpoints import failpoint
from service.serving.model_info import ModelCard

_MAGIC = b"URT1"
_KEY_ID_BYTES = 8
_MAC_BYTES = 32
_HEAD_BYTES = len(_MAGIC) + 1 + _KEY_ID_BYTES + 4  # magic, origin, key, length of the facts
_LEAST_KEY_BYTES = 16
# Whose streams a token goes on with.
GENERATE, STREAM_TAG = "Generate", "StreamTag"
STREAM_STEP, FORECAST = "StreamStep", "Forecast"
# Whose key signed it: one that replicas share, or one that a process made for itself.
_SHARED, _OWN = b"s", b"p"


def new_key() -> bytes:
    """For a service that shares its tokens with no other one."""
    return secrets.token_bytes(32)


class KeyInvalid(ValueError):
    """A key that cannot sign."""


@dataclass(frozen=True)
class ServedBundle:
    """What a token is good for: this bundle in this precision, on kernels like these.

    fingerprint: a hash of what the probe at load computed. method: which of the service's
    methods goes on with it.
    """

    name: str
    digest: str
    precision: str
    fingerprint: str
    method: str = GENERATE

    @classmethod
    def of(cls, card: ModelCard, method: str) -> ServedBundle:
        return cls(card.name, card.digest, card.precision, card.fingerprint, method)


class ResumeTokens:
    """Signs snapshots and opens them again.

    keys: at least 16 bytes each; the first one signs, all of them verify, so a new key is
    put first and an old one dropped once its tokens have expired. Without any, the process
    signs with a key of its own, and no other process takes its tokens. own_key: that key, where
    several processes are one service; None for a new one.
    clock: seconds since 1970.

    Raises KeyInvalid for a short key.
    """

    def __init__(
        self,
        keys: Sequence[bytes] = (),
        lifetime_seconds: float = 3600.0,
        largest_bytes: int = 1024 * 1024,
        clock: Callable[[], float] = time.time,
        own_key: bytes | None = None,
    ) -> None:
        if any(len(key) < _LEAST_KEY_BYTES for key in keys):
            raise KeyInvalid(f"a resume key has fewer than {_LEAST_KEY_BYTES} bytes")
        self._origin = _SHARED if keys else _OWN
        self._keys = {_key_id(key): key for key in (keys or [own_key or new_key()])}
        self._signing = next(iter(self._keys))
        self.lifetime_seconds = lifetime_seconds
        self.largest_bytes = largest_bytes
        self.clock = clock

    def sign(self, snapshot: Snapshot | TagSnapshot, bundle: ServedBundle, subject: str) -> bytes:
        """subject: whom the token is issued to; empty for callers without a name."""
        full = _as_generation(snapshot) if isinstance(snapshot, TagSnapshot) else snapshot
        return self.sign_facts(*_describe(full), bundle, subject)

    def sign_facts(
        self, facts: Mapping[str, Any], arrays: bytes, bundle: ServedBundle, subject: str
    ) -> bytes:
        """facts: of what is gone on with, as JSON has them; arrays: the numbers beside."""
        failpoint("resume.sign")
        issued = {
            "bundle": asdict(bundle),
            "subject": subject,
            "expires": self.clock() + self.lifetime_seconds,
        }
        text = json.dumps({**facts, **issued}, separators=(",", ":")).encode()
        signed = b"".join(
            (_MAGIC, self._origin, self._signing, len(text).to_bytes(4, "little"), text, arrays)
        )
        return signed + self._sign(self._signing, signed)

    def open(
        self, token: bytes, bundle: ServedBundle, subject: str, allow_inexact: bool
    ) -> Snapshot:
        """allow_inexact: go on even where other kernels may round otherwise.

        Raises ResumeInvalid for what is no token as it was issued, and ResumeRefused for one
        that is good elsewhere, for someone else, or was good earlier.
        """
        return _restore(*self.open_facts(token, bundle, subject, allow_inexact))

    def open_facts(
        self, token: bytes, bundle: ServedBundle, subject: str, allow_inexact: bool
    ) -> tuple[Mapping[str, Any], bytes]:
        """As open(), what sign_facts() was given."""
        failpoint("resume.open")
        text, arrays = self._verified(token)
        facts = json.loads(text)
        if facts["expires"] < self.clock():
            raise ResumeRefused("the resume token has expired; send the request again")
        if facts["subject"] != subject:
            raise ResumeRefused("the resume token was issued to another caller")
        _check_bundle(ServedBundle(**facts["bundle"]), bundle, allow_inexact)
        return facts, arrays

    def open_tags(
        self, token: bytes, bundle: ServedBundle, subject: str, allow_inexact: bool
    ) -> TagSnapshot:
        """As open(), of a stream of labels."""
        snapshot = self.open(token, bundle, subject, allow_inexact)
        return TagSnapshot(snapshot.made, snapshot.state, snapshot.changed)

    def open_steps(
        self, token: bytes, bundle: ServedBundle, subject: str, allow_inexact: bool
    ) -> StepSnapshot:
        """As open(), of a stream of frames."""
        snapshot = self.open(token, bundle, subject, allow_inexact)
        return StepSnapshot(snapshot.made, snapshot.state, snapshot.changed)

    def _verified(self, token: bytes) -> tuple[bytes, bytes]:
        """The facts and the arrays of a token that one of our keys signed."""
        if len(token) > self.largest_bytes:
            raise ResumeInvalid(
                f"the resume token has {len(token)} bytes, this server reads {self.largest_bytes}"
            )
        if len(token) < _HEAD_BYTES + _MAC_BYTES or not token.startswith(_MAGIC):
            raise ResumeInvalid("this is no resume token of this release; send one as it came")
        origin = token[len(_MAGIC) : len(_MAGIC) + 1]
        key_id = token[len(_MAGIC) + 1 : _HEAD_BYTES - 4]
        if key_id not in self._keys:
            raise ResumeRefused(_foreign(origin))
        signed, mac = token[:-_MAC_BYTES], token[-_MAC_BYTES:]
        if not hmac.compare_digest(self._sign(key_id, signed), mac):
            raise ResumeInvalid("the resume token was changed on its way; send it as it came")
        length = int.from_bytes(token[_HEAD_BYTES - 4 : _HEAD_BYTES], "little")
        end = _HEAD_BYTES + length
        return signed[_HEAD_BYTES:end], signed[end:]

    def _sign(self, key_id: bytes, content: bytes) -> bytes:
        return hmac.digest(self._keys[key_id], content, "sha256")


def _key_id(key: bytes) -> bytes:
    return hashlib.sha256(b"unroll resume key " + key).digest()[:_KEY_ID_BYTES]


def _foreign(origin: bytes) -> str:
    if origin == _OWN:
        return (
            "the resume token was issued by a server without resume keys, so only that very "
            "process takes it; give all replicas the same resume_keys"
        )
    return (
        "the resume token was signed with a key that this server does not have; give all "
        "replicas the same resume_keys"
    )


def _check_bundle(theirs: ServedBundle, ours: ServedBundle, allow_inexact: bool) -> None:
    if theirs.method != ours.method:
        raise ResumeRefused(
            f"the resume token goes on with a call of {theirs.method}, not of {ours.method}; "
            f"send it to {theirs.method}"
        )
    for what, issued, here in (
        ("model", theirs.name, ours.name),
        ("bundle", theirs.digest[:12], ours.digest[:12]),
        ("precision", theirs.precision, ours.precision),
    ):
        if issued != here:
            raise ResumeRefused(
                f"the resume token is for {what} {issued!r}, this server runs {here!r}"
            )
    if theirs.digest != ours.digest:
        raise ResumeRefused("the resume token is for another bundle of this model")
    if theirs.fingerprint != ours.fingerprint and not allow_inexact:
        raise ResumeRefused(
            f"the resume token is from kernels that round otherwise (fingerprint "
            f"{theirs.fingerprint[:12]}, here {ours.fingerprint[:12]}); set allow_inexact to go "
            "on with tokens that may differ"
        )


def _as_generation(snapshot: TagSnapshot) -> Snapshot:
    """With the fields that every token has, though most say nothing of labels or frames: replicas
    of an earlier release take such a token, and this one takes theirs."""
    made = snapshot.made
    return Snapshot(
        sampling=LIKELIEST,
        sample=0,
        max_tokens=0,
        min_tokens=0,
        stop=(),
        input_tokens=made,
        tokens=(),
        token=0,
        made=made,
        delivered=made,
        held=(),
        counts={},
        state=snapshot.state,
        changed=snapshot.changed,
    )


def _describe(snapshot: Snapshot) -> tuple[dict[str, Any], bytes]:
    """Everything but the arrays as JSON, and the arrays' bytes one after the other."""
    facts: dict[str, Any] = {
        name: getattr(snapshot, name)
        for name in (
            "sample", "max_tokens", "min_tokens", "stop", "input_tokens", "tokens", "token",
            "made", "delivered", "digest",
        )
    }  # fmt: skip
    sampling = snapshot.sampling
    facts["sampling"] = {
        **sampling.values,
        "seed": sampling.seed,
        "bias": sampling.bias,
        "allowed": sampling.allowed,
    }
    facts["held"] = [_describe_made(made) for made in snapshot.held]
    facts["changed"] = snapshot.changed
    facts["counts"] = list(snapshot.counts.items())
    facts["state"] = [(name, str(a.dtype), a.shape) for name, a in snapshot.state.items()]
    return facts, b"".join(np.ascontiguousarray(a).tobytes() for a in snapshot.state.values())


def _restore(facts: Mapping[str, Any], arrays: bytes) -> Snapshot:
    return Snapshot(
        sampling=_restore_sampling(facts["sampling"]),
        sample=facts["sample"],
        max_tokens=facts["max_tokens"],
        min_tokens=facts["min_tokens"],
        stop=tuple(facts["stop"]),
        input_tokens=facts["input_tokens"],
        tokens=tuple(facts["tokens"]),
        token=facts["token"],
        made=facts["made"],
        delivered=facts["delivered"],
        held=tuple(_restore_made(made) for made in facts["held"]),
        counts=dict(facts["counts"]),
        state=_restore_state(facts["state"], arrays),
        changed=facts.get("changed", ""),  # a token of an earlier release has none
        digest=facts["digest"],
    )


def _restore_sampling(content: Mapping[str, Any]) -> Sampling:
    """A parameter that is not there is neutral: the token is older than it. Raises ResumeRefused
    for one that this release does not know."""
    values = dict(content)
    seed, bias, allowed = (values.pop(name) for name in ("seed", "bias", "allowed"))
    try:
        return Sampling.of(seed, tuple((t, v) for t, v in bias), tuple(allowed), **values)
    except TypeError as error:
        raise ResumeRefused(f"the resume token is of a newer release: {error}") from error


def _describe_made(made: TokenMade) -> dict[str, Any]:
    """Without what was watched beside it, which whoever goes on may not have asked for."""
    content = asdict(made)
    del content["state"]
    return content


def _restore_made(content: Mapping[str, Any]) -> TokenMade:
    top = tuple((token, value) for token, value in content["top"])
    return TokenMade(**{**content, "top": top})


def _restore_state(places: Sequence[Any], arrays: bytes) -> State:
    state, offset = {}, 0
    for name, dtype, shape in places:
        count = math.prod(shape)
        state[name] = np.frombuffer(arrays, dtype, count, offset).reshape(shape)
        offset += state[name].nbytes
    return state
