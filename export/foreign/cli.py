"""python -m export inspect, python -m export import."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from bundle.errors import BundleError
from export.foreign.bundles import import_model
from export.foreign.errors import ImportRefused
from export.foreign.mapping import (
    TASKS,
    GraphMapping,
    ModelMapping,
    check_mapping,
    number_of,
    pairs_of,
    read_mapping,
)
from export.foreign.worker import SECONDS, run_apart
from export.reports import headline_of

ADD_BOS_HELP = "bos before every text, as in training (default: an empty one is read as it)"


def main(arguments: Sequence[str] | None = None) -> int:
    given = list(sys.argv[1:] if arguments is None else arguments)
    command = _import if given[:1] == ["import"] else _inspect
    try:
        return command(given[1:])
    except (ImportRefused, BundleError) as error:
        print(f"refused: {error}", file=sys.stderr)
        return 1


def _inspect(arguments: Sequence[str]) -> int:
    parser = argparse.ArgumentParser(
        prog="python -m export inspect",
        description="What an ONNX graph reads and writes, guessed aloud, and the command to try.",
    )
    parser.add_argument("file", type=Path, help="ONNX file")
    _add_limit(parser)
    chosen = parser.parse_args(arguments)
    size = chosen.file.stat().st_size if chosen.file.is_file() else 0
    found = run_apart("inspect", chosen.file, size, chosen.time_limit)
    print("\n".join(found["lines"]))
    return 0


def _import(arguments: Sequence[str]) -> int:
    parser = _parser()
    chosen = parser.parse_args(arguments)
    mapping = _of_file(parser, chosen) if chosen.file.suffix == ".toml" else _of_flags(chosen)
    bundle, lines = import_model(mapping, chosen.models, chosen.time_limit)
    print(headline_of(bundle))
    for line in lines:
        print(f"  {line}")
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m export import",
        description="Import an ONNX graph that others exported as a bundle. Names that hold a "
        "colon go into a mapping file.",
    )
    add = parser.add_argument
    add("file", type=Path, help="ONNX file, or a mapping file (.toml) that says all of the below")
    add("--name", help="name of the model (default: the mapping's)")
    add("--task", choices=TASKS, help="what it is served as")
    add("--version", type=int, help="version that is written (default: 1)")
    add("--description", help="sentence that ListModels shows")
    add("--models", type=Path, default=Path("models"), help="folder of bundles (default: models)")
    add("--allow-inexact", action="store_true", help="batches whose rows differ slightly")
    _add_limit(parser)
    graph = parser.add_argument_group("the graph; each flag may be given several times")
    for flag, form, text in (
        ("--state", "IN:OUT", "state input, and the output that it becomes"),
        ("--constant", "IN=N[,N…]", "value of an input that rows share, or those to choose among"),
        (
            "--input",
            "IN[:NAME]",
            "input that streams send, and its name outside (default: the rest)",
        ),
        (
            "--output",
            "OUT[:NAME]",
            "output that they get, and its name outside (default: the rest)",
        ),
        ("--context", "IN:K", "last K values of an input's last axis, kept for the next step"),
        ("--batch-axis", "IN=N", "batch axis of an input (default: found by trying)"),
        ("--shape", "IN=N,N…", "shape of an input for one row, batch axis and context included"),
        ("--initial", "IN=N|FILE.npy", "initial value of a state (default: 0)"),
    ):
        graph.add_argument(flag, metavar=form, action="append", default=[], help=text)
    steps = parser.add_argument_group("of the task step")
    steps.add_argument("--frame-seconds", type=float, help="seconds that a step stands for")
    steps.add_argument(
        "--attribute", metavar="NAME=VALUE", action="append", default=[],
        help="number or text for clients, such as sample_rate=16000",
    )  # fmt: skip
    texts = parser.add_argument_group("of the tasks generate and classify")
    for flag, form, said in (
        ("--tokens", "IN", "input of token ids (also --token)"),
        ("--lengths", "IN", "input of a classifier's lengths"),
        ("--mask", "IN", "input of a classifier's mask, 1 where a token is"),
        ("--logits", "OUT", "output of logits"),
        ("--probabilities", "OUT", "output of probabilities, where there are no logits"),
        ("--special", "ROLE=SYMBOL,…", "symbols of the vocabulary for pad, unk, bos, eos"),
        ("--kind", "KIND", "how texts are cut: characters, words, subwords (default: characters)"),
    ):
        names = ("--token", flag) if flag == "--tokens" else (flag,)
        texts.add_argument(*names, dest=flag[2:], metavar=form, default="", help=said)
    texts.add_argument("--add-bos-token", action="store_true", help=ADD_BOS_HELP)
    texts.add_argument(
        "--lowercase", action=argparse.BooleanOptionalAction, default=None,
        help="texts are lowercased first (default: as the tokenizer.json says, else not)",
    )  # fmt: skip
    for flag, said in (
        ("--vocabulary", "file of symbols, one a line, in the order of their ids"),
        ("--labels", "file of labels, one a line"),
        ("--tokenizer", "tokenizer.json of Hugging Face's tokenizers"),
    ):
        texts.add_argument(flag, type=Path, metavar="FILE", help=said)
    texts.add_argument(
        "--limit", metavar="NAME=N", action="append", default=[],
        help="limit of the manifest, such as input_tokens=512",
    )  # fmt: skip
    return parser


def _add_limit(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--time-limit", type=float, default=SECONDS, metavar="SECONDS",
        help=f"time that trying the graph may take, in seconds (default: {SECONDS:.0f})",
    )  # fmt: skip


# What flags may say beside a mapping file.
_CHANGED = ("name", "version", "description", "task")
_BESIDE = (*_CHANGED, "file", "models", "allow_inexact", "time_limit")


def _of_file(parser: argparse.ArgumentParser, chosen: argparse.Namespace) -> ModelMapping:
    """Of a mapping file, with name, version and permission of flags."""
    given = [key for key, value in vars(chosen).items() if value != parser.get_default(key)]
    for key in given:
        if key not in _BESIDE:
            flag = key.replace("_", "-")
            raise ImportRefused(f"--{flag} belongs into {chosen.file}, which is the mapping")
    mapping = read_mapping(chosen.file)
    changed = {key: getattr(chosen, key) for key in _CHANGED if key in given}
    allowed = mapping.allow_inexact or chosen.allow_inexact
    mapping = replace(mapping, allow_inexact=allowed, **changed)
    check_mapping(mapping)
    return mapping


def _of_flags(chosen: argparse.Namespace) -> ModelMapping:
    for flag in ("name", "task"):
        if not getattr(chosen, flag):
            raise ImportRefused(f"--{flag} is missing; `inspect` prints a command to try")
    mapping = ModelMapping(
        name=chosen.name,
        task=chosen.task,
        graphs=(_graph(chosen),),
        version=1 if chosen.version is None else chosen.version,
        description=chosen.description or "",
        frame_seconds=chosen.frame_seconds or 0.0,
        attributes={
            name: _value(value)
            for name, value in pairs_of(chosen.attribute, "--attribute", "=").items()
        },
        allow_inexact=chosen.allow_inexact,
        special=special_of(chosen.special),
        add_bos_token=chosen.add_bos_token,
        limits=whole_numbers(chosen.limit, "--limit", "="),
        **{
            key: getattr(chosen, key)
            for key in (
                "tokens", "lengths", "mask", "logits", "probabilities", "kind", "lowercase",
                "vocabulary", "labels", "tokenizer",
            )
        },
    )  # fmt: skip
    check_mapping(mapping)
    return mapping


def _graph(chosen: argparse.Namespace) -> GraphMapping:
    return GraphMapping(
        file=chosen.file,
        states=pairs_of(chosen.state, "--state", ":"),
        constants={
            name: tuple(number_of(value, "--constant") for value in text.split(","))
            for name, text in pairs_of(chosen.constant, "--constant", "=").items()
        },
        inputs=pairs_of(chosen.input, "--input", ":"),
        outputs=pairs_of(chosen.output, "--output", ":") if chosen.output else None,
        contexts=whole_numbers(chosen.context, "--context", ":"),
        axes=whole_numbers(chosen.batch_axis, "--batch-axis", "="),
        shapes={
            name: tuple(_whole_number(size, "--shape") for size in text.split(","))
            for name, text in pairs_of(chosen.shape, "--shape", "=").items()
        },
        initial={
            name: text if text.endswith(".npy") else number_of(text, "--initial")
            for name, text in pairs_of(chosen.initial, "--initial", "=").items()
        },
    )


def special_of(text: str) -> dict[str, str]:
    """``pad=<pad>,unk=<unk>`` as roles → symbols."""
    found = {}
    for part in filter(None, text.split(",")):
        role, mark, symbol = part.partition("=")
        if not mark or not symbol:
            raise ImportRefused(f"--special {part!r} is not ROLE=SYMBOL")
        found[role] = symbol
    return found


def whole_numbers(texts: Sequence[str], flag: str, separator: str) -> dict[str, int]:
    """``NAME<separator>N`` of each text of a flag. Raises ImportRefused."""
    return {n: _whole_number(v, flag) for n, v in pairs_of(texts, flag, separator).items()}


def _whole_number(text: str, flag: str) -> int:
    number = number_of(text, flag)
    if not isinstance(number, int):
        raise ImportRefused(f"{flag}: {text!r} is not a whole number")
    return number


def _value(text: str) -> int | float | str:
    try:
        return number_of(text, "--attribute")
    except ImportRefused:
        return text
