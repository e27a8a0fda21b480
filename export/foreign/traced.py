"""Modules with step(inputs, state): traced to ONNX, compared, and imported as any other graph."""

from __future__ import annotations

import json
import tempfile
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from bundle.manifest import GENERATE
from bundle.store import Bundle
from export.foreign.bundles import import_model
from export.foreign.errors import ImportRefused
from export.foreign.mapping import GraphMapping, ModelMapping
from export.foreign.surgery import open_model
from export.opset import OPSET

_STEPS = 4
_ROWS = 3
# |onnxruntime - PyTorch| ≤ _TOLERANCE + _TOLERANCE · |the largest number of the tensor|.
_TOLERANCE = 1e-4


class _Step(nn.Module):
    """``module.step`` with a tensor for each argument and each result."""

    def __init__(
        self, module: Any, inputs: Sequence[str], states: Sequence[str], outputs: Sequence[str]
    ) -> None:
        super().__init__()
        self.module = module
        self.names = tuple(inputs), tuple(states), tuple(outputs)

    def forward(self, *tensors: Tensor) -> tuple[Tensor, ...]:
        inputs, states, outputs = self.names
        given = dict(zip(inputs, tensors, strict=False))
        carried = dict(zip(states, tensors[len(inputs) :], strict=True))
        made, after = self.module.step(given, carried)
        return (*(made[name] for name in outputs), *(after[name] for name in states))


def traced_bundle(
    module: nn.Module,
    mapping: ModelMapping,
    models: Path,
    inputs: Mapping[str, Tensor],
    state: Mapping[str, Tensor],
    outputs: Sequence[str],
    vocabulary: Sequence[str],
) -> Bundle:
    """As from_torch has it. Raises ImportRefused."""
    if not inputs or not outputs:
        raise ImportRefused(
            "a module that is traced needs examples of its inputs and its outputs' names"
        )
    for name, tensor in (*inputs.items(), *state.items()):
        if tensor.dim() < 1 or tensor.shape[0] != 1:
            raise ImportRefused(
                f"the example of {name!r} is {list(tensor.shape)}: its batch comes first and is 1"
            )
    step = _Step(module, list(inputs), list(state), list(outputs)).eval()
    with tempfile.TemporaryDirectory(prefix="unroll-trace-") as folder:
        file = Path(folder) / "module.onnx"
        _trace(step, inputs, state, outputs, file)
        _check(step, inputs, state, file)
        graph = GraphMapping(
            file,
            states={name: f"next_{name}" for name in state},
            axes=dict.fromkeys((*inputs, *state), 0),
            shapes={
                name: tuple(tensor.shape) for name, tensor in (*inputs.items(), *state.items())
            },
            initial=_written_initial(state, Path(folder)),
        )
        changed = replace(mapping, graphs=(graph,))
        if mapping.task == GENERATE:
            listed = Path(folder) / "vocabulary.json"
            listed.write_text(json.dumps(list(vocabulary)))
            (token,) = inputs
            changed = replace(changed, tokens=token, logits=outputs[0], vocabulary=listed)
        bundle, _ = import_model(changed, models)
    return bundle


def _written_initial(state: Mapping[str, Tensor], folder: Path) -> dict[str, str]:
    """Each state that is not zero, written as .npy into ``folder``: its name → the file's."""
    written = {}
    for number, (name, tensor) in enumerate(state.items()):
        if tensor.any():
            written[name] = f"initial{number}.npy"
            np.save(folder / written[name], tensor.detach().numpy())
    return written


def _trace(
    step: _Step,
    inputs: Mapping[str, Tensor],
    state: Mapping[str, Tensor],
    outputs: Sequence[str],
    file: Path,
) -> None:
    """With a free batch where the module takes one, else with a batch of one."""
    names = [*inputs, *state]
    written = [*outputs, *(f"next_{name}" for name in state)]
    examples = [*inputs.values(), *state.values()]
    several = tuple(torch.cat([tensor] * _ROWS) for tensor in examples)
    free = ({0: torch.export.Dim.DYNAMIC},) * len(names)
    problem: Exception | None = None
    for arguments, shapes in ((several, (free,)), (tuple(examples), None)):
        try:
            with warnings.catch_warnings():
                # PyTorch's own exporter calls its own deprecated names.
                warnings.simplefilter("ignore")
                program = torch.onnx.export(
                    step,
                    arguments,
                    dynamo=True,
                    opset_version=OPSET,
                    dynamic_shapes=shapes,
                    input_names=names,
                    output_names=written,
                    external_data=False,
                    verbose=False,
                )
        except Exception as error:  # the exporter raises what it meets
            problem = error
            continue
        assert program is not None, "the dynamo exporter returns a program"
        program.save(str(file))
        return
    text = " ".join(str(problem).split())[:500]
    raise ImportRefused(f"the module's step cannot be traced: {text}") from problem


def _check(
    step: _Step, inputs: Mapping[str, Tensor], state: Mapping[str, Tensor], file: Path
) -> None:
    """Several steps of one row, onnxruntime beside PyTorch, each from PyTorch's state."""
    session = open_model(str(file))
    generator = torch.Generator().manual_seed(0)
    carried = dict(state)
    written = [port.name for port in session.get_outputs()]
    for _ in range(_STEPS):
        given = {name: _like(tensor, generator) for name, tensor in inputs.items()}
        with torch.no_grad():
            made = step(*given.values(), *carried.values())
        feed = {name: tensor.numpy() for name, tensor in {**given, **carried}.items()}
        found = session.run(None, feed)
        for name, ours, theirs in zip(written, found, made, strict=True):
            delta = (torch.from_numpy(ours).double() - theirs.double()).abs().max()
            allowed = _TOLERANCE + _TOLERANCE * theirs.double().abs().max()
            if not delta <= allowed:
                raise ImportRefused(
                    f"traced, {name!r} differs from the module's by {float(delta):.2g}"
                )
        carried = dict(zip(state, made[len(made) - len(state) :], strict=True))


def _like(tensor: Tensor, generator: torch.Generator) -> Tensor:
    if tensor.is_floating_point():
        return torch.randn(tensor.shape, generator=generator).to(tensor.dtype) * 0.3
    return torch.randint(0, 2, tensor.shape, generator=generator).to(tensor.dtype)
