"""What models.md and a card say of the answers to everyday questions."""

from __future__ import annotations

from collections.abc import Mapping

from evaluation.everyday_sets import LECTURE, SPLIT, Answered, EverydayAnswers
from evaluation.text import as_text, table
from training.held_out import BEST, FigureName
from training.measurements import Measurement

SHOWN = 10  # the first of a set, whatever their answers


def everyday_table(answers: Mapping[str, EverydayAnswers], cards: str) -> str:
    """A row a model. cards: the folder of the cards."""
    rows = [
        (
            f"[{name}]({cards}/{name}.md)",
            "; ".join(f"{_named(figure)}: {_counted(found)}" for figure, found in own.figures()),
            _kinds(own),
        )
        for name, own in answers.items()
    ]
    return table(("model", "right", "right at first, by kind"), rows)


def everyday_section(answers: EverydayAnswers) -> str:
    """The rule, the shares, the first questions of the set, and the lecture's."""
    shares = [f"- {_named(figure)}: {_counted(found)}" for figure, found in answers.figures()]
    if answers.unanswerable:
        shares.append(
            f"- {answers.unanswerable} of the set cannot be right: the model knows none of the "
            "answers that are accepted"
        )
    shares.append(f"- right at first, by kind: {_kinds(answers)}")
    first = answers.answered[:SHOWN]
    rows = [_row(one, answers) for one in (*first, *answers.lecture)]
    return "\n\n".join(
        (
            answers.everyday.rule,
            "\n".join(shares),
            f"The first {len(first)} of the set{f', and {LECTURE}' if answers.lecture else ''}:",
            table(("given", "accepted", "answer", ""), rows),
        )
    )


def _named(figure: FigureName) -> str:
    return figure.name if figure.split == SPLIT else f"{figure.name}, {figure.split}"


def _counted(found: Measurement) -> str:
    right = round(found.value * found.examples / 100)
    return f"{right} of {found.examples} ({found.low:.0f} to {found.high:.0f} %)"


def _kinds(answers: EverydayAnswers) -> str:
    return ", ".join(f"{kind} {right} of {of}" for kind, (right, of) in answers.of_kinds().items())


def _row(one: Answered, answers: EverydayAnswers) -> tuple[str, str, str, str]:
    verdict = "right" if one.rank == 0 else "wrong"
    if one.rank and answers.has_ranks:
        verdict = f"among {BEST}"
    accepted = ", ".join(one.question.accepted)
    return as_text(answers.given(one.question)), as_text(accepted), as_text(one.said), verdict
