"""Mutated graphs and mappings: imported right, or refused with a reason; no crash, no hang.

A short form runs with the other tests; `-m slow` runs 500.
"""

from __future__ import annotations

import random
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest

from bundle.store import Bundle, read_bundle
from export.foreign.bundles import import_model
from export.foreign.errors import ImportRefused
from export.foreign.mapping import GraphMapping, ModelMapping, read_mapping
from export.foreign.prepare import opened
from export.foreign.surgery import open_model
from export.foreign.trial import constant_of
from tests.export import foreign_graphs as graphs

SEEDS = {
    "leaky": (graphs.LEAKY, {"s": "s_out"}),
    "axes": (graphs.AXES, {"s": "s_out", "n": "n_out"}),
    "rates": (graphs.RATES, {"s": "s_out"}),
    "mixed": (graphs.MIXED, {"s": "s_out"}),
}

MAPPINGS = 60

MAPPING = """
name = "vad"
task = "step"
version = 1
frame_seconds = 0.032
description = "speech"
[attributes]
sample_rate = 16000
[[graph]]
file = "rates.onnx"
state = { s = "s_out" }
constant = { sr = [16000, 8000] }
input = ["x"]
output = { y = "speech" }
shape = { x = [1, 4] }
batch_axis = { x = 0 }
initial = { s = 0.5 }
"""


def mutated_graph(seed: int) -> tuple[bytes, dict[str, str]]:
    """A graph with a few fields, or a few bytes, changed."""
    rng = random.Random(seed)
    text, states = SEEDS[rng.choice(sorted(SEEDS))]
    model = graphs.graph(text)
    if seed % 3 == 0:
        content = bytearray(model.SerializeToString())
        for _ in range(rng.randint(1, 8)):
            place = rng.randrange(len(content))
            action = rng.randrange(3)
            if action == 0:
                content[place] = rng.randrange(256)
            elif action == 1:
                del content[place : place + rng.randint(1, 16)]
            else:
                content[place:place] = rng.randbytes(rng.randint(1, 16))
        return bytes(content), states
    for _ in range(rng.randint(1, 3)):
        _mutate(model, rng)
    return model.SerializeToString(), states


def _mutate(model: onnx.ModelProto, rng: random.Random) -> None:
    graph = model.graph
    node = rng.choice(graph.node)
    names = [name for other in graph.node for name in (*other.input, *other.output) if name]
    ports = [*graph.input, *graph.output]
    action = rng.randrange(12)
    if action == 0:
        node.op_type = rng.choice(
            ("Loop", "Scan", "If", "LSTM", "Reshape", "Gather", "Expand", "Tile", "Range", "Exp",
             "ConstantOfShape", "NonZero", "Identity", "RandomNormal", "")
        )  # fmt: skip
    elif action == 1 and node.input:
        node.input[rng.randrange(len(node.input))] = rng.choice([*names, "", "nowhere"])
    elif action == 2 and node.output:
        node.output[rng.randrange(len(node.output))] = rng.choice([*names, ""])
    elif action == 3:
        port = rng.choice(ports)
        dims = port.type.tensor_type.shape.dim
        if dims:
            rng.choice(dims).dim_value = rng.choice((0, 1, 2, 7, 2**31, 2**62, -1))
    elif action == 4:
        rng.choice(ports).type.tensor_type.elem_type = rng.randrange(26)
    elif action == 5 and graph.initializer:
        tensor = rng.choice(graph.initializer)
        tensor.data_type = rng.randrange(26)
    elif action == 6 and graph.initializer:
        rng.choice(graph.initializer).dims.append(rng.choice((0, 3, 2**40)))
    elif action == 7:
        graph.node.remove(node)
    elif action == 8:
        model.opset_import[0].version = rng.choice((0, 1, 8, 9, 13, 22, 99))
    elif action == 9:
        node.domain = rng.choice(("x", "com.microsoft", "ai.onnx.training", "../.."))
    elif action == 10:
        port = rng.choice(ports)
        port.name = rng.choice([*names, "", "\0", "../x", "a" * 300])
    else:
        graph.node.append(node)


