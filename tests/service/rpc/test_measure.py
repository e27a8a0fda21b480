"""Requests are counted before anything is made of them."""

import pytest

from service.engine.errors import WrongInput
from service.rpc.measure import resident_bytes
from unroll.inference import grpc_service_pb2 as inference_pb
from unroll.v1 import unroll_pb2 as pb


def cost(message):
    return resident_bytes(message, message.ByteSize())


def test_a_long_text_costs_by_its_bytes():
    assert cost(pb.ClassifyRequest(texts=["x" * 100_000])) < 13 * 100_000


def test_many_short_texts_cost_by_their_number():
    assert cost(pb.ClassifyRequest(texts=["abcdefgh" * 4] * 1000)) > 200 * 1000


def test_words_within_items_are_counted_too():
    items = [pb.TagItem(words=["a"] * 5000) for _ in range(10)]
    assert cost(pb.TagRequest(items=items)) > 200 * 50_000


@pytest.mark.parametrize(
    "message",
    [
        pb.TagRequest(items=[pb.TagItem()] * 20_000),
        pb.ScoreRequest(items=[pb.ScoreItem()] * 20_000),
        pb.ClassifyRequest(texts=[""] * 200_000),
        inference_pb.ModelInferRequest(
            inputs=[inference_pb.ModelInferRequest.InferInputTensor()] * 20_000
        ),
    ],
    ids=["tag", "score", "classify", "infer"],
)
def test_more_entries_than_any_request_may_have_are_refused_by_name(message):
    with pytest.raises(WrongInput, match=r"(items|texts|inputs) holds 200?_?000 entries"):
        cost(message)


def test_numbers_may_be_many():
    inputs = inference_pb.ModelInferRequest.InferInputTensor(
        contents=inference_pb.InferTensorContents(fp32_contents=[0.5] * 200_000)
    )
    assert cost(inference_pb.ModelInferRequest(inputs=[inputs])) > 200_000 * 4


def test_a_small_message_is_not_worth_counting():
    assert cost(pb.TagRequest(items=[pb.TagItem()] * 2000)) == 20 * 4000
