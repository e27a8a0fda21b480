"""The import contracts of pyproject.toml name every module that they are about."""

from __future__ import annotations

import tomllib
from pathlib import Path

ROOT = Path(__file__).parents[1]
CONTRACT = "the service never sees training, export, torch or onnx"


def test_the_service_is_kept_from_every_module_of_the_client():
    """The stubs alone, which are the packages in unroll/, are the service's too."""
    content = tomllib.loads((ROOT / "pyproject.toml").read_text())
    (contract,) = (c for c in content["tool"]["importlinter"]["contracts"] if c["name"] == CONTRACT)
    forbidden = [name for name in contract["forbidden_modules"] if name.startswith("unroll.")]
    modules = {path.stem for path in (ROOT / "unroll").glob("*.py")} - {"__init__"}
    assert sorted(forbidden) == sorted(f"unroll.{module}" for module in modules)