def check_graph(folder: Path, seed: int) -> str:
    """Refused, or imported; what was imported computes what onnxruntime does on the file."""
    content, states = mutated_graph(seed)
    file = folder / f"{seed}.onnx"
    file.write_bytes(content)
    constants = {"sr": (16000,)} if b"sr" in content else {}
    mapping = GraphMapping(file, states=states, constants=constants)
    reason = None
    try:
        bundle, _ = import_model(
            ModelMapping(f"m{seed}", "step", (mapping,)), folder / "models", seconds=60
        )
    except ImportRefused as error:
        reason = str(error)
    if reason is None:
        _check_step(bundle.folder, file, mapping)
        return "imported"
    assert reason, "a refusal says why"
    assert not (folder / "models" / f"m{seed}" / "1").exists()
    return "refused"


def _check_step(folder: Path, file: Path, mapping: GraphMapping) -> None:
    """Two steps of one row of a new stream, beside the original, with each choice."""
    bundle = read_bundle(folder)
    spec = bundle.manifest.stepping
    assert spec is not None
    assert set(spec.answers) == set((mapping.outputs or {n: n for n in spec.answers}).values())
    source, _ = opened(mapping)
    assert source.bytes == len(file.read_bytes())
    shared = {s.name: s.choices for s in spec.shared}
    assert set(shared) == {n for n, values in mapping.constants.items() if len(values) > 1}
    for name, choices in shared.items():
        assert choices == mapping.constants[name]
    for number in range(max(map(len, mapping.constants.values()), default=1)):
        chosen = {n: v[min(number, len(v) - 1)] for n, v in mapping.constants.items()}
        _check_choice(bundle, file, mapping, chosen)


def _check_choice(
    bundle: Bundle, file: Path, mapping: GraphMapping, chosen: dict[str, float]
) -> None:
    spec, step = bundle.manifest.stepping, bundle.manifest.graphs["step"]
    assert spec is not None
    axes = bundle.manifest.training["imported"][0]
    session, original = open_model(str(bundle.folder / "step.onnx")), open_model(str(file))
    outputs = [port.name for port in session.get_outputs()]
    names = [port.name for port in original.get_outputs()]
    inner = {outer: name for name, outer in {**mapping.inputs, **(mapping.outputs or {})}.items()}
    constants = {
        port.name: constant_of(port, chosen[port.name])
        for port in onnx.load_model(str(file)).graph.input
        if port.name in chosen
    }
    shared = {s.name: constants[s.name] for s in spec.shared}
    state = {s.name: np.zeros((1, *s.shape), s.dtype) for s in bundle.manifest.state}
    theirs = {
        name: np.full(place["shape"], mapping.initial.get(name, 0), place["dtype"])
        for name, place in axes["inputs"].items()
        if name in mapping.states
    }
    rng = np.random.default_rng(0)
    for _ in range(2):
        frames, given = {}, {**theirs, **constants}
        for name in spec.frames:
            place = axes["inputs"][inner.get(name, name)]
            frame = rng.normal(0, 0.3, place["shape"]).astype(place["dtype"])
            row = next(p for p in step.inputs if p.name == name)
            frames[name] = frame.reshape((1, *row.shape[1:]))
            given[inner.get(name, name)] = frame
        wanted = dict(zip(names, original.run(None, given), strict=True))
        found = dict(zip(outputs, session.run(None, {**frames, **shared, **state}), strict=True))
        for name in spec.answers:
            answer = wanted[inner.get(name, name)]
            assert np.allclose(
                found[name].reshape(-1), answer.reshape(-1), atol=1e-4, equal_nan=True
            )
        state = {name: found[f"next_{name}"] for name in state}
        theirs = {name: wanted[output] for name, output in mapping.states.items()}


