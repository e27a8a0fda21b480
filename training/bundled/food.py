"""Nutrients to a food's name: a vector of 29 values, of which any may be unknown, conditions an
LSTM that also copies.

Split: two parts are held out of one model, every tenth food and all foods of a tenth of the
groups of similar names (training/data/usda.py); a twentieth of all foods validates, and is
remembered beside what was trained on when training is over.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import nan
from statistics import fmean
from typing import Any

import torch

from bundle.manifest import UNKNOWN_VALUES
from bundle.tokenizer import Tokenizer
from bundle.vocabulary import Vocabulary
from training.bundled import PackageData
from training.checkpoint import TrainedModel
from training.config import Recipe
from training.data.packages import USDA_NUTRITION
from training.data.usda import LABEL, load_foods, split_foods
from training.field_dropout import FieldDropout
from training.held_out import FigureName, HeldOut
from training.measurements import Measurement, ratio, share
from training.metrics import overlap_f1
from training.models.vec2seq import VectorToSequence, VectorToSequenceConfig
from training.splits import Splits
from training.tasks.base import Prepared
from training.tasks.vec2seq import (
    Described,
    Vec2Seq,
    Vec2SeqTask,
    distinct,
    remember,
    words_of,
)

OUTPUT_LIMIT = 40
# What the data set calls its held-out parts, and what a figure does.
PARTS = {
    "every tenth": "every tenth food, similar names trained on",
    "new names": "all foods of a tenth of the groups of similar names",
}
# What the same parts are called where the model is asked with a label's values alone.
BY_LABEL = "labels of "


@dataclass(frozen=True)
class FoodSettings:
    """batch: foods. vocabulary: ids at most; rarer words train the catch-all.
    label_smoothing: share of a word's probability that is spread over all.
    unknown_fields: share of the foods of which a step hides values; of half of these it shows what
    a label states. ranking: weight of the F1 expected of the foods to copy from, beside the
    likelihood of the name.
    sharpnesses: what the scores of the foods that are copied from may be multiplied with in the
    end: words that are likely one by one, of several names, make no name.
    """

    batch: int
    vocabulary: int
    label_smoothing: float
    unknown_fields: float
    ranking: float
    sharpnesses: tuple[float, ...]


@dataclass(frozen=True)
class HeldOutFood(Described):
    """part: one of PARTS."""

    part: str


class Food(Vec2Seq):
    packages = (USDA_NUTRITION,)

    def read(self, recipe: Recipe) -> tuple[Splits[Described], list[tuple[str, str]]]:
        foods = load_foods(recipe.data_settings(PackageData).path)
        splits, names = split_foods(foods.foods), foods.nutrients
        train, validation = (
            [Described(names, food.values, food.name) for food in splits[part]]
            for part in ("train", "validation")
        )
        held_out = [
            HeldOutFood(names, food.values, food.name, part)
            for part in PARTS
            for food in splits[part]
        ]
        return Splits(train, validation, held_out), []

    def prepare(self, recipe: Recipe, splits: Splits[Described], seed: int) -> Prepared:
        """The cap leaves out the rarest words: they are what trains the catch-all."""
        settings = recipe.task_settings(FoodSettings)
        words = (word for food in splits.train for word in food.text.split())
        vocabulary = Vocabulary.count(words, settings.vocabulary, has_markers=True)
        output = Tokenizer("symbols", vocabulary)
        names = splits.train[0].names
        fields = FieldDropout(len(names), settings.unknown_fields, tuple(map(names.index, LABEL)))
        training = Vec2SeqTask(
            output, splits.train, splits.validation, seed, settings.batch,
            settings.label_smoothing, fields, settings.ranking,
        )  # fmt: skip
        vectors = torch.tensor([food.values for food in splits.train])
        remembered = distinct(splits.train)
        config = recipe.config(
            VectorToSequenceConfig,
            vector_size=len(names),
            vocabulary_size=len(vocabulary),
            examples=len(remembered),
            unknown=True,
        )

        def build(config: VectorToSequenceConfig) -> VectorToSequence:
            model = VectorToSequence(config)
            model.standardise(vectors)
            remember(model, output, remembered)
            return model

        return Prepared(
            recipe, config, build, training, {"output": output},
            {"output_tokens": OUTPUT_LIMIT, UNKNOWN_VALUES: len(names) - 1},
            "", [], vector=names,
        )  # fmt: skip

    def adjust(
        self, model: Any, recipe: Recipe, splits: Splits[Described], trained: TrainedModel
    ) -> TrainedModel:
        """Chooses the sharpness, by the F1 of the foods that validate, whole and by their labels.

        They are remembered from then on: nothing else needs them.
        """
        output = trained.tokenizers["output"]
        remember(model, output, distinct(splits.train))
        asked = [*(food.values for food in splits.validation), *map(of_label, splits.validation)]
        wanted = [words_of(food.text) for food in splits.validation] * 2
        tried, scores = recipe.task_settings(FoodSettings).sharpnesses, list[float]()
        before = trained.training.get("sharpness", 1.0)
        for sharpness in tried:
            model.sharpen(sharpness / before)
            before = sharpness
            said = map(words_of, self.answers(model, trained, asked))
            scores.append(fmean(map(overlap_f1, said, wanted)))
        best = tried[max(range(len(tried)), key=scores.__getitem__)]
        model.sharpen(best / before)
        listed = ", ".join(f"{s:g} {score:.4f}" for s, score in zip(tried, scores, strict=True))
        print(f"sharpness {best:g}: F1 of words on validation {listed}")
        remember(model, output, distinct([*splits.train, *splits.validation]))
        return trained.with_facts({"sharpness": best, "sharpnesses": listed})

    def held_out(
        self, examples: Sequence[Any], trained: TrainedModel
    ) -> HeldOut[Sequence[float], str]:
        parts = {
            name: [food for food in examples if food.part == part] for part, name in PARTS.items()
        }
        vectors = [food.values for foods in parts.values() for food in foods]
        labels = [of_label(food) for foods in parts.values() for food in foods]
        parts |= {BY_LABEL + name: foods for name, foods in parts.items()}

        def measure(answers: Sequence[str]) -> list[Measurement]:
            written, measured = iter(answers), list[Measurement]()
            for foods in parts.values():
                pairs = [(words_of(next(written)), words_of(food.text)) for food in foods]
                overlaps = [overlap_f1(said, wanted) for said, wanted in pairs]
                measured += [
                    share([said[:1] == wanted[:1] for said, wanted in pairs]),
                    ratio(overlaps, [1] * len(pairs), len(pairs), "foods"),
                ]
            return measured

        figures = [
            FigureName(name, unit, part)
            for part in parts
            for name, unit in (("first word right", "%"), ("F1 of words", ""))
        ]
        return HeldOut([*vectors, *labels], measure, figures=figures)


def of_label(food: Described) -> tuple[float, ...]:
    """What a label states of ``food``; the rest is unknown."""
    pairs = zip(food.names, food.values, strict=True)
    return tuple(value if name in LABEL else nan for name, value in pairs)


TASK = Food()
