"""Tokens that leave at once are the responses that they would be otherwise, byte for byte."""

import random

import numpy as np
import pytest

from service.engine.requests import TokenMade, TokensMade
from service.oip.direct import DirectCall, DirectResponses
from service.oip.plans import Plan
from service.oip.token_responses import DirectTokens, result_of
from unroll.inference import grpc_service_pb2 as pb

PIECES = ["a", "b", "", "é", "\ud800", "word", "€" * 50]
REQUEST = pb.ModelInferRequest(model_name="letters", id="7", raw_input_contents=[b"x"])
ALL = ("text", "tokens", "log_probabilities", "finish_reason")


def response_of(plan, result):
    """As the handler makes it."""
    arrays = {name: result.outputs[name] for name in plan.outputs}
    response = plan.response(REQUEST, "1", arrays)
    response.parameters["triton_final_response"].bool_param = False
    return response


def direct(plan, written):
    def head_of(result):
        response = response_of(plan, result)
        del response.raw_output_contents[:]
        return response.SerializeToString()

    call = DirectCall(lambda: True, written.append)
    return DirectTokens(DirectResponses(call, tuple(plan.outputs), head_of))


def made(draw, position, count):
    tokens = [draw.randrange(len(PIECES)) for _ in range(count)]
    known = [-draw.expovariate(1.0) for _ in range(count)]
    return TokensMade(tokens, known, position, 0, PIECES)


@pytest.mark.parametrize("outputs", [ALL, ("tokens",), ("finish_reason", "text")])
def test_the_bytes_are_those_of_protobuf(outputs):
    draw = random.Random(5)
    plan, written = Plan((), dict.fromkeys(outputs, 0)), []
    writer = direct(plan, written)
    for count in (1, 2, 3, 30, 1, 64):
        several = made(draw, 9, count)
        one_by_one = several.one_by_one()
        writer.write([several])
        writer.write(one_by_one)
        response = response_of(plan, result_of(one_by_one, {}))
        expected = pb.ModelStreamInferResponse(infer_response=response).SerializeToString()
        assert written == [expected, expected]
        del written[:]


def test_a_message_of_events_of_both_kinds_has_all_of_their_tokens():
    draw = random.Random(6)
    plan, written = Plan((), dict.fromkeys(ALL, 0)), []
    first, then = made(draw, 1, 3), TokenMade(1, "b", 4, -0.5)
    direct(plan, written).write([first, then])
    (data,) = written
    found = pb.ModelStreamInferResponse.FromString(data).infer_response
    assert np.frombuffer(found.raw_output_contents[1], "<i8").tolist() == [*first.tokens, 1]
