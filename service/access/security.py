"""Security of the port, from the configuration: TLS and tokens."""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import partial
from pathlib import Path

from service.access.auth import BearerToken, BearerTokens, read_tokens
from service.access.file_reload import FileUnusable, Renewed
from service.access.identity import AllowAll, Guard
from service.access.tls import Credentials, TlsFiles
from service.config import Config, ConfigInvalid, is_loopback, split_address

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Security:
    """credentials: None for no TLS. guard: who may call what. reload_tokens: reads their file
    now."""

    credentials: Credentials | None
    guard: Guard
    reload_tokens: Callable[[], None] = lambda: None

    def certificate_expires(self) -> float:
        """In seconds since 1970; 0 without TLS."""
        return self.credentials.expires() if self.credentials else 0.0

    def reload(self) -> None:
        """Read certificates and tokens now; what cannot be used leaves those from before."""
        if self.credentials:
            self.credentials.reload()
        self.reload_tokens()


def secure(config: Config, failed: Callable[[str], None]) -> Security:
    """Raises ConfigInvalid for files that cannot be used.

    failed: called once for each later change that cannot be used, with "tls" or "tokens".
    """
    try:
        credentials = _credentials(config, partial(failed, "tls"))
        if not config.auth_tokens:
            return Security(credentials, AllowAll())
        tokens = _tokens(config.auth_tokens, partial(failed, "tokens"))
        return Security(credentials, BearerTokens(tokens.get), tokens.reload)
    except FileUnusable as error:
        raise ConfigInvalid(str(error)) from error


def _credentials(config: Config, failed: Callable[[], None]) -> Credentials | None:
    if not (config.tls_certificate and config.tls_key):
        return None
    files = TlsFiles(config.tls_certificate, config.tls_key, config.tls_client_ca)
    return Credentials(files, failed)


def _tokens(file: Path, failed: Callable[[], None]) -> Renewed[list[BearerToken]]:
    return Renewed([file], partial(read_tokens, file), failed)


def log_security(config: Config, security: Security) -> None:
    """Log how the port is secured, and warn where others can read along."""
    tokens = "callers need a token" if config.auth_tokens else "nobody is asked for a token"
    log.info("gRPC has %s; %s", _channel(security.credentials), tokens)
    host, _ = split_address(config.address, "address")
    if not (security.credentials or is_loopback(host)):
        log.warning(
            "gRPC at %s has no TLS and others can reach it: they can read and change %s",
            config.address,
            "what is sent, tokens too" if config.auth_tokens else "what is sent",
        )


def _channel(credentials: Credentials | None) -> str:
    if credentials is None:
        return "no TLS"
    end = datetime.fromtimestamp(credentials.expires(), UTC)
    return f"{'mutual TLS' if credentials.is_mutual else 'TLS'}, certificate until {end:%Y-%m-%d}"
