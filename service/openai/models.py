"""The models, as OpenAI's clients list them."""

from __future__ import annotations

import json
import time
from typing import Any

from service.asgi.events import Receive, Scope, Send
from service.asgi.http import HttpCalls
from service.asgi.request import Body
from service.openai.errors import refusal_of
from service.openai.sending import send_json
from service.rpc.status import OK
from unroll.v1 import unroll_pb2 as pb

_LIST = "/unroll.v1.UnrollService/ListModels"
_GET = "/unroll.v1.UnrollService/GetModel"


class Models:
    def __init__(self, calls: HttpCalls) -> None:
        self._calls = calls
        # Of every model: a bundle does not say when it was made.
        self._created = int(time.time())

    async def list(self, scope: Scope, receive: Receive, send: Send) -> None:
        response = await self._ask(scope, receive, send, _LIST, pb.ListModelsRequest())
        if response is not None:
            # Of a model that is served in several versions, the one that calls get.
            newest = {model.name: model for model in sorted(response.models, key=_version)}
            data = [self._model(model) for model in newest.values()]
            await _send(send, {"object": "list", "data": data})

    async def get(self, scope: Scope, receive: Receive, send: Send, name: str) -> None:
        response = await self._ask(scope, receive, send, _GET, pb.GetModelRequest(name=name))
        if response is not None:
            await _send(send, self._model(response.model))

    async def _ask(
        self, scope: Scope, receive: Receive, send: Send, path: str, request: Any
    ) -> Any:
        """The response; None where a refusal was sent instead."""

        async def read(body: Body) -> Any:
            return request

        async def write(response: Any) -> None:
            raise AssertionError("a call with one answer writes nothing")

        response, status = await self._calls.call(scope, receive, path, read, write, "openai")
        if status is OK:
            return response
        await refusal_of(status, "model").send(send)
        return None

    def _model(self, model: pb.Model) -> dict[str, Any]:
        shown = {
            "id": model.name,
            "object": "model",
            "created": self._created,
            "owned_by": "unroll",
            "task": pb.Task.Name(model.task).removeprefix("TASK_").lower(),
            "version": model.version,
            "description": model.description,
            "limits": dict(model.limits),
        }
        if model.embeds:
            shown["embeds"] = True
        if model.vector_fields:
            shown["vector_fields"] = list(model.vector_fields)
        return shown


def _version(model: pb.Model) -> tuple[str, int]:
    return model.name, int(model.version)


async def _send(send: Send, content: dict[str, Any]) -> None:
    await send_json(send, 200, json.dumps(content, separators=(",", ":")).encode())
