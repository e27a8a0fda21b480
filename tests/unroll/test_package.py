"""What is installed: one version, lazy imports, and messages that share a process with others."""

from __future__ import annotations

import subprocess
import sys
import tomllib
from pathlib import Path

import service
import unroll
from unroll import repository
from unroll.inference import grpc_service_pb2 as oip

ROOT = Path(unroll.__file__).parents[1]


def loaded_by(statement):
    """The modules of ours that a fresh process has after ``statement``."""
    script = f"{statement}\nimport sys\nprint(*sys.modules)"
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", script],
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
    )
    return set(done.stdout.split())


def test_client_and_service_have_one_version():
    assert unroll.__version__ == service.__version__


def test_every_public_name_is_there_and_no_other():
    for name in unroll.__all__:
        assert getattr(unroll, name).__class__
    assert set(unroll.__all__) <= set(dir(unroll))
    assert not hasattr(unroll, "Piece")


def test_the_stubs_load_no_client():
    loaded = loaded_by("import unroll.v1.unroll_pb2_grpc, unroll.inference.grpc_service_pb2_grpc")
    assert not loaded & {"unroll.clients", "unroll.calls", "unroll.types", "rich"}


def test_a_client_and_its_commands_load_no_messages_that_others_define():
    """tritonclient registers the inference protocol too; a process can do so once."""
    loaded = loaded_by("from unroll import Client; import unroll.cli; Client().load_model")
    assert not [name for name in loaded if name.startswith("unroll.inference")]
    assert not loaded & {"rich", "prometheus_client", "grpc_status"}, "only `top` needs those"


def test_the_repository_calls_are_those_of_the_protocol():
    methods = {m.name: m for m in oip.DESCRIPTOR.services_by_name["GRPCInferenceService"].methods}
    assert oip.DESCRIPTOR.services_by_name["GRPCInferenceService"].full_name == repository.SERVICE
    index = oip.RepositoryIndexResponse
    assert index.DESCRIPTOR.fields_by_name["models"].number == repository.INDEX_MODELS
    messages = {"ModelIndex": index.ModelIndex.DESCRIPTOR}
    for name in ("RepositoryModelLoad", "RepositoryModelUnload", "RepositoryIndex"):
        messages |= {f"{name}Request": methods[name].input_type}
        messages |= {f"{name}Response": methods[name].output_type}
    for name, fields in repository.MESSAGES.items():
        by_name = messages[name].fields_by_name
        assert {field: by_name[field].number for field in fields} == fields
        assert all(by_name[field].type == by_name[field].TYPE_STRING for field in fields)


def test_the_stubs_need_no_newer_packages_than_the_distribution_allows():
    """The compiler's versions, which its output checks at import, are the floors or below."""
    content = tomllib.loads((ROOT / "pyproject.toml").read_text())
    (compiler,) = content["dependency-groups"]["stubs"]
    version = compiler.partition("==")[2]
    assert f"grpcio>={version}" in content["project"]["dependencies"]
    stubs = (ROOT / "unroll" / "v1" / "unroll_pb2_grpc.py").read_text()
    assert f"GRPC_GENERATED_VERSION = '{version}'" in stubs
    messages = (ROOT / "unroll" / "v1" / "unroll_pb2.py").read_text()
    (made,) = (line for line in messages.splitlines() if "Protobuf Python Version: " in line)
    assert tuple(map(int, made.rpartition(" ")[2].split("."))) < (6, 33)
    assert "protobuf>=6.33,<8" in content["project"]["dependencies"]
