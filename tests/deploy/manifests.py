"""What deploy/ holds, read: documents of YAML, and the settings that they give the service."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import yaml

ROOT = Path(__file__).parents[2]
DEPLOY = ROOT / "deploy"
KUBERNETES = DEPLOY / "kubernetes"
COMPOSE = DEPLOY / "compose"
KSERVE = DEPLOY / "kserve"

Document = dict[str, Any]


def documents(text: str) -> list[Document]:
    return [document for document in yaml.safe_load_all(text) if document]


def read(path: Path) -> list[Document]:
    return documents(path.read_text())


def only(found: list[Document]) -> Document:
    (one,) = found
    return one


def of_kind(kind: str, found: list[Document]) -> list[Document]:
    return [document for document in found if document["kind"] == kind]


def container(deployment: Document) -> Document:
    return only(deployment["spec"]["template"]["spec"]["containers"])


def environment(holder: Document) -> dict[str, str]:
    """Of a container: name and value of each variable."""
    return {variable["name"]: variable["value"] for variable in holder.get("env", ())}


def patches() -> Iterator[tuple[str, Document]]:
    """Every Deployment of the base, a component or an overlay, as it is written."""
    for path in sorted(KUBERNETES.rglob("deployment.yaml")):
        yield str(path.relative_to(KUBERNETES)), only(read(path))
