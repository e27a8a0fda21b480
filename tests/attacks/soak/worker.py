"""Attacks one after another, in a process of its own: python -m tests.attacks.soak.worker

The first line in is the site, as JSON; each further one an attack's name and seed. Each is
answered with a line: what the attack got, by status, and what went wrong with the attack itself.
The end of the input ends it.
"""

from __future__ import annotations

import json
import random
import subprocess
import sys
import threading
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from tests.attacks.soak.catalogue import ATTACKS
from tests.attacks.soak.site import Site

# An attack that takes longer is stuck: its worker is ended and begun anew.
ATTACK_SECONDS = 150.0


@dataclass(frozen=True)
class Ran:
    """got: how many of each status. trouble: why the attack could not be run; empty if it was."""

    got: dict[str, int]
    trouble: str = ""


class Worker:
    """The process, as the soak sees it; close() ends it."""

    def __init__(self, site: Site) -> None:
        self._site = site
        self._begin()

    def _begin(self) -> None:
        self._process = subprocess.Popen(
            [sys.executable, "-m", "tests.attacks.soak.worker"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        self._say(self._site.to_json())

    def run(self, name: str, seed: int) -> Ran:
        ended = threading.Timer(ATTACK_SECONDS, self._process.kill)
        ended.start()
        try:
            self._say(json.dumps([name, seed]))
            assert self._process.stdout is not None, "it is a pipe"
            line = self._process.stdout.readline()
        except OSError as error:
            line = ""
            print(f"worker: {error!r}", file=sys.stderr)
        finally:
            ended.cancel()
        if line:
            return Ran(**json.loads(line))
        self.close()
        self._begin()
        return Ran({}, f"its process ended, or it took more than {ATTACK_SECONDS:g} s")

    def _say(self, line: str) -> None:
        assert self._process.stdin is not None, "it is a pipe"
        self._process.stdin.write(f"{line}\n")
        self._process.stdin.flush()

    def close(self) -> None:
        self._process.kill()
        self._process.wait()
        self._site.resume()
        for stream in (self._process.stdin, self._process.stdout):
            assert stream is not None, "it is a pipe"
            stream.close()


def _run(site: Site, name: str, seed: int) -> dict[str, Any]:
    attack: Callable[..., Any] = ATTACKS[name].run
    try:
        return {"got": attack(site, random.Random(seed))}
    except Exception as error:  # the soak goes on; the report names it
        return {"got": {}, "trouble": f"{type(error).__name__}: {error}"[:300]}


def main() -> None:
    site = Site.of_json(sys.stdin.readline())
    for line in sys.stdin:
        print(json.dumps(_run(site, *json.loads(line))), flush=True)


if __name__ == "__main__":
    main()
