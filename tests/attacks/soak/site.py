"""The service under attack, as an attack's process knows it."""

from __future__ import annotations

import json
import os
import signal
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Self


@dataclass(frozen=True)
class Site:
    """pid: of the service. log_pid: of the process that reads its log. models: the folder that
    it serves, with bundles that may be changed. tokens: by caller."""

    port: int
    http_port: int
    pid: int
    log_pid: int
    models: Path
    tokens: dict[str, str]

    @property
    def target(self) -> str:
        return f"127.0.0.1:{self.port}"

    def resume(self) -> None:
        """Have both processes go on, which an attack that was cut short may have stopped."""
        for pid in (self.pid, self.log_pid):
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGCONT)

    def to_json(self) -> str:
        return json.dumps(asdict(self) | {"models": str(self.models)})

    @classmethod
    def of_json(cls, text: str) -> Self:
        fields: dict[str, Any] = json.loads(text)
        return cls(**fields | {"models": Path(fields["models"])})
