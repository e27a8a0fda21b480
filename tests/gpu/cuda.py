"""python -m tests.gpu.cuda: says whether graphs run on CUDA here; exits with 1 where not."""

from __future__ import annotations

import sys
from functools import cache
from pathlib import Path

import numpy as np

from bundle.errors import BundleError
from bundle.store import read_bundle
from service.runtime.devices import DeviceUnavailable, choose_provider
from service.runtime.sessions import SessionSettings, open_session

MODELS = Path(__file__).parents[2] / "models"


@cache
def missing() -> str | None:
    """Why no graph runs on CUDA here; None where one does.

    A provider that is offered may still not load: only a session shows.
    """
    try:
        settings = SessionSettings("cuda", choose_provider("cuda"), threads=1)
        session = open_session(read_bundle(MODELS / "sentiment" / "1"), "predict", settings)
        session.run(None, {"tokens": np.array([[1, 2]]), "lengths": np.array([2])})
    except (DeviceUnavailable, BundleError) as error:
        return str(error)
    except Exception as error:  # onnxruntime raises classes of its own for each status
        return f"CUDA runs no graph ({error})"
    return None


if __name__ == "__main__":
    if reason := missing():
        print(f"no CUDA here: {reason}", file=sys.stderr)
        sys.exit(1)
