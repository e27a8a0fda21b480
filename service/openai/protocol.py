"""The paths of OpenAI's API: those that are answered, and what to use instead of others.

Everything below /v1/ is its, so that a client reads why a part is missing.
"""

from __future__ import annotations

from typing import Any

from service.access.memory_budget import MemoryBudget
from service.asgi.events import Receive, Scope, Send
from service.asgi.http import HttpCalls
from service.engine.errors import RequestError
from service.openai.completions import Completions
from service.openai.embeddings import Embeddings
from service.openai.errors import Refusal
from service.openai.models import Models
from service.openai.openapi import document
from service.serving.registry import ModelRegistry

_PREFIX = "/v1/"
_COMPLETIONS, _EMBEDDINGS, _MODELS = "/v1/completions", "/v1/embeddings", "/v1/models"
_POSTED = (_COMPLETIONS, _EMBEDDINGS)
_MODEL = f"{_MODELS}/"
_INSTEAD = {
    "/v1/chat/completions": "these models continue text and know no chats; use /v1/completions",
    "/v1/responses": "these models continue text; use /v1/completions",
}
_OFFERED = f"use {_COMPLETIONS}, {_EMBEDDINGS} or {_MODELS}"
# Of a hash; enough to tell models apart.
_DIGITS = 12


class OpenAiProtocol:
    """A Protocol. registry: of the models that are served. budget: for answers that are kept.

    stall_seconds: how long a part of an answer may wait for its caller to read.
    """

    def __init__(
        self,
        calls: HttpCalls,
        registry: ModelRegistry,
        budget: MemoryBudget,
        stall_seconds: float,
    ) -> None:
        self._registry = registry
        self._completions = Completions(calls, self._fingerprint, budget, stall_seconds)
        self._embeddings = Embeddings(calls, stall_seconds)
        self._models = Models(calls)

    def openapi(self) -> dict[str, Any]:
        """As Described has it."""
        return document()

    def speaks(self, scope: Scope) -> bool:
        path: str = scope["path"]
        return path.startswith(_PREFIX)

    async def serve(self, scope: Scope, receive: Receive, send: Send) -> None:
        path, method = scope["path"], scope["method"]
        if path not in (*_POSTED, _MODELS) and not path.startswith(_MODEL):
            message = _INSTEAD.get(path) or f"{path[:100]} is not offered; {_OFFERED}"
            await Refusal(404, message, code="unsupported_endpoint").send(send)
        elif method != (allowed := "POST" if path in _POSTED else "GET"):
            await _refuse_method(send, method, path, allowed)
        elif path == _COMPLETIONS:
            await self._completions.serve(scope, receive, send)
        elif path == _EMBEDDINGS:
            await self._embeddings.serve(scope, receive, send)
        elif path == _MODELS:
            await self._models.list(scope, receive, send)
        else:
            await self._models.get(scope, receive, send, path.removeprefix(_MODEL))

    def _fingerprint(self, model: str, version: str) -> str:
        """Of everything beside the request that decides which tokens a seed gives."""
        try:
            card = self._registry.get(model, version).card
        except RequestError:
            return ""
        return f"{card.digest[:_DIGITS]}-{card.precision}-{card.fingerprint[:_DIGITS]}"


async def _refuse_method(send: Send, method: str, path: str, allowed: str) -> None:
    message = f"{path[:100]} takes {allowed}, not {method[:20]}; send that"
    await Refusal(405, message, headers=((b"allow", allowed.encode()),)).send(send)
