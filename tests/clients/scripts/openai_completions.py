"""OpenAI's own package: completions, events, embeddings, models, and what it raises where it is
refused.

python openai_completions.py HOST:PORT TEXT, which is what Generate makes of REQUEST
python openai_completions.py HOST:PORT --key KEY, where keys are asked for
"""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Callable
from functools import partial

from openai import (
    APIError,
    AsyncOpenAI,
    AuthenticationError,
    BadRequestError,
    NotFoundError,
    OpenAI,
)

REQUEST = {"model": "prose", "prompt": "ROMEO:\n", "max_tokens": 60, "seed": 7, "temperature": 0.7}


def complete(client: OpenAI, expected: str) -> None:
    completion = client.completions.create(**REQUEST)
    (choice,) = completion.choices
    print(repr(choice.text), completion.usage)
    assert (choice.text, choice.finish_reason) == (expected, "length")
    assert completion.usage.completion_tokens == 60
    again = client.completions.create(**REQUEST)
    assert again.id != completion.id
    assert again.system_fingerprint == completion.system_fingerprint
    assert completion.system_fingerprint


def stream(client: OpenAI, expected: str) -> None:
    options = {"include_usage": True}
    with client.completions.create(**REQUEST, stream=True, stream_options=options) as events:
        *parts, last = list(events)
    assert "".join(part.choices[0].text for part in parts) == expected
    assert parts[-1].choices[0].finish_reason == "length"
    assert last.choices == []
    assert last.usage.total_tokens == 67
    # A caller that leaves in the midst of it.
    with client.completions.create(**REQUEST, stream=True) as events:
        next(iter(events))


def choose(client: OpenAI, expected: str) -> None:
    several = client.completions.create(**REQUEST, n=3, logprobs=2, echo=True)
    texts = [choice.text for choice in several.choices]
    assert texts[0] == f"ROMEO:\n{expected}"
    assert len(set(texts)) == 3
    for choice in several.choices:
        found = choice.logprobs
        assert "".join(found.tokens) == choice.text
        assert found.token_logprobs[0] is None
        assert all(value <= 0 for value in found.token_logprobs[1:])
        assert all(len(top) in (2, 3) for top in found.top_logprobs[7:])
        assert choice.text[found.text_offset[-1] :] == found.tokens[-1]
    prompts = client.completions.create(**{**REQUEST, "prompt": ["ROMEO:\n", "JULIET:\n"]})
    assert [choice.index for choice in prompts.choices] == [0, 1]
    assert prompts.choices[0].text == expected
    best = client.completions.create(model="prose", prompt="ROMEO:\n", best_of=4, n=2)
    assert len(best.choices) == 2


def stop(client: OpenAI, expected: str) -> None:
    end = expected[10:13]
    (choice,) = client.completions.create(**REQUEST, stop=[end]).choices
    assert (choice.text, choice.finish_reason) == (expected[: expected.index(end)], "stop")


def take_what_only_this_service_has(client: OpenAI, expected: str) -> None:
    half = client.completions.create(
        **{**REQUEST, "max_tokens": 20}, extra_body={"resume_at_end": True}
    )
    resumed = {"resume_token": half.choices[0].resume_token}
    rest = client.completions.create(model="prose", prompt=None, max_tokens=40, extra_body=resumed)
    assert half.choices[0].text + rest.choices[0].text == expected
    source = {"source": "word"}
    phones = client.completions.create(model="g2p", prompt=None, temperature=0, extra_body=source)
    print(phones.choices[0].text)
    assert phones.choices[0].text.split()[0] == "W"


