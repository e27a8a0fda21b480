"""Completes a list of Python packages to one of all that the image adds to its base.

    python -m deploy.sbom PACKAGES.json [BASE_IMAGE] > SBOM.json

PACKAGES.json is what cyclonedx-py says of the environment that serves, in CycloneDX 1.6. The
project, its models and the data they were trained on are added from their manifests, and the
base image where it is named by its digest.
"""

from __future__ import annotations

import hashlib
import json
import re
import sys
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[1]


def complete(packages: dict[str, Any], models: Path, base: str = "") -> dict[str, Any]:
    """The document with the project as its subject, and a component for each model.

    base: the base image as NAME@sha256:DIGEST, for a component of its own.
    """
    service = (ROOT / "service" / "__init__.py").read_text(encoding="utf-8")
    (version,) = re.findall(r'^__version__ = "(.+)"$', service, re.MULTILINE)
    project = {"bom-ref": "unroll", "type": "application", "name": "unroll", "version": version}
    components = packages["components"] + [
        model_component(path) for path in sorted(models.glob("*/*/manifest.json"))
    ]
    if "@sha256:" in base:
        components.append(image_component(base))
    needed = [component["bom-ref"] for component in components]
    return packages | {
        "metadata": packages["metadata"] | {"component": project},
        "components": components,
        "dependencies": [{"ref": "unroll", "dependsOn": needed}, *packages["dependencies"]],
    }


def image_component(image: str) -> dict[str, Any]:
    """image: as NAME@sha256:DIGEST."""
    name, digest = image.split("@sha256:")
    return {
        "bom-ref": f"image/{name}",
        "type": "container",
        "name": name,
        "hashes": [{"alg": "SHA-256", "content": digest}],
    }


def model_component(path: Path) -> dict[str, Any]:
    """Of the bundle of the manifest ``path``; its hash is the digest that the service reports."""
    raw = path.read_bytes()
    manifest = json.loads(raw)
    return {
        "bom-ref": f"model/{manifest['name']}/{manifest['version']}",
        "type": "machine-learning-model",
        "name": manifest["name"],
        "version": str(manifest["version"]),
        "description": manifest["description"],
        "hashes": [{"alg": "SHA-256", "content": hashlib.sha256(raw).hexdigest()}],
        "modelCard": {
            "modelParameters": {
                "task": manifest["task"],
                "datasets": [
                    {
                        "type": "dataset",
                        "name": f"{data['package']} {data['version']}",
                        "description": data["licence"],
                    }
                    for data in manifest["data"]
                ],
            }
        },
    }


if __name__ == "__main__":
    path, *base = sys.argv[1:]
    packages = json.loads(Path(path).read_text(encoding="utf-8"))
    json.dump(complete(packages, ROOT / "models", *base), sys.stdout, indent=1)
