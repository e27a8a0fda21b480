"""tritonclient's inputs from what Python has at hand, and its results back."""

from __future__ import annotations

import numpy as np
from tritonclient.grpc import InferInput, InferResult


def batch_of_texts(name: str, *texts: str) -> InferInput:
    """BYTES of shape [batch, 1]."""
    return tensor(name, np.array([[text.encode()] for text in texts], dtype=object))


def one_text(name: str, text: str) -> InferInput:
    """BYTES of shape [1]."""
    return tensor(name, np.array([text.encode()], dtype=object))


def tensor(name: str, array: np.ndarray) -> InferInput:
    """int64, float32 or bytes objects, as they are."""
    datatype = {"int64": "INT64", "float32": "FP32", "object": "BYTES"}[str(array.dtype)]
    made = InferInput(name, list(array.shape), datatype)
    made.set_data_from_numpy(array)
    return made


def texts_of(result: InferResult, name: str) -> list[str]:
    """The elements of BYTES in row-major order."""
    return [element.decode() for element in result.as_numpy(name).reshape(-1)]


def is_final(result: InferResult) -> bool:
    """Whether a stream brings nothing more for this request."""
    return result.get_response().parameters["triton_final_response"].bool_param
