"""The protocols of the port beside gRPC, in the order in which each is asked for a request."""

from __future__ import annotations

from service.asgi.application import Application, Protocol
from service.asgi.calls import CallServer
from service.asgi.cors import Cors, Origins
from service.asgi.events import Asgi
from service.asgi.http import HttpCalls
from service.asgi.openapi import Described, OpenApiProtocol
from service.asgi.pages import PagesProtocol
from service.connect.grpc_web import GrpcWebProtocol
from service.connect.protocol import ConnectProtocol
from service.connect.websocket import WebSocketProtocol
from service.front_end import FrontEndSettings
from service.observability.pages import PATHS, PageSource
from service.openai.protocol import OpenAiProtocol
from service.page.protocol import PageProtocol
from service.rest.protocol import RestProtocol
from service.services import Services


def application_of(
    services: Services, settings: FrontEndSettings, pages: PageSource | None = None
) -> Asgi:
    """Everything that the port speaks. pages: of metrics and probes, None where they have a port
    of their own alone."""
    protocols = protocols_of(services, settings)
    if settings.page:
        protocols.append(PageProtocol())
    if pages:
        protocols.append(PagesProtocol(pages, PATHS))
    app = Application(services, settings, protocols)
    origins = origins_of(settings)
    return Cors(app, origins) if origins else app


def protocols_of(services: Services, settings: FrontEndSettings) -> list[Protocol]:
    server, methods = CallServer(services.pipeline, settings), services.methods
    calls = HttpCalls(services.http_methods, services.pipeline, settings)
    budget = services.pipeline.admission.budget
    speaking: list[Protocol] = [
        WebSocketProtocol(methods, server, origins_of(settings)),
        GrpcWebProtocol(methods, server),
        ConnectProtocol(methods, server),
        RestProtocol(calls, services.infer_handler, budget),
        OpenAiProtocol(calls, services.registry, budget, settings.stall_seconds),
    ]
    parts = [each.openapi() for each in speaking if isinstance(each, Described)]
    return [*speaking, OpenApiProtocol(parts)]


def origins_of(settings: FrontEndSettings) -> Origins:
    return Origins(settings.cors_origins.split(",")) if settings.cors_origins else Origins(())
