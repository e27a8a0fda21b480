"""Runs what touches a foreign graph in a process of its own, within bounds of time and memory.

onnxruntime is not made for files that mean it harm: one that ends the process, fills the memory or
never comes back takes nothing with it but this.
"""

from __future__ import annotations

import json
import os
import pickle
import resource
import signal
import subprocess
import sys
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from export.foreign.errors import ImportRefused

SECONDS = 600.0
# Of address space: of what onnxruntime and PyTorch take before anything is loaded, and beside it a
# multiple of the files, which are there as a message, as weights and in sessions.
_BASE_BYTES = 12 * 1024**3
_TIMES_THE_FILES = 12


def run_apart(
    job: str, argument: Any, file_bytes: int = 0, seconds: float = SECONDS
) -> dict[str, Any]:
    """What ``JOBS[job]`` gives for ``argument``, which must pickle.

    Raises ImportRefused with its reason; with the signal where the process ended by one; and where
    it took longer than ``seconds``.
    """
    with tempfile.TemporaryDirectory(prefix="unroll-import-") as folder:
        answer = Path(folder) / "answer.json"
        most = _BASE_BYTES + _TIMES_THE_FILES * file_bytes
        # This very package, and no module that lies where the command is given.
        paths = [str(Path(__file__).parents[2]), *filter(None, [os.environ.get("PYTHONPATH")])]
        command = [
            sys.executable,
            "-P",
            "-m",
            __name__,
            str(answer),
            str(most),
            str(int(seconds) + 1),
        ]
        try:
            ended = subprocess.run(
                command,
                input=pickle.dumps((job, argument)),
                env={**os.environ, "PYTHONPATH": os.pathsep.join(paths)},
                capture_output=True,
                timeout=seconds,
                check=False,
            )
        except subprocess.TimeoutExpired as error:
            raise ImportRefused(
                f"it was not done after {seconds:.0f} s (--time-limit); nothing was written"
            ) from error
        if not answer.exists():
            raise ImportRefused(_ended(ended))
        found: dict[str, Any] = json.loads(answer.read_text())
    if "refused" in found:
        raise ImportRefused(found["refused"])
    return found


def _ended(ended: subprocess.CompletedProcess[bytes]) -> str:
    code = ended.returncode
    if code < 0:
        name = signal.Signals(-code).name
        return f"the graph ended the process that tried it ({name}); nothing was written"
    said = ended.stderr.decode(errors="replace").strip().splitlines()
    return f"the process that tried it ended with {code}: {said[-1] if said else 'it said nothing'}"


def _inspect(argument: Any) -> dict[str, Any]:
    from export.foreign.inspection import inspected

    return {"lines": inspected(argument)}


def _import(argument: Any) -> dict[str, Any]:
    mapping, folder = argument
    if mapping.task == "step":
        from export.foreign import steps

        return {"lines": list(steps.import_step(mapping, folder).lines)}
    if mapping.task == "generate":
        from export.foreign import generators

        return {"lines": list(generators.import_generator(mapping, folder).lines)}
    from export.foreign import classifiers

    return {"lines": list(classifiers.import_classifier(mapping, folder).lines)}


JOBS: Mapping[str, Any] = {"inspect": _inspect, "import": _import}


def _limit(most_bytes: int, seconds: int) -> None:
    for kind, value in (
        (resource.RLIMIT_AS, most_bytes),
        (resource.RLIMIT_CPU, seconds),
        (resource.RLIMIT_CORE, 0),
    ):
        _, hard = resource.getrlimit(kind)
        bound = value if hard == resource.RLIM_INFINITY else min(value, hard)
        resource.setrlimit(kind, (bound, hard))


def main() -> None:
    answer, most_bytes, seconds = Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3])
    job, argument = pickle.loads(sys.stdin.buffer.read())
    _limit(most_bytes, seconds)
    try:
        found = JOBS[job](argument)
    except ImportRefused as error:
        found = {"refused": str(error)}
    except (MemoryError, RecursionError) as error:
        found = {"refused": f"it needs more memory than is allowed ({type(error).__name__})"}
    except Exception as error:  # whatever a graph makes onnx or onnxruntime raise
        text = " ".join(str(error).split())[:500]
        found = {"refused": f"it cannot be run: {type(error).__name__}: {text}"}
    answer.write_text(json.dumps(found))


if __name__ == "__main__":
    main()
