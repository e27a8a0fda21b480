"""How fast training is: tokens a second, and the share of the machine's matrix-product rate.

    python -m training.speed [--quick] [--rounds N]

The tagger of training/recipes/pos.toml learns Brown's sentences three ways that take turns: as
training does it here, and in a plain PyTorch loop over batches in random order, padded or packed.
The last line is JSON.
"""

from __future__ import annotations

import argparse
import json
import random
import statistics
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy
from torch.nn.utils import clip_grad_norm_
from torch.nn.utils.rnn import pack_padded_sequence, pad_packed_sequence

from training.bundled import bundled_task
from training.config import RECIPES, Recipe, load_recipe
from training.data.packages import DATA_FOLDER, DataUnavailable
from training.models.tagger import Tagger, TaggerConfig
from training.tasks.tag import Batch, TagTask, stack

MODEL = "pos"
_PRODUCT = 1024  # rows and columns of the product that the machine's rate is taken from
_BACKWARD = 3  # a step costs the forward pass and twice that again


class PlainTagger(nn.Module):
    """The tagger as PyTorch's modules make it: no options, nothing to export."""

    def __init__(self, config: TaggerConfig, packed: bool) -> None:
        super().__init__()
        options = config.recurrent
        self.packed = packed
        self.embedding = nn.Embedding(config.vocabulary_size, config.embedding_size, 0)
        self.dropout = nn.Dropout(config.dropout)
        self.network = nn.LSTM(
            config.embedding_size, options.hidden_size, options.layers, batch_first=True,
            bidirectional=options.bidirectional, dropout=options.dropout,
        )  # fmt: skip
        self.output = nn.Linear(options.output_size, config.labels)

    def forward(self, tokens: Tensor, lengths: Tensor) -> Tensor:
        embedded = self.dropout(self.embedding(tokens))
        if not self.packed:
            return self.output(self.dropout(self.network(embedded)[0]))
        rows = pack_padded_sequence(embedded, lengths, batch_first=True, enforce_sorted=False)
        features, _ = pad_packed_sequence(self.network(rows)[0], batch_first=True)
        return self.output(self.dropout(features))


@dataclass
class Contender:
    """name: of a way to train. loss: of a batch. batches: without an end."""

    name: str
    model: nn.Module
    loss: Callable[[Batch], Tensor]
    batches: Iterator[Batch]

    def __post_init__(self) -> None:
        self.optimizer = torch.optim.AdamW(self.model.parameters(), 0.001)

    def tokens_a_second(self, seconds: float) -> float:
        """Steps for ``seconds``; what is padding counts nothing."""
        began, tokens = time.perf_counter(), 0
        while not tokens or time.perf_counter() - began < seconds:
            batch = next(self.batches)
            self.optimizer.zero_grad()
            self.loss(batch).backward()
            clip_grad_norm_(self.model.parameters(), 1.0)
            self.optimizer.step()
            tokens += int(batch[1].sum())
        return tokens / (time.perf_counter() - began)


def contenders(task: TagTask, config: TaggerConfig) -> list[Contender]:
    ours = Tagger(config)
    found = [
        Contender("here", ours, lambda batch: task.loss(ours, batch, None)[0], _bucketed(task))
    ]
    for packed in (False, True):
        name = f"plain loop, {'packed' if packed else 'padded'}"
        batches = _unbucketed(task.training, task.batch)
        plain = PlainTagger(config, packed)
        found.append(Contender(name, plain, _plain_loss(plain), batches))
    return found


def _plain_loss(model: PlainTagger) -> Callable[[Batch], Tensor]:
    def loss(batch: Batch) -> Tensor:
        tokens, lengths, labels = batch
        return cross_entropy(model(tokens, lengths).flatten(0, 1), labels.flatten())

    return loss


def _bucketed(task: TagTask) -> Iterator[Batch]:
    epoch = 0
    while True:
        yield from task.batches(epoch)
        epoch += 1


