"""Nutrients to names: a vector of 28 values conditions an LSTM that writes a food's name.

    python -m training.food [--quick] [--resume] [--seed N] [--recipe FILE]

Split: two parts are held out of one model, every tenth food and all foods of a tenth of the
groups of similar names (training/data/usda.py); a twentieth of all foods validates, and is
remembered beside what was trained on when training is over.
"""

from __future__ import annotations

import random
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor
from torch.nn.functional import cross_entropy
from torch.nn.utils.rnn import pad_sequence

from bundle.tokenizer import Tokenizer, split
from bundle.vocabulary import PADDING_ID, Vocabulary
from training.batching import similar_lengths
from training.checkpoint import Figure, TrainedModel
from training.cli import Run, run_script
from training.data.packages import USDA_NUTRITION
from training.data.usda import Food, Foods, load_foods, split_foods
from training.held_out import EvaluationContext, HeldOut
from training.measurements import Measurement, ratio, share
from training.metrics import overlap_f1
from training.models import config_to_json
from training.models.vec2seq import VectorToSequence, VectorToSequenceConfig

OUTPUT_LIMIT = 40

# vectors (batch, values), inputs and targets (batch, words): begin + name, name + end
Batch = tuple[Tensor, Tensor, Tensor]


def make_batches(
    output: Tokenizer, foods: Sequence[Food], choose: random.Random, size: int = 64
) -> list[Batch]:
    rows = [(food, output.encode(food.name).ids) for food in foods]
    grouped = similar_lengths(rows, lambda row: len(row[1]), size, choose)
    return [_stack(output.vocabulary, batch) for batch in grouped]


def _stack(vocabulary: Vocabulary, rows: Sequence[tuple[Food, list[int]]]) -> Batch:
    marked = pad_sequence(
        [torch.tensor([vocabulary.begin_id, *ids, vocabulary.end_id]) for _, ids in rows],
        batch_first=True,
        padding_value=PADDING_ID,
    )
    targets = marked[:, 1:]
    # A word that the vocabulary does not hold is read, but nobody learns to say it.
    targets = targets.masked_fill(targets == vocabulary.unknown_id, PADDING_ID)
    return torch.tensor([food.values for food, _ in rows]), marked[:, :-1], targets


@dataclass(frozen=True)
class FoodSettings:
    """batch: foods. vocabulary: ids at most; rarer words train the catch-all.
    label_smoothing: share of a word's probability that is spread over all.
    sharpness: what the distances of the foods that are copied from are multiplied with in the end:
    words that are likely one by one, of several names, make no name.
    """

    batch: int
    vocabulary: int
    label_smoothing: float
    sharpness: float


@dataclass(frozen=True)
class FoodTask:
    """Teacher forcing."""

    output: Tokenizer
    training: Sequence[Food]
    validation: Sequence[Food]
    seed: int
    batch: int = 64
    label_smoothing: float = 0.1

    def batches(self, epoch: int) -> list[Batch]:
        choose = random.Random(self.seed * 10_007 + epoch)
        return make_batches(self.output, self.training, choose, self.batch)

    @cached_property
    def _validation_batches(self) -> list[Batch]:
        return make_batches(self.output, self.validation, random.Random(0))

    def loss(self, model: VectorToSequence, batch: Batch, carry: None) -> tuple[Tensor, None]:
        return _nats_per_word(model, batch, self.label_smoothing), None

    def validate(self, model: VectorToSequence) -> float:
        losses = [
            _nats_per_word(model, batch, 0.0).item() * len(batch[0])
            for batch in self._validation_batches
        ]
        return sum(losses) / len(self.validation)


def _nats_per_word(model: VectorToSequence, batch: Batch, label_smoothing: float) -> Tensor:
    vectors, inputs, targets = batch
    logits, _ = model(inputs, model.encode(vectors))
    return cross_entropy(
        logits.flatten(0, 1),
        targets.flatten(),
        ignore_index=PADDING_ID,
        label_smoothing=label_smoothing,
    )


@torch.no_grad()
def write(model: VectorToSequence, vectors: Tensor, output: Tokenizer) -> list[str]:
    """vectors (foods, values) → of each the likeliest word at each step, until the end marker"""
    vocabulary = output.vocabulary
    silent = torch.tensor(vocabulary.never_sampled_ids)
    state = model.encode(vectors)
    token = torch.full((len(vectors),), vocabulary.begin_id)
    written = []
    for _ in range(OUTPUT_LIMIT):
        logits, state = model.step(token, state)
        token = logits.index_fill(1, silent, -torch.inf).argmax(dim=1)
        written.append(token)
    rows = (row[: _end(row, vocabulary.end_id)] for row in torch.stack(written, 1).tolist())
    return [output.decode(row) for row in rows]


def _end(row: list[int], end_id: int) -> int:
    return row.index(end_id) if end_id in row else len(row)


