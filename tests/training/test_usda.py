import numpy as np
import pytest

from tests.training.real import real
from training.data.usda import (
    Food,
    FoodTables,
    load_foods,
    parse_foods,
    similar_names,
    split_foods,
)

TABLES = FoodTables(
    foods="""~01~^~0100~^~Butter, salted~^~~
~02~^~0900~^~Figs, raw~^~~
""",
    groups="~0100~^~Dairy~\n~0900~^~Fruits~\n",
    nutrients="~203~^~g~^~PROCNT~^~Protein~^~2~\n~301~^~mg~^~CA~^~Calcium, Ca~^~0~\n",
    values="~01~^~203~^0.85^16\n~02~^~203~^.75^1\n~01~^~301~^24^2\n",
)


def test_foods_have_the_nutrients_known_of_nearly_all(monkeypatch):
    foods = parse_foods(TABLES)
    assert foods.nutrients == ("Protein (g)",)
    assert foods.foods == [
        Food("Butter, salted", "Dairy", (0.85,)),
        Food("Figs, raw", "Fruits", (0.75,)),
    ]


def test_a_value_nobody_knows_is_unknown(monkeypatch):
    monkeypatch.setattr("training.data.usda.KNOWN_SHARE", 0.5)
    foods = parse_foods(TABLES)
    assert foods.nutrients == ("Protein (g)", "Calcium, Ca (mg)")
    np.testing.assert_equal([food.values for food in foods.foods], [(0.85, 24.0), (0.75, np.nan)])


def test_what_a_label_states_is_there_however_many_foods_lack_it(monkeypatch):
    monkeypatch.setattr("training.data.usda.LABEL", ("Calcium, Ca (mg)",))
    assert parse_foods(TABLES).nutrients == ("Protein (g)", "Calcium, Ca (mg)")


@pytest.mark.parametrize(
    ("name", "key"),
    [
        ("Peppers, sweet, red, raw", "peppers sweet"),
        ("PEPPERS, sweet, green", "peppers sweet"),
        ("KELLOGG'S, EGGO, Waffles", "kellogg's eggo"),
        ("Pizza", "pizza"),
    ],
)
def test_similar_names_share_a_key(name, key):
    assert similar_names(name) == key


def test_a_group_of_similar_names_is_on_one_side():
    """No food of a held-out group is in another part, and no part shares a food."""
    foods = [Food(f"Kind {n // 7}, sort, {n}", "", (float(n),)) for n in range(3000)]
    splits = split_foods(foods)
    assert sum(map(len, splits.values())) == len({f.name for p in splits.values() for f in p})
    assert sum(map(len, splits.values())) == 3000
    apart = {similar_names(food.name) for food in splits["new names"]}
    rest = {similar_names(f.name) for n, p in splits.items() if n != "new names" for f in p}
    assert not apart & rest
    assert 150 < len(splits["new names"]) < 450
    assert 200 < len(splits["every tenth"]) <= 300


@pytest.mark.real_data
def test_the_real_foods_have_the_known_size():
    foods = real(load_foods)
    assert (len(foods.foods), len(foods.nutrients)) == (8789, 28)
    assert foods.nutrients[0] == "Protein (g)"
    assert (foods.foods[0].name, foods.foods[0].group) == (
        "Butter, salted", "Dairy and Egg Products",
    )  # fmt: skip
    sizes = {name: len(part) for name, part in split_foods(foods.foods).items()}
    assert sizes == {"train": 6672, "validation": 385, "every tenth": 781, "new names": 951}
