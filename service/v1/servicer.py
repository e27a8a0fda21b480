"""unroll.v1.UnrollService: each method converts, asks a model, converts back."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine, Sequence
from functools import partial
from typing import Any

from google.protobuf.message import Message

from service.access.identity import CALLER
from service.access.inflight import InflightTracker
from service.access.memory_budget import ANSWERS, MemoryBudget
from service.engine.errors import RequestError, ServiceStopping, WrongInput, without_frames
from service.engine.requests import TokenMade, TokensMade
from service.rpc.call import ServerCall
from service.rpc.measure import classify_bytes, score_bytes, tag_bytes
from service.rpc.pipeline import CallRequests
from service.rpc.writer import MessageWriter
from service.serving import continuations
from service.serving.classifier import Classified, ClassifierModel
from service.serving.fill_mask import FillModel
from service.serving.forecaster import ForecasterModel, ForecastParams
from service.serving.generator import GeneratorModel
from service.serving.inputs import off_loop
from service.serving.named_states import NamedState, NamedStates
from service.serving.online_tagger import TagStream
from service.serving.presets import Presets
from service.serving.registry import ModelRegistry
from service.serving.resume_token import ServedBundle, mismatch
from service.serving.sampling_params import GenerateParams, unread_bytes
from service.serving.served_model import ServedModel
from service.serving.state_access import state_bytes
from service.serving.stepper import StepStream
from service.serving.tagger import TaggerModel
from service.v1 import converters, step_converters
from service.v1.state_converters import from_state, to_state_params
from unroll.v1 import unroll_pb2 as pb


class DirectTokens:
    """A DirectWriter of a call."""

    def __init__(self, writer: MessageWriter, encode: converters.TokenEncoder) -> None:
        self.has_room = writer.has_room
        self._write_now = writer.write_now
        self._encode = encode

    def write(self, tokens: Sequence[TokenMade | TokensMade]) -> None:
        self._write_now(self._encode(tokens))


class UnrollServicer:
    """Raises domain errors; the pipeline around it turns them into statuses.

    inflight: says when streams are to go on elsewhere. budget: of the bytes that answers take.
    stall_seconds: how long one message may wait for its caller to read. states: that callers keep
    by name. presets: of sampling parameters.
    """

    def __init__(
        self,
        registry: ModelRegistry,
        inflight: InflightTracker,
        budget: MemoryBudget,
        stall_seconds: float,
        states: NamedStates,
        presets: Presets,
    ) -> None:
        self.states = states
        self.presets = presets
        self.registry = registry
        self.inflight = inflight
        self.budget = budget
        self.stall_seconds = stall_seconds

    async def Classify(
        self, request: pb.ClassifyRequest, context: ServerCall
    ) -> pb.ClassifyResponse:
        with self.registry.call(ClassifierModel, request.model, request.model_version) as call:
            call.inferences = len(request.texts) or len(request.frames)
            labels = len(call.model.card.labels)
            with self.budget.reserve(ANSWERS, classify_bytes(request, labels)):
                rows = await _classified(call.model, request)
                return await off_loop(len(rows) * labels, lambda: converters.from_classified(rows))

    async def Tag(self, request: pb.TagRequest, context: ServerCall) -> pb.TagResponse:
        with self.registry.call(TaggerModel, request.model, request.model_version) as call:
            call.inferences = len(request.items)
            with self.budget.reserve(ANSWERS, tag_bytes(request)):
                texts = await call.model.tag(converters.to_tag_params(request), request.top_labels)
                size = (1 + request.top_labels) * sum(len(text.tokens) for text in texts)
                return await off_loop(size, lambda: converters.from_tagged(texts))

    async def StreamStep(self, requests: CallRequests, context: ServerCall) -> None:
        start: pb.StreamStepStart = await self._start_of(requests, "frames")
        writer = MessageWriter(context, self.stall_seconds)
        named = await self._state(start.state)
        with self.registry.call_of_part(
            ServedModel, lambda model: model.frame_stepper, start.model, start.model_version
        ) as call:
            params = step_converters.to_step_params(start, CALLER.get().name, named)
            stream = call.model.open(params)
            outputs = call.model.stepper.model.outputs
            encoder = step_converters.AnswerEncoder(outputs, stream.outputs, start.typed)
            stream.events.write_through(
                step_converters.DirectAnswers(writer.has_room, writer.write_now, stream, encoder)
            )
            reader = step_converters.FrameReader(call.model, stream)
            context.read_through(reader.take)
            feeding = asyncio.ensure_future(_feed_frames(stream, requests, reader))
            convert = partial(step_converters.from_step_message, stream=stream, encoder=encoder)
            try:
                await self._send_all(stream, feeding, context, writer, convert)
            finally:
                context.read_through(None)

    async def StreamTag(self, requests: CallRequests, context: ServerCall) -> None:
        start: pb.StreamTagStart = await self._start_of(requests, "texts or words")
        writer = MessageWriter(context, self.stall_seconds)
        named = await self._state(start.state)
        with self.registry.call_of_part(
            TaggerModel, lambda tagger: tagger.streams, start.model, start.model_version
        ) as call:
            params = converters.to_tag_stream_params(start, CALLER.get().name, named)
            stream = call.model.open(params)
            feeding = asyncio.ensure_future(_feed(stream, requests))
            convert = partial(converters.from_tag_message, stream=stream)
            await self._send_all(stream, feeding, context, writer, convert)

    async def _start_of(self, requests: CallRequests, then: str) -> Any:
        """then: what comes after it.

        Raises WrongInput, or ServiceStopping for a caller that has sent nothing by then."""
        reading = asyncio.ensure_future(_start_of(requests, then))
        moving = asyncio.ensure_future(self.inflight.handing_over.wait())
        try:
            await asyncio.wait((reading, moving), return_when=asyncio.FIRST_COMPLETED)
            if reading.done():
                return reading.result()
        finally:
            reading.cancel()
            moving.cancel()
        raise ServiceStopping("the server is stopping; send the request to another one")

    async def _send_all(
        self,
        stream: TagStream | StepStream,
        feeding: asyncio.Future[RequestError | None],
        context: ServerCall,
        writer: MessageWriter,
        convert: Callable[[Any], Message],
    ) -> None:
        """What the stream answers, while ``feeding`` brings it what its caller sends."""
        moving = asyncio.ensure_future(self._hand_over(stream, feeding))
        try:
            # So that a caller can wait for a refusal before it sends more.
            await context.send_headers()
            async for message in stream:
                await writer.write(convert(message))
            if not feeding.cancelled() and (error := await feeding):
                raise error
        finally:
            feeding.cancel()
            moving.cancel()
            stream.close()

    async def _hand_over(
        self, stream: TagStream | StepStream, feeding: asyncio.Future[Any]
    ) -> None:
        """Once it is time: read no further requests, and have the stream end where it is."""
        await self.inflight.handing_over.wait()
        feeding.cancel()
        await asyncio.wait((feeding,))
        stream.close_input(is_handed_over=True)

    async def Fill(self, request: pb.FillRequest, context: ServerCall) -> pb.FillResponse:
        with self.registry.call(FillModel, request.model, request.model_version) as call:
            call.inferences = len(request.texts)
            blanks = await call.model.fill(request.texts, request.top_words)
            size = sum(len(blank.words) for blank in blanks)
            return await off_loop(size, lambda: converters.from_filled(blanks))

    async def Generate(self, request: pb.GenerateRequest, context: ServerCall) -> None:
        # A coroutine that writes, not a generator: a fifth less server time a message.
        named = await self._state(request.state) if request.state else None
        with self.registry.call(GeneratorModel, request.model, request.model_version) as call:
            params = converters.to_params(request, CALLER.get().name, named)
            with self.budget.reserve(ANSWERS, unread_bytes(params, call.model.card)):
                await self._generate(call.model, params, context)

    async def _generate(
        self, model: GeneratorModel, params: GenerateParams, context: ServerCall
    ) -> None:
        writer = MessageWriter(context, self.stall_seconds)
        stream = await model.generate(params)
        if not (params.top or params.watch):
            encode = converters.TokenEncoder(params.log_probabilities)
            stream.tokens.write_through(DirectTokens(writer, encode))
        try:
            is_first = True
            async for events in stream.tokens:
                response = converters.from_events(events, params, stream, is_first)
                is_first = False
                await writer.write(response)
        finally:
            stream.tokens.close()

    async def Forecast(self, request: pb.ForecastRequest, context: ServerCall) -> None:
        with self.registry.call(ForecasterModel, request.model, request.model_version) as call:
            sent = converters.to_forecast_params(request, CALLER.get().name)
            params = call.model.with_resumed(sent)
            call.inferences = len(params.resumed.series if params.resumed else params.series)
            with self.budget.reserve(ANSWERS, call.model.answer_bytes(params)):
                await self._forecast(call.model, params, context)

    async def _forecast(
        self, model: ForecasterModel, params: ForecastParams, context: ServerCall
    ) -> None:
        writer = MessageWriter(context, self.stall_seconds)
        forecast = await model.forecast(params)
        try:
            seed: int | None = forecast.seed
            async for message in forecast:
                size = sum(len(step.samples) for step in message.steps)
                response = await off_loop(
                    size, partial(converters.from_forecast, message, params.quantiles, seed)
                )
                seed = None
                await writer.write(response)
        finally:
            forecast.close()

    async def Score(self, request: pb.ScoreRequest, context: ServerCall) -> pb.ScoreResponse:
        with self.registry.call(GeneratorModel, request.model, request.model_version) as call:
            call.inferences = len(request.items)
            all_params = converters.to_score_params(request)
            card = call.model.card
            size = score_bytes(request, state_bytes(card), len(card.vocabulary))
            with self.budget.reserve(ANSWERS, size):
                rows = await continuations.score(call.model, all_params)
                return await off_loop(
                    sum(row.size for row in rows), lambda: converters.from_scored(rows)
                )

    async def Embed(self, request: pb.EmbedRequest, context: ServerCall) -> pb.EmbedResponse:
        with self.registry.call_of_part(
            ServedModel, lambda model: model.embedder, request.model, request.model_version
        ) as call:
            call.inferences = len(request.texts)
            size = call.model.answer_bytes(len(request.texts), request.tensors)
            with self.budget.reserve(ANSWERS, size):
                rows = await call.model.embed(request.texts, request.tensors)
                return await off_loop(
                    sum(len(row.values) for row in rows), lambda: converters.from_embedded(rows)
                )

    async def ListModels(
        self, request: pb.ListModelsRequest, context: ServerCall
    ) -> pb.ListModelsResponse:
        return pb.ListModelsResponse(
            models=[
                converters.from_card(model.card, presets=self.presets)
                for model in self.registry.models
            ],
            refused_models=[converters.from_refused(bundle) for bundle in self.registry.refused],
        )

    async def GetModel(
        self, request: pb.GetModelRequest, context: ServerCall
    ) -> pb.GetModelResponse:
        model = self.registry.get(request.name, request.version)
        return pb.GetModelResponse(
            model=converters.from_card(model.card, request.with_vocabulary, self.presets)
        )

    # -- named states --------------------------------------------------------------------------

    async def _state(self, name: str) -> NamedState | None:
        """The caller's, or None for none. Raises StateNotFound, StateRefused or WrongInput."""
        return await self.states.get(CALLER.get().name, name) if name else None

    async def CreateState(
        self, request: pb.CreateStateRequest, context: ServerCall
    ) -> pb.CreateStateResponse:
        owner = CALLER.get().name
        ttl = request.ttl_seconds if request.HasField("ttl_seconds") else None
        await self.states.check_new(owner, request.name, ttl)
        base = await self._state(request.state)
        with self.registry.call_of_part(
            ServedModel, lambda model: model.state_maker, request.model, request.model_version
        ) as call:
            made = await call.model.make_state(to_state_params(request, owner, base))
        state = await self.states.create(owner, request.name, made, ttl, request.replace)
        return pb.CreateStateResponse(state=from_state(state), unknown_symbols=made.unknown_symbols)

    async def ListStates(
        self, request: pb.ListStatesRequest, context: ServerCall
    ) -> pb.ListStatesResponse:
        states = await self.states.all_of(CALLER.get().name)
        return pb.ListStatesResponse(
            states=[
                from_state(state, self._why_unusable(state))
                for state in states
                if request.model in ("", state.bundle.name)
            ]
        )

    def _why_unusable(self, state: NamedState) -> str:
        """With the version that is served now; empty where it can be used."""
        try:
            card = self.registry.get(state.bundle.name).card
        except RequestError as error:
            return str(error)
        return mismatch(state.bundle, ServedBundle.of(card, state.bundle.method), False)

    async def DeleteState(
        self, request: pb.DeleteStateRequest, context: ServerCall
    ) -> pb.DeleteStateResponse:
        await self.states.delete(CALLER.get().name, request.name)
        return pb.DeleteStateResponse()


