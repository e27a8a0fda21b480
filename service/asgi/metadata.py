"""Headers of a call as metadata, and their size."""

from __future__ import annotations

import binascii
from base64 import b64decode

from service.access.identity import Metadata
from service.asgi.events import Headers
from service.engine.errors import WrongInput

# Of a header of the caller's: 32 bytes beside its name and value, as HTTP/2 counts them.
_HEADER_BYTES = 32


def metadata_of(headers: Headers) -> Metadata:
    """Raises WrongInput for a header of bytes that is none."""
    metadata: list[tuple[str, str | bytes]] = []
    for name, value in headers:
        key = name.decode("latin-1")
        if name.endswith(b"-bin"):
            metadata += ((key, part) for part in binary_values(value))
        else:
            metadata.append((key, value.decode("latin-1")))
    return metadata


def binary_values(value: bytes) -> list[bytes]:
    """Of a header whose name ends with -bin; several may stand in one. Raises WrongInput."""
    try:
        return [b64decode(part + b"=" * (-len(part) % 4)) for part in value.split(b",")]
    except binascii.Error as error:
        raise WrongInput(f"a header of bytes is not in base64 ({error})") from error


def header_bytes(headers: Headers) -> int:
    return sum(len(name) + len(value) for name, value in headers) + _HEADER_BYTES * len(headers)
