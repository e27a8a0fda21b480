"""Reloading on SIGHUP: certificates, tokens, log level."""

from __future__ import annotations

import dataclasses
import logging
import threading
from collections.abc import Callable

from service.access.security import Security
from service.config import Config, ConfigInvalid
from service.observability.logs import set_level

log = logging.getLogger(__name__)

# Applied by a reload, each as it now is.
_RELOADED = "log_level"


class Reloading:
    """Reads again what can change while the service runs; what cannot be used changes nothing.

    running: the configuration that the service was started with. read: it, as its sources have it
    now; raises ConfigInvalid. failed: called where it does. spread: has the other processes of
    this service reload, with the new level of the log, None for the one it has.
    """

    def __init__(
        self,
        running: Config,
        read: Callable[[], Config],
        security: Security,
        failed: Callable[[], None],
        spread: Callable[[str | None], None] = lambda _: None,
    ) -> None:
        self._running, self._read = running, read
        self._security, self._failed, self._spread = security, failed, spread
        self._one_at_a_time = threading.Lock()

    def begin(self) -> None:
        """On a thread of its own, which nobody waits for: a file system may hang."""
        threading.Thread(target=self.reload, name="reload", daemon=True).start()

    def reload(self) -> None:
        with self._one_at_a_time:
            log.info("SIGHUP: reading certificates, tokens and settings again")
            self._security.reload()
            self._spread(self._reload_settings())

    def _reload_settings(self) -> str | None:
        """The level of the log; None where the settings cannot be used."""
        try:
            config = self._read()
        except ConfigInvalid as error:
            log.error("%s; the settings stay as they are", error)
            self._failed()
            return None
        set_level(config.log_level)
        if differing := _differing(self._running, config):
            log.warning("changed, and needs a restart: %s", ", ".join(differing))
        return config.log_level


def _differing(running: Config, read: Config) -> list[str]:
    return [
        field.name
        for field in dataclasses.fields(Config)
        if field.name != _RELOADED and getattr(running, field.name) != getattr(read, field.name)
    ]
