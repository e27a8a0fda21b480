"""An ASGI application in an Envoy process, started without pyvoy's command line."""

from __future__ import annotations

import json
import os
from pathlib import Path

from bench.servers import Missing, Server, free_port
from service.envoy.installation import EnvoyMissing, find

_ROOT = Path(__file__).parents[2]


def find_envoy() -> tuple[str, str]:
    """Envoy's program, and the shared library of this Python, which it must load first.

    Raises Missing.
    """
    try:
        found = find()
    except EnvoyMissing as missing:
        raise Missing(str(missing)) from missing
    return found.program, found.python


def start_pyvoy(what: str, app: str) -> Server:
    """``app``: MODULE:NAME of an ASGI application of this clone. One thread of Envoy serves.

    Raises Missing.
    """
    program, library = find_envoy()
    # Nothing public of pyvoy gives the configuration alone.
    from pyvoy._server import PyvoyServer, get_envoy_environ

    port = free_port()
    config = PyvoyServer(app, port=port, lifespan=True).get_envoy_config()
    del config["admin"]
    environment = get_envoy_environ()
    environment["LD_PRELOAD"] = library
    environment["PYTHONPATH"] = os.pathsep.join((str(_ROOT), environment["PYTHONPATH"]))
    options = ["--config-yaml", json.dumps(config), "--log-level", "warning"]
    options += ["--use-dynamic-base-id", "--concurrency", "1"]
    return Server(
        what,
        options,
        program=[program],
        environment=environment,
        port=port,
    )
