"""The two services of the proof, each a process of its own, ended by its handle."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from typing import Any, ClassVar, Self


class Watched:
    """A service that watches its rows (tests.watched); ``with`` ends it.

    log: file that its standard error goes to; None for this process's own.
    """

    module = "tests.watched"
    variables: ClassVar[dict[str, str]] = {}  # of its environment, beside this process's

    def __init__(self, log: Path | None = None, **settings: Any) -> None:
        plain = {name: _plain(value) for name, value in settings.items()}
        with ExitStack() as stack:
            self._process = subprocess.Popen(
                [sys.executable, "-m", self.module, json.dumps(plain)],
                env=os.environ | self.variables,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=stack.enter_context(log.open("w")) if log else None,
                text=True,
            )
        try:
            self.target = f"127.0.0.1:{self._answer()['port']}"
        except BaseException:
            self.stop()
            raise

    def _answer(self) -> dict[str, Any]:
        assert self._process.stdout is not None, "it is a pipe"
        line = self._process.stdout.readline()
        assert line, "the service ended; its log says why"
        seen: dict[str, Any] = json.loads(line)
        return seen

    def report(self, what: str = "") -> dict[str, Any]:
        """What it has seen until now; what: memory, to include that."""
        assert self._process.stdin is not None, "it is a pipe"
        self._process.stdin.write(f"{what}\n")
        self._process.stdin.flush()
        return self._answer()

    def total(self, what: str) -> int:
        return sum(rows[what] for rows in self.report()["models"].values())

    def wait_until(self, holds: Callable[[dict[str, Any]], bool], seconds: float) -> dict[str, Any]:
        """The first report that ``holds``, or the last one in that time."""
        deadline = time.monotonic() + seconds
        while not holds(seen := self.report()) and time.monotonic() < deadline:
            time.sleep(0.02)
        return seen

    def check_all_is_released(self) -> None:
        """Within half a minute."""
        seen = self.wait_until(all_is_released, 30.0)
        assert all_is_released(seen), seen

    def stop(self) -> None:
        streams = self._process.stdin, self._process.stdout
        try:
            assert self._process.stdin is not None, "it is a pipe"
            self._process.stdin.close()
            self._process.wait(20)
        except (subprocess.TimeoutExpired, BrokenPipeError):
            self._process.kill()
            self._process.wait()
        for stream in streams:
            assert stream is not None, "it is a pipe"
            stream.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()


def _plain(value: Any) -> Any:
    return value if isinstance(value, int | float) else str(value)


def nothing_runs(seen: dict[str, Any]) -> bool:
    """Every stream has ended or is paused."""
    return all(m["running"] == m["waiting"] == 0 for m in seen["models"].values())


def all_is_released(seen: dict[str, Any]) -> bool:
    """No call, no sequence, no stream, no place in a queue is left."""
    is_open = seen["calls"] or seen["sequences"] or any(seen["open_work"].values())
    return not is_open and all(
        m["free"] == m["capacity"] and m["waiting"] == m["paused"] == 0
        for m in seen["models"].values()
    )
