"""Many calls of one service side by side, each answered in its place."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

from unroll import Client
from unroll.types import Beam, GenerateOptions

Question = TypeVar("Question")
Answer = TypeVar("Answer")

_CALLS = 4  # at a time
_MOST_TEXTS = 64
_MOST_CHARACTERS = 32_000


def in_calls(
    ask: Callable[[Sequence[Question]], Sequence[Answer]],
    items: Sequence[Question],
    size: Callable[[Question], int],
) -> list[Answer]:
    """The answer to each item; a call holds as many as a request may.

    size: characters of an item.
    """
    calls: list[list[Question]] = [[]]
    characters = 0
    for item in items:
        characters += size(item)
        if calls[-1] and (len(calls[-1]) == _MOST_TEXTS or characters > _MOST_CHARACTERS):
            calls.append([])
            characters = size(item)
        calls[-1].append(item)
    with ThreadPoolExecutor(_CALLS) as pool:
        return [answer for answers in pool.map(ask, calls) for answer in answers]


def written(
    client: Client, model: str, requests: Sequence[GenerateOptions], beam: int
) -> list[str]:
    """What the model writes for each request: token by token, or by a ``beam`` of more than 1.

    A beam ends as training's does, once its hypotheses have.
    """

    def write(request: GenerateOptions) -> str:
        options: GenerateOptions = {**request}
        if beam > 1:
            options["beam"] = Beam(beam, early_stop=True)
        return "".join(chunk.text for chunk in client.generate(model, **options))

    with ThreadPoolExecutor(_CALLS) as pool:
        return list(pool.map(write, requests))
