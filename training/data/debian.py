"""The files of a Debian package, read without installing it."""

from __future__ import annotations

import io
import tarfile
from collections.abc import Iterator


def open_package(package: bytes) -> tarfile.TarFile:
    """The files that a Debian package installs."""
    contents = next(file for name, file in ar_members(package) if name.startswith("data.tar"))
    return tarfile.open(fileobj=io.BytesIO(contents))


def read_member(files: tarfile.TarFile, name: str) -> bytes:
    file = files.extractfile(name)
    assert file is not None, f"{name} is a folder"
    return file.read()


def ar_members(archive: bytes) -> Iterator[tuple[str, bytes]]:
    """Name and content of each file of an ``ar`` archive, which a Debian package is.

    A header of 60 bytes (name 16, …, size in decimals from 48 to 58) before each, even offsets.
    """
    place = len(b"!<arch>\n")
    while place < len(archive):
        header = archive[place : place + 60]
        begin, size = place + 60, int(header[48:58])
        yield header[:16].decode("ascii").rstrip(" /"), archive[begin : begin + size]
        place = begin + size + size % 2
