"""A resume token says nothing of the protocol that brought it."""

import base64
import itertools
import json

import grpc
import pytest

from tests.service.connect.conftest import Caller, enveloped, envelopes
from tests.service.openai.api import Api
from unroll.v1 import unroll_pb2 as pb
from unroll.v1 import unroll_pb2_grpc

WHOLE, HALF = 30, 17
REQUEST = {"model": "letters", "prompt": "abc"}


def over_grpc(target, fields):
    request = pb.GenerateRequest(
        model="letters", max_tokens=fields["max_tokens"], resume_at_end=True
    )
    if token := fields.get("resume_token"):
        request.resume_token = base64.b64decode(token)
    else:
        request.prompt, request.sampling.seed = fields["prompt"], fields["seed"]
    with grpc.insecure_channel(target) as channel:
        answers = list(unroll_pb2_grpc.UnrollServiceStub(channel).Generate(request, timeout=30))
    text = "".join(token.text for answer in answers for token in answer.tokens)
    (point,) = [point for answer in answers for point in answer.resume_points]
    return text, base64.b64encode(point.token).decode()


def over_connect(target, fields):
    request = {
        "model": "letters", "maxTokens": fields["max_tokens"], "resumeAtEnd": True,
        **{name: fields[name] for name in ("prompt",) if name in fields},
        **({"sampling": {"seed": str(fields["seed"])}} if "seed" in fields else {}),
        **({"resumeToken": fields["resume_token"]} if "resume_token" in fields else {}),
    }  # fmt: skip
    answer = Caller(target).ask(
        "/unroll.v1.UnrollService/Generate",
        enveloped(json.dumps(request).encode()),
        content_type="application/connect+json",
    )
    messages = [json.loads(message) for flags, message in envelopes(answer.body) if flags == 0]
    text = "".join(token["text"] for message in messages for token in message.get("tokens", ()))
    (point,) = [point for message in messages for point in message.get("resumePoints", ())]
    return text, point["token"]


def over_openai(target, fields):
    (choice,) = Api(target).complete(resume_at_end=True, **fields).content["choices"]
    return choice["text"], choice["resume_token"]


WAYS = {"gRPC": over_grpc, "Connect": over_connect, "OpenAI": over_openai}


@pytest.mark.parametrize(("first", "second"), list(itertools.permutations(WAYS, 2)))
def test_a_resume_token_goes_on_in_another_protocol(standing_service, first, second):
    target = standing_service.target
    begun = {**REQUEST, "seed": 7}
    whole, _ = WAYS[first](target, {**begun, "max_tokens": WHOLE})
    half, token = WAYS[first](target, {**begun, "max_tokens": HALF})
    left = {"model": "letters", "resume_token": token, "max_tokens": WHOLE - HALF}
    rest, _ = WAYS[second](target, left)
    assert half + rest == whole
    assert len(half) == HALF