def _unbucketed(sentences: Sequence[Any], size: int) -> Iterator[Batch]:
    choose = random.Random(1)
    while True:
        order = choose.sample(list(sentences), len(sentences))
        for start in range(0, len(order), size):
            yield stack(order[start : start + size])


def operations_a_token(config: TaggerConfig) -> int:
    """Floating point operations of the matrix products of a training step, a token."""
    options = config.recurrent
    directions = 2 if options.bidirectional else 1
    sizes = [config.embedding_size] + [options.output_size] * (options.layers - 1)
    gates = 4 * options.hidden_size
    layers = sum(directions * gates * (size + options.hidden_size) for size in sizes)
    return _BACKWARD * 2 * (layers + options.output_size * config.labels)


def product_rate(seconds: float) -> float:
    """Floating point operations a second of the best of the products made in ``seconds``."""
    left, right = torch.rand(_PRODUCT, _PRODUCT), torch.rand(_PRODUCT, _PRODUCT)
    best, began = float("inf"), time.perf_counter()
    while time.perf_counter() - began < seconds:
        start = time.perf_counter()
        left @ right
        best = min(best, time.perf_counter() - start)
    return 2 * _PRODUCT**3 / best


def measure(recipe: Recipe, rounds: int, seconds: float) -> dict[str, Any]:
    """Rounds in which the contenders take turns, another one first each time; medians."""
    torch.manual_seed(1)
    task = bundled_task(MODEL)
    assert task is not None, "the tagger is bundled"
    prepared = task.prepare(recipe, task.read(recipe)[0], seed=1)
    training, config = prepared.training, prepared.config
    assert isinstance(training, TagTask)
    assert isinstance(config, TaggerConfig)
    ways = contenders(training, config)
    rates: dict[str, list[float]] = {way.name: [] for way in ways}
    for way in ways:
        way.tokens_a_second(seconds / 4)
    products = []
    for number in range(rounds):
        products.append(product_rate(seconds / 4))
        for way in ways[number % len(ways) :] + ways[: number % len(ways)]:
            rates[way.name].append(way.tokens_a_second(seconds))
    medians = {name: statistics.median(found) for name, found in rates.items()}
    machine = statistics.median(products)
    return {
        "threads": torch.get_num_threads(),
        "rounds": rounds,
        "machine_gflops": machine / 1e9,
        "tokens_a_second": medians,
        "share_of_product_rate": medians["here"] * operations_a_token(config) / machine,
        "times_as_fast": medians["here"] / max(v for k, v in medians.items() if k != "here"),
    }


def table(found: dict[str, Any]) -> str:
    rows = ["| way to train | tokens/s |", "|---|---|"]
    rows += [f"| {name} | {rate:,.0f} |" for name, rate in found["tokens_a_second"].items()]
    rows.append(
        f"\n{found['times_as_fast']:.2f} times the faster plain loop (bar 1.5); matrix products at "
        f"{100 * found['share_of_product_rate']:.0f} % of the machine's "
        f"{found['machine_gflops']:.0f} GFLOP/s, {found['threads']} threads"
    )
    return "\n".join(rows)


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m training.speed")
    parser.add_argument("--quick", action="store_true", help="small model, half a minute")
    parser.add_argument(
        "--rounds", type=int, default=5, help="rounds, of which medians are reported (default: 5)"
    )
    parser.add_argument(
        "--data", type=Path, default=DATA_FOLDER, help="folder of data packages (default: .data)"
    )
    chosen = parser.parse_args(arguments)
    recipe = load_recipe(RECIPES / f"{MODEL}.toml", chosen.quick)
    recipe = recipe.with_value("data.folder", str(chosen.data))
    try:
        found = measure(recipe, chosen.rounds, seconds=1 if chosen.quick else 10)
    except DataUnavailable as error:
        print(f"speed: {error}", file=sys.stderr)
        return 1
    print(table(found))
    print(json.dumps(found))
    return 0


if __name__ == "__main__":
    sys.exit(main())
