"""The HTTP server in a process of its own, whose descriptors no other thread takes or leaves.

It prints its port and does what its input says, a line a command: ``fill`` opens files until no
other can be opened, ``stop`` stops the server and prints what came of it as JSON.
"""

from __future__ import annotations

import errno
import json
import os
import resource
import sys
import time

from prometheus_client import CollectorRegistry

from service.observability.http import HttpServer
from service.observability.pages import Pages

_MOST_FILES = 64


class CountingServer(HttpServer):
    """Counts how often it makes room, which is more than a few times only where it spins."""

    made_room = 0

    async def _make_room(self) -> None:
        self.made_room += 1
        await super()._make_room()


def descriptors() -> int:
    """Those of this process."""
    return len(os.listdir("/proc/self/fd"))


def fill() -> list[int]:
    """Files that leave no descriptor free below the lowered limit."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (_MOST_FILES, hard))
    opened = []
    try:
        while True:
            opened.append(os.open(os.devnull, os.O_RDONLY))
    except OSError as error:
        if error.errno != errno.EMFILE:
            raise
    return opened


def has_spare(server: HttpServer) -> bool:
    """Once the last connection has ended, which may be a moment after its caller saw it."""
    end = time.monotonic() + 20
    while (server._spare is None or server._connections) and time.monotonic() < end:
        time.sleep(0.01)
    return server._spare is not None


def main() -> None:
    before, holes = descriptors(), []
    pages = Pages(CollectorRegistry(), lambda: "", lambda: "")
    server = CountingServer("127.0.0.1", 0, pages)
    server.start()
    assert has_spare(server)  # from here on it opens nothing but connections
    print(server.port, flush=True)
    for command in map(str.strip, sys.stdin):
        if command == "fill":
            holes = fill()
            print(len(holes), flush=True)
            continue
        assert command == "stop", command
        had_spare = not holes or has_spare(server)
        for hole in holes:
            os.close(hole)
        server.stop()
        report = {
            "made_room": server.made_room,
            "had_spare": had_spare,
            "runs": server._thread.is_alive(),
            "left_open": descriptors() - before,
        }
        print(json.dumps(report), flush=True)
        return


if __name__ == "__main__":
    main()
