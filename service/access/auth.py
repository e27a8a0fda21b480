"""Bearer tokens: the caller of a request and the roles it has.

The file of tokens holds no secret: a hash stands for each token. Tokens are random and long,
so that a hash without salt and without effort keeps them. None is ever logged or sent.
"""

from __future__ import annotations

import hashlib
import hmac
import re
import secrets
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from service.access.file_reload import FileUnusable, read_file
from service.access.identity import ANYONE, Caller, Metadata
from service.access.roles import NEEDED, ROLES
from service.engine.errors import PermissionDenied, Unauthenticated

_HEADER = "authorization"
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._@-]{0,63}")
_DIGEST = re.compile(r"sha256:([0-9a-f]{64})")
_WEIGHT = re.compile(r"weight=([0-9]{1,4}(?:\.[0-9]{1,4})?)")
_TOKEN_BYTES = 32


class TokenInvalid(ValueError):
    """A name or a role that no token can have; the message says which ones can."""


@dataclass(frozen=True)
class BearerToken:
    """digest: SHA-256 of the token itself. One caller may have several, each with its roles."""

    caller: Caller
    roles: frozenset[str]
    digest: bytes


class BearerTokens:
    """A Guard that asks for ``authorization: Bearer TOKEN``.

    tokens: those that are good now.
    """

    def __init__(self, tokens: Callable[[], Sequence[BearerToken]]) -> None:
        self._tokens = tokens

    def caller(self, method: str, metadata: Metadata) -> Caller:
        """Raises Unauthenticated or PermissionDenied."""
        needed = NEEDED.get(method)
        if needed is None:
            raise PermissionDenied(f"{method} is open to no role; ask the operator")
        if not needed:
            return ANYONE
        token = self._known(_sent(metadata))
        if not token.roles & needed:
            raise PermissionDenied(
                f"{method} needs the role {' or '.join(sorted(needed))}; the token of "
                f"{token.caller.name} has {' and '.join(sorted(token.roles))}"
            )
        return token.caller

    def _known(self, sent: bytes) -> BearerToken:
        digest = hashlib.sha256(sent).digest()
        found = None
        # All of them, each in the same time: how long it takes depends on none.
        for token in self._tokens():
            if hmac.compare_digest(token.digest, digest):
                found = token
        if found is None:
            raise Unauthenticated("the token is not known here; ask the operator for another one")
        return found


def _sent(metadata: Metadata) -> bytes:
    """The token that a call brings. Raises Unauthenticated."""
    values = [value for key, value in metadata if key == _HEADER]
    if len(values) != 1:
        count = "more than one" if values else "no"
        raise Unauthenticated(f"the call has {count} token; send authorization: Bearer TOKEN, once")
    value = values[0]
    scheme, _, token = (value if isinstance(value, bytes) else value.encode()).partition(b" ")
    if scheme.lower() != b"bearer" or not token.strip():
        raise Unauthenticated("the call's authorization is none of ours; send Bearer TOKEN")
    return token.strip()


# -- the file ---------------------------------------------------------------------------------


def read_tokens(file: Path) -> list[BearerToken]:
    """Lines of NAME ROLE[,ROLE] [weight=NUMBER] sha256:HEX; # begins a comment.

    Raises FileUnusable, which quotes no line: a token in the clear may stand there by mistake.
    """
    text = read_file(file, "auth_tokens").decode(errors="replace")
    tokens: list[BearerToken] = []
    for number, line in enumerate(text.split("\n"), start=1):
        words = line.partition("#")[0].split()
        if not words:
            continue
        try:
            token = _token_of(words)
        except TokenInvalid as error:
            raise FileUnusable(f"auth_tokens: {file}:{number}: {error}") from error
        if any(token.digest == other.digest for other in tokens):
            raise FileUnusable(f"auth_tokens: {file}:{number}: the token is listed before")
        tokens.append(token)
    if not tokens:
        raise FileUnusable(f"auth_tokens: {file} holds no token; nobody could call")
    return tokens


def _token_of(words: Sequence[str]) -> BearerToken:
    digest = _DIGEST.fullmatch(words[-1])
    if len(words) not in (3, 4) or digest is None:
        raise TokenInvalid("it is not NAME ROLE[,ROLE] [weight=NUMBER] sha256:HEX")
    name, roles, *weight = words[:-1]
    caller = Caller(_checked(name), _weight(weight[0]) if weight else 1.0)
    return BearerToken(caller, _roles(roles.split(",")), bytes.fromhex(digest[1]))


def _weight(text: str) -> float:
    """Of a caller's share. Raises TokenInvalid."""
    found = _WEIGHT.fullmatch(text)
    weight = float(found[1]) if found else 0.0
    if not weight:
        raise TokenInvalid("its weight is not weight=NUMBER, above 0 and below 10000")
    return weight


def new_token(name: str, roles: Iterable[str]) -> tuple[str, str]:
    """A token that nobody has, and its line in the file. Raises TokenInvalid."""
    chosen = _roles(roles)
    token = secrets.token_urlsafe(_TOKEN_BYTES)
    digest = hashlib.sha256(token.encode()).hexdigest()
    return token, f"{_checked(name)} {','.join(sorted(chosen))} sha256:{digest}"


def _checked(name: str) -> str:
    if not _NAME.fullmatch(name):
        raise TokenInvalid("its name is not 1 to 64 letters, digits and . _ @ -")
    return name


def _roles(roles: Iterable[str]) -> frozenset[str]:
    chosen = frozenset(roles)
    if not chosen or not chosen <= set(ROLES):
        raise TokenInvalid(f"its roles are not among {', '.join(ROLES)}")
    return chosen
