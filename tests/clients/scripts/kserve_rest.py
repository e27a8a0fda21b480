"""KServe's Python client over REST: health, texts in JSON, ids in binary, generated text.

python kserve_rest.py HOST:PORT
"""

from __future__ import annotations

import asyncio
import sys

import httpx
import numpy as np
from kserve import InferenceRESTClient, InferInput, InferRequest, RESTConfig
from kserve.protocol.infer_type import RequestedOutput

TEXTS = ("The food was not bad, great in fact", "The food was not great, bad in fact")
LABELS = ["positive", "negative"]


async def check_ready(client: InferenceRESTClient, url: str) -> None:
    assert await client.is_server_live(url)
    assert await client.is_server_ready(url)
    assert await client.is_model_ready(url, "sentiment")
    assert not await client.is_model_ready(url, "nobody")


async def classify(client: InferenceRESTClient, url: str) -> None:
    """A list travels as JSON, an array as binary data; the answers are the same."""
    in_json = InferInput("text", [len(TEXTS), 1], "BYTES", list(TEXTS))
    in_binary = InferInput("text", [len(TEXTS), 1], "BYTES")
    array = np.array([[each.encode()] for each in TEXTS], dtype=object)
    in_binary.set_data_from_numpy(array, binary_data=True)
    for tensor in (in_json, in_binary):
        request = InferRequest(model_name="sentiment", infer_inputs=[tensor], request_id="both")
        response = await client.infer(url, request, model_name="sentiment")
        assert (response.id, response.model_name) == ("both", "sentiment")
        labels = response.get_output_by_name("label").data
        print(f"sentiment: {labels}")
        assert list(labels) == LABELS
        assert response.get_output_by_name("probabilities").as_numpy().shape == (2, 2)


async def predict_from_ids(client: InferenceRESTClient, url: str) -> None:
    ids = InferInput("tokens", [1, 4], "INT64")
    ids.set_data_from_numpy(np.array([[5, 6, 7, 8]]), binary_data=True)
    length = InferInput("lengths", [1], "INT64", [4])
    request = InferRequest(
        model_name="sentiment.tensors",
        infer_inputs=[ids, length],
        request_outputs=[RequestedOutput("probabilities", {"binary_data": True})],
    )
    response = await client.infer(url, request, model_name="sentiment.tensors")
    assert [output.name for output in response.outputs] == ["probabilities"]
    probabilities = response.get_output_by_name("probabilities").as_numpy()
    np.testing.assert_allclose(probabilities.sum(), 1, rtol=1e-5)


async def tag(client: InferenceRESTClient, url: str) -> None:
    """A dictionary is sent as it is."""
    text = {"name": "text", "shape": [1, 1], "datatype": "BYTES", "data": [["the food"]]}
    response = await client.infer(url, {"inputs": [text]}, model_name="pos")
    assert response.get_output_by_name("tokens").data == ["the", "food"]


async def generate(client: InferenceRESTClient, url: str) -> None:
    prompt = InferInput("prompt", [1], "BYTES", ["ROMEO:\n"])
    parameters = {"max_tokens": 30, "temperature": "0.7", "seed": 7}
    request = InferRequest(model_name="prose", infer_inputs=[prompt], parameters=parameters)
    response = await client.infer(url, request, model_name="prose")
    print(f"prose: {response.get_output_by_name('text').data}")
    assert len(response.get_output_by_name("tokens").data) == 30


async def be_refused(client: InferenceRESTClient, url: str) -> None:
    text = InferInput("text", [1, 1], "BYTES", ["a"])
    for model, tensor, status in (("nobody", text, 404), ("pos.tensors", text, 400)):
        request = InferRequest(model_name=model, infer_inputs=[tensor])
        caught = None
        try:
            await client.infer(url, request, model_name=model)
        except httpx.HTTPStatusError as error:
            caught = error
        assert caught is not None, "it was answered"
        print(caught)
        assert caught.response.status_code == status
        assert repr("nobody") in str(caught) or "'text'" in str(caught)


async def main(target: str) -> None:
    url = f"http://{target}"
    async with InferenceRESTClient(RESTConfig(protocol="v2")) as client:
        for part in (check_ready, classify, predict_from_ids, tag, generate, be_refused):
            await part(client, url)


if __name__ == "__main__":
    asyncio.run(main(*sys.argv[1:]))