def words_of(name: str) -> list[str]:
    """What names are compared by: their words, whatever the case and the marks."""
    return [word for word in split("words", name, lowercase=True) if word[0].isalnum()]


def compare(written: Sequence[str], foods: Sequence[Food]) -> tuple[float, float]:
    """Share of names that begin with the right word, in percent, and the mean F1 of words."""
    pairs = [(words_of(w), words_of(f.name)) for w, f in zip(written, foods, strict=True)]
    first = sum(said[:1] == wanted[:1] for said, wanted in pairs)
    f1 = sum(overlap_f1(said, wanted) for said, wanted in pairs)
    return 100 * first / len(pairs), f1 / len(pairs)


def distinct(foods: Sequence[Food]) -> list[Food]:
    """The first of all that hold the same."""
    first: dict[tuple[float, ...], Food] = {}
    for food in foods:
        first.setdefault(food.values, food)
    return list(first.values())


def remember(model: VectorToSequence, output: Tokenizer, foods: Sequence[Food]) -> None:
    """Let ``model`` copy from the names of ``foods``, of whom no two hold the same."""
    vocabulary = output.vocabulary
    names = [
        [PADDING_ID if token == vocabulary.unknown_id else token for token in ids]
        for ids in (output.encode(food.name).ids for food in foods)
    ]
    vectors = torch.tensor([food.values for food in foods])
    model.remember(vectors, vocabulary.begin_id, [[*n, vocabulary.end_id] for n in names])


def load_task(run: Run) -> tuple[FoodTask, Foods, dict[str, list[Food]]]:
    """What is trained on and validated with, all foods, and the held-out parts by their split.

    The cap leaves out the rarest words: they are what trains the catch-all.
    """
    foods = load_foods(run.data)
    splits = split_foods(foods.foods)
    options = run.recipe.task_settings(FoodSettings)
    words = (word for food in splits["train"] for word in food.name.split())
    output = Tokenizer("symbols", Vocabulary.count(words, options.vocabulary, has_markers=True))
    task = FoodTask(
        output, splits["train"], splits["validation"], run.seed, options.batch,
        options.label_smoothing,
    )  # fmt: skip
    held_out = {
        "every tenth food, similar names trained on": splits["every tenth"],
        "all foods of a tenth of the groups of similar names": splits["new names"],
    }
    return task, foods, held_out


def held_out(context: EvaluationContext) -> HeldOut[Sequence[float], str]:
    splits = split_foods(load_foods(context.data).foods)
    parts = [splits["every tenth"], splits["new names"]]

    def measure(answers: Sequence[str]) -> list[Measurement]:
        written, measured = iter(answers), []
        for foods in parts:
            pairs = [(words_of(next(written)), words_of(food.name)) for food in foods]
            overlaps = [overlap_f1(said, wanted) for said, wanted in pairs]
            measured += [
                share([said[:1] == wanted[:1] for said, wanted in pairs]),
                ratio(overlaps, [1] * len(pairs), len(pairs), "foods"),
            ]
        return measured

    return HeldOut([food.values for foods in parts for food in foods], measure)


def figures(
    run: Run, model: VectorToSequence, output: Tokenizer, held_out: dict[str, list[Food]]
) -> tuple[Figure, ...]:
    found = []
    for split_name, foods in held_out.items():
        vectors = torch.tensor([food.values for food in foods])
        first, f1 = compare(write(model, vectors, output), foods)
        for name, value, unit in (("first word right", first, "%"), ("F1 of words", f1, "")):
            found.append(Figure(name, value, unit, split_name, len(foods), run.command, beam=1))
    return tuple(found)


def train(run: Run) -> None:
    task, foods, held_out = load_task(run)
    vectors = torch.tensor([food.values for food in task.training])
    remembered = distinct(task.training)
    config = run.recipe.config(
        VectorToSequenceConfig,
        vector_size=len(foods.nutrients),
        vocabulary_size=len(task.output.vocabulary),
        examples=len(remembered),
    )

    def build(config: VectorToSequenceConfig) -> VectorToSequence:
        model = VectorToSequence(config)
        model.standardise(vectors)
        remember(model, task.output, remembered)
        return model

    settings = run.recipe.fit_settings(run.seed)
    model, history = run.fit(build, config, task, settings)
    model.sharpen(run.recipe.task_settings(FoodSettings).sharpness)
    # What has validated is not needed for that any more, and may be copied from.
    remember(model, task.output, distinct([*task.training, *task.validation]))
    trained = TrainedModel(
        name=run.model,
        description="Names a food from what 100 g of it hold, in the USDA's manner.",
        config=config_to_json(model.config),
        weights=model.state_dict(),
        tokenizers={"output": task.output},
        limits={"output_tokens": OUTPUT_LIMIT},
        vector=foods.nutrients,
        figures=figures(run, model, task.output, held_out),
        data=(USDA_NUTRITION.describe(),),
        training=run.facts(model, history),
    )
    run.finish(trained, history)


if __name__ == "__main__":
    sys.exit(run_script("food", train))
