"""Names of people and their nations, from Wikipedia by way of the name2nat package."""

from __future__ import annotations

import hashlib
import io
import pickle
import random
import zipfile
from collections import defaultdict
from collections.abc import Mapping
from pathlib import Path
from typing import NoReturn

from training.data.packages import DATA_FOLDER, NAME2NAT, DataUnavailable

Nations = dict[str, str]  # the nation of each name


class _PlainUnpickler(pickle.Unpickler):
    """Reads dicts, lists and strings; a pickle that names a class or a function is refused."""

    def find_class(self, module: str, name: str) -> NoReturn:
        raise pickle.UnpicklingError(f"it wants {module}.{name}; only plain values are read")


def load_names(data: Path = DATA_FOLDER) -> Nations:
    """The 1,046,317 names that belong to one nation only, 176 nations in all."""
    with zipfile.ZipFile(NAME2NAT.fetch(data)) as package:
        return parse_names(package.read("name2nat/name2nats.pkl"))


def parse_names(content: bytes) -> Nations:
    """A pickled dict of names and their nations, less the names of several.

    Raises DataUnavailable when the pickle holds anything but plain values.
    """
    try:
        nations = _PlainUnpickler(io.BytesIO(content)).load()
    except pickle.UnpicklingError as error:
        raise DataUnavailable(f"the names cannot be read: {error}") from error
    return {name: found[0] for name, found in nations.items() if len(found) == 1}


def split_by_name(names: Mapping[str, str]) -> dict[str, Nations]:
    """``train``, ``validation`` and ``held-out``, 8 : 1 : 1 by a hash of the lowercase name."""
    splits: dict[str, Nations] = {"train": {}, "validation": {}, "held-out": {}}
    for name, nation in names.items():
        digest = hashlib.sha256(name.lower().encode()).digest()
        tenth = int.from_bytes(digest[:4], "big") * 10 >> 32
        splits[{0: "held-out", 1: "validation"}.get(tenth, "train")][name] = nation
    return splits


def sample_nations(names: Mapping[str, str], cap: int, choose: random.Random) -> Nations:
    """At most ``cap`` names of each nation, so that the frequent ones leave room for others."""
    by_nation: dict[str, list[str]] = defaultdict(list)
    for name, nation in names.items():
        by_nation[nation].append(name)
    return {
        name: nation
        for nation, members in by_nation.items()
        for name in choose.sample(members, min(cap, len(members)))
    }
