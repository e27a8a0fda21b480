"""What a foreign graph's inputs and outputs are: from flags, or from a mapping file beside it."""

from __future__ import annotations

import math
import tomllib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from bundle.manifest import CLASSIFY, GENERATE, STEP
from bundle.paths import within
from bundle.vocabulary import BEGIN
from export.foreign.errors import ImportRefused

TASKS = (STEP, GENERATE, CLASSIFY)

Number = int | float
# A number that fills it, or the .npy file that holds one row of it.
Initial = int | float | str

_MOST_BYTES = 1024**2
_MOST_ENTRIES = 4096
_LONGEST_NAME = 256


@dataclass(frozen=True)
class GraphMapping:
    """One graph of a model.

    file: of the graph. name: by which other graphs of a pipeline name its outputs. states: input →
    output. constants: input → its value, or the values that a stream may choose among, the default
    first. inputs: graph's input → the frame's name, or ``GRAPH.output`` of an earlier graph; empty
    for all that is left. outputs: graph's output → the answer's name; None for all that is left.
    contexts: input → how many of its last values, along its last axis, the service keeps for the
    next step. axes: batch axis of an input, where trying would not find it. shapes: of an input for
    one row, batch axis and context included. initial: of a state, where it is not zero.
    """

    file: Path
    name: str = "graph"
    states: Mapping[str, str] = field(default_factory=dict)
    constants: Mapping[str, tuple[Number, ...]] = field(default_factory=dict)
    inputs: Mapping[str, str] = field(default_factory=dict)
    outputs: Mapping[str, str] | None = None
    contexts: Mapping[str, int] = field(default_factory=dict)
    axes: Mapping[str, int] = field(default_factory=dict)
    shapes: Mapping[str, tuple[int, ...]] = field(default_factory=dict)
    initial: Mapping[str, Initial] = field(default_factory=dict)


@dataclass(frozen=True)
class ModelMapping:
    """A model to import: its graphs in the order they run, and what its bundle says of it.

    tokens, lengths, logits, probabilities: of a generator or classifier, by the graph's names.
    vocabulary: file of a generator's symbols, one a line, in the order of its ids. special: roles
    (``pad``, ``unk``, ``bos``, ``eos``) → the symbol. kind: of its tokenizer. lowercase: whether
    texts are lowercased; None for what the tokenizer.json says, and not without one. labels: file,
    one a line. tokenizer: a tokenizer.json. limits: of the manifest. add_bos_token: whether every
    text begins with the symbol of ``bos``, as in training, and not the empty one alone.
    """

    name: str
    task: str
    graphs: tuple[GraphMapping, ...]
    version: int = 1
    description: str = ""
    frame_seconds: float = 0.0
    attributes: Mapping[str, int | float | str] = field(default_factory=dict)
    allow_inexact: bool = False
    tokens: str = ""
    lengths: str = ""
    mask: str = ""
    logits: str = ""
    probabilities: str = ""
    vocabulary: Path | None = None
    special: Mapping[str, str] = field(default_factory=dict)
    kind: str = ""
    lowercase: bool | None = None
    labels: Path | None = None
    tokenizer: Path | None = None
    limits: Mapping[str, int] = field(default_factory=dict)
    add_bos_token: bool = False


# What a mapping file calls the fields of a graph.
_GRAPH_FIELDS = {
    "state": "states", "constant": "constants", "input": "inputs", "output": "outputs",
    "context": "contexts", "batch_axis": "axes", "shape": "shapes", "initial": "initial",
}  # fmt: skip
_TEXT_KEYS = ("tokens", "logits", "probabilities", "vocabulary", "special", "kind", "lowercase")

# The keys that each task reads, beside those of every model.
KEYS = {
    STEP: ("frame_seconds", "attributes", *_GRAPH_FIELDS),
    GENERATE: (*_TEXT_KEYS, "add_bos_token", "state", "constant", "batch_axis", "shape", "initial"),
    CLASSIFY: (*_TEXT_KEYS, "lengths", "mask", "labels", "tokenizer", "constant"),
}


def read_mapping(path: Path) -> ModelMapping:
    """Raises ImportRefused for a file that is no mapping, with the key that is wrong."""
    try:
        if path.stat().st_size > _MOST_BYTES:
            raise ImportRefused(f"{path} has more than {_MOST_BYTES} bytes; is it a mapping?")
        content = tomllib.loads(path.read_text(encoding="utf8"))
    except OSError as error:
        raise ImportRefused(f"{path} cannot be read ({error.strerror})") from error
    except (ValueError, RecursionError) as error:
        raise ImportRefused(f"{path} is not TOML: {error}") from error
    try:
        return _model(path.parent, content)
    except ImportRefused as error:
        raise ImportRefused(f"{path}: {error}") from error


