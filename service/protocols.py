"""The protocols of the port beside gRPC, in the order in which each is asked for a request."""

from __future__ import annotations

from service.asgi.application import Protocol
from service.asgi.http import HttpCalls
from service.front_end import FrontEndSettings
from service.openai.protocol import OpenAiProtocol
from service.rest.protocol import RestProtocol
from service.services import Services


def protocols_of(services: Services, settings: FrontEndSettings) -> list[Protocol]:
    calls = HttpCalls(services.http_methods, services.pipeline, settings)
    budget = services.pipeline.admission.budget
    return [
        RestProtocol(calls, services.infer_handler, budget),
        OpenAiProtocol(calls, services.registry, budget, settings.stall_seconds),
    ]
