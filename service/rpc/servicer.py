"""unroll.v1.UnrollService: each method converts, asks a model, converts back."""

from __future__ import annotations

import grpc

from service.engine.catalogue import Catalogue
from service.rpc import converters
from unroll.v1 import unroll_pb2 as pb
from unroll.v1 import unroll_pb2_grpc


class UnrollServicer(unroll_pb2_grpc.UnrollServiceServicer):
    """Raises domain errors; the interceptor around it turns them into statuses."""

    def __init__(self, catalogue: Catalogue) -> None:
        self.catalogue = catalogue

    async def Classify(
        self, request: pb.ClassifyRequest, context: grpc.aio.ServicerContext
    ) -> pb.ClassifyResponse:
        model = self.catalogue.classifier(request.model, request.model_version)
        return converters.from_classified(await model.classify(request.texts))

    async def Generate(
        self, request: pb.GenerateRequest, context: grpc.aio.ServicerContext
    ) -> None:
        # A coroutine that writes, not a generator: a fifth less server time a message.
        model = self.catalogue.generator(request.model, request.model_version)
        stream = model.generate(converters.to_wish(request))
        try:
            is_first = True
            async for events in stream.tokens:
                response = converters.from_events(
                    events, request.log_probabilities, stream, is_first
                )
                is_first = False
                await context.write(response)
        finally:
            stream.tokens.close()

    async def Score(
        self, request: pb.ScoreRequest, context: grpc.aio.ServicerContext
    ) -> pb.ScoreResponse:
        model = self.catalogue.generator(request.model, request.model_version)
        pairs = [(item.text, item.source) for item in request.items]
        return converters.from_scored(await model.score(pairs))

    async def ListModels(
        self, request: pb.ListModelsRequest, context: grpc.aio.ServicerContext
    ) -> pb.ListModelsResponse:
        return pb.ListModelsResponse(
            models=[converters.from_card(model.card) for model in self.catalogue.models],
            refused_models=[converters.from_refused(bundle) for bundle in self.catalogue.refused],
        )

    async def GetModel(
        self, request: pb.GetModelRequest, context: grpc.aio.ServicerContext
    ) -> pb.GetModelResponse:
        model = self.catalogue.get(request.name, request.version)
        return pb.GetModelResponse(model=converters.from_card(model.card))