def mutated_mapping(seed: int) -> bytes:
    rng = random.Random(seed)
    if seed % 2:
        content = bytearray(MAPPING.encode())
        for _ in range(rng.randint(1, 6)):
            place = rng.randrange(len(content))
            content[place : place + rng.randrange(4)] = rng.randbytes(rng.randrange(4))
        return bytes(content)
    lines = MAPPING.strip().split("\n")
    for _ in range(rng.randint(1, 3)):
        line = rng.randrange(len(lines))
        key = lines[line].split("=")[0]
        value = rng.choice(
            ('""', "-1", "[]", "{}", "nan", "1e400", "true", '"../../etc/passwd"', "[[1]]",
             '{ a = "b" }', '{ s = "s_out", x = "y" }', "[1, 1]", "99999999999999999999",
             '{ s = "/etc/passwd" }', "2024-01-01", '["x", "x", 3]')
        )  # fmt: skip
        lines[line] = rng.choice((f"{key}= {value}", "", lines[line] * 2, "[[graph]]"))
    return "\n".join(lines).encode()


def check_mapping(folder: Path, seed: int) -> str:
    """Refused, or imported; what was imported is what the mapping says of ``rates.onnx``."""
    file = folder / f"{seed}.toml"
    file.write_bytes(mutated_mapping(seed))
    reason = None
    try:
        mapping = read_mapping(file)
    except ImportRefused as error:
        reason = str(error)
    if reason is not None:
        assert reason.startswith(str(file)), "a refusal names the file"
        return "refused"
    try:
        bundle, _ = import_model(mapping, folder / f"models{seed}", seconds=60)
    except ImportRefused as error:
        reason = str(error)
    if reason is not None:
        assert reason, "a refusal says why"
        assert not list((folder / f"models{seed}").rglob("manifest.json"))
        return "refused"
    (graph,) = mapping.graphs
    _check_step(bundle.folder, folder / "rates.onnx", graph)
    _check_manifest(bundle, mapping)
    return "imported"


def _check_manifest(bundle: Bundle, mapping: ModelMapping) -> None:
    found, spec = bundle.manifest, bundle.manifest.stepping
    assert spec is not None
    assert (found.name, found.version) == (mapping.name, mapping.version)
    assert (found.description, found.task) == (mapping.description, mapping.task)
    assert (spec.frame_seconds, spec.attributes) == (mapping.frame_seconds, mapping.attributes)


def counted(check: Any, folder: Path, seeds: range) -> dict[str, int]:
    found: dict[str, int] = {}
    for seed in seeds:
        outcome = check(folder, seed)
        found[outcome] = found.get(outcome, 0) + 1
    return found


def test_a_few_mutated_graphs_are_imported_right_or_refused(tmp_path):
    assert sum(counted(check_graph, tmp_path, range(8)).values()) == 8


def test_mutated_mappings_are_imported_right_or_refused(tmp_path):
    graphs.written(tmp_path / "rates.onnx", graphs.RATES)
    found = counted(check_mapping, tmp_path, range(MAPPINGS))
    assert found["refused"] > MAPPINGS // 2
    assert found["imported"] > 3


@pytest.mark.slow
@pytest.mark.timeout(3600)
def test_500_mutated_graphs_are_imported_right_or_refused(tmp_path):
    found = counted(check_graph, tmp_path, range(1000, 1500))
    assert found["refused"] > 100
    assert found["imported"] > 5


@pytest.mark.slow
@pytest.mark.timeout(3600)
def test_2000_mutated_mappings_are_imported_right_or_refused(tmp_path):
    graphs.written(tmp_path / "rates.onnx", graphs.RATES)
    found = counted(check_mapping, tmp_path, range(1000, 3000))
    assert found["refused"] > 1000
    assert found["imported"] > 50
