"""One request of /v1/embeddings: a call of Embed."""

from __future__ import annotations

import struct
from base64 import b64encode

from google.protobuf.message import Message

from service.asgi.events import Receive, Scope, Send, header
from service.asgi.http import HttpCalls
from service.asgi.request import Body
from service.engine.errors import WrongInput
from service.openai.choices import quoted
from service.openai.errors import FieldInvalid, refusal_of
from service.openai.fields import EmbeddingRequest, embedding_of
from service.openai.json_body import read_object
from service.openai.sending import patient, send_json
from service.rpc.status import OK
from service.serving.inputs import off_loop
from unroll.v1 import unroll_pb2 as pb

_EMBED = "/unroll.v1.UnrollService/Embed"


class Embeddings:
    """stall_seconds: how long a part of an answer may wait for its caller to read."""

    def __init__(self, calls: HttpCalls, stall_seconds: float) -> None:
        self._calls = calls
        self._stall_seconds = stall_seconds

    async def serve(self, scope: Scope, receive: Receive, send: Send) -> None:
        request: EmbeddingRequest | None = None
        wrong: FieldInvalid | None = None

        async def read(body: Body) -> Message:
            nonlocal request, wrong
            encoding = header(scope, b"content-encoding")
            content = read_object(await body.whole(b"" if encoding == b"identity" else encoding))
            try:
                request = embedding_of(content)
            except FieldInvalid as error:
                wrong = error
                raise WrongInput(str(error)) from None
            return request.embed

        async def write(response: Message) -> None:
            raise AssertionError("a call with one answer writes nothing")

        response, status = await self._calls.call(scope, receive, _EMBED, read, write, "openai")
        send_last = patient(send, self._stall_seconds)
        try:
            if status is not OK or request is None:
                param, code = (wrong.param, wrong.code) if wrong else (None, None)
                await refusal_of(status, param, code).send(send_last)
                return
            assert isinstance(response, pb.EmbedResponse), "what the method answers with"
            asked, answer = request, response
            size = sum(len(each.values) for each in answer.embeddings)
            body = await off_loop(size, lambda: _body(asked, answer))
            await send_json(send_last, 200, body)
        except TimeoutError:
            pass  # nobody reads the answer; it is broken off


def _body(request: EmbeddingRequest, response: pb.EmbedResponse) -> bytes:
    shown = _base64 if request.is_base64 else _numbers
    data = ",".join(
        f'{{"object":"embedding","index":{index},"embedding":{shown(each)}}}'
        for index, each in enumerate(response.embeddings)
    )
    tokens = sum(each.input_tokens for each in response.embeddings)
    return (
        f'{{"object":"list","data":[{data}],"model":{quoted(request.embed.model)}'
        f',"usage":{{"prompt_tokens":{tokens},"total_tokens":{tokens}}}}}'
    ).encode()


def _numbers(embedding: pb.Embedding) -> str:
    """With the digits that a float32 has."""
    return f"[{','.join([f'{value:.9g}' for value in embedding.values])}]"


def _base64(embedding: pb.Embedding) -> str:
    """As float32, little-endian."""
    data = struct.pack(f"<{len(embedding.values)}f", *embedding.values)
    return f'"{b64encode(data).decode()}"'
