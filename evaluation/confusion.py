"""Which labels a served model takes for which, from what it answered to its held-out split."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from matplotlib.colors import PowerNorm
from numpy.typing import NDArray

from evaluation.curves import plt
from evaluation.tags import meaning_of
from evaluation.text import as_text, table
from training.held_out import Confusion

_MOST_LABELS = 40
_MOST_PAIRS = 10
_OTHERS = "(others)"
# A share of 1 % is drawn at a seventh of a whole row's depth of colour, not at a hundredth.
_POWER = 0.42
_HARDLY = 1e-3  # as alike as labels that are never mistaken for each other count as


def mistakes(confusion: Confusion) -> Confusion:
    return Counter({pair: count for pair, count in confusion.items() if pair[0] != pair[1]})


def most_confused(confusion: Confusion, most: int = _MOST_LABELS) -> list[str]:
    """The labels that take part in most mistakes, as the true one or as the said one."""
    taking_part: Counter[str] = Counter()
    for pair, count in mistakes(confusion).items():
        for label in pair:
            taking_part[label] += count
    by_count = sorted(taking_part, key=lambda label: (-taking_part[label], label))
    return by_count[:most]


def shares(confusion: Confusion, labels: Sequence[str]) -> NDArray[np.float64]:
    """What share of a true label's examples each label was said of: (labels, labels + 1).

    The last column is of all labels that are not among ``labels``. The row of a label that no
    example has is zero.
    """
    place = {label: number for number, label in enumerate(labels)}
    counts = np.zeros((len(labels), len(labels) + 1))
    for (true, said), count in confusion.items():
        if true in place:
            counts[place[true], place.get(said, len(labels))] += count
    return counts / np.maximum(counts.sum(axis=1, keepdims=True), 1)


def side_by_side(confusion: Confusion, labels: Sequence[str]) -> list[str]:
    """``labels`` in an order in which those mistaken for each other stand near.

    It is that of the second eigenvector of their graph's Laplacian (Fiedler 1973), of which an
    edge is how much of either label is taken for the other.
    """
    if len(labels) < 3:
        return sorted(labels)
    taken = shares(confusion, sorted(labels))[:, :-1]
    alike = taken + taken.T + _HARDLY
    np.fill_diagonal(alike, 0.0)
    _, vectors = np.linalg.eigh(np.diag(alike.sum(axis=1)) - alike)
    order = np.argsort(vectors[:, 1], kind="stable")
    ordered = [sorted(labels)[place] for place in order]
    # An eigenvector's sign is anyone's choice.
    return ordered if ordered[0] < ordered[-1] else ordered[::-1]


def draw_confusion(confusion: Confusion, path: Path) -> None:
    """Rows are true labels, columns said ones, the darker the larger the share of the row."""
    labels = side_by_side(confusion, most_confused(confusion))
    columns = [*labels, _OTHERS]
    figure, axes = plt.subplots(figsize=(9, 8.6), layout="constrained")
    image = axes.imshow(
        shares(confusion, labels), cmap="Blues", norm=PowerNorm(_POWER, 0, 1), aspect="auto"
    )
    # A tag may hold a dollar sign.
    axes.set_xticks(range(len(columns)), columns, rotation=90, fontsize=8.5, parse_math=False)
    axes.set_yticks(range(len(labels)), labels, fontsize=8.5, parse_math=False)
    axes.set_xticks(np.arange(len(columns)) - 0.5, minor=True)
    axes.set_yticks(np.arange(len(labels)) - 0.5, minor=True)
    axes.grid(which="minor", color="0.88", linewidth=0.5)
    axes.tick_params(which="minor", length=0)
    axes.set(xlabel="said", ylabel="true")
    ticks = (0, 0.01, 0.05, 0.1, 0.2, 0.4, 0.6, 0.8, 1)
    bar = figure.colorbar(image, ticks=ticks, format="{x:.0%}", pad=0.01, aspect=45)
    bar.set_label("share of the true label's examples")
    figure.savefig(path, dpi=150)
    plt.close(figure)


def caption_of_confusion(confusion: Confusion) -> str:
    """The picture's caption, and the mistakes that are made most as a table."""
    wrong = mistakes(confusion)
    count, examples = wrong.total(), confusion.total()
    labels = {label for pair in confusion for label in pair}
    shown = set(most_confused(confusion))
    within = sum(n for pair, n in wrong.items() if shown.issuperset(pair))
    return f"""\
A row is a true label, a column what the served model said; a cell is coloured by its share of \
the row, on a scale that lifts small shares. Of {len(labels)} labels the {len(shown)} that take \
part in most mistakes are shown, as the true one or as the said one: a label that is frequent and \
never mistaken says nothing. {within / max(count, 1):.0%} of the {count:,} mistakes among \
{examples:,} answers are between two of them. Labels mistaken for each other stand near each \
other.

{table(("true", "said", "times", "of the true label's"), _rows(confusion))}"""


def _rows(confusion: Confusion) -> list[tuple[str, str, str, str]]:
    """The most frequent mistakes."""
    of_label: Counter[str] = Counter()
    for (true, _), count in confusion.items():
        of_label[true] += count
    worst = sorted(mistakes(confusion).items(), key=lambda item: (-item[1], item[0]))
    return [
        (_spelled(true), _spelled(said), f"{count:,}", f"{count / of_label[true]:.1%}")
        for (true, said), count in worst[:_MOST_PAIRS]
    ]


def _spelled(label: str) -> str:
    meaning = meaning_of(label)
    return f"{as_text(label)} ({meaning})" if meaning else as_text(label)
