"""Looks at a foreign graph and guesses, aloud, how it is to be imported."""

from __future__ import annotations

import difflib
import shlex
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path

from onnx import ModelProto, ValueInfoProto

from bundle.manifest import CLASSIFY, STEP
from export.foreign.errors import ImportRefused
from export.foreign.mapping import GraphMapping
from export.foreign.prepare import opened
from export.foreign.source import Source, read_source
from export.foreign.surgery import opset_of, real_inputs
from export.foreign.task_guess import TaskGuess, guessed_task
from export.foreign.trial import Found, Port, declared_dims, dtype_of, explore

_RATES = ("sr", "sample_rate", "samplerate", "rate", "sampling_rate")
_STATE_WORDS = (
    "state",
    "hidden",
    "cell",
    "cache",
    "memory",
    "mem",
    "buf",
    "past",
    "carry",
    "h",
    "c",
)


def inspected(path: Path) -> list[str]:
    """What is printed of the graph in ``path``. Raises ImportRefused for one that is refused."""
    source = read_source(path)
    lines = _described(source)
    constants = _constants(source.model)
    for name, value in constants.items():
        lines.append(f"guess: {name} is a constant that rows share, such as {value}")
    mapping = GraphMapping(path, constants={name: (value,) for name, value in constants.items()})
    _, model = opened(mapping)
    try:
        found = explore(model, mapping, batched=False)
    except ImportRefused as error:
        return [*lines, f"it did not run with made-up inputs: {error}", *_without_a_run(path)]
    lines += [f"guess: {said}" for said in found.said]
    states = _pairs(found)
    lines += [f"guess: {i} is a state, and {o} is what becomes of it" for i, o in states.items()]
    if not states:
        lines.append("guess: it carries no state; if it does, pair it with --state INPUT:OUTPUT")
    mapping = GraphMapping(path, constants=mapping.constants, states=states)
    try:
        found = explore(model, mapping)
        lines += _batch(found)
    except ImportRefused as error:
        lines.append(f"with these states it does not run: {error}")
    guess = guessed_task(model, found, states)
    return [*lines, guess.line, "", "try:", _command(path, mapping, found, guess)]


def _described(source: Source) -> list[str]:
    model = source.model
    kinds = Counter(node.op_type for node in model.graph.node).most_common(6)
    lines = [
        f"{source.path.name}: {source.bytes / 1e6:.1f} MB, opset {opset_of(model)}, "
        f"{len(model.graph.node)} nodes ({', '.join(f'{n} {kind}' for kind, n in kinds)}), by "
        f"{model.producer_name or 'an unnamed exporter'} {model.producer_version}".rstrip(),
    ]
    for what, ports in (("input", real_inputs(model.graph)), ("output", model.graph.output)):
        lines += [f"{what} {port.name}: {dtype_of(port)} {_declared(port)}" for port in ports]
    return lines


def _declared(port: ValueInfoProto) -> str:
    return f"[{', '.join(str(dim) or '?' for dim in declared_dims(port))}]"


def _constants(model: ModelProto) -> dict[str, int]:
    """Single whole numbers, which a model reads beside its frames."""
    found = {}
    for port in real_inputs(model.graph):
        dims = declared_dims(port)
        if dims in ([], [1]) and dtype_of(port) in ("int64", "int32"):
            is_rate = port.name.lower() in _RATES
            if is_rate or not dims:
                found[port.name] = 16000 if is_rate else 1
    return found


