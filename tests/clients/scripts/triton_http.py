"""tritonclient over HTTP: what it reads of the server, requests in binary and in JSON, refusals.

python triton_http.py HOST:PORT
"""

from __future__ import annotations

import asyncio
import json
import sys
from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
from tritonclient.http import (
    InferenceServerClient,
    InferInput,
    InferRequestedOutput,
    InferResult,
)
from tritonclient.http.aio import InferenceServerClient as AsyncClient
from tritonclient.utils import InferenceServerException

GOOD, BAD = "The food was not bad, great in fact", "The food was not great, bad in fact"
MODELS = {
    "sentiment", "nationality", "pos", "pos-online", "cloze", "g2p", "translate", "food", "prose",
    "monthly", "vowels", "vowels-online",
}  # fmt: skip
DRAWN = {"max_tokens": 30, "temperature": "0.7", "seed": 7}


@contextmanager
def refused(status: int, *words: str) -> Iterator[None]:
    """The block fails with a status of HTTP and a message that holds ``words``."""
    caught: InferenceServerException | None = None
    try:
        yield
    except InferenceServerException as error:
        caught = error
    assert caught is not None, "it was answered"
    print(f"{caught.status()}: {caught.message()}")
    assert caught.status() == str(status)
    assert all(word in caught.message() for word in words), caught.message()


def tensor(name: str, array: np.ndarray, in_binary: bool = True) -> InferInput:
    datatype = {"int64": "INT64", "float32": "FP32", "object": "BYTES"}[str(array.dtype)]
    made = InferInput(name, list(array.shape), datatype)
    made.set_data_from_numpy(array, binary_data=in_binary)
    return made


def texts(name: str, *values: str, in_binary: bool = True) -> InferInput:
    """BYTES of shape [batch, 1]."""
    return tensor(name, np.array([[v.encode()] for v in values], dtype=object), in_binary)


def one_text(name: str, value: str) -> InferInput:
    """BYTES of shape [1]."""
    return tensor(name, np.array([value.encode()], dtype=object))


def texts_of(result: InferResult, name: str) -> list[str]:
    values = result.as_numpy(name).reshape(-1)
    return [v if isinstance(v, str) else v.decode() for v in values]


def read_the_server(client: InferenceServerClient) -> None:
    assert client.is_server_live()
    assert client.is_server_ready()
    assert client.get_server_metadata()["name"] == "unroll"
    ready = {one["name"] for one in client.get_model_repository_index() if one["state"] == "READY"}
    assert ready >= MODELS, ready
    for name in sorted(MODELS | {f"{name}.tensors" for name in MODELS}):
        assert client.is_model_ready(name), name
        assert client.is_model_ready(name, "1"), name
        metadata, config = client.get_model_metadata(name), client.get_model_config(name)
        assert metadata["name"] == config["name"] == name
        for kind in ("input", "output"):
            assert [t["name"] for t in metadata[f"{kind}s"]] == [t["name"] for t in config[kind]]
    labels = client.get_model_config("sentiment")["parameters"]["labels"]["string_value"]
    assert set(json.loads(labels)) == {"negative", "positive"}
    assert client.get_model_config("prose")["model_transaction_policy"]["decoupled"]
    assert not client.is_model_ready("nobody")
    with refused(404, "'nobody'"):
        client.get_model_metadata("nobody")


def classify(client: InferenceServerClient) -> None:
    """Binary or JSON, in and out, compressed or not: the same answer."""
    answers = []
    for in_binary in (True, False):
        for encoding in (None, "gzip", "deflate"):
            outputs = [
                InferRequestedOutput("label", binary_data=in_binary),
                InferRequestedOutput("probabilities", binary_data=not in_binary),
            ]
            result = client.infer(
                "sentiment",
                [texts("text", *[GOOD, BAD] * 20, in_binary=in_binary)],
                outputs=outputs,
                request_id="both",
                request_compression_algorithm=encoding,
                response_compression_algorithm=encoding,
            )
            assert result.get_response()["id"] == "both"
            assert texts_of(result, "label") == ["positive", "negative"] * 20
            answers.append(result.as_numpy("probabilities"))
    assert all(np.array_equal(answers[0], other) for other in answers)
    print(f"sentiment, {len(answers)} ways: {answers[0][:2].tolist()}")
    # Without outputs it asks for all of them in binary.
    result = client.infer("sentiment", [texts("text", GOOD)], model_version="1", priority=1)
    assert result.as_numpy("probabilities").dtype == np.float32


