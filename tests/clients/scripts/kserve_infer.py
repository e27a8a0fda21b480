"""KServe's Python client: health, texts in typed contents, ids in raw ones.

python kserve_infer.py HOST:PORT
"""

from __future__ import annotations

import asyncio
import sys

import grpc
import numpy as np
from kserve import InferenceGRPCClient, InferInput, InferRequest

TEXTS = ("The food was not bad, great in fact", "The food was not great, bad in fact")
LABELS = ["positive", "negative"]


async def check_ready(client: InferenceGRPCClient) -> None:
    assert await client.is_server_live()
    assert await client.is_server_ready()
    assert await client.is_model_ready("sentiment")
    assert not await client.is_model_ready("nobody")


async def classify_typed(client: InferenceGRPCClient) -> None:
    """A list travels as typed contents, and so does the answer."""
    text = InferInput("text", [len(TEXTS), 1], "BYTES", list(TEXTS))
    request = InferRequest(model_name="sentiment", infer_inputs=[text], request_id="typed")
    response = await client.infer(request)
    labels = [label.decode() for label in response.get_output_by_name("label").data]
    print(f"typed: {labels}")
    assert response.id == "typed"
    assert labels == LABELS
    assert response.get_output_by_name("probabilities").as_numpy().shape == (2, 2)


async def classify_raw(client: InferenceGRPCClient) -> None:
    """An array travels as raw contents, and so does the answer."""
    text = InferInput("text", [len(TEXTS), 1], "BYTES")
    text.set_data_from_numpy(np.array([[each.encode()] for each in TEXTS], dtype=object))
    response = await client.infer(InferRequest(model_name="sentiment", infer_inputs=[text]))
    labels = response.get_output_by_name("label").as_numpy()
    print(f"raw: {labels.reshape(-1).tolist()}")
    assert [label.decode() for label in labels.reshape(-1)] == LABELS


async def predict_from_ids(client: InferenceGRPCClient) -> None:
    ids = InferInput("tokens", [1, 4], "INT64", [5, 6, 7, 8])
    length = InferInput("lengths", [1], "INT64", [4])
    request = InferRequest(model_name="sentiment.tensors", infer_inputs=[ids, length])
    response = await client.infer(request)
    probabilities = response.get_output_by_name("probabilities").as_numpy()
    np.testing.assert_allclose(probabilities.sum(), 1, rtol=1e-5)


async def generate(client: InferenceGRPCClient) -> None:
    """Parameters of requests are whole numbers and texts in this client: "0.7" is a number too."""
    prompt = InferInput("prompt", [1], "BYTES", ["ROMEO:\n"])
    parameters = {"max_tokens": 30, "temperature": "0.7", "seed": 7}
    request = InferRequest(model_name="prose", infer_inputs=[prompt], parameters=parameters)
    response = await client.infer(request)
    print(f"prose: {response.get_output_by_name('text').data}")
    assert len(response.get_output_by_name("tokens").data) == 30


async def be_refused(client: InferenceGRPCClient) -> None:
    text = InferInput("text", [1, 1], "BYTES", ["a"])
    status = grpc.StatusCode.OK
    try:
        await client.infer(InferRequest(model_name="nobody", infer_inputs=[text]))
    except grpc.RpcError as error:
        status = error.code()
    assert status == grpc.StatusCode.NOT_FOUND


async def main(target: str) -> None:
    async with InferenceGRPCClient(target) as client:
        await check_ready(client)
        await classify_typed(client)
        await classify_raw(client)
        await predict_from_ids(client)
        await generate(client)
        await be_refused(client)


if __name__ == "__main__":
    asyncio.run(main(*sys.argv[1:]))
