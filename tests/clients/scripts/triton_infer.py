"""One request, one answer with tritonclient: texts, ids, states, the likeliest labels.

python triton_infer.py HOST:PORT
"""

from __future__ import annotations

import sys

import numpy as np
from refusals import refused
from tensors import batch_of_texts, one_text, tensor, texts_of
from tritonclient.grpc import InferenceServerClient, InferRequestedOutput, InferResult

GOOD, BAD = "The food was not bad, great in fact", "The food was not great, bad in fact"


def classify(client: InferenceServerClient) -> None:
    inputs = [batch_of_texts("text", GOOD, BAD, "the food is not good")]
    result = client.infer("sentiment", inputs, request_id="three")
    labels = texts_of(result, "label")
    print(f"sentiment: {labels}, {result.as_numpy('probability').reshape(-1)}")
    assert result.get_response().id == "three"
    assert labels == ["positive", "negative", "negative"]
    probabilities = result.as_numpy("probabilities")
    assert probabilities.shape == (3, 2)
    np.testing.assert_allclose(probabilities.sum(axis=1), 1, rtol=1e-5)
    alone = client.infer("sentiment", [batch_of_texts("text", BAD)])
    np.testing.assert_array_equal(alone.as_numpy("probabilities")[0], probabilities[1])


def print_the_likeliest(client: InferenceServerClient) -> None:
    """Triton's classification extension: VALUE:INDEX:LABEL, the likeliest first."""
    outputs = [InferRequestedOutput("probabilities", class_count=2)]
    result = client.infer("sentiment", [batch_of_texts("text", GOOD, BAD)], outputs=outputs)
    classes = result.as_numpy("probabilities")
    print(f"two classes each: {classes.tolist()}")
    assert classes.shape == (2, 2)
    for row, expected in zip(classes, ("positive", "negative"), strict=True):
        values, _, labels = zip(*(entry.decode().split(":") for entry in row), strict=True)
        assert labels[0] == expected
        assert float(values[0]) >= float(values[1])
    assert result.as_numpy("label") is None


def predict_from_ids(client: InferenceServerClient) -> None:
    """Ids instead of texts; lengths say where each row ends."""
    tokens = np.array([[5, 6, 7, 8], [9, 10, 0, 0]])
    inputs = [tensor("tokens", tokens), tensor("lengths", np.array([[4], [2]]))]
    both = client.infer("sentiment.tensors", inputs)
    shorter = [tensor("tokens", tokens[1:, :2]), tensor("lengths", np.array([[2]]))]
    alone = client.infer("sentiment.tensors", shorter)
    for name in ("probabilities", "logits"):
        np.testing.assert_array_equal(both.as_numpy(name)[1], alone.as_numpy(name)[0])
    expected = np.exp(both.as_numpy("logits").astype(np.float64))
    np.testing.assert_allclose(both.as_numpy("probabilities"), expected, rtol=1e-5)


def carry_a_state(client: InferenceServerClient) -> None:
    """Two calls, the second from the state that the first returned, equal one with both tokens."""
    whole = read_prose(client, [12, 7])
    first = read_prose(client, [12])
    response = first.get_response()
    returned = [each.name for each in response.outputs if each.name.startswith("next_")]
    assert returned, "no state came back"
    state = {name.removeprefix("next_"): first.as_numpy(name) for name in returned}
    second = read_prose(client, [7], state)
    print(f"prose.tensors carries {', '.join(f'{n} {a.shape}' for n, a in state.items())}")
    for name in ("logits", *returned):
        np.testing.assert_array_equal(second.as_numpy(name), whole.as_numpy(name))


def read_prose(
    client: InferenceServerClient, ids: list[int], state: dict[str, np.ndarray] | None = None
) -> InferResult:
    inputs = [tensor("tokens", np.array([ids])), tensor("lengths", np.array([[len(ids)]]))]
    inputs += [tensor(name, array) for name, array in (state or {}).items()]
    return client.infer("prose.tensors", inputs)


def generate_at_once(client: InferenceServerClient) -> None:
    """Without a stream the whole text comes in one answer."""
    parameters = {"max_tokens": 40, "temperature": 0.7, "seed": 7}
    texts = []
    for _ in range(2):
        result = client.infer("prose", [one_text("prompt", "ROMEO:\n")], parameters=parameters)
        texts += texts_of(result, "text")
        assert result.as_numpy("tokens").shape == (40,)
        assert texts_of(result, "finish_reason") == ["length"]
    print(f"prose: {texts[0]!r}")
    assert texts[0] == texts[1]


def refuse(client: InferenceServerClient) -> None:
    """Errors have a status and say what is wrong; the next request is answered."""
    with refused("NOT_FOUND", "'nobody'"):
        client.infer("nobody", [batch_of_texts("text", GOOD)])
    with refused("INVALID_ARGUMENT", "'texts'"):
        client.infer("sentiment", [batch_of_texts("texts", GOOD)])
    assert client.infer("sentiment", [batch_of_texts("text", GOOD)])


def main(target: str) -> None:
    with InferenceServerClient(target) as client:
        classify(client)
        print_the_likeliest(client)
        predict_from_ids(client)
        carry_a_state(client)
        generate_at_once(client)
        refuse(client)


if __name__ == "__main__":
    main(*sys.argv[1:])