def print_the_likeliest(client: InferenceServerClient) -> None:
    outputs = [InferRequestedOutput("probabilities", class_count=2)]
    classes = client.infer("sentiment", [texts("text", GOOD)], outputs=outputs)
    values = texts_of(classes, "probabilities")
    print(f"the likeliest: {values}")
    assert [value.split(":")[2] for value in values] == ["positive", "negative"]


def tag_and_fill(client: InferenceServerClient) -> None:
    tagged = client.infer("pos", [texts("text", "the food was good", "good")])
    assert tagged.as_numpy("lengths").reshape(-1).tolist() == [4, 1]
    assert texts_of(tagged, "tokens")[:4] == ["the", "food", "was", "good"]
    filled = client.infer("cloze", [texts("text", "the man ___ home")], parameters={"top_words": 3})
    print(f"cloze: {texts_of(filled, 'words')}")
    assert filled.as_numpy("words").shape == (1, 3)


def predict_from_ids(client: InferenceServerClient) -> None:
    tokens, lengths = np.array([[5, 6, 7, 8], [9, 10, 0, 0]]), np.array([[4], [2]])
    inputs = [tensor("tokens", tokens), tensor("lengths", lengths, in_binary=False)]
    both = client.infer("sentiment.tensors", inputs)
    shorter = [tensor("tokens", tokens[1:, :2]), tensor("lengths", lengths[1:])]
    alone = client.infer("sentiment.tensors", shorter)
    for name in ("probabilities", "logits"):
        np.testing.assert_array_equal(both.as_numpy(name)[1], alone.as_numpy(name)[0])


def generate(client: InferenceServerClient) -> None:
    drawn = [
        texts_of(client.infer("prose", [one_text("prompt", "ROMEO:\n")], parameters=DRAWN), "text")
        for _ in range(2)
    ]
    print(f"prose: {drawn[0]}")
    assert drawn[0] == drawn[1]
    sounds = client.infer("g2p", [one_text("source", "unrolled")], parameters={"temperature": 0.0})
    assert texts_of(sounds, "finish_reason") == ["end"]


def go_on(client: InferenceServerClient) -> None:
    """Two requests of a sequence, by number and by name, equal one with both words."""
    whole = texts_of(client.infer("pos-online", [texts("text", "the food")]), "labels")
    for number in (77, "seventy"):
        halves = [
            client.infer(
                "pos-online", [texts("text", word)],
                sequence_id=number, sequence_start=word == "the", sequence_end=word == "food",
            )
            for word in ("the", "food")
        ]  # fmt: skip
        assert [label for half in halves for label in texts_of(half, "labels")] == whole


def count(client: InferenceServerClient) -> None:
    def successes() -> int:
        (stats,) = client.get_inference_statistics("nationality")["model_stats"]
        return stats["inference_stats"]["success"]["count"]

    before = successes()
    for request in [
        client.async_infer("nationality", [texts("text", "Tanaka")]) for _ in range(20)
    ]:
        assert texts_of(request.get_result(), "label")
    assert successes() - before == 20
    names = {one["name"] for one in client.get_inference_statistics()["model_stats"]}
    assert names >= MODELS


def control(client: InferenceServerClient) -> None:
    before = client.get_log_settings()
    assert client.update_log_settings({"log_info": True})["log_info"] is True
    client.update_log_settings(before)
    client.unload_model("nationality")
    assert not client.is_model_ready("nationality")
    client.load_model("nationality")
    assert client.is_model_ready("nationality")
    with refused(501, "shared memory"):
        client.get_system_shared_memory_status()
    with refused(501, "traces"):
        client.get_trace_settings()


def refuse(client: InferenceServerClient) -> None:
    """Errors have a status and say what is wrong; the next request is answered."""
    with refused(404, "'nobody'"):
        client.infer("nobody", [texts("text", GOOD)])
    with refused(400, "'texts'"):
        client.infer("sentiment", [texts("texts", GOOD)])
    with refused(504, "timeout"):
        client.infer("prose", [one_text("prompt", "A")], timeout=1)
    assert client.infer("sentiment", [texts("text", GOOD)])


async def side_by_side(target: str) -> None:
    async with AsyncClient(target) as client:
        assert await client.is_server_ready()
        results = await asyncio.gather(
            *(client.infer("sentiment", [texts("text", text)]) for text in (GOOD, BAD) * 20)
        )
        labels = [texts_of(result, "label")[0] for result in results]
        assert labels == ["positive", "negative"] * 20


def main(target: str) -> None:
    with InferenceServerClient(target, concurrency=4) as client:
        for part in (
            read_the_server, classify, print_the_likeliest, tag_and_fill, predict_from_ids,
            generate, go_on, count, control, refuse,
        ):  # fmt: skip
            part(client)
    asyncio.run(side_by_side(target))


if __name__ == "__main__":
    main(*sys.argv[1:])