_MODEL_KEYS = {
    "name": str, "task": str, "version": int, "description": str, "frame_seconds": float,
    "attributes": dict, "allow_inexact": bool, "tokens": str, "lengths": str, "mask": str,
    "logits": str, "probabilities": str, "vocabulary": str, "special": dict, "kind": str,
    "lowercase": bool, "labels": str, "tokenizer": str, "limits": dict, "graph": list,
    "add_bos_token": bool,
}  # fmt: skip
_GRAPH_KEYS = {
    "file": str, "name": str, "state": dict, "constant": dict, "input": dict, "output": dict,
    "context": dict, "batch_axis": dict, "shape": dict, "initial": dict,
}  # fmt: skip


def _model(folder: Path, content: Mapping[str, Any]) -> ModelMapping:
    _check_keys(content, _MODEL_KEYS, "the mapping")
    for key in ("name", "task", "graph"):
        if not content.get(key):
            raise ImportRefused(f"the key {key!r} is missing")
    graphs = content["graph"]
    if len(graphs) > 16 or not all(isinstance(graph, dict) for graph in graphs):
        raise ImportRefused("'graph' is not a list of at most 16 tables ([[graph]])")
    plain = {
        key: content[key]
        for key in (
            "version", "description", "allow_inexact", "tokens", "lengths", "mask", "logits",
            "probabilities", "kind", "lowercase", "add_bos_token",
        )
        if key in content
    }  # fmt: skip
    files: dict[str, Any] = {
        key: _beside(folder, content[key], key)
        for key in ("vocabulary", "labels", "tokenizer")
        if key in content
    }
    mapping = ModelMapping(
        name=content["name"],
        task=content["task"],
        graphs=tuple(_graph(folder, graph, n) for n, graph in enumerate(graphs)),
        frame_seconds=float(content.get("frame_seconds", 0.0)),
        attributes=_entries(content, "attributes", (int, float, str)),
        special=_entries(content, "special", (str,)),
        limits=_entries(content, "limits", (int,)),
        **plain,
        **files,
    )
    check_mapping(mapping)
    return mapping


def _graph(folder: Path, content: Mapping[str, Any], number: int) -> GraphMapping:
    _check_keys(content, _GRAPH_KEYS, f"graph {number}")
    if not content.get("file"):
        raise ImportRefused(f"graph {number}: the key 'file' is missing")
    file = _beside(folder, content["file"], "file")
    initial = _entries(content, "initial", (int, float, str))
    for value in initial.values():
        if isinstance(value, str):
            _beside(file.parent, value, "initial")
    return GraphMapping(
        file=file,
        name=content.get("name", "graph" if number == 0 else f"graph{number}"),
        states=_entries(content, "state", (str,)),
        constants={
            name: tuple(value) if isinstance(value, list) else (value,)
            for name, value in _entries(content, "constant", (int, float, list)).items()
        },
        inputs=_entries(content, "input", (str,)),
        outputs=_entries(content, "output", (str,)) if "output" in content else None,
        contexts=_entries(content, "context", (int,)),
        axes=_entries(content, "batch_axis", (int,)),
        shapes={k: tuple(v) for k, v in _entries(content, "shape", (list,)).items()},
        initial=initial,
    )


def _beside(folder: Path, name: str, key: str) -> Path:
    """Raises ImportRefused where ``name`` is not in ``folder`` or below it: whoever imports a
    mapping from elsewhere has not named the files that it names."""
    if "\0" in name or within(folder, name) is None:
        raise ImportRefused(
            f"{key!r} is {name!r}, which is no file of its folder; put the file beside the mapping "
            "and name it without .. or a leading /"
        )
    return folder / name


def _check_keys(content: Mapping[str, Any], known: Mapping[str, type], where: str) -> None:
    for key, value in content.items():
        wanted = known.get(key)
        if wanted is None:
            raise ImportRefused(f"{where}: {key!r} is not one of {', '.join(known)}")
        if key in ("input", "output") and isinstance(value, list):
            continue
        accepted: tuple[type, ...] = (int, float) if wanted is float else (wanted,)
        if type(value) not in accepted:
            raise ImportRefused(f"{where}: {key!r} is {value!r}, not of type {wanted.__name__}")


def _entries(content: Mapping[str, Any], key: str, types: tuple[type, ...]) -> dict[str, Any]:
    """The table ``key``; a list of names is a table of each to itself."""
    found = content.get(key, {})
    if isinstance(found, list):
        found = {name: name for name in found if isinstance(name, str)} if found else {}
    if len(found) > _MOST_ENTRIES:
        raise ImportRefused(f"{key!r} has more than {_MOST_ENTRIES} entries")
    for name, value in found.items():
        if type(value) not in types:
            raise ImportRefused(f"{key!r}: {name!r} is {value!r}")
    return dict(found)


