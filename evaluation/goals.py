"""Whether each model reaches the goals of its recipe: on its held-out split, and of its everyday
questions."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from evaluation.results import Found, digits_of
from evaluation.text import table
from training.config import Goal

# By model: what was measured of each, and what it is to reach.
Measured = Mapping[str, Sequence[Found]]
Goals = Mapping[str, Sequence[Goal]]


def measured(found: Measured, goals: Goals) -> list[tuple[str, Goal, Found | None]]:
    """Every goal of the models with the first figure that it concerns; None: not measured."""
    reached = []
    for name, figures in found.items():
        known = [one for one in figures if one.measured is not None]
        for goal in goals.get(name, ()):
            own = (one for one in known if _concerns(goal, one))
            reached.append((name, goal, next(own, None)))
    return reached


def missed(found: Measured, goals: Goals) -> list[str]:
    """A sentence for each goal that is not met."""
    return [
        f"{name}: {goal.figure} is {_shown(goal, one)}, the goal is {_bar(goal)}"
        for name, goal, one in measured(found, goals)
        if not _is_met(goal, one)
    ]


def goals_table(found: Measured, goals: Goals) -> str:
    rows = [
        (
            name,
            f"{goal.figure}, {one.figure.split if one else goal.split}",
            _bar(goal),
            _shown(goal, one) if _is_met(goal, one) else f"**{_shown(goal, one)}, missed**",
            goal.beside,
        )
        for name, goal, one in measured(found, goals)
    ]
    return table(("model", "figure", "goal", "served", "to compare with"), rows)


def _concerns(goal: Goal, found: Found) -> bool:
    return found.figure.name == goal.figure and found.figure.split.startswith(goal.split)


def _is_met(goal: Goal, found: Found | None) -> bool:
    measurement = found.measured if found else None
    if measurement is None:
        return False
    return goal.is_met(measurement.value if goal.mean is None else goal.mean)


def _bar(goal: Goal) -> str:
    of = f" in the mean of {len(goal.seeds)} seeds" if goal.seeds else ""
    return f"{'≤' if goal.is_error else '≥'} {goal.bar:g}{of}"


def _shown(goal: Goal, found: Found | None) -> str:
    if found is None or found.measured is None:
        return "not measured"
    digits = digits_of(found.figure.unit)
    mean = "" if goal.mean is None else f", in the mean {goal.mean:.{digits}f}"
    return f"{found.measured.value:.{digits}f}{mean}"
