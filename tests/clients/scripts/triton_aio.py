"""tritonclient with asyncio: infer, and streams that are read with async for.

python triton_aio.py HOST:PORT
"""

from __future__ import annotations

import asyncio
import sys
from collections.abc import AsyncIterator
from typing import Any

from tensors import batch_of_texts, is_final, one_text, texts_of
from tritonclient.grpc.aio import InferenceServerClient

PROMPT = "ROMEO:\n"
DRAWN = {"max_tokens": 30, "temperature": 0.7, "seed": 7}

Request = dict[str, Any]


async def infer_side_by_side(client: InferenceServerClient) -> None:
    assert await client.is_server_ready()
    texts = {"very good": "positive", "very bad": "negative"}
    results = await asyncio.gather(
        *(client.infer("sentiment", [batch_of_texts("text", text)]) for text in texts)
    )
    assert [texts_of(result, "label")[0] for result in results] == list(texts.values())


async def write(client: InferenceServerClient) -> None:
    """Two requests on one stream; the same seed gives the same text."""
    texts = {"first": "", "second": ""}
    responses = 0
    async for result, error in client.stream_infer(infer(list(texts))):
        assert error is None, error
        texts[result.get_response().id] += "".join(texts_of(result, "text"))
        responses += 1
    print(f"prose, {responses} responses: {texts['first']!r}")
    assert texts["first"] == texts["second"]
    whole = await client.infer("prose", [one_text("prompt", PROMPT)], parameters=DRAWN)
    assert texts_of(whole, "text") == [texts["first"]]


async def infer(names: list[str]) -> AsyncIterator[Request]:
    for name in names:
        yield prose(name, DRAWN)


def prose(name: str, parameters: dict[str, Any]) -> Request:
    inputs = [one_text("prompt", PROMPT)]
    return {"model_name": "prose", "inputs": inputs, "request_id": name, "parameters": parameters}


async def end_with_a_mark(client: InferenceServerClient) -> None:
    """The last response with tokens says that it is the last."""
    finals = []
    async for result, error in client.stream_infer(infer(["only"])):
        assert error is None, error
        finals.append(is_final(result))
    assert finals == [False] * (len(finals) - 1) + [True]


async def go_on_after_an_error(client: InferenceServerClient) -> None:
    """An error is one answer among others; the requests after it are answered."""

    async def requests() -> AsyncIterator[Request]:
        yield prose("wrong", {"temperature": -1.0})
        yield prose("right", DRAWN)

    answers = [answer async for answer in client.stream_infer(requests())]
    errors = [error for _, error in answers if error is not None]
    assert len(errors) == 1, errors
    assert "temperature" in errors[0].message()
    assert {result.get_response().id for result, _ in answers if result} == {"right"}


async def give_up(client: InferenceServerClient) -> None:
    """A reader that has enough cancels; the server is ready for the next."""

    async def requests() -> AsyncIterator[Request]:
        yield prose("long", {**DRAWN, "max_tokens": 2000})

    answers = client.stream_infer(requests())
    async for result, error in answers:
        assert result is not None, error
        answers.cancel()
        break
    assert await client.is_server_ready()


async def main(target: str) -> None:
    async with InferenceServerClient(target) as client:
        await infer_side_by_side(client)
        await write(client)
        await end_with_a_mark(client)
        await go_on_after_an_error(client)
        await give_up(client)


if __name__ == "__main__":
    asyncio.run(main(*sys.argv[1:]))
