"""Named states in a folder: a file each, which outlives the process and is shared by workers.

A file is a magic, the length of its facts, the facts as JSON, the numbers of its tensors, and a
SHA-256 of all that. It is not signed: who writes the folder is trusted, as who writes the models'.
"""

from __future__ import annotations

import hashlib
import json
import logging
import os
import secrets
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np

from service.engine.errors import StateRefused
from service.serving.named_states import NamedState
from service.serving.resume_token import ServedBundle, describe_state, restore_state

log = logging.getLogger(__name__)

_MAGIC = b"URS1"
_HEAD_BYTES, _HASH_BYTES = len(_MAGIC) + 4, 32
_SUFFIX = ".state"
# Of a file that was being written when the process ended.
_WRITING = ".writing"


class StateFiles:
    """folder: made where it is not there; of each caller a folder in it. clock: seconds since 1970.

    Raises OSError where the folder cannot be made. Of one thread at a time; other processes may use
    the folder as well.
    """

    def __init__(self, folder: Path, clock: Callable[[], float] = time.time) -> None:
        self._folder, self._clock = folder, clock
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        for owners in folder.iterdir():
            if owners.is_dir():
                list(self._all_in(owners))
                for left_over in owners.glob(f"*{_WRITING}"):
                    left_over.unlink(missing_ok=True)

    def get(self, owner: str, name: str) -> NamedState | None:
        """Raises StateRefused for a file that is not whole."""
        path = self._path(owner, name)
        try:
            state = read_state(path.read_bytes())
        except FileNotFoundError:
            return None
        except (OSError, ValueError) as error:
            raise StateRefused(
                f"state {name!r} cannot be read ({error}); delete it and create it again"
            ) from error
        if state.expires <= self._clock():
            path.unlink(missing_ok=True)
            return None
        return state

    def put(self, state: NamedState, replaces: bool) -> bool:
        """Raises StateRefused where it cannot be written."""
        path = self._path(state.owner, state.name)
        self._forget_expired(path)
        try:
            path.parent.mkdir(mode=0o700, exist_ok=True)
            return _write(path, written_state(state), replaces)
        except OSError as error:
            log.error("state_store: %s cannot be written (%s)", path, error)
            raise StateRefused(f"the server cannot write its states ({error.strerror})") from error

    def delete(self, owner: str, name: str) -> bool:
        try:
            self._path(owner, name).unlink()
        except FileNotFoundError:
            return False
        return True

    def all_of(self, owner: str) -> list[NamedState]:
        """Without those whose files cannot be read."""
        return list(self._all_in(self._owned(owner)))

    def _all_in(self, folder: Path) -> Iterator[NamedState]:
        now = self._clock()
        for path in folder.glob(f"*{_SUFFIX}"):
            try:
                state = read_state(path.read_bytes())
            except (OSError, ValueError) as error:
                log.warning("state_store: %s cannot be read (%s)", path, error)
                continue
            if state.expires <= now:
                path.unlink(missing_ok=True)
            else:
                yield state

    def _forget_expired(self, path: Path) -> None:
        """Or what cannot be read: neither is in the way of a new one."""
        try:
            if read_state(path.read_bytes()).expires > self._clock():
                return
        except FileNotFoundError:
            return
        except (OSError, ValueError):
            pass
        path.unlink(missing_ok=True)

    def _owned(self, owner: str) -> Path:
        """Names of callers are not made for file systems."""
        return self._folder / hashlib.sha256(owner.encode()).hexdigest()[:32]

    def _path(self, owner: str, name: str) -> Path:
        return self._owned(owner) / f"{name}{_SUFFIX}"


def _write(path: Path, content: bytes, replaces: bool) -> bool:
    """Whole or not at all, whoever else writes. False where there is one that stays."""
    beside = path.with_name(f"{secrets.token_hex(8)}{_WRITING}")
    try:
        with os.fdopen(os.open(beside, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        if replaces:
            os.replace(beside, path)
        else:
            os.link(beside, path)
    except FileExistsError:
        return False
    finally:
        with suppress(FileNotFoundError):
            beside.unlink()
    return True


def written_state(state: NamedState) -> bytes:
    """The file of a state."""
    places, arrays = describe_state(state.state)
    facts = {
        "name": state.name,
        "owner": state.owner,
        "bundle": asdict(state.bundle),
        "tokens": state.tokens,
        "digest": state.digest,
        "created": state.created,
        "expires": state.expires,
        "state": places,
    }
    text = json.dumps(facts, separators=(",", ":")).encode()
    content = b"".join((_MAGIC, len(text).to_bytes(4, "little"), text, arrays))
    return content + hashlib.sha256(content).digest()


def read_state(content: bytes) -> NamedState:
    """Raises ValueError for what written_state() did not make."""
    if len(content) < _HEAD_BYTES + _HASH_BYTES or not content.startswith(_MAGIC):
        raise ValueError("it is no state of this release")
    whole, digest = content[:-_HASH_BYTES], content[-_HASH_BYTES:]
    if hashlib.sha256(whole).digest() != digest:
        raise ValueError("it was changed or cut short")
    end = _HEAD_BYTES + int.from_bytes(content[len(_MAGIC) : _HEAD_BYTES], "little")
    facts: dict[str, Any] = json.loads(whole[_HEAD_BYTES:end])
    state = {
        name: np.ascontiguousarray(array)
        for name, array in restore_state(facts["state"], whole[end:]).items()
    }
    return NamedState(
        facts["name"],
        facts["owner"],
        ServedBundle(**facts["bundle"]),
        tuple(facts["tokens"]),
        facts["digest"],
        state,
        facts["created"],
        facts["expires"],
    )