async def _classified(model: ClassifierModel, request: pb.ClassifyRequest) -> list[Classified]:
    if not request.frames:
        return await model.classify(request.texts)
    if request.texts:
        raise WrongInput("the request has texts and frames; send one of the two")
    # None where the model reads texts, and says so.
    channels = model.card.frames.channels if model.card.frames else ()
    size = sum(tensor.ByteSize() for tensor in request.frames)
    sequences = await off_loop(
        size // 4, lambda: step_converters.to_sequences(request.frames, len(channels))
    )
    return await model.classify_frames(sequences)


async def _start_of(requests: CallRequests, then: str) -> Any:
    first = await anext(requests, None)
    if first is None or not first.HasField("start"):
        raise WrongInput(f"the first request has no start; send one, then {then}")
    return first.start


async def _feed(stream: TagStream, requests: CallRequests) -> RequestError | None:
    """Push what the caller sends until it has sent all, or something that is refused.

    Returns why it was refused: by then the caller is still owed the labels of what it sent before.
    """

    async def push() -> None:
        async for request in requests:
            await _push(stream, request)

    return await _fed(stream, requests, push())


async def _feed_frames(
    stream: StepStream, requests: CallRequests, reader: step_converters.FrameReader
) -> RequestError | None:
    """As _feed(), of frames."""

    async def push() -> None:
        async for request in requests:
            if not request.HasField("frame"):
                has = "another start" if request.HasField("start") else "no frame"
                raise WrongInput(f"a later request has {has}; send frames")
            # What the reader has taken meanwhile may have left none.
            await stream.wait_for_room()
            if not reader.push(request.frame):
                await stream.wait_for_room()

    return await _fed(stream, requests, push())


async def _fed(
    stream: TagStream | StepStream, requests: CallRequests, pushing: Coroutine[Any, Any, None]
) -> RequestError | None:
    failure: RequestError | None = None
    try:
        await pushing
    except RequestError as error:
        failure = without_frames(error)
        requests.release()
    except Exception:
        stream.close_input()
        raise
    # One that is cancelled leaves it to whoever cancels.
    stream.close_input()
    return failure


async def _push(stream: TagStream, request: pb.StreamTagRequest) -> None:
    match request.WhichOneof("part"):
        case "text":
            await stream.push_text(request.text)
        case "words":
            await stream.push(request.words.words)
        case "start":
            raise WrongInput("a later request has another start; send texts or words")
        case _:
            raise WrongInput("a request has neither text nor words; send one of the two")
