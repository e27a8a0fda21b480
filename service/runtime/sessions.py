"""Opens graphs as onnxruntime sessions and checks them against their manifest."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from functools import cache

import numpy as np
import onnxruntime

from bundle.errors import ManifestInvalid
from bundle.manifest import GraphSpec, TensorSpec
from bundle.stepping import DTYPES
from bundle.store import Bundle
from service.failpoints import failpoint
from service.runtime.devices import check_provider, provider_options
from service.runtime.graph_parts import NotAGraph, part_for

# The free axis of texts, by the name that export gives it.
_TIME = "time"
_ONNX_TYPES = {name: f"tensor({name})" for name in DTYPES} | {
    "float32": "tensor(float)",
    "float64": "tensor(double)",
}
NUMPY_TYPES = {onnx: np.dtype(name).type for name, onnx in _ONNX_TYPES.items()}


@dataclass(frozen=True)
class SessionSettings:
    """device: as asked for. provider: what choose_provider made of it."""

    device: str
    provider: str
    threads: int


def open_session(
    bundle: Bundle, graph: str, settings: SessionSettings
) -> onnxruntime.InferenceSession:
    """Of the bytes that were verified; the bundle's files are not opened again, so that what
    becomes of them afterwards is nothing to the session.

    Raises ManifestInvalid when the graph is not the one the manifest describes, and
    DeviceUnavailable when the device is not the one that was asked for."""
    failpoint("session.open")
    path, spec = bundle.path_of(graph), bundle.manifest.graphs[graph]
    session = _session(bundle, graph, bundle.graph_of(graph), settings)
    _check_ports(str(path), "input", spec.inputs, session.get_inputs())
    _check_ports(str(path), "output", spec.outputs, session.get_outputs())
    return session


def open_state_path(
    bundle: Bundle, graph: str, settings: SessionSettings
) -> tuple[onnxruntime.InferenceSession, ...]:
    """Of a step graph, what makes its next state: without the output layer and the draw.

    A session for each recurrent layer, which reads what those before it made of the same token;
    one for all where their states do not say which layer they are of, or a layer reads the state
    of another. Raises ManifestInvalid and DeviceUnavailable.
    """
    carried = [tensor.name for tensor in bundle.manifest.state if tensor.carried]
    parts, before = [], set[str]()
    for names in _layers_of(carried):
        outputs = {f"next_{name}" for name in names}
        session = _open_part(bundle, graph, settings, outputs, before)
        if {port.name for port in session.get_inputs()} & (set(carried) - set(names)):
            every = {f"next_{name}" for name in carried}
            return (_open_part(bundle, graph, settings, every, ()),)
        parts.append(session)
        before |= outputs
    return tuple(parts)


def _layers_of(names: Sequence[str]) -> list[list[str]]:
    """``hidden_0`` is of the first layer; the lowest first."""
    layers: dict[int, list[str]] = {}
    for name in names:
        number = name.rpartition("_")[2]
        if not number.isdecimal():
            return [list(names)]
        layers.setdefault(int(number), []).append(name)
    return [layers[number] for number in sorted(layers)]


def _open_part(
    bundle: Bundle,
    graph: str,
    settings: SessionSettings,
    outputs: Collection[str],
    given: Collection[str],
) -> onnxruntime.InferenceSession:
    try:
        part = part_for(bundle.graph_of(graph), outputs, given)
    except NotAGraph as error:
        raise ManifestInvalid(
            f"{bundle.path_of(graph)} is no ONNX graph ({error}); export the bundle again"
        ) from error
    return _session(bundle, graph, part, settings)


def _session(
    bundle: Bundle, graph: str, model: bytes, settings: SessionSettings
) -> onnxruntime.InferenceSession:
    path, spec = bundle.path_of(graph), bundle.manifest.graphs[graph]
    provider = (settings.provider, provider_options(settings.provider))
    options = _options(settings, spec)
    weights = bundle.weights
    # Without a file of its own a graph finds no other one: it can name the weights alone.
    options.add_external_initializers_from_files_in_memory(
        [bundle.manifest.weights.file], [weights], [len(weights)]
    )
    try:
        session = onnxruntime.InferenceSession(model, options, providers=[provider])
    except Exception as error:  # onnxruntime raises classes of its own for each status
        raise ManifestInvalid(
            f"{path}: onnxruntime cannot load it ({error}); export the bundle again"
        ) from error
    check_provider(settings.device, settings.provider, session)
    return session


def _options(settings: SessionSettings, spec: GraphSpec) -> onnxruntime.SessionOptions:
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = settings.threads
    options.inter_op_num_threads = 1
    # A waiting thread that spins takes the core that another engine computes on.
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    # ARM's own kernels are reported to give different bits from run to run (onnxruntime#31569).
    options.add_session_config_entry("mlas.disable_kleidiai", "1")
    if any(_TIME in port.shape for port in spec.inputs):
        # A plan of the memory is kept for each shape that was ever seen: with free batch and
        # time, that is one for nearly every run. An slots keeps what the largest run took, in each
        # session; without one, such runs are as fast (steps, which are short, would be slower).
        options.enable_mem_pattern = False
        options.enable_cpu_mem_arena = False
    else:
        _share_arena()
        options.add_session_config_entry("session.use_env_allocators", "1")
        # Weights are never given back; the arena rounds what it takes up.
        options.add_session_config_entry("session.use_device_allocator_for_initializers", "1")
    options.log_severity_level = 3
    return options


@cache
def _share_arena() -> None:
    """One arena for the steps of all models, instead of one for each of their sessions: it holds
    what the largest step takes, not what each of them does."""
    place = onnxruntime.OrtMemoryInfo(
        "Cpu", onnxruntime.OrtAllocatorType.ORT_ARENA_ALLOCATOR, 0, onnxruntime.OrtMemType.DEFAULT
    )
    onnxruntime.create_and_register_allocator(place, onnxruntime.OrtArenaCfg(0, -1, -1, -1))


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
