"""grpc.health.v1.Health: checked, listed and watched.

A watcher is written to by its own call alone, so one that does not read holds up nobody: neither
another watcher nor a stop.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterable

from grpc_health.v1 import health_pb2

from service.engine.errors import ModelNotFound, Overloaded
from service.rpc.call import ServerCall

SERVING = health_pb2.HealthCheckResponse.SERVING
NOT_SERVING = health_pb2.HealthCheckResponse.NOT_SERVING
UNKNOWN = health_pb2.HealthCheckResponse.SERVICE_UNKNOWN

# Of all callers together; a probe asks by Check, and a balancer watches once a connection.
MOST_WATCHERS = 1024
_RETRY_AFTER_SECONDS = 1.0


class HealthServicer:
    """For the event loop alone; what sets it waits for nobody.

    What another process behind the same port serves counts as served here.
    """

    def __init__(self) -> None:
        self._own: dict[str, int] = {}
        self._elsewhere: frozenset[str] = frozenset()
        self._watchers: dict[str, set[asyncio.Event]] = {}

    @property
    def watchers(self) -> int:
        return sum(map(len, self._watchers.values()))

    @property
    def served(self) -> list[str]:
        """What this process serves itself; called on any thread."""
        return [name for name, status in self._own.copy().items() if status == SERVING]

    def set(self, names: Iterable[str], status: int) -> None:
        for name in names:
            self._own[name] = status
            self._wake(name)

    def set_elsewhere(self, names: Iterable[str]) -> None:
        """All that other processes serve."""
        before, self._elsewhere = self._elsewhere, frozenset(names)
        for name in before ^ self._elsewhere:
            self._wake(name)

    def _wake(self, name: str) -> None:
        for changed in self._watchers.get(name, ()):
            changed.set()

    def _status(self, name: str) -> int | None:
        return SERVING if name in self._elsewhere else self._own.get(name)

    async def Check(
        self, request: health_pb2.HealthCheckRequest, call: ServerCall
    ) -> health_pb2.HealthCheckResponse:
        """Raises ModelNotFound."""
        status = self._status(request.service)
        if status is None:
            raise ModelNotFound("no service or model has that name; List has those there are")
        return _response(status)

    async def List(
        self, request: health_pb2.HealthListRequest, call: ServerCall
    ) -> health_pb2.HealthListResponse:
        statuses = {name: _response(status) for name, status in self._own.items()}
        statuses |= {name: _response(SERVING) for name in self._elsewhere}
        return health_pb2.HealthListResponse(statuses=statuses)

    async def Watch(self, request: health_pb2.HealthCheckRequest, call: ServerCall) -> None:
        """The status now and each later one; the last of those that came during a write.

        Raises Overloaded.
        """
        if self.watchers >= MOST_WATCHERS:
            raise Overloaded(
                f"{MOST_WATCHERS} calls watch already; ask by Check", _RETRY_AFTER_SECONDS
            )
        name, changed, written = request.service, asyncio.Event(), None
        self._watchers.setdefault(name, set()).add(changed)
        try:
            while True:
                changed.clear()
                status = self._status(name)
                status = UNKNOWN if status is None else status
                if status != written:
                    await call.write(_response(status))
                    written = status
                await changed.wait()
        finally:
            self._forget(name, changed)

    def _forget(self, name: str, changed: asyncio.Event) -> None:
        watchers = self._watchers[name]
        watchers.discard(changed)
        if not watchers:
            del self._watchers[name]


def _response(status: int) -> health_pb2.HealthCheckResponse:
    return health_pb2.HealthCheckResponse(status=status)
