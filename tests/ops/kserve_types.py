"""Reads manifests as KServe's own types; run by KServe's environment, which has nothing of ours.

python kserve_types.py FILE…: a line for each that holds only fields which its type knows, of the
kinds it wants, and all that are required. Exit 1 and the path of the field for any other.
"""

from __future__ import annotations

import re
import sys
from pathlib import Path
from typing import Any

import kserve.models
import kubernetes.client.models
import yaml

TYPES = {
    ("serving.kserve.io/v1alpha1", "ServingRuntime"): "V1alpha1ServingRuntime",
    ("serving.kserve.io/v1beta1", "InferenceService"): "V1beta1InferenceService",
}
PLAIN = {"str": str, "int": int, "bool": bool, "float": (int, float), "object": object}
# A number or a name, which the types call an object.
LOOSE = {"IntstrIntOrString", "ResourceQuantity", "ApimachineryPkgApiResourceQuantity"}


def type_named(name: str) -> Any:
    for module in (kserve.models, kubernetes.client.models):
        if found := getattr(module, name, None):
            return found
    raise TypeError(f"neither KServe nor Kubernetes has the type {name}")


def check(value: Any, wanted: str, path: str) -> int:
    """How many fields were checked. Raises TypeError with the path of one that is wrong."""
    if inner := re.fullmatch(r"[Ll]ist\[(.+)\]", wanted):
        if not isinstance(value, list):
            raise TypeError(f"{path} is no list")
        return sum(check(one, inner[1], f"{path}[{i}]") for i, one in enumerate(value))
    if inner := re.fullmatch(r"[Dd]ict[(\[]str, (.+)[)\]]", wanted):
        return sum(check(one, inner[1], f"{path}.{key}") for key, one in value.items())
    if wanted in LOOSE:
        return 1
    if wanted in PLAIN:
        if not isinstance(value, PLAIN[wanted]) or (wanted == "int" and isinstance(value, bool)):
            raise TypeError(f"{path} is {value!r}, not of type {wanted}")
        return 1
    kind = type_named(wanted)
    if not isinstance(value, dict):
        raise TypeError(f"{path} is {value!r}, not a {wanted}")
    fields = {shown: name for name, shown in kind.attribute_map.items()}
    if unknown := value.keys() - fields.keys():
        raise TypeError(f"{path}: {wanted} has no field {', '.join(sorted(unknown))}")
    # The type itself refuses what lacks a field that it requires.
    kind(**{fields[key]: one for key, one in value.items()})
    return sum(
        check(one, kind.openapi_types[fields[key]], f"{path}.{key}") for key, one in value.items()
    )


def main(files: list[str]) -> int:
    for file in files:
        for document in yaml.safe_load_all(Path(file).read_text()):
            wanted = TYPES.get((document["apiVersion"], document["kind"]))
            try:
                if wanted is None:
                    raise TypeError(f"{document['kind']} is none of KServe's kinds here")
                print(f"{document['kind']}: {check(document, wanted, document['kind'])} fields")
            except (TypeError, ValueError) as error:
                print(f"{file}: {error}")
                return 1
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
