"""Triton's server with its Python backend, from the wheel nvidia-pytriton, with our own graph."""

from __future__ import annotations

import os
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from bench.servers import Missing, Server, free_port
from bundle.store import Bundle
from service.config import Config

# Where `make bench-triton` installs it.
ENVIRONMENT = Path(".venv-bench-triton")
_ROOT = Path(__file__).parents[2]
_CANNOT_LOAD = 127  # what a program exits with that lacks a shared library
_CLASSIFIER = """\
name: "{name}"
backend: "python"
max_batch_size: {rows}
input [ {{ name: "text" data_type: TYPE_STRING dims: [ 1 ] }} ]
output [
  {{ name: "label" data_type: TYPE_STRING dims: [ 1 ] }},
  {{ name: "probability" data_type: TYPE_FP32 dims: [ 1 ] }},
  {{ name: "probabilities" data_type: TYPE_FP32 dims: [ {labels} ] }}
]
instance_group [ {{ count: 1 kind: KIND_CPU }} ]
dynamic_batching {{ }}
"""
# A request waits for others as long as a frame waits here (service/serving/frame_gatherer.py).
_STEPPER = """\
name: "{name}"
backend: "python"
max_batch_size: {rows}
input [
  {{ name: "stream" data_type: TYPE_INT64 dims: [ 1 ] }},
  {{ name: "{frame}" data_type: TYPE_FP32 dims: [ {size} ] }}
]
output [ {{ name: "{answer}" data_type: TYPE_FP32 dims: [ 1 ] }} ]
instance_group [ {{ count: 1 kind: KIND_CPU }} ]
dynamic_batching {{ max_queue_delay_microseconds: 8000 }}
"""
# The backend replaces PYTHONPATH, so the model says itself what it is made of.
_MODEL = """\
import sys

sys.path[:0] = {paths!r}
from bench.peers.triton_model import {function}

TritonPythonModel = {function}({folder!r})
"""


@contextmanager
def start_triton(classifier: Bundle, environment: Path = ENVIRONMENT) -> Iterator[Server]:
    """Its server with the classifier as its one model.

    Raises Missing.
    """
    manifest = classifier.manifest
    config = _CLASSIFIER.format(
        name=manifest.name, rows=Config.max_batch, labels=len(manifest.labels)
    )
    with _started(classifier, config, "model_of", environment) as running:
        yield running


@contextmanager
def start_triton_stepper(
    stepper: Bundle, environment: Path = ENVIRONMENT, what: str = "Triton"
) -> Iterator[Server]:
    """Its server with a model of one frame and one answer as its one model; requests name their
    stream. what: its name in the tables.

    Raises Missing.
    """
    manifest = stepper.manifest
    assert manifest.stepping is not None, "it is a stepper's"
    (frame,), (answer,) = manifest.stepping.frames, manifest.stepping.answers
    size = next(p.shape[1] for p in manifest.graphs["step"].inputs if p.name == frame)
    config = _STEPPER.format(
        name=manifest.name, rows=Config.max_batch, frame=frame, size=size, answer=answer
    )
    with _started(stepper, config, "stepper_of", environment, what) as running:
        yield running


@contextmanager
def _started(
    bundle: Bundle, config: str, function: str, environment: Path, what: str = "Triton"
) -> Iterator[Server]:
    """function: of triton_model.py, which makes the bundle a model. Raises Missing."""
    packages, python_home = _installed(environment)
    triton = packages / "pytriton" / "tritonserver"
    backend = triton / "backends" / "python"
    version = packages.parent.name.removeprefix("python")
    stub = triton / "python_backend_stubs" / version / "triton_python_backend_stub"
    libraries = (packages / "nvidia_pytriton.libs", python_home / "lib")
    variables = {
        "LD_LIBRARY_PATH": ":".join(map(str, libraries)),
        "PYTHONHOME": str(python_home),
    }
    server = triton / "bin" / "tritonserver"
    for program in (server, stub):
        _check(program, variables)
    with tempfile.TemporaryDirectory() as temporary:
        # The backend looks for the stub beside itself alone.
        beside = Path(temporary, "backends", "python")
        beside.mkdir(parents=True)
        for file in (*backend.glob("*.*"), stub):
            (beside / file.name).symlink_to(file)
        repository = Path(temporary, "models")
        model = repository / bundle.manifest.name / "1"
        model.mkdir(parents=True)
        (model.parent / "config.pbtxt").write_text(config)
        folder, paths = str(bundle.folder.absolute()), [str(_ROOT), str(packages)]
        (model / "model.py").write_text(
            _MODEL.format(paths=paths, folder=folder, function=function)
        )
        port = free_port()
        options = [
            f"--model-repository={repository}", f"--backend-directory={beside.parent}",
            "--grpc-address=127.0.0.1", f"--grpc-port={port}",
            "--allow-http=false", "--allow-metrics=false",
        ]  # fmt: skip
        with Server(
            what, options, program=[str(server)], environment=variables, port=port
        ) as running:
            yield running


def _installed(environment: Path) -> tuple[Path, Path]:
    """(its packages, the prefix of its Python), both absolute. Raises Missing."""
    found = [*environment.absolute().glob("lib/python*/site-packages/pytriton/tritonserver")]
    if not found:
        raise Missing(f"{environment} has no nvidia-pytriton; make bench-triton installs it")
    lines = (environment / "pyvenv.cfg").read_text().splitlines()
    (home,) = (line.split("=")[1].strip() for line in lines if line.split("=")[0].strip() == "home")
    return found[0].parents[1], Path(home).parent


def _check(program: Path, variables: dict[str, str]) -> None:
    """Raises Missing when the program is not there or lacks a library."""
    if not program.exists():
        raise Missing(f"nvidia-pytriton has no {program.parent.name}/{program.name}")
    ended = subprocess.run(
        [program, "--help"], env={**os.environ, **variables}, capture_output=True, text=True
    )
    if ended.returncode == _CANNOT_LOAD:
        raise Missing(ended.stderr.strip().splitlines()[-1])
