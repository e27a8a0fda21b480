"""Tokens as they come with tritonclient: one stream, any number of requests, matched by id.

python triton_stream.py HOST:PORT
"""

from __future__ import annotations

import json
import queue
import sys
from collections import defaultdict
from typing import Any

import numpy as np
from refusals import check_refusal
from tensors import batch_of_texts, is_final, one_text, tensor, texts_of
from tritonclient.grpc import InferenceServerClient, InferInput, InferResult
from tritonclient.utils import InferenceServerException

WITHIN_SECONDS = 60
PROMPT = "ROMEO:\n"
DRAWN = {"max_tokens": 30, "temperature": 0.7, "seed": 7}

Answer = tuple[InferResult | None, InferenceServerException | None]


class Stream:
    """One open stream. Answers come on a thread of tritonclient's."""

    def __init__(self, client: InferenceServerClient) -> None:
        self.client = client
        self.answers: queue.Queue[Answer] = queue.Queue()
        client.start_stream(lambda result, error: self.answers.put((result, error)))

    def send(self, model: str, tensor: InferInput, name: str, **settings: Any) -> None:
        """settings: what the model is to do, such as temperature=0."""
        self.client.async_stream_infer(
            model,
            [tensor],
            request_id=name,
            parameters=settings,
            enable_empty_final_response=True,
        )

    def until_final(self, names: set[str]) -> dict[str, list[InferResult]]:
        """Every response with something in it, by request; the empty last ones are left out."""
        pieces: dict[str, list[InferResult]] = defaultdict(list)
        while names:
            result, error = self.answers.get(timeout=WITHIN_SECONDS)
            assert result is not None, error
            name = result.get_response().id
            assert name in names, f"{name!r} goes on after its final response"
            if result.get_response().outputs:
                pieces[name].append(result)
            if is_final(result):
                names = names - {name}
        return pieces


def text_of(pieces: list[InferResult]) -> str:
    return "".join(text for piece in pieces for text in texts_of(piece, "text"))


def write_token_by_token(stream: Stream) -> None:
    stream.send("prose", one_text("prompt", PROMPT), "one", **DRAWN)
    pieces = stream.until_final({"one"})["one"]
    tokens = np.concatenate([piece.as_numpy("tokens") for piece in pieces])
    print(f"prose, {len(pieces)} responses: {text_of(pieces)!r}")
    assert len(pieces) > 1
    assert len(tokens) == DRAWN["max_tokens"]
    whole = stream.client.infer("prose", [one_text("prompt", PROMPT)], parameters=DRAWN)
    assert text_of(pieces) == texts_of(whole, "text")[0]
    np.testing.assert_array_equal(tokens, whole.as_numpy("tokens"))


def write_side_by_side(stream: Stream) -> None:
    """Requests on one stream run together; the same seed gives the same text."""
    seeds = {"a": 1, "b": 2, "c": 1, "d": 3}
    for name, seed in seeds.items():
        stream.send("prose", one_text("prompt", PROMPT), name, **{**DRAWN, "seed": seed})
    texts = {name: text_of(pieces) for name, pieces in stream.until_final(set(seeds)).items()}
    assert texts["a"] == texts["c"]
    assert len(set(texts.values())) == 3


def call_several_models(stream: Stream) -> None:
    stream.send("g2p", one_text("source", "unrolled"), "sounds", temperature=0.0)
    stream.send("food", tensor("vector", cheddar(stream.client)), "food", temperature=0.0)
    stream.send("sentiment", batch_of_texts("text", "very good"), "label")
    pieces = stream.until_final({"sounds", "food", "label"})
    print(f"g2p: {text_of(pieces['sounds'])!r}, food: {text_of(pieces['food'])!r}")
    for name in ("sounds", "food"):
        assert text_of(pieces[name])
        assert texts_of(pieces[name][-1], "finish_reason") == ["end"]
    (answer,) = pieces["label"]
    assert texts_of(answer, "label") == ["positive"]


def cheddar(client: InferenceServerClient) -> np.ndarray:
    """The vector of 100 g of cheddar, as far as these fields go."""
    known = {"Protein (g)": 22.87, "Total lipid (fat) (g)": 33.31, "Calcium, Ca (mg)": 710.0}
    known |= {"Energy (kcal)": 404.0, "Water (g)": 37.02, "Sodium, Na (mg)": 653.0}
    fields = client.get_model_config("food").config.parameters["vector_fields"].string_value
    return np.array([known.get(field, np.nan) for field in json.loads(fields)], np.float32)


def go_on_after_an_error(stream: Stream) -> None:
    """An error comes in-band, with the callback; the stream stays open."""
    stream.send("prose", one_text("prompt", PROMPT), "wrong", temperature=-1.0)
    result, error = stream.answers.get(timeout=WITHIN_SECONDS)
    print(f"in-band: {error}")
    assert result is None
    check_refusal(error, "temperature")
    stream.send("prose", one_text("prompt", PROMPT), "right", **DRAWN)
    assert stream.until_final({"right"})["right"]


def give_up(client: InferenceServerClient) -> None:
    """Leaving a stream ends what runs on it; the client can open another one."""
    stream = Stream(client)
    stream.send("prose", one_text("prompt", PROMPT), "long", **{**DRAWN, "max_tokens": 2000})
    result, error = stream.answers.get(timeout=WITHIN_SECONDS)
    assert result is not None, error
    client.stop_stream(cancel_requests=True)
    assert client.is_server_ready()


def main(target: str) -> None:
    with InferenceServerClient(target) as client:
        stream = Stream(client)
        write_token_by_token(stream)
        write_side_by_side(stream)
        call_several_models(stream)
        go_on_after_an_error(stream)
        client.stop_stream()
        assert stream.answers.empty()
        give_up(client)


if __name__ == "__main__":
    main(*sys.argv[1:])
