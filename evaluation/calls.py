"""Many calls of one service side by side, each answered in its place."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

from unroll import Client
from unroll.types import Beam, GenerateOptions

Asked = TypeVar("Asked")
Answered = TypeVar("Answered")

_CALLS = 4  # at a time
_MOST_TEXTS = 64
_MOST_CHARACTERS = 32_000


def in_calls(
    ask: Callable[[Sequence[Asked]], Sequence[Answered]],
    items: Sequence[Asked],
    size: Callable[[Asked], int],
) -> list[Answered]:
    """The answer to each item; a call holds as many as a request may.

    size: characters of an item.
    """
    calls: list[list[Asked]] = [[]]
    characters = 0
    for item in items:
        characters += size(item)
        if calls[-1] and (len(calls[-1]) == _MOST_TEXTS or characters > _MOST_CHARACTERS):
            calls.append([])
            characters = size(item)
        calls[-1].append(item)
    with ThreadPoolExecutor(_CALLS) as pool:
        return [answer for answers in pool.map(ask, calls) for answer in answers]


def written(client: Client, model: str, primes: Sequence[GenerateOptions], beam: int) -> list[str]:
    """What the model writes of each: by beam search, or for a ``beam`` of 1 token by token.

    A beam ends as training's does, once its hypotheses have.
    """

    def write(prime: GenerateOptions) -> str:
        options: GenerateOptions = {**prime}
        if beam > 1:
            options["beam"] = Beam(beam, early_stop=True)
        return "".join(chunk.text for chunk in client.generate(model, **options))

    with ThreadPoolExecutor(_CALLS) as pool:
        return list(pool.map(write, primes))
