"""Opens graphs as onnxruntime sessions and checks them against their manifest."""

from __future__ import annotations

from dataclasses import dataclass

import onnxruntime

from bundle.errors import ManifestInvalid
from bundle.manifest import TensorSpec
from bundle.store import Bundle
from service.runtime.devices import check_provider

_ONNX_TYPES = {"float32": "tensor(float)", "int64": "tensor(int64)", "bool": "tensor(bool)"}


@dataclass(frozen=True)
class SessionSettings:
    """device: as asked for. provider: what choose_provider made of it."""

    device: str
    provider: str
    threads: int


def open_session(
    bundle: Bundle, graph: str, settings: SessionSettings
) -> onnxruntime.InferenceSession:
    """Raises ManifestInvalid when the graph is not the one the manifest describes, and
    DeviceUnavailable when the device is not the one that was asked for."""
    path = bundle.path_of(graph)
    try:
        session = onnxruntime.InferenceSession(
            path, _options(settings), providers=[settings.provider]
        )
    except Exception as error:  # onnxruntime raises classes of its own for each status
        raise ManifestInvalid(
            f"{path}: onnxruntime cannot load it ({error}); export the bundle again"
        ) from error
    check_provider(settings.device, settings.provider, session)
    spec = bundle.manifest.graphs[graph]
    _check_ports(str(path), "input", spec.inputs, session.get_inputs())
    _check_ports(str(path), "output", spec.outputs, session.get_outputs())
    return session


def _options(settings: SessionSettings) -> onnxruntime.SessionOptions:
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = settings.threads
    options.inter_op_num_threads = 1
    # A waiting thread that spins takes the core that another engine computes on.
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    options.log_severity_level = 3
    return options


def _check_ports(
    path: str, what: str, expected: tuple[TensorSpec, ...], found: list[onnxruntime.NodeArg]
) -> None:
    wanted = {spec.name: (_ONNX_TYPES.get(spec.dtype), list(spec.shape)) for spec in expected}
    given = {port.name: (port.type, list(port.shape)) for port in found}
    for name in sorted(wanted.keys() | given.keys()):
        if wanted.get(name) != given.get(name):
            raise ManifestInvalid(
                f"{path}: {what} {name!r} is {given.get(name)} in the graph and "
                f"{wanted.get(name)} in the manifest; export the bundle again"
            )
