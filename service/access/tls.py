"""TLS files of the port, reloaded while the service runs.

A new connection gets what the files hold now; connections that are open keep what they began
with.
"""

from __future__ import annotations

import ssl
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import NoReturn

from service.access.certificates import first_to_end
from service.access.file_reload import FileUnusable, Renewed, read_file


@dataclass(frozen=True)
class TlsFiles:
    """PEM. client_ca: authorities; callers must have a certificate of one. None: nobody must."""

    certificate: Path
    key: Path
    client_ca: Path | None = None

    def every(self) -> list[Path]:
        return [file for file in (self.certificate, self.key, self.client_ca) if file]


@dataclass(frozen=True)
class Certificate:
    """What the files held together, in PEM. authorities: None where callers need no certificate.
    expires: in seconds since 1970."""

    chain: bytes
    key: bytes
    authorities: bytes | None
    expires: float


class Credentials:
    """What the port proves itself with.

    failed: called once for each change of the files that cannot be used.

    Raises FileUnusable.
    """

    def __init__(
        self,
        files: TlsFiles,
        failed: Callable[[], None],
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.is_mutual = files.client_ca is not None
        self._certificate = Renewed(files.every(), lambda: _read(files), failed, clock)

    def get(self) -> Certificate:
        """What new connections get. Any thread may ask."""
        return self._certificate.get()

    def expires(self) -> float:
        """When the certificate that new connections get ends to be good, in seconds since 1970."""
        return self.get().expires

    def reload(self) -> None:
        """Read the files now; new connections get what they hold."""
        self._certificate.reload()


def _read(files: TlsFiles) -> Certificate:
    """Raises FileUnusable."""
    chain = read_file(files.certificate, "tls_certificate")
    key = read_file(files.key, "tls_key")
    try:
        expires = first_to_end(chain)
    except ValueError as error:
        raise FileUnusable(f"tls_certificate: {files.certificate}: {error}") from error
    _check_pair(files)
    authorities = None
    if files.client_ca:
        authorities = read_file(files.client_ca, "tls_client_ca")
        _check_authorities(files.client_ca, authorities)
    return Certificate(chain, key, authorities, expires)


def _check_pair(files: TlsFiles) -> None:
    """A server would say no more than that it cannot listen. Raises FileUnusable."""

    def no_password() -> NoReturn:
        raise FileUnusable(f"tls_key: {files.key} is encrypted; give a key without a password")

    try:
        ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER).load_cert_chain(
            files.certificate, files.key, no_password
        )
    except ssl.SSLError as error:
        if error.reason == "KEY_VALUES_MISMATCH":
            raise FileUnusable(
                f"tls_key: {files.key} is not the key of the first certificate in "
                f"{files.certificate}"
            ) from error
        raise FileUnusable(f"tls_key: {files.key} holds no private key in PEM") from error
    except OSError as error:
        raise FileUnusable(f"tls_key: {files.key} cannot be read ({error.strerror})") from error


def _check_authorities(file: Path, pem: bytes) -> None:
    try:
        first_to_end(pem)
        ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER).load_verify_locations(cadata=pem.decode("ascii"))
    except (ValueError, ssl.SSLError) as error:
        raise FileUnusable(f"tls_client_ca: {file}: {error}") from error
