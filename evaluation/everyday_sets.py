"""Everyday questions to the bundled models, and what answers to them are worth.

A file of evaluation/everyday/ has forty questions of the kinds that a visitor types, by a rule that
it states. The evaluation alone reads them: nothing is trained on them and nothing is chosen by
them. What is given, accepted and compared, by task:

==========  =================================  =====================================================
task        given                              accepted
==========  =================================  =====================================================
classify    a text                             labels
fill        a text with ``___`` in it          words
tag         a text                             ``word/tag word/tag``, in the text's order
seq2seq     a source                           texts, whatever their case and punctuation
vec2seq     numbers, one of each of `fields`   first words; what `fields` leaves out is NaN
==========  =================================  =====================================================
"""

from __future__ import annotations

import math
import tomllib
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bundle.manifest import CLASSIFY, FILL, SEQ2SEQ, TAG, VEC2SEQ
from bundle.store import Bundle
from bundle.tokenizer import split
from evaluation.evaluators import EVALUATORS
from training.held_out import BEST, FigureName
from training.measurements import Measurement, share
from unroll import Client

FOLDER = Path(__file__).parent / "everyday"
SPLIT, LECTURE = "everyday questions", "the lecture's sentences"


@dataclass(frozen=True)
class EverydayQuestion:
    """given: a text, or numbers. accepted: the answers that are right. kind: by the set's rule."""

    given: Any
    accepted: tuple[str, ...]
    kind: str = ""


@dataclass(frozen=True)
class EverydaySet:
    """rule: how the questions were made. lecture: the lecture's own, apart from the others.
    fields: of the vectors that are given, the names of their values.
    """

    models: tuple[str, ...]
    rule: str
    questions: tuple[EverydayQuestion, ...]
    lecture: tuple[EverydayQuestion, ...] = ()
    fields: tuple[str, ...] = ()


@dataclass(frozen=True)
class Answered:
    """said: the answer as a page shows it. rank: of the first right answer among the five that a
    model ranks, from 0; None where none of them is right.
    """

    question: EverydayQuestion
    said: str
    rank: int | None


@dataclass(frozen=True)
class EverydayAnswers:
    """has_ranks: whether the model ranks more answers than are counted.
    unanswerable: questions of which the model knows none of the accepted answers.
    """

    everyday: EverydaySet
    answered: Sequence[Answered]
    lecture: Sequence[Answered]
    has_ranks: bool
    unanswerable: int

    def figures(self) -> list[tuple[FigureName, Measurement]]:
        """The share right at first, and among five where the model ranks, of the set and then of
        the lecture's sentences."""
        found = []
        for split_name, part in ((SPLIT, self.answered), (LECTURE, self.lecture)):
            if part:
                first = share([one.rank == 0 for one in part])
                found.append((FigureName("right at first", "%", split_name), first))
            if part and self.has_ranks:
                among = share([one.rank is not None for one in part])
                found.append((FigureName(f"right among {BEST}", "%", split_name), among))
        return found

    def given(self, question: EverydayQuestion) -> str:
        """As a page shows it."""
        if isinstance(question.given, str):
            return question.given
        pairs = zip(self.everyday.fields, question.given, strict=True)
        return ", ".join(f"{name} {value:g}" for name, value in pairs)

    def of_kinds(self) -> dict[str, tuple[int, int]]:
        """How many of each kind are right at first, and how many there are."""
        every = Counter(one.question.kind for one in self.answered)
        right = Counter(one.question.kind for one in self.answered if one.rank == 0)
        return {kind: (right[kind], count) for kind, count in every.items()}


def everyday_set_of(model: str) -> EverydaySet | None:
    """None for a model that has none: what it answers is neither right nor wrong."""
    sets = map(read_everyday_set, sorted(FOLDER.glob("*.toml")))
    return next((found for found in sets if model in found.models), None)


def read_everyday_set(path: Path) -> EverydaySet:
    content = tomllib.loads(path.read_text(encoding="utf8"))
    return EverydaySet(
        tuple(content["models"]),
        content["rule"],
        _questions(content["questions"]),
        _questions(content.get("lecture", ())),
        tuple(content.get("fields", ())),
    )


