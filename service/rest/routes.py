"""Which operation a path and a method of HTTP stand for."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from urllib.parse import unquote

from service.rest import control
from service.rest.control import Groups, Operation

PREFIX = "/v2"
_MODEL = r"/models/(?P<name>[^/]+)"
_VERSION = r"(?:/versions/(?P<version>[^/]+))?"
_REPOSITORY = r"/repository(?:/(?P<repository>[^/]+))?"


@dataclass(frozen=True)
class Infer:
    """The operation that answers with tensors."""


@dataclass(frozen=True)
class Generate:
    """Triton's generate, or with ``is_stream`` its generate_stream."""

    is_stream: bool


Target = Operation | Infer | Generate


@dataclass(frozen=True)
class Route:
    """by_method: of a path. groups: the parts of the path that are names."""

    by_method: Mapping[str, Target]
    groups: Groups


def _paths() -> list[tuple[re.Pattern[str], dict[str, Target]]]:
    """The first that matches counts: a model that is called ``stats`` has no metadata here."""
    found: list[tuple[str, dict[str, Target]]] = [
        ("", {"GET": control.SERVER}),
        ("/health/live", {"GET": control.LIVE}),
        ("/health/ready", {"GET": control.READY}),
        ("/models/stats", {"GET": control.STATISTICS}),
        (f"{_MODEL}{_VERSION}", {"GET": control.MODEL}),
        (f"{_MODEL}{_VERSION}/ready", {"GET": control.MODEL_READY}),
        (f"{_MODEL}{_VERSION}/config", {"GET": control.CONFIG}),
        (f"{_MODEL}{_VERSION}/stats", {"GET": control.STATISTICS}),
        (f"{_MODEL}{_VERSION}/infer", {"POST": Infer()}),
        (f"{_MODEL}{_VERSION}/generate", {"POST": Generate(is_stream=False)}),
        (f"{_MODEL}{_VERSION}/generate_stream", {"POST": Generate(is_stream=True)}),
        (f"{_REPOSITORY}/index", {"POST": control.INDEX}),
        (f"{_REPOSITORY}{_MODEL}/load", {"POST": control.LOAD}),
        (f"{_REPOSITORY}{_MODEL}/unload", {"POST": control.UNLOAD}),
        ("/logging", {"GET": control.LOG, "POST": control.LOG}),
        (f"(?:{_MODEL})?/trace/setting", {"GET": control.TRACE, "POST": control.TRACE}),
    ]
    for path, kind in (("systemsharedmemory", "System"), ("cudasharedmemory", "Cuda")):
        for what, method in (("Status", "GET"), ("Register", "POST"), ("Unregister", "POST")):
            operation = control.shared_memory(kind, what)
            found.append((rf"/{path}(?:/region/[^/]+)?/{what.lower()}", {method: operation}))
    return [(re.compile(f"{PREFIX}{path}/?"), targets) for path, targets in found]


_PATHS = _paths()


def find(raw_path: str) -> Route | None:
    """raw_path: as it came, so that a name may hold a slash (%2F)."""
    for pattern, targets in _PATHS:
        if match := pattern.fullmatch(raw_path):
            parts = match.groupdict().items()
            return Route(targets, {name: unquote(part) for name, part in parts if part is not None})
    return None