def embed(client: OpenAI) -> None:
    """The package asks for base64 unless told otherwise, and decodes it with NumPy or without."""
    texts = ["To be, or not to be", "ROMEO:"]
    answer = client.embeddings.create(model="prose", input=texts)
    print(answer.usage, answer.data[0].embedding[:3])
    assert [each.index for each in answer.data] == [0, 1]
    assert answer.usage.prompt_tokens == sum(map(len, texts))
    for each in answer.data:
        assert len(each.embedding) == 512
        assert abs(sum(value * value for value in each.embedding) - 1) < 1e-5
    plain = client.embeddings.create(model="prose", input=texts[1], encoding_format="float")
    values = zip(plain.data[0].embedding, answer.data[1].embedding, strict=True)
    assert max(abs(one - other) for one, other in values) < 1e-7
    both = {"tensors": ["hidden_0", "hidden_1"]}
    longer = client.embeddings.create(model="prose", input="ROMEO:", extra_body=both)
    assert len(longer.data[0].embedding) == 1024


def list_models(client: OpenAI) -> None:
    models = {model.id: model for model in client.models.list()}
    print({name: model.task for name, model in models.items()})
    assert models["prose"].task == "generate"
    assert models["sentiment"].task == "classify"
    assert client.models.retrieve("prose").id == "prose"
    assert models["prose"].embeds


def be_refused(client: OpenAI) -> None:
    refused(client, NotFoundError, "no model 'nobody'", model="nobody")
    refused(client, BadRequestError, "temperature is -1; choose", temperature=-1)
    refused(client, BadRequestError, "unknown parameter: 'colour'", extra_body={"colour": 1})
    refused(client, BadRequestError, "call Classify", model="sentiment")
    refused(client, BadRequestError, "token ids are not read", prompt=[1, 2])
    refused(client, BadRequestError, "no suffix", suffix="end", stream=True)
    messages = [{"role": "user", "content": "hello"}]
    for call, request in (
        (client.chat.completions.create, {"messages": messages}),
        (client.responses.create, {"input": "hello"}),
    ):
        error = failure_of(partial(call, model="prose", **request))
        assert isinstance(error, NotFoundError), error
        assert "use /v1/completions" in error.message
    for request, words in (
        ({"model": "sentiment", "input": "good"}, "does not embed"),
        ({"model": "prose", "input": [1, 2]}, "token ids are not read"),
        ({"model": "prose", "input": "a", "dimensions": 8}, "leave it"),
    ):
        error = failure_of(partial(client.embeddings.create, **request))
        assert isinstance(error, BadRequestError), error
        assert words in error.message


def refused(client: OpenAI, kind: type[Exception], words: str, **changes: object) -> None:
    error = failure_of(partial(client.completions.create, **{**REQUEST, **changes}))
    print(f"{kind.__name__}: {error}")
    assert isinstance(error, kind), error
    assert words in str(error)
    assert error.type == "invalid_request_error"


def failure_of(call: Callable[[], object]) -> APIError | None:
    try:
        call()
    except APIError as error:
        return error
    return None


async def complete_side_by_side(target: str, expected: str) -> None:
    async with AsyncOpenAI(base_url=f"http://{target}/v1", api_key="any") as client:

        async def text() -> str:
            events = await client.completions.create(**REQUEST, stream=True)
            return "".join([event.choices[0].text async for event in events])

        assert await asyncio.gather(*(text() for _ in range(8))) == [expected] * 8


def prove_who_calls(target: str, key: str) -> None:
    url = f"http://{target}/v1"
    with OpenAI(base_url=url, api_key=key) as client:
        assert client.completions.create(**REQUEST).choices[0].text
        assert client.models.retrieve("prose").id == "prose"
    with OpenAI(base_url=url, api_key="nobody") as client:
        for call in (partial(client.completions.create, **REQUEST), client.models.list):
            error = failure_of(call)
            assert isinstance(error, AuthenticationError), error
            assert error.code == "invalid_api_key"


def main(target: str, expected: str) -> None:
    with OpenAI(base_url=f"http://{target}/v1", api_key="any") as client:
        complete(client, expected)
        stream(client, expected)
        choose(client, expected)
        stop(client, expected)
        take_what_only_this_service_has(client, expected)
        embed(client)
        list_models(client)
        be_refused(client)
    asyncio.run(complete_side_by_side(target, expected))


if __name__ == "__main__":
    if sys.argv[2] == "--key":
        prove_who_calls(sys.argv[1], sys.argv[3])
    else:
        main(*sys.argv[1:])
