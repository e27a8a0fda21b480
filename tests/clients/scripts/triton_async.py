"""Many requests in flight with tritonclient's callbacks, each with its own answer.

python triton_async.py HOST:PORT
"""

from __future__ import annotations

import queue
import sys
from functools import partial

import numpy as np
from refusals import check_refusal
from tensors import batch_of_texts, texts_of
from tritonclient.grpc import InferenceServerClient, InferResult
from tritonclient.utils import InferenceServerException

TEXTS = (
    "The food was not bad, great in fact",
    "The food was not great, bad in fact",
    "the food is not good",
    "lovely people and a warm room",
)
REQUESTS = 200
WITHIN_SECONDS = 60

Answer = tuple[int, InferResult | None, InferenceServerException | None]


def send_many(client: InferenceServerClient) -> None:
    answers: queue.Queue[Answer] = queue.Queue()
    for number in range(REQUESTS):
        text = TEXTS[number % len(TEXTS)]
        inputs = [batch_of_texts("text", text)]
        client.async_infer(
            "sentiment", inputs, partial(keep, answers, number), request_id=str(number)
        )
    expected = [client.infer("sentiment", [batch_of_texts("text", text)]) for text in TEXTS]
    for _ in range(REQUESTS):
        number, result, error = answers.get(timeout=WITHIN_SECONDS)
        assert result is not None, error
        alone = expected[number % len(TEXTS)]
        assert result.get_response().id == str(number)
        assert texts_of(result, "label") == texts_of(alone, "label")
        np.testing.assert_array_equal(
            result.as_numpy("probabilities"), alone.as_numpy("probabilities")
        )
    print(f"{REQUESTS} requests in flight, each with the answer it gets alone")


def keep(
    answers: queue.Queue[Answer],
    number: int,
    result: InferResult | None,
    error: InferenceServerException | None,
) -> None:
    answers.put((number, result, error))


def receive_an_error(client: InferenceServerClient) -> None:
    answers: queue.Queue[Answer] = queue.Queue()
    client.async_infer("nobody", [batch_of_texts("text", "a")], partial(keep, answers, 0))
    _, result, error = answers.get(timeout=WITHIN_SECONDS)
    assert result is None
    check_refusal(error, "'nobody'")
    assert error.status() == "StatusCode.NOT_FOUND"


def give_one_up(client: InferenceServerClient) -> None:
    """A cancelled request calls back as such, and disturbs nobody."""
    answers: queue.Queue[Answer] = queue.Queue()
    inputs = [batch_of_texts("text", *["a " * 200] * 32)]
    client.async_infer("sentiment", inputs, partial(keep, answers, 0)).cancel()
    _, _, error = answers.get(timeout=WITHIN_SECONDS)
    check_refusal(error)
    assert error.status() == "StatusCode.CANCELLED"
    assert client.infer("sentiment", [batch_of_texts("text", "a")])


def main(target: str) -> None:
    with InferenceServerClient(target) as client:
        send_many(client)
        receive_an_error(client)
        give_one_up(client)


if __name__ == "__main__":
    main(*sys.argv[1:])
