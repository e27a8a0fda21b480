"""Certificates as PEM files hold them, and until when they are good.

Python's ssl module gives no dates of a certificate that it loads, and a library that does
would be a larger dependency than the one field that is wanted: this reads it.
"""

from __future__ import annotations

import re
import ssl
from datetime import UTC, datetime

_PEM = re.compile(r"-----BEGIN CERTIFICATE-----.+?-----END CERTIFICATE-----", re.DOTALL)
_SEQUENCE, _VERSION, _UTC_TIME, _GENERALIZED_TIME = 0x30, 0xA0, 0x17, 0x18


def first_to_end(pem: bytes) -> float:
    """When the first of the certificates in ``pem`` ends to be good, in seconds since 1970.

    Raises ValueError for a text that holds none, or one that is broken.
    """
    found = _PEM.findall(pem.decode("ascii", errors="replace"))
    if not found:
        raise ValueError("it holds no certificate in PEM")
    try:
        return min(_not_after(ssl.PEM_cert_to_DER_cert(text)) for text in found)
    except (ValueError, IndexError) as error:
        raise ValueError(f"a certificate in it is broken ({error})") from error


def _not_after(der: bytes) -> float:
    """The end of a certificate's validity: RFC 5280, 4.1.2.5."""
    ((_, certificate),) = _elements(der)
    to_be_signed = _elements(certificate)[0][1]
    fields = [element for element in _elements(to_be_signed) if element[0] != _VERSION]
    _, _, _, (tag, validity) = fields[:4]  # serial number, signature, issuer, validity
    _, (kind, end) = _elements(validity)
    if tag != _SEQUENCE:
        raise ValueError("its validity is in another place")
    return _seconds(kind, end.decode("ascii"))


def _elements(der: bytes) -> list[tuple[int, bytes]]:
    """Tag and content of DER elements that stand in a row."""
    elements, start = [], 0
    while start < len(der):
        tag, length, start = der[start], der[start + 1], start + 2
        if length >= 0x80:  # then so many bytes hold the length
            width = length - 0x80
            length, start = int.from_bytes(der[start : start + width], "big"), start + width
        if start + length > len(der):
            raise ValueError("it ends too soon")
        elements.append((tag, der[start : start + length]))
        start += length
    return elements


def _seconds(kind: int, text: str) -> float:
    if kind == _UTC_TIME:  # two digits of the year, which is 1950 to 2049
        text = ("20" if text[:2] < "50" else "19") + text
    elif kind != _GENERALIZED_TIME:
        raise ValueError("its validity has no date")
    return datetime.strptime(text, "%Y%m%d%H%M%SZ").replace(tzinfo=UTC).timestamp()
