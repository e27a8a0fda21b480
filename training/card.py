"""The model card of a run, ``card.md`` (Mitchell et al. 2019, arXiv:1810.03993, in brief)."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from training.checkpoint import TrainedModel
from training.held_out import Confusion, HeldOut
from training.measurements import Measurement
from training.tasks.base import Task

CARD_FILE = "card.md"
_MISTAKES, _EXAMPLES = 10, 8
_SHOWN = 200  # characters of a question or an answer


def write_card(
    folder: Path,
    task: Task[Any],
    trained: TrainedModel,
    held_out: HeldOut[Any, Any],
    measured: Sequence[Measurement],
    answers: Sequence[Any],
) -> Path:
    """Into ``folder``, with the pictures that the task draws."""
    pictures = [("Loss of every epoch", "loss.png"), *task.pictures(trained, held_out, folder)]
    confusion = held_out.confusion(answers) if held_out.confusion else Confusion()
    parts = [
        f"# {trained.name}",
        trained.description,
        f"## Figures\n\n{_figures(trained, measured)}",
        *([f"## Labels taken for others\n\n{_mistakes(confusion)}"] if _wrong(confusion) else []),
        "## Pictures",
        *(f"![{title}]({file})" for title, file in pictures),
        f"## Examples of what was held out\n\n{_examples(task, held_out.questions, answers)}",
        f"## Data\n\n{_data(trained)}",
        f"## Training\n\n{_training(trained)}",
    ]
    path = folder / CARD_FILE
    path.write_text("\n\n".join(parts) + "\n", encoding="utf8")
    return path


def _figures(trained: TrainedModel, measured: Sequence[Measurement]) -> str:
    """A row a figure, with its interval and the floors beside it."""
    rows = []
    for figure, found in zip(trained.figures, measured, strict=True):
        floors = [
            f"{floor['value']:.2f} {floor['floor']}"
            for floor in trained.training["floors"]
            if floor["figure"] == figure.name and figure.split.startswith(floor["split"])
        ]
        name = f"{figure.name} ({figure.unit})" if figure.unit else figure.name
        interval = f"{found.low:.2f} to {found.high:.2f}, {found.method}"
        split = f"{figure.examples:,} · {figure.split}"
        rows.append((name, f"{figure.value:.2f}", interval, "; ".join(floors), split))
    return table(("figure", "value", "95 %", "without a network", "examples, split"), rows)


def _wrong(confusion: Confusion) -> list[tuple[tuple[str, str], int]]:
    wrong = [(pair, count) for pair, count in confusion.items() if pair[0] != pair[1]]
    return sorted(wrong, key=lambda item: (-item[1], item[0]))


def _mistakes(confusion: Confusion) -> str:
    of_label = Confusion()
    for pair, count in confusion.items():
        of_label[pair[0], ""] += count
    rows = [
        (true, said, f"{count:,}", f"{count / of_label[true, '']:.1%}")
        for (true, said), count in _wrong(confusion)[:_MISTAKES]
    ]
    return table(("true", "said", "times", "of the true label's"), rows)


def _examples(task: Task[Any], questions: Sequence[Any], answers: Sequence[Any]) -> str:
    shown = [
        task.shown(*pair) for pair in zip(questions[:_EXAMPLES], answers[:_EXAMPLES], strict=True)
    ]
    return table(("given", "answer"), shown)


def _data(trained: TrainedModel) -> str:
    return "\n".join(
        f"- {source['package']} (sha256 {source['sha256'][:12]}…): licence {source['licence']}"
        for source in trained.data
    )


def _training(trained: TrainedModel) -> str:
    left_out = ("floors", "train_loss", "validation_loss", "earlier_stages")
    facts = {key: value for key, value in trained.training.items() if key not in left_out}
    return ", ".join(f"{key} {value}" for key, value in facts.items())


def table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    lines = [header, ["---"] * len(header), *rows]
    return "\n".join(f"| {' | '.join(map(_cell, line))} |" for line in lines)


def _cell(text: str) -> str:
    plain = text.replace("\n", "↵").replace("|", "\\|").strip()
    return plain if len(plain) <= _SHOWN else f"{plain[:_SHOWN]}…"
