"""What a model is worth on what was held out of its training, measured again; what a precision
costs there, and gains in speed, measured on the exported graphs."""

from __future__ import annotations

import statistics
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import torch
from torch import Tensor

from bundle.manifest import ADJUSTED, BATCH, FP32, FULL, INT8, STEP_INPUTS, GraphSpec
from bundle.sampling import GRAPH_PARAMETERS
from bundle.store import Bundle
from export.onnx_files import ExportRefused
from training import task_run
from training.checkpoint import Figure, TrainedModel
from training.data.packages import DATA_FOLDER
from training.models.cells import State
from training.task_run import HeldOutExamples, figures_of, floors_of, held_out_examples

SPEED_BATCHES = (1, 64)
_SPEED_ROUNDS = 7
_ROUND_SECONDS = 0.2


def adjusted(
    trained: TrainedModel, data: Path = DATA_FOLDER, run: Path | None = None
) -> TrainedModel:
    """With what training chooses by validation chosen anew; its figures are of before.

    run: as of int8_figures(). Raises ExportRefused for a model of which no recipe is known.
    """
    found = task_run.adjusted(trained, data, run)
    if found is None:
        raise ExportRefused(
            f"no recipe of {trained.name!r} is known: none among the bundled models', and none in "
            f"{run or Path('runs') / trained.name}"
        )
    return found


def measured_anew(
    trained: TrainedModel, data: Path = DATA_FOLDER, run: Path | None = None
) -> TrainedModel:
    """With the model's held-out figures and their floors, measured as its training did: by PyTorch.

    A model of files keeps the floors of its training, whose run has what it held out alone.
    run: as of int8_figures(). Raises ExportRefused as it does.
    """
    examples = _held_out(trained, data, run)
    command = f"python -m export {trained.name} --figures"
    figures = tuple(
        replace(figure, profile=_profile(trained))
        for figure in figures_of(examples, trained, trained.build(), command)
    )
    floors = floors_of(examples, trained)
    facts = {} if floors is None else {"floors": floors}
    return replace(trained, figures=figures).with_facts(facts)


def int8_figures(
    trained: TrainedModel, folder: Path, data: Path = DATA_FOLDER, run: Path | None = None
) -> tuple[Figure, ...]:
    """The model's held-out figures with the int8 step of ``folder`` and with the fp32 one.

    Both are measured token by token through the step graph, so they differ in the precision
    alone. run: the folder of its training, which keeps what a user's model held out.

    Raises ExportRefused for a model of which nothing that was held out is known.
    """
    examples = _held_out(trained, data, run)
    command = f"python -m export {trained.name} --int8"
    return tuple(
        replace(
            figure,
            name=f"{figure.name}, {precision}",
            split=f"{figure.split}, step by step",
            precision=precision,
            profile=_profile(trained),
        )
        for graph, precision in (("step_int8", INT8), ("step", FP32))
        for figure in figures_of(examples, trained, SteppedModel(folder, graph), command)
    )


def _held_out(trained: TrainedModel, data: Path, run: Path | None) -> HeldOutExamples:
    examples = held_out_examples(trained, data, run)
    if examples is None:
        raise ExportRefused(
            f"no held-out data is known for {trained.name!r}: it has no recipe among the bundled "
            f"models', and {run or Path('runs') / trained.name} keeps none"
        )
    return examples


def _profile(trained: TrainedModel) -> str:
    return str(trained.training.get("profile", FULL))


class SteppedModel:
    """A step graph in a folder, called as training calls its model; encode runs ``prime``."""

    def __init__(self, folder: Path, graph: str) -> None:
        self.step = _open(folder / f"{graph}.onnx")
        self.prefill = _open(folder / "prime.onnx")
        ports = self.step.get_inputs()
        self.controls = {port.name: port for port in ports if port.name in STEP_INPUTS}
        self.state = [port for port in ports if port.name not in STEP_INPUTS]
        outputs = {port.name for port in self.step.get_outputs()}
        self.carried = [port.name for port in self.state if f"next_{port.name}" in outputs]

    def encode(self, source: Tensor, lengths: Tensor) -> State:
        feed = {"tokens": source.numpy(), "lengths": lengths.numpy()}
        return tuple(torch.from_numpy(part) for part in self.prefill.run(None, feed))

    def __call__(self, tokens: Tensor, state: State | None) -> tuple[Tensor, State]:
        """tokens (batch, time) → logits of each next token (batch, time, vocabulary), state"""
        batch = len(tokens)
        feed = {name: _filled(port, batch) for name, port in self.controls.items()}
        for number, port in enumerate(self.state):
            zeros = np.zeros((batch, *port.shape[1:]), np.float32)
            feed[port.name] = zeros if state is None else state[number].numpy()
        outputs = ["logits", *(f"next_{name}" for name in self.carried)]
        logits = []
        for token in tokens.T:
            feed["token"] = token.numpy()
            made, *after = self.step.run(outputs, feed)
            feed |= dict(zip(self.carried, after, strict=True))
            logits.append(torch.from_numpy(made))
        final = tuple(torch.from_numpy(feed[port.name]) for port in self.state)
        return torch.stack(logits, dim=1), final


def step_speedups(bundle: Bundle) -> dict[int, float]:
    """How many times as fast the int8 step is as the fp32 one, by the size of the batch.

    One thread; the two take turns, and each counts by the median of its rounds.
    """
    sessions = [_open(bundle.path_of(graph)) for graph in ("step", "step_int8")]
    spec = bundle.manifest.graphs["step"]
    speedups = {}
    for batch in SPEED_BATCHES:
        bindings = [_bound(session, spec, batch) for session in sessions]
        rounds = [
            [
                _seconds(session, binding)
                for session, binding in zip(sessions, bindings, strict=True)
            ]
            for _ in range(_SPEED_ROUNDS)
        ]
        fp32, int8 = (statistics.median(times) for times in zip(*rounds, strict=True))
        speedups[batch] = fp32 / int8
    return speedups


def _open(path: Path) -> onnxruntime.InferenceSession:
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    return onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])


def _bound(
    session: onnxruntime.InferenceSession, spec: GraphSpec, batch: int
) -> onnxruntime.IOBinding:
    binding = session.io_binding()
    for port, given in zip(spec.inputs, session.get_inputs(), strict=True):
        binding.bind_cpu_input(port.name, _filled(given, batch))
    for output in spec.outputs:
        binding.bind_output(output.name)
    return binding


def _seconds(session: onnxruntime.InferenceSession, binding: onnxruntime.IOBinding) -> float:
    session.run_with_iobinding(binding)
    begin, runs = time.perf_counter(), 0
    while not runs or time.perf_counter() - begin < _ROUND_SECONDS:
        session.run_with_iobinding(binding)
        runs += 1
    return (time.perf_counter() - begin) / runs


def _filled(port: onnxruntime.NodeArg, batch: int) -> np.ndarray[Any, Any]:
    """An input that any step accepts: token 1, neutral parameters, no adjusted rows, the rest of a
    half."""
    free = {BATCH: batch, ADJUSTED: 0}
    kind, sizes = port.type, [free.get(axis, axis) for axis in port.shape]
    if port.name in GRAPH_PARAMETERS:
        parameter = GRAPH_PARAMETERS[port.name]
        return np.full(sizes, parameter.neutral, parameter.dtype)
    if kind == "tensor(float)":
        return np.full(sizes, 0.5, np.float32)
    return np.ones(sizes, np.int64) if kind == "tensor(int64)" else np.zeros(sizes, np.bool_)
