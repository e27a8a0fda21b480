"""A service in this process, on free ports, for as long as a context lasts."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Coroutine, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from bundle.manifest import FP32
from service.app import App
from service.config import Config
from unroll import Client

_START_SECONDS = 120
_CALL_SECONDS = 60


@contextmanager
def serving(
    models: Path, call_seconds: float = _CALL_SECONDS, precision: str = FP32
) -> Iterator[Client]:
    """A client of a service over the bundles in ``models``.

    call_seconds: a call's deadline. precision: as the service's setting.
    """
    loop = asyncio.new_event_loop()
    thread = threading.Thread(target=loop.run_forever, daemon=True)
    thread.start()

    def run(work: Coroutine[Any, Any, object]) -> None:
        asyncio.run_coroutine_threadsafe(work, loop).result(_START_SECONDS)

    address = "127.0.0.1:0"
    app = App(
        Config(
            models=models, address=address, http_address=address, device="cpu", precision=precision
        )
    )
    try:
        run(app.start())
        try:
            with Client(f"127.0.0.1:{app.front_end.port}", timeout=call_seconds) as client:
                yield client
        finally:
            run(app.stop())
    finally:
        loop.call_soon_threadsafe(loop.stop)
        thread.join()
        loop.close()
