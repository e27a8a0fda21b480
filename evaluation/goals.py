"""Whether each model reaches the goals of its recipe on its held-out split."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from evaluation.results import Result, digits_of
from evaluation.text import table
from training.config import Goal

# By model: what was measured of each, and what it is to reach.
Results = Mapping[str, Sequence[Result]]
Goals = Mapping[str, Sequence[Goal]]


def measured(results: Results, goals: Goals) -> list[tuple[str, Goal, Result | None]]:
    """Every goal of the models with the first figure that it concerns; None: not measured."""
    found = []
    for name, figures in results.items():
        known = [result for result in figures if result.measured is not None]
        for goal in goals.get(name, ()):
            own = (result for result in known if _concerns(goal, result))
            found.append((name, goal, next(own, None)))
    return found


def missed(results: Results, goals: Goals) -> list[str]:
    """A sentence for each goal that is not met."""
    return [
        f"{name}: {goal.figure} is {_shown(result)}, the goal is {_sign(goal)} {goal.bar:g}"
        for name, goal, result in measured(results, goals)
        if not _is_met(goal, result)
    ]


def goals_table(results: Results, goals: Goals) -> str:
    rows = [
        (
            name,
            f"{goal.figure}, {result.claimed.split if result else goal.split}",
            f"{_sign(goal)} {goal.bar:g}",
            _shown(result) if _is_met(goal, result) else f"**{_shown(result)}, missed**",
            goal.beside,
        )
        for name, goal, result in measured(results, goals)
    ]
    return table(("model", "figure", "goal", "served", "to compare with"), rows)


def _concerns(goal: Goal, result: Result) -> bool:
    claim = result.claimed
    return claim.name == goal.figure and claim.split.startswith(goal.split)


def _is_met(goal: Goal, result: Result | None) -> bool:
    measurement = result.measured if result else None
    return measurement is not None and goal.is_met(measurement.value)


def _sign(goal: Goal) -> str:
    return "≤" if goal.is_error else "≥"


def _shown(result: Result | None) -> str:
    if result is None or result.measured is None:
        return "not measured"
    return f"{result.measured.value:.{digits_of(result.claimed.unit)}f}"
