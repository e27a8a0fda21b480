"""Our own bundles as models of Triton's Python backend; they run in Triton's own process."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import triton_python_backend_utils as triton  # beside the backend, and nowhere else

from bench.batches import padded
from bundle.store import read_bundle
from service.runtime.sessions import SessionSettings, open_session


def model_of(folder: str) -> type:
    """The class that the backend looks for, with the graph and the tokenizer of one bundle."""

    class TritonPythonModel:
        def initialize(self, args: dict[str, str]) -> None:
            bundle = read_bundle(Path(folder))
            settings = SessionSettings("cpu", "CPUExecutionProvider", threads=1)
            self.session = open_session(bundle, "predict", settings)
            self.tokenizer = bundle.tokenizers["input"]
            self.labels = np.array([label.encode() for label in bundle.manifest.labels], object)

        def execute(self, requests: Sequence[Any]) -> list[Any]:
            """All requests of a batch in one run of the graph; each has texts (rows, 1)."""
            texts = [triton.get_input_tensor_by_name(r, "text").as_numpy() for r in requests]
            encoded = [
                self.tokenizer.encode(text.decode()).ids for one in texts for text in one[:, 0]
            ]
            (rows,) = self.session.run(["probabilities"], padded(encoded))
            ends = np.cumsum([len(one) for one in texts])[:-1]
            return [self._answer(part) for part in np.split(rows, ends)]

        def _answer(self, probabilities: np.ndarray) -> Any:
            best = probabilities.argmax(1)[:, None]
            tensors = {
                "label": self.labels[best],
                "probability": np.take_along_axis(probabilities, best, 1),
                "probabilities": probabilities,
            }
            return triton.InferenceResponse([triton.Tensor(*one) for one in tensors.items()])

    return TritonPythonModel


def stepper_of(folder: str) -> type:
    """As model_of(), with the step of a model of frames: each request names its stream and has a
    frame of it, and the state of every stream is kept here.

    Triton's own state of sequences is for backends other than Python's.
    """

    class TritonPythonModel:
        def initialize(self, args: dict[str, str]) -> None:
            bundle = read_bundle(Path(folder))
            settings = SessionSettings("cpu", "CPUExecutionProvider", threads=1)
            self.session = open_session(bundle, "step", settings)
            manifest = bundle.manifest
            self.first = {s.name: np.zeros(s.shape, s.dtype) for s in manifest.state}
            spec = manifest.stepping
            assert spec is not None, "it is a stepper's"
            (self.frame,), (self.answer,) = spec.frames, spec.answers
            self.states: dict[int, dict[str, np.ndarray]] = {}

        def execute(self, requests: Sequence[Any]) -> list[Any]:
            """One run of the graph for all requests of a batch; of a stream that has several in it,
            one in each of several runs."""
            streams = [int(_array(request, "stream")[0, 0]) for request in requests]
            answers: list[Any] = [None] * len(requests)
            left = list(range(len(requests)))
            while left:
                run: dict[int, int] = {}
                for place in left:
                    run.setdefault(streams[place], place)
                places = list(run.values())
                for place, row in zip(places, self._step(requests, streams, places), strict=True):
                    tensor = triton.Tensor(self.answer, row[None])
                    answers[place] = triton.InferenceResponse([tensor])
                left = [place for place in left if answers[place] is None]
            return answers

        def _step(
            self, requests: Sequence[Any], streams: Sequence[int], places: Sequence[int]
        ) -> np.ndarray:
            states = [self.states.get(streams[place], self.first) for place in places]
            feed = {name: np.stack([state[name] for state in states]) for name in self.first}
            feed[self.frame] = np.concatenate([_array(requests[p], self.frame) for p in places])
            names = [self.answer, *(f"next_{name}" for name in self.first)]
            answered, *after = self.session.run(names, feed)
            for row, place in enumerate(places):
                rows = {name: made[row] for name, made in zip(self.first, after, strict=True)}
                self.states[streams[place]] = rows
            found: np.ndarray = answered
            return found

    return TritonPythonModel


def _array(request: Any, name: str) -> np.ndarray:
    found: np.ndarray = triton.get_input_tensor_by_name(request, name).as_numpy()
    return found
