"""Bundles as an earlier release exported them: step graphs without some sampling parameter."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
from onnx import helper, numpy_helper

from bundle.sampling import GRAPH_PARAMETERS
from bundle.store import MANIFEST_FILE, read_bundle, write_manifest


def without_input(folder: Path, name: str) -> None:
    """Take the input ``name`` from every step graph of the bundle in ``folder``.

    In its place the graph holds what changes nothing, so it draws as it would without it.
    """
    manifest = read_bundle(folder).manifest
    parameter = GRAPH_PARAMETERS[name]
    graphs = dict(manifest.graphs)
    for role in [role for role in graphs if role.startswith("step")]:
        spec = graphs[role]
        model = onnx.load(folder / spec.file, load_external_data=False)
        (port,) = (port for port in model.graph.input if port.name == name)
        model.graph.input.remove(port)
        neutral = np.array([parameter.neutral], parameter.dtype)
        model.graph.initializer.append(numpy_helper.from_array(neutral, f"{name}_neutral"))
        shape = helper.make_node("Shape", ["token"], [f"{name}_shape"])
        rows = helper.make_node("Expand", [f"{name}_neutral", f"{name}_shape"], [name])
        nodes = [shape, rows, *model.graph.node]
        model.graph.ClearField("node")
        model.graph.node.extend(nodes)
        (folder / spec.file).write_bytes(model.SerializeToString())
        left = tuple(port for port in spec.inputs if port.name != name)
        graphs[role] = replace(spec, inputs=left)
    (folder / MANIFEST_FILE).unlink()  # it would be hashed with the others
    write_manifest(folder, replace(manifest, graphs=graphs, files={}))
