"""python -m export torch."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from bundle.errors import BundleError
from bundle.manifest import GENERATE
from export.foreign.cli import ADD_BOS_HELP, special_of, whole_numbers
from export.foreign.errors import ImportRefused
from export.foreign.mapping import GraphMapping, ModelMapping, check_mapping, pairs_of
from export.foreign.torch_models import (
    Parts,
    export_weights,
    read_state_dict,
    trained_from_weights,
)
from export.foreign.vocabularies import read_symbols, tokenizer_of
from export.onnx_files import ExportRefused
from export.parity import ParityMissed
from export.reports import headline_of, parity_lines


def main(arguments: Sequence[str] | None = None) -> int:
    given = list(sys.argv[2:] if arguments is None else arguments)
    chosen = _parser().parse_args(given)
    try:
        return _run(chosen, "python -m export torch " + " ".join(given))
    except (ImportRefused, ExportRefused, ParityMissed, BundleError) as error:
        print(f"refused: {error}", file=sys.stderr)
        return 1


def _run(chosen: argparse.Namespace, command: str) -> int:
    limits = whole_numbers(chosen.limit, "--limit", "=")
    special = special_of(chosen.special)
    graph = GraphMapping(chosen.weights)
    check_mapping(
        ModelMapping(
            chosen.name,
            chosen.task,
            (graph,),
            chosen.version,
            special=special,
            limits=limits,
            add_bos_token=chosen.add_bos_token,
        )
    )
    parts = Parts.of(pairs_of(chosen.map.split(","), "--map", "="))
    tokenizer = tokenizer_of(
        read_symbols(chosen.vocabulary), special, chosen.kind, chosen.lowercase
    )
    origin = {"file": chosen.weights.name, "parts": {"embedding": parts.embedding,
              "rnn": "+".join(parts.rnn), "output": parts.output}}  # fmt: skip
    trained = trained_from_weights(
        read_state_dict(chosen.weights),
        parts,
        chosen.name,
        tokenizer,
        chosen.description,
        limits,
        {"command": command, "imported": [origin]},
        add_bos_token=chosen.add_bos_token,
    )
    target = chosen.models / chosen.name / str(chosen.version)
    bundle = export_weights(trained, target, chosen.int8)
    manifest = bundle.manifest
    print(headline_of(bundle))
    recurrent = manifest.model["recurrent"]
    print(
        f"  {recurrent['layers']} layers of {recurrent['cell']}, {recurrent['hidden_size']} units, "
        f"{manifest.model['vocabulary_size']} symbols read as {tokenizer.kind}"
    )
    print("\n".join(parity_lines(bundle)))
    for precision in manifest.precisions.values():
        for figure in precision.figures:
            print(f"  {figure.name}, {figure.precision}: {figure.value:.2f} {figure.unit}")
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m export torch",
        description="Make a bundle of the state_dict of an embedding, nn.LSTM, nn.GRU or nn.RNN "
        "layers and a linear head. Modules with step(inputs, state): export.from_torch in Python.",
    )
    add = parser.add_argument
    add("--name", required=True, help="name of the model")
    add("--weights", type=Path, required=True, help="file that torch.save wrote of a state_dict")
    add("--task", choices=(GENERATE,), default=GENERATE, help="what it is served as")
    add(
        "--map", required=True, metavar="embedding=…,rnn=…,output=…",
        help="names in the state_dict; several recurrent modules in a row: rnn=first+second",
    )  # fmt: skip
    add(
        "--vocabulary", type=Path, required=True, metavar="FILE",
        help="file of symbols, one a line, in the order of their ids; or .json",
    )  # fmt: skip
    add("--special", default="", metavar="ROLE=SYMBOL,…", help="symbols for pad, unk, bos, eos")
    add("--add-bos-token", action="store_true", help=ADD_BOS_HELP)
    add("--kind", default="", help="how texts are cut: characters, words, subwords, …")
    add("--lowercase", action="store_true", help="texts are lowercased first")
    add("--description", default="", help="sentence that ListModels shows")
    add("--limit", metavar="NAME=N", action="append", default=[],
        help="limit in tokens: input_tokens, output_tokens (default: 4096)")  # fmt: skip
    add("--int8", action="store_true", help="int8 step graph, measured on texts it draws")
    add("--models", type=Path, default=Path("models"), help="folder of bundles (default: models)")
    add("--version", type=int, default=1, help="version that is written (default: 1)")
    return parser
