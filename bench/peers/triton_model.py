"""A classifier's bundle as a model of Triton's Python backend; it runs in Triton's own process."""

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
