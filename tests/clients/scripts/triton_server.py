"""What tritonclient reads of the server and of its models.

python triton_server.py HOST:PORT
"""

from __future__ import annotations

import json
import sys

from refusals import refused
from tritonclient.grpc import InferenceServerClient

MODELS = {
    "sentiment", "nationality", "pos", "pos-online", "cloze", "g2p", "translate", "food", "prose",
    "monthly", "vowels", "vowels-online",
}  # fmt: skip


def print_the_server(client: InferenceServerClient) -> None:
    assert client.is_server_live()
    assert client.is_server_ready()
    server = client.get_server_metadata()
    print(f"{server.name} {server.version}: {', '.join(server.extensions)}")
    assert server.name
    assert server.version
    assert {"model_repository", "statistics"} <= set(server.extensions)
    ready = {entry.name for entry in client.get_model_repository_index().models}
    assert ready >= MODELS, ready


def print_models(client: InferenceServerClient) -> None:
    """Metadata and configuration name the same tensors."""
    for name in sorted(MODELS | {f"{name}.tensors" for name in MODELS}):
        assert client.is_model_ready(name), name
        metadata = client.get_model_metadata(name)
        config = client.get_model_config(name).config
        assert metadata.name == config.name == name
        assert metadata.versions, name
        assert [each.name for each in metadata.inputs] == [each.name for each in config.input]
        assert [each.name for each in metadata.outputs] == [each.name for each in config.output]
        takes = ", ".join(f"{i.name} {i.datatype} {list(i.shape)}" for i in metadata.inputs)
        print(f"{name}: {takes}; batches of up to {config.max_batch_size}")
    labels = client.get_model_config("sentiment").config.parameters["labels"].string_value
    assert set(json.loads(labels)) == {"negative", "positive"}
    assert client.get_model_config("prose").config.model_transaction_policy.decoupled


def print_unknown(client: InferenceServerClient) -> None:
    assert not client.is_model_ready("nobody")
    with refused("NOT_FOUND", "'nobody'"):
        client.get_model_metadata("nobody")


def main(target: str) -> None:
    with InferenceServerClient(target) as client:
        print_the_server(client)
        print_models(client)
        print_unknown(client)


if __name__ == "__main__":
    main(*sys.argv[1:])
