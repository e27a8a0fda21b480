"""What Envoy proves itself with, handed over in files that it watches.

The files hold what the service validated, not where it was found: Envoy never sees a certificate
beside another's key.
"""

from __future__ import annotations

import asyncio
import logging
import os
import shutil
import tempfile
from pathlib import Path
from typing import Any

from service.access.tls import Certificate, Credentials
from service.envoy.bootstrap import AUTHORITIES, CERTIFICATE, CURRENT, secret

log = logging.getLogger(__name__)

# Between two looks at what new connections are to get.
_LOOK_SECONDS = 0.25
# After a failure to write them.
_PAUSE_SECONDS = 10.0
# In memory where there is such a folder: a key has no business on a disk, and a container may have
# no other folder to write to.
_MEMORY = Path("/dev/shm")


class SecretFiles:
    """A folder, this user's alone, with a version of the files for each certificate there was.

    ``current`` in it points to the newest. To move that link is one event for Envoy, so a
    certificate and the authorities that came with it change together.

    Raises OSError where no folder can be made.
    """

    def __init__(self, credentials: Credentials) -> None:
        self.is_mutual = credentials.is_mutual
        self._credentials = credentials
        place = _MEMORY if os.access(_MEMORY, os.W_OK | os.X_OK) else None
        self.folder = Path(tempfile.mkdtemp(prefix="unroll-tls-", dir=place))
        self._versions = 0
        self._written: Certificate | None = None
        try:
            self.write()
        except BaseException:
            self.remove()
            raise

    async def keep(self) -> None:
        """Write whatever the credentials have that is new, until it is cancelled."""
        while True:
            await asyncio.sleep(_LOOK_SECONDS)
            try:
                self.write()
            except OSError as error:
                log.error("the new certificate cannot be handed to Envoy: %s", error)
                await asyncio.sleep(_PAUSE_SECONDS)

    def write(self) -> None:
        """What new connections are to get, if it is not what they get. Raises OSError."""
        certificate = self._credentials.get()
        if certificate is self._written:
            return
        self._versions += 1
        version = self.folder / str(self._versions)
        version.mkdir(mode=0o700)
        for name, content in _secrets(certificate).items():
            _write_private(version / f"{name}.json", secret(name, content))
        link = self.folder / f"to-{version.name}"
        link.symlink_to(version.name)
        link.rename(self.folder / CURRENT)
        self._written = certificate
        shutil.rmtree(self.folder / str(self._versions - 1), ignore_errors=True)

    def remove(self) -> None:
        shutil.rmtree(self.folder, ignore_errors=True)


def _secrets(certificate: Certificate) -> dict[str, dict[str, Any]]:
    contents: dict[str, dict[str, Any]] = {
        CERTIFICATE: {
            "tls_certificate": {
                "certificate_chain": _inline(certificate.chain),
                "private_key": _inline(certificate.key),
            }
        }
    }
    if certificate.authorities is not None:
        trusted = {"trusted_ca": _inline(certificate.authorities)}
        contents[AUTHORITIES] = {"validation_context": trusted}
    return contents


def _inline(pem: bytes) -> dict[str, str]:
    # Beside PEM a file may hold remarks in any encoding.
    return {"inline_string": pem.decode("ascii", errors="replace")}


def _write_private(file: Path, text: str) -> None:
    descriptor = os.open(file, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    with os.fdopen(descriptor, "w") as opened:
        opened.write(text)