def _pairs(found: Found) -> dict[str, str]:
    """Inputs that come back as an output of the same shape and type, the likeliest pairs first."""
    scored = sorted(
        (
            (_likeness(given, made), i, o)
            for i, given in enumerate(found.inputs.values())
            for o, made in enumerate(found.outputs.values())
            if (given.dtype, given.shape) == (made.dtype, made.shape) and given.shape
        ),
        key=lambda pair: (-pair[0], abs(pair[1] - pair[2])),
    )
    inputs, outputs = list(found.inputs), list(found.outputs)
    pairs: dict[str, str] = {}
    for _, i, o in scored:
        if inputs[i] not in pairs and outputs[o] not in pairs.values():
            pairs[inputs[i]] = outputs[o]
    # Something must be left to be sent, and something to be answered: the first, which is no state
    # by its name.
    if pairs and (len(pairs) == len(inputs) or len(pairs) == len(outputs)):
        frame = min(pairs, key=lambda name: (_is_named_state(name), inputs.index(name)))
        del pairs[frame]
    return {name: pairs[name] for name in inputs if name in pairs}


def _likeness(given: Port, made: Port) -> float:
    alike = difflib.SequenceMatcher(None, given.name.lower(), made.name.lower()).ratio()
    same = difflib.SequenceMatcher(None, _digits(given.name), _digits(made.name)).ratio()
    return alike + 0.5 * same + (0.5 if _is_named_state(given.name) else 0.0)


def _digits(name: str) -> str:
    return "".join(filter(str.isdigit, name))


def _is_named_state(name: str) -> bool:
    lower = name.lower().strip("0123456789_")
    return any(lower == word or (len(word) > 1 and word in lower) for word in _STATE_WORDS)


def _batch(found: Found) -> list[str]:
    if found.problem:
        return [f"found: rows do not run together: {found.problem}"]
    axes = ", ".join(
        f"{name} {port.axis}" for name, port in (*found.inputs.items(), *found.outputs.items())
    )
    freed = "; Reshapes to a batch of one were freed" if found.reshapes else ""
    return [f"found: rows run together along these axes: {axes}{freed}"]


def _command(path: Path, mapping: GraphMapping, found: Found, guess: TaskGuess) -> str:
    parts = ["python -m export import", shlex.quote(str(path)), "--name", shlex.quote(path.stem)]
    parts += [f"--task {guess.task}"]
    parts += [_flag("--state", f"{i}:{o}") for i, o in mapping.states.items()]
    parts += [_flag("--constant", f"{n}={v[0]}") for n, v in mapping.constants.items()]
    parts += _step_flags(mapping, found) if guess.task == STEP else _text_flags(guess)
    return " ".join(parts)


def _text_flags(guess: TaskGuess) -> list[str]:
    """With names of files that the graph does not bring."""
    answer = "--probabilities" if guess.is_probability else "--logits"
    named = (
        ("--token", guess.tokens),
        ("--mask", guess.mask),
        ("--lengths", guess.lengths),
        (answer, guess.answer),
    )
    files = ["--vocabulary vocabulary.txt"]
    if guess.task == CLASSIFY:
        files = ["--labels labels.txt --tokenizer tokenizer.json"]
    return [*(_flag(flag, name) for flag, name in named if name), *files]


def _step_flags(mapping: GraphMapping, found: Found) -> list[str]:
    answers = [name for name in found.outputs if name not in mapping.states.values()]
    frames = [name for name in found.inputs if name not in mapping.states]
    return [
        *(_flag("--input", name) for name in frames),
        *(_flag("--output", name) for name in answers),
        *_shape_flags(found, frames),
    ]


def _shape_flags(found: Found, names: Sequence[str]) -> list[str]:
    shapes: Mapping[str, Port] = found.inputs
    guessed = [name for name in names if any(said.startswith(f"{name} ") for said in found.said)]
    return [_flag("--shape", f"{n}={','.join(map(str, shapes[n].shape))}") for n in guessed]


def _flag(flag: str, value: str) -> str:
    return f"{flag} {shlex.quote(value)}"


def _without_a_run(path: Path) -> list[str]:
    return [
        "",
        "try, with the shapes of one row and the pairs that you know:",
        f"python -m export import {shlex.quote(str(path))} --name {shlex.quote(path.stem)} "
        "--task step --state INPUT:OUTPUT --shape INPUT=1,…",
    ]