def check_mapping(mapping: ModelMapping) -> None:
    """Raises ImportRefused for what is wrong before any file is read."""
    if mapping.task not in TASKS:
        raise ImportRefused(f"task {mapping.task!r} is not one of {', '.join(TASKS)}")
    name = mapping.name
    if not name or len(name) > _LONGEST_NAME or name.startswith(".") or {*name} & {*"/\\\0"}:
        raise ImportRefused(f"the model's name {name!r} cannot be that of a folder")
    if mapping.version < 1:
        raise ImportRefused(f"version {mapping.version} is not a number from 1 on")
    if not (math.isfinite(mapping.frame_seconds) and mapping.frame_seconds >= 0):
        raise ImportRefused(f"frame_seconds is {mapping.frame_seconds}")
    for key, value in mapping.attributes.items():
        if isinstance(value, float) and not math.isfinite(value):
            raise ImportRefused(f"the attribute {key!r} is {value}")
    for key, number in mapping.limits.items():
        if number < 1:
            raise ImportRefused(f"the limit {key!r} is {number}; it is 1 at least")
    if not mapping.graphs:
        raise ImportRefused("there is no graph")
    if len(mapping.graphs) > 1 and mapping.task != STEP:
        raise ImportRefused("several graphs in a row are for the task 'step' alone")
    _check_keys_of_task(mapping)
    _check_bos(mapping)
    if mapping.logits and mapping.probabilities:
        raise ImportRefused("logits and probabilities are both given; one of them is the answer")
    if mapping.tokenizer and mapping.vocabulary:
        raise ImportRefused("a tokenizer.json lists its symbols; leave the vocabulary out")
    _check_unique("graph", [graph.name for graph in mapping.graphs])
    for graph in mapping.graphs:
        _check_graph(graph)


def _check_keys_of_task(mapping: ModelMapping) -> None:
    """Raises ImportRefused for a key that nothing would read."""
    known = KEYS[mapping.task]
    plain = ModelMapping(mapping.name, mapping.task, mapping.graphs)
    fields = {key for keys in KEYS.values() for key in keys} - _GRAPH_FIELDS.keys()
    given = {key for key in fields if getattr(mapping, key) != getattr(plain, key)}
    for graph in mapping.graphs:
        bare = GraphMapping(graph.file)
        given |= {k for k, f in _GRAPH_FIELDS.items() if getattr(graph, f) != getattr(bare, f)}
    if left := sorted(given - set(known)):
        raise ImportRefused(
            f"the task {mapping.task!r} does not read {left[0]!r}; it reads {', '.join(known)}"
        )


def _check_bos(mapping: ModelMapping) -> None:
    if mapping.add_bos_token and BEGIN not in mapping.special:
        raise ImportRefused(f"add_bos_token needs the symbol: --special {BEGIN}=SYMBOL")


def _check_graph(graph: GraphMapping) -> None:
    if not graph.name or set(graph.name) & {*"./"}:
        raise ImportRefused(f"a graph's name is {graph.name!r}: not empty, without '.' and '/'")
    _check_unique(
        "input", [*graph.states, *graph.constants, *graph.inputs],
    )  # fmt: skip
    _check_unique("state's output", list(graph.states.values()))
    for name, values in graph.constants.items():
        if not values or not all(type(v) in (int, float) and math.isfinite(v) for v in values):
            raise ImportRefused(f"the constant {name!r} is {list(values)}: numbers, one at least")
        _check_unique(f"value of {name!r}", values)
    for name, kept in graph.contexts.items():
        if not 1 <= kept <= 2**24:
            raise ImportRefused(f"the context of {name!r} is {kept}; it is 1 at least")
        if name in graph.states or name in graph.constants:
            raise ImportRefused(f"{name!r} has a context, so it must be an input of frames")
    for name, axis in graph.axes.items():
        if not 0 <= axis < 8:
            raise ImportRefused(f"the batch axis of {name!r} is {axis}; it is 0 to 7")
    for name, shape in graph.shapes.items():
        if len(shape) > 8 or not all(type(size) is int and 0 < size < 2**31 for size in shape):
            raise ImportRefused(f"the shape of {name!r} is {list(shape)}: numbers from 1 on")
    for name, value in graph.initial.items():
        if name not in graph.states:
            raise ImportRefused(f"{name!r} has an initial value and is no state")
        if not isinstance(value, str) and not math.isfinite(value):
            raise ImportRefused(f"the initial value of {name!r} is {value}")


def _check_unique(what: str, names: Sequence[Any]) -> None:
    twice = [name for n, name in enumerate(names) if name in names[:n]]
    if twice:
        raise ImportRefused(f"the {what} {twice[0]!r} is given twice")


def pairs_of(texts: Iterable[str], flag: str, separator: str) -> dict[str, str]:
    """``NAME<separator>VALUE`` of each text of a flag; a name alone stands for itself.

    A name may hold the separator where the text holds it once more: the last one counts.
    """
    found: dict[str, str] = {}
    for text in texts:
        name, mark, value = text.rpartition(separator)
        name, value = (name, value) if mark else (text, text)
        if not name or not value:
            raise ImportRefused(f"{flag} {text!r} is not NAME{separator}VALUE")
        if name in found:
            raise ImportRefused(f"{flag} names {name!r} twice")
        found[name] = value
    return found


def number_of(text: str, flag: str) -> Number:
    for kind in (int, float):
        try:
            return kind(text)
        except ValueError:
            continue
    raise ImportRefused(f"{flag}: {text!r} is not a number")