def _questions(rows: Sequence[Mapping[str, Any]]) -> tuple[EverydayQuestion, ...]:
    return tuple(
        EverydayQuestion(row["given"], tuple(row["accepted"]), row.get("kind", "")) for row in rows
    )


def ask_everyday(client: Client, bundle: Bundle, everyday: EverydaySet) -> EverydayAnswers:
    """The set asked as the bundle's first figure is measured: token by token, or by its beam."""
    manifest = bundle.manifest
    reading, evaluator = _READINGS[manifest.task], EVALUATORS[manifest.task]
    beam = manifest.figures[0].beam or 1 if manifest.figures else 1
    questions = [*everyday.questions, *everyday.lecture]
    asked = [reading.question(q.given, everyday, bundle) for q in questions]
    answers = evaluator.ask(client, manifest.name, asked, beam)
    answered = [
        Answered(question, reading.shown(answer, one), reading.rank(answer, one, question.accepted))
        for question, one, answer in zip(questions, asked, answers, strict=True)
    ]
    count, labels = len(everyday.questions), frozenset(manifest.labels)
    is_ranked = manifest.task in (CLASSIFY, FILL)
    return EverydayAnswers(
        everyday,
        answered[:count],
        answered[count:],
        is_ranked and len(labels) > 2 * BEST,
        sum(is_ranked and labels.isdisjoint(q.accepted) for q in everyday.questions),
    )


@dataclass(frozen=True)
class _Reading:
    """question: given → the question of the task (training/held_out.py). rank: answer, question,
    accepted → as Answered has it. shown: answer, question → what a page shows of it.
    """

    question: Callable[[Any, EverydaySet, Bundle], Any]
    rank: Callable[[Any, Any, Sequence[str]], int | None]
    shown: Callable[[Any, Any], str]


def _as_given(given: Any, everyday: EverydaySet, bundle: Bundle) -> Any:
    return given


def _rank_of_best(answer: Sequence[str], question: str, accepted: Sequence[str]) -> int | None:
    return next((place for place, said in enumerate(answer[:BEST]) if said in accepted), None)


def _best(answer: Sequence[str], question: str) -> str:
    return ", ".join(answer[:BEST])


def _tokens(given: str, everyday: EverydaySet, bundle: Bundle) -> list[str]:
    return split("words", given)


def _rank_of_tags(answer: Sequence[str], tokens: list[str], accepted: Sequence[str]) -> int | None:
    return 0 if any(_has_tags(answer, tokens, tags.split()) for tags in accepted) else None


def _has_tags(answer: Sequence[str], tokens: Sequence[str], wanted: Sequence[str]) -> bool:
    """Whether each ``word/tag`` is that of the next token which is spelled so."""
    said = iter(zip((token.lower() for token in tokens), answer, strict=True))
    for pair in wanted:
        word, _, tag = pair.rpartition("/")
        if next((label for token, label in said if token == word), None) != tag:
            return False
    return True


def _tagged(answer: Sequence[str], tokens: Sequence[str]) -> str:
    return " ".join(f"{token}/{tag}" for token, tag in zip(tokens, answer, strict=True))


def _rank_of_text(answer: str, source: str, accepted: Sequence[str]) -> int | None:
    return 0 if _plain(answer) in map(_plain, accepted) else None


def _plain(text: str) -> str:
    return " ".join(word for word in split("words", text, lowercase=True) if word[0].isalnum())


def _vector(given: Sequence[float], everyday: EverydaySet, bundle: Bundle) -> list[float]:
    known: Mapping[str, float] = dict(zip(everyday.fields, given, strict=True))
    return [float(known.get(name, math.nan)) for name in bundle.manifest.vector]


def _rank_of_first_word(
    answer: str, vector: Sequence[float], accepted: Sequence[str]
) -> int | None:
    return 0 if _plain(answer).split(" ")[0] in accepted else None


def _whole(answer: str, question: Any) -> str:
    return answer


_READINGS = {
    CLASSIFY: _Reading(_as_given, _rank_of_best, _best),
    FILL: _Reading(_as_given, _rank_of_best, _best),
    TAG: _Reading(_tokens, _rank_of_tags, _tagged),
    SEQ2SEQ: _Reading(_as_given, _rank_of_text, _whole),
    VEC2SEQ: _Reading(_vector, _rank_of_first_word, _whole),
}
