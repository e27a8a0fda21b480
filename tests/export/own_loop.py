"""A generator's bundle in a loop of one stream, to be held beside the loop of the model's own."""

from __future__ import annotations

from collections.abc import Sequence
from types import SimpleNamespace
from typing import Any

import numpy as np

from service.runtime.runners import generate_runner
from service.runtime.sessions import SessionSettings, open_session
from service.serving.inputs import ReadingModel
from service.serving.model_metadata import text_input

SETTINGS = SessionSettings("cpu", "CPUExecutionProvider", 1)


def controls(uniform: float, count: int) -> dict[str, Any]:
    """A step's of one row, whose logits nothing adjusts. count: of the vocabulary."""
    columns: dict[str, Any] = {
        "temperature": 0.9, "top_k": 0, "top_p": 1.0, "min_p": 0.0, "typical_p": 1.0,
        "repetition": 1.0, "uniform": uniform,
    }  # fmt: skip
    return {
        **{
            name: np.array([value], np.int64 if name == "top_k" else np.float32)
            for name, value in columns.items()
        },
        "retries": np.array([[0.3, 0.7]], np.float32),
        "adjusted": np.zeros(0, np.int64),
        "seen": np.zeros((0, count), bool),
        "bias": np.zeros((0, count), np.float32),
    }


def prompt_of(bundle: Any, text: str) -> list[int]:
    """The tokens that the service reads of a prompt."""
    manifest = bundle.manifest
    model = ReadingModel(SimpleNamespace(name=manifest.name, limits=manifest.limits))
    return list(text_input(bundle, "prompt", reads_empty=True).read(model, text, "prompt").ids)


def ours(bundle: Any, prompt: Sequence[int], uniforms: Any) -> list[int]:
    """Tokens drawn after ``prompt`` by the sessions and the prefill of the service."""
    roles = [role for role in ("prime", "step") if role in bundle.manifest.graphs]
    sessions = {role: open_session(bundle, role, SETTINGS) for role in roles}
    runner = generate_runner(sessions, bundle.manifest.state)
    (state,) = runner.prefill([prompt[:-1]], [None])
    token, made = prompt[-1], []
    count = len(bundle.tokenizers["output"].vocabulary)
    names = [port.name for port in sessions["step"].get_outputs()]
    read = {port.name for port in sessions["step"].get_inputs()}
    for uniform in uniforms:
        feed = {"token": np.array([token]), **controls(uniform, count)}
        feed |= {name: np.asarray(rows)[None] for name, rows in state.items()}
        given = {name: array for name, array in feed.items() if name in read}
        found = dict(zip(names, sessions["step"].run(names, given), strict=True))
        token = int(found["next_token"][0])
        state = {name: found[f"next_{name}"][0] for name in state}
        made.append(token)
    return made
