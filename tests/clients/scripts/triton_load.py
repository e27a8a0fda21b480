"""Unloading and loading a model with tritonclient.

python triton_load.py HOST:PORT
"""

from __future__ import annotations

import sys

from refusals import refused
from tensors import batch_of_texts, texts_of
from tritonclient.grpc import InferenceServerClient

MODEL, NAME, LABEL = "nationality", "Sergei Ivanov", "Russian"


def state_of(client: InferenceServerClient) -> set[str]:
    index = client.get_model_repository_index().models
    return {f"{entry.state} {entry.reason}".strip() for entry in index if entry.name == MODEL}


def main(target: str) -> None:
    with InferenceServerClient(target) as client:
        before = texts_of(client.infer(MODEL, [batch_of_texts("text", NAME)]), "label")
        assert state_of(client) == {"READY"}
        client.unload_model(MODEL)
        print(f"unloaded: {state_of(client)}")
        assert state_of(client) == {"UNAVAILABLE unloaded"}
        assert not client.is_model_ready(MODEL)
        assert client.is_model_ready("sentiment")
        with refused("NOT_FOUND", MODEL):
            client.infer(MODEL, [batch_of_texts("text", NAME)])
        client.load_model(MODEL)
        assert state_of(client) == {"READY"}
        assert client.is_model_ready(MODEL)
        after = texts_of(client.infer(MODEL, [batch_of_texts("text", NAME)]), "label")
        assert before == after == [LABEL]


if __name__ == "__main__":
    main(*sys.argv[1:])
