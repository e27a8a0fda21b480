"""The page's files, read once."""

from __future__ import annotations

import gzip
import hashlib
from dataclasses import dataclass
from importlib.resources import files

_TYPES = {
    ".css": b"text/css; charset=utf-8",
    ".html": b"text/html; charset=utf-8",
    ".js": b"text/javascript; charset=utf-8",
    ".svg": b"image/svg+xml",
}


@dataclass(frozen=True)
class Asset:
    """A file. etag: of its bytes, in quotes. compressed: by gzip, equal from start to start."""

    body: bytes
    compressed: bytes
    content_type: bytes
    etag: bytes


def read_assets() -> dict[str, Asset]:
    """By name. Files of other kinds, such as an editor's copies, are left out."""
    assets = {}
    for file in files("service.page").joinpath("static").iterdir():
        stem, dot, ending = file.name.rpartition(".")
        if stem and (content_type := _TYPES.get(dot + ending)):
            assets[file.name] = _asset(file.read_bytes(), content_type)
    return assets


def _asset(body: bytes, content_type: bytes) -> Asset:
    etag = b'"%s"' % hashlib.sha256(body).hexdigest()[:32].encode()
    return Asset(body, gzip.compress(body, mtime=0), content_type, etag)
