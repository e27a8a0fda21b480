"""What a card says of a model beside its figures."""

from dataclasses import replace

import pytest

from bundle.manifest import FigureSpec
from service.serving.model_info import Floor
from service.serving.model_metadata import floors_of
from service.v1.converters import from_card
from unroll.output import model_lines

SEASON = {"figure": "CRPS", "split": "M3", "floor": "the last season again", "value": 14.5}


def test_floors_are_those_that_training_measured():
    floors = list(floors_of({"seed": 1, "floors": [SEASON, {**SEASON, "value": 3}]}))
    assert floors == [
        Floor("CRPS", "M3", "the last season again", 14.5),
        Floor("CRPS", "M3", "the last season again", 3.0),
    ]


@pytest.mark.parametrize(
    "floors",
    [None, 3, "many", {}, [3], [[]], [{**SEASON, "value": float("nan")}], [{**SEASON, "split": 1}]],
)
def test_what_is_no_floor_is_left_out(floors):
    """Whoever wrote the bundle, its card is shown."""
    assert list(floors_of({"floors": floors})) == []
    assert list(floors_of({})) == []


def test_floors_stand_beside_the_figures_that_they_are_of(standing_service):
    figures = [
        FigureSpec(name, 8.7, "%", split, 10, "none")
        for name, split in (("CRPS", "M3, monthly"), ("CRPS", "tourism"), ("MASE", "M3, monthly"))
    ]
    card = replace(
        standing_service.app.registry.get("letters").card,
        figures=tuple(figures),
        floors=tuple(floors_of({"floors": [SEASON]})),
    )
    model = from_card(card)
    said = [[(floor.by, floor.value) for floor in figure.floors] for figure in model.figures]
    assert said == [[("the last season again", 14.5)], [], []]
    _, first, second, _ = model_lines(model).splitlines()
    assert first.endswith("on M3, monthly (without a network: 14.5 by the last season again)")
    assert second.endswith("on tourism")
