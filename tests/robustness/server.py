"""A test build of the service, as a process of its own: python -m tests.robustness.server JSON

JSON as for tests.watched. The first line out is the port; each line in is an order in JSON and
is answered by one line with what was seen: arm gives each point its fault and disarms all others,
plant names a bug, hand_over stops the service. The end of the input ends it, too.
"""

from __future__ import annotations

import asyncio
import json
import sys
from collections import Counter
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from service import failpoints
from service.app import App
from service.config import Config
from service.process.gc_tuning import settle
from tests.front_ends import with_front_end
from tests.robustness.faults import Fault
from tests.robustness.planting import BUGS
from tests.watched import EngineWatch


class Build:
    """One service, its faults and planted bugs."""

    def __init__(self, app: App, engines: EngineWatch) -> None:
        self.app = app
        self.engines = engines
        self._armed: dict[str, Fault] = {}
        self._acted: Counter[str] = Counter()
        self._planted = ExitStack()

    async def obey(self, order: dict[str, Any]) -> dict[str, Any]:
        if "arm" in order:
            self._arm({point: Fault(**fault) for point, fault in order["arm"].items()})
        if "plant" in order:
            self._planted.close()
            if order["plant"]:
                self._planted.enter_context(BUGS[order["plant"]]())
        if "hand_over" in order:
            return {"finished": await self.app.stop()}
        return self.report()

    def _arm(self, faults: dict[str, Fault]) -> None:
        failpoints.disarm()
        self._acted.update(point for point, fault in self._armed.items() if fault.has_acted)
        self._armed = faults
        for point, fault in faults.items():
            failpoints.arm(point, fault)

    def report(self) -> dict[str, Any]:
        """users: of each version whose engines run. ended: requests, as they are counted.

        acted: how often a fault of each point did; armed: those that did not yet.
        """
        app = self.app
        live = app.control._live
        samples = [s for metric in app.metrics.requests.collect() for s in metric.samples]
        return {
            **self.engines.report(),
            "calls": app.inflight.calls,
            "sequences": len(app.sequences),
            "users": {f"{served.name}/{served.version}": served.users for served in live},
            "versions": len(live),
            "served": len(app.registry.served),
            "ended": sum(s.value for s in samples if s.name.endswith("_total")),
            "acted": dict(self._acted),
            "armed": [point for point, fault in self._armed.items() if not fault.has_acted],
        }


async def run(settings: dict[str, Any]) -> None:
    paths = {name: Path(settings.pop(name)) for name in ("models", "resume_keys")}
    free_ports = {"address": "127.0.0.1:0", "http_address": "127.0.0.1:0"}
    engines = EngineWatch(settings.pop("step_seconds", 0.0))
    app = App(with_front_end(Config(device="cpu", **free_ports, **paths, **settings)))
    await app.start()
    settle()
    build = Build(app, engines)
    print(json.dumps({"port": app.front_end.port}), flush=True)
    is_stopped = False
    while line := await asyncio.to_thread(sys.stdin.readline):
        order = json.loads(line.strip() or "{}")
        is_stopped |= "hand_over" in order
        print(json.dumps(await build.obey(order)), flush=True)
    if not is_stopped:
        await app.stop()


if __name__ == "__main__":
    asyncio.run(run(json.loads(sys.argv[1])))
