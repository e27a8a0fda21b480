"""Inference requests to their responses, for any model."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Hashable, Mapping, Sequence
from contextlib import (
    AbstractAsyncContextManager,
    aclosing,
    asynccontextmanager,
    nullcontext,
    suppress,
)
from dataclasses import dataclass, field, replace
from typing import Any
from weakref import WeakKeyDictionary

import numpy as np

from service.access.identity import CALLER
from service.access.memory_budget import ANSWERS, MemoryBudget
from service.engine.errors import RequestError, TimedOut, WrongInput
from service.engine.shares import SHARE
from service.oip.adapters import STATE, TENSORS, InferResult, ModelAdapter, Setting, base_name
from service.oip.direct import DirectCall, DirectResponses
from service.oip.parameters import InferParameters
from service.oip.plans import Plan, Plans, signature_of
from service.oip.tensors import (
    Array,
    TensorMetadata,
    bytes_array,
    input_specs,
    read_inputs,
    refuse_parameter,
    texts_of_raw,
)
from service.serving.inputs import is_free, off_loop
from service.serving.model_version import Call, ServedVersion
from service.serving.named_states import NamedStates
from service.serving.registry import ModelRegistry
from service.serving.sequences import Flags, SequenceKey, Sequences
from service.serving.served_model import ServedModel
from unroll.inference import grpc_service_pb2 as pb

_MICROSECONDS = 1e6
# In microseconds: a day.
_LONGEST_TIMEOUT = 86_400_000_000
_LARGEST = 2**64 - 1
# Of an id that is repeated in each response, and of a sequence's, which is kept.
MOST_ID_CHARACTERS = 1024
# Tensors of a request, and parameters of it or of one of them.
_MOST_TENSORS, _MOST_PARAMETERS = 64, 256
# Of a request that is answered without arrays.
_FEW_TEXTS = 8
# Triton's priorities: 1 comes first; 0 stands for the default, which is this one.
_DEFAULT_PRIORITY, _LOWEST_PRIORITY = 4, 8
# Of requests over HTTP; here answers are raw where requests are.
_BINARY, _BINARY_OUTPUT = "binary_data", "binary_data_output"
FINAL = "triton_final_response"
EMPTY_FINAL = "triton_enable_empty_final_response"

Send = Callable[[pb.ModelInferResponse], Awaitable[None]]
# Of a model, as NAME and as NAME.tensors.
Adapters = tuple[ModelAdapter, ModelAdapter]


@dataclass(frozen=True)
class InferOptions:
    """What a request says beside its tensors and its model's settings.

    sequence: None for a request that goes on from nothing. parameters: that are not read yet.
    """

    parameters: InferParameters
    sequence: tuple[SequenceKey, Flags] | None
    timeout_seconds: float | None
    wants_empty_final: bool


# Of a request that says nothing of them.
_NO_OPTIONS = InferOptions(InferParameters({}), None, None, False)


@dataclass(frozen=True, slots=True)
class InferContext:
    """A request, read. plan: how it is answered."""

    inputs: Mapping[str, Array]
    plan: Plan
    settings: Any


@dataclass(eq=False, slots=True)
class _Target:
    """What a request is answered with.

    signature: None for one that has none. plan: None until it was read, where none is kept.
    call: once it has begun.
    """

    options: InferOptions
    served: ServedVersion
    adapter: ModelAdapter
    plans: Plans
    signature: Hashable | None = None
    plan: Plan | None = None
    call: Call[ServedModel] = field(init=False)


class InferHandler:
    """Finds the model, reads the request, runs it, and writes the responses.

    sequences: whose states are kept between requests. budget: of the bytes that answers take.
    adapters: of a model; asked once for each version that is served. states: that callers keep by
    name.
    """

    def __init__(
        self,
        registry: ModelRegistry,
        sequences: Sequences,
        budget: MemoryBudget,
        adapters: Callable[[ServedModel], Adapters],
        states: NamedStates,
    ) -> None:
        self.registry = registry
        self.states = states
        self.sequences = sequences
        self.budget = budget
        self.adapters = adapters
        self._known: WeakKeyDictionary[ServedVersion, tuple[Adapters, Plans]] = WeakKeyDictionary()

    def find(self, name: str, version: str = "") -> tuple[ServedVersion, ModelAdapter]:
        """Raises ModelNotFound or ModelRefused."""
        served = self.registry.find(base_name(name), version)
        return served, self._parts(served, name)[0]

    def _parts(self, served: ServedVersion, name: str) -> tuple[ModelAdapter, Plans]:
        """The adapter that ``name`` asks for, and the version's plans."""
        known = self._known.get(served)
        if known is None:
            known = self._known[served] = self.adapters(served.model), Plans()
        adapters, plans = known
        return adapters[name.endswith(TENSORS)], plans

    async def answer(
        self, request: pb.ModelInferRequest, owner: Hashable = None
    ) -> pb.ModelInferResponse:
        """The one response. owner: of a sequence that begins here, as SequenceKey has it.

        Raises RequestError's kinds.
        """
        target = self._target(request, owner)
        with target.served.call() as target.call:
            return await self._short(request, target) or await self._whole(request, target)

    async def _short(
        self, request: pb.ModelInferRequest, target: _Target
    ) -> pb.ModelInferResponse | None:
        """The response to a request such as was answered before, of a few texts that come and go
        raw: what _whole() makes of it without arrays, in a third of the time. None for any other.
        """
        plan, adapter, call = target.plan, target.adapter, target.call
        if plan is None or not (adapter.reads_texts and plan.is_plain):
            return None
        started = time.monotonic()
        (content,), (spec,) = request.raw_input_contents, plan.inputs
        if spec.count > _FEW_TEXTS or not is_free(len(content)):
            return None
        texts = texts_of_raw(content, spec.count)
        if texts is None:
            return None
        call.inferences = len(texts)
        call.input_seconds = time.monotonic() - started
        rows = await adapter.rows_of(texts)
        started = time.monotonic()
        response = plan.raw_response(request, len(rows), adapter.raw_of(rows))
        if response is None:
            response = _response(request, plan, adapter.result_of(rows), target)
            plan.keep_for(len(rows), response)
        _say(response, adapter.said_of(rows))
        call.output_seconds = time.monotonic() - started
        return response

    async def stream(
        self,
        request: pb.ModelInferRequest,
        owner: Hashable,
        send: Send,
        direct: DirectCall | None = None,
    ) -> None:
        """Send each response as it is made; the last one says so. Raises as answer().

        direct: for those that may leave at once, where the call has such a way.
        """
        target = self._target(request, owner)
        with target.served.call() as target.call:
            if target.adapter.is_decoupled:
                await self._stream_all(request, target, send, direct)
            else:
                await send(_marked(await self._whole(request, target), True))

    async def _whole(self, request: pb.ModelInferRequest, target: _Target) -> pb.ModelInferResponse:
        seconds = target.options.timeout_seconds
        if seconds is None:
            context, result = await self._run(request, target)
        else:
            async with _Limit(seconds).watch():
                context, result = await self._run(request, target)
        # Outside: whoever learns that time was up finds the sequence as it was.
        return await _respond(request, context, result, target)

    async def _run(
        self, request: pb.ModelInferRequest, target: _Target
    ) -> tuple[InferContext, InferResult]:
        context, result = await self._read_and_run(request, target)
        if result is None:
            adapter = target.adapter
            if size := adapter.answer_bytes(context.inputs):
                with self.budget.reserve(ANSWERS, size):
                    result = await adapter.infer(context.inputs, context.settings)
            else:
                result = await adapter.infer(context.inputs, context.settings)
        return context, result

    async def _stream_all(
        self,
        request: pb.ModelInferRequest,
        target: _Target,
        send: Send,
        direct: DirectCall | None,
    ) -> None:
        options = target.options
        # No time limit cuts a response short that is being sent: grpc takes no write back, and
        # nothing follows the final response.
        limit = _Limit(options.timeout_seconds)
        async with limit.watch():
            context, result = await self._read_and_run(request, target)
        at_once = _direct(request, context, target, direct)
        answering = target.adapter.stream(context.inputs, context.settings, at_once)
        async with aclosing(answering) as answers:
            while result is None or not result.is_last:
                async with limit.watch():
                    result = await anext(answers)
                is_final = result.is_last and not options.wants_empty_final
                await send(_marked(await _respond(request, context, result, target), is_final))
        if options.wants_empty_final:
            await send(_marked(_empty(request, target), True))

    def _target(self, request: pb.ModelInferRequest, owner: Hashable) -> _Target:
        """Raises RequestError's kinds."""
        signature = signature_of(request)
        if signature is not None and (known := self._planned(request, signature)):
            return known
        try:
            _check_counts(request)
            options = _options_of(request, owner)
            served = self._version_for(request, options)
        except WrongInput:
            with suppress(RequestError):
                self.find(request.model_name)[0].statistics.failed(0.0)
            raise
        return _Target(options, served, *self._parts(served, request.model_name), signature)

    def _planned(self, request: pb.ModelInferRequest, signature: Hashable) -> _Target | None:
        """Of a request such as was answered before: it says nothing that was not checked then but
        its id."""
        try:
            served = self.registry.find(base_name(request.model_name), request.model_version)
        except RequestError:
            return None
        adapter, plans = self._parts(served, request.model_name)
        plan = plans.get(signature)
        if plan is None or len(request.id) > MOST_ID_CHARACTERS:
            return None
        return _Target(_NO_OPTIONS, served, adapter, plans, signature, plan)

    def _version_for(self, request: pb.ModelInferRequest, options: InferOptions) -> ServedVersion:
        """A sequence stays on the one that it began with."""
        begun: ServedVersion | None = None
        if options.sequence:
            begun = self.sequences.version_of(*options.sequence)
        version = request.model_version
        if begun is None:
            return self.find(request.model_name, version)[0]
        if version not in ("", begun.version):
            raise WrongInput(
                f"model_version is {version!r}, and the sequence began on version "
                f"{begun.version!r}; leave the version, or begin anew with sequence_start"
            )
        return begun

    async def _read_and_run(
        self, request: pb.ModelInferRequest, target: _Target
    ) -> tuple[InferContext, InferResult | None]:
        """The request, and the state from which it goes on where it is one of a sequence."""
        sequence = target.options.sequence
        if sequence is None:
            return await self._read(request, target), None
        adapter = target.adapter
        if not adapter.keeps_sequences:
            raise WrongInput(
                f"parameter 'sequence_id' is set, and model {request.model_name!r} keeps no state "
                "between requests; leave it out"
            )
        # Its turn is taken before anything is waited for: so they come in the order of requests.
        async with self.sequences.turn(*sequence, target.served) as turn:
            context = await self._read(request, target)
            if (rows := target.call.inferences) != 1:
                raise WrongInput(f"a request of a sequence has one row; this one has {rows}")
            result, turn.state = await adapter.go_on(context.inputs, context.settings, turn.state)
        return context, result

    async def _read(self, request: pb.ModelInferRequest, target: _Target) -> InferContext:
        started, adapter = time.monotonic(), target.adapter
        settings = await self._settings(target)
        plan = target.plan or _new_plan(request, target, adapter.inputs_of(settings))
        inputs = await off_loop(request.ByteSize(), lambda: read_inputs(request, plan.inputs))
        target.call.inferences = adapter.batch(inputs)
        target.call.input_seconds = time.monotonic() - started
        return InferContext(inputs, plan, settings)

    async def _settings(self, target: _Target) -> Any:
        """As the adapter's infer() wants it. Raises WrongInput, StateNotFound or StateRefused."""
        adapter, parameters = target.adapter, target.options.parameters
        state = parameters.text(STATE) if adapter.begins_from_states else ""
        settings = adapter.settings(parameters)
        parameters.refuse_rest(adapter.settings_help)
        if not state:
            return settings
        return adapter.begun_from(settings, await self.states.get(CALLER.get().name, state))


def _new_plan(
    request: pb.ModelInferRequest, target: _Target, ports: Sequence[TensorMetadata]
) -> Plan:
    """ports: its inputs. Raises WrongInput or NotOffered."""
    outputs = _wanted(request, target.adapter)
    plan = Plan(input_specs(request, ports), outputs)
    if target.signature is not None:
        target.plans.keep(target.signature, plan)
    return plan


async def _respond(
    request: pb.ModelInferRequest, context: InferContext, result: InferResult, target: _Target
) -> pb.ModelInferResponse:
    started = time.monotonic()
    size = sum([result.outputs[name].size for name in context.plan.outputs])
    response = await off_loop(size, lambda: _response(request, context.plan, result, target))
    _say(response, result.parameters)
    target.call.output_seconds += time.monotonic() - started
    return response


def _response(
    request: pb.ModelInferRequest, plan: Plan, result: InferResult, target: _Target
) -> pb.ModelInferResponse:
    arrays = {
        name: _labelled(result.outputs[name], count, target.adapter.outputs, name)
        for name, count in plan.outputs.items()
    }
    return plan.response(request, target.served.version, arrays)


def _direct(
    request: pb.ModelInferRequest, context: InferContext, target: _Target, call: DirectCall | None
) -> DirectResponses | None:
    """Of a request that is answered raw."""
    if call is None or not request.raw_input_contents:
        return None

    def head_of(result: InferResult) -> bytes:
        response = _marked(_response(request, context.plan, result, target), False)
        del response.raw_output_contents[:]
        data: bytes = response.SerializeToString()
        return data

    return DirectResponses(call, tuple(context.plan.outputs), head_of)


def _empty(request: pb.ModelInferRequest, target: _Target) -> pb.ModelInferResponse:
    return pb.ModelInferResponse(
        model_name=request.model_name, model_version=target.served.version, id=request.id
    )


def _marked(response: pb.ModelInferResponse, is_final: bool) -> pb.ModelInferResponse:
    response.parameters[FINAL].bool_param = is_final
    return response


def _options_of(request: pb.ModelInferRequest, owner: Hashable) -> InferOptions:
    parameters = InferParameters(request.parameters)
    timeout = parameters.whole("timeout", _LONGEST_TIMEOUT)
    seconds = timeout / _MICROSECONDS if timeout else None
    _share(parameters.whole("priority", _LARGEST) or 0, seconds)
    parameters.flag(_BINARY_OUTPUT)
    return InferOptions(
        parameters, _sequence(request, parameters, owner), seconds, parameters.flag(EMPTY_FINAL)
    )


def _check_counts(request: pb.ModelInferRequest) -> None:
    """Before anything is made of what a request repeats. Raises WrongInput."""
    _check_count("inputs", len(request.inputs), _MOST_TENSORS)
    _check_count("outputs", len(request.outputs), _MOST_TENSORS)
    _check_count("raw_input_contents", len(request.raw_input_contents), _MOST_TENSORS)
    _check_count("parameters", len(request.parameters), _MOST_PARAMETERS)
    for tensor in (*request.inputs, *request.outputs):
        _check_count("parameters of a tensor", len(tensor.parameters), _MOST_PARAMETERS)
    if len(request.id) > MOST_ID_CHARACTERS:
        raise WrongInput(
            f"id has {len(request.id)} characters, and each response repeats it; send at most "
            f"{MOST_ID_CHARACTERS}"
        )


def _check_count(name: str, count: int, most: int) -> None:
    if count > most:
        raise WrongInput(f"the request has {count} {name}; send at most {most}")


def _share(priority: int, seconds: float | None) -> None:
    """What the request itself says of its place among its caller's. seconds: that it has."""
    if not priority and seconds is None:
        return
    share = SHARE.get()
    if priority:
        share = replace(share, priority=_DEFAULT_PRIORITY - min(priority, _LOWEST_PRIORITY))
    if seconds is not None:
        end = time.monotonic() + seconds
        share = replace(share, deadline=min(end, share.deadline or end))
    SHARE.set(share)


def _sequence(
    request: pb.ModelInferRequest, parameters: InferParameters, owner: Hashable
) -> tuple[SequenceKey, Flags] | None:
    number = parameters.take("sequence_id")
    flags = Flags(parameters.flag("sequence_start"), parameters.flag("sequence_end"))
    if isinstance(number, float) and number.is_integer():
        number = int(number)
    if isinstance(number, bool | float):
        raise WrongInput(f"parameter 'sequence_id' is {number!r}; send a whole number or a text")
    if isinstance(number, str) and len(number) > MOST_ID_CHARACTERS:
        raise WrongInput(
            f"parameter 'sequence_id' has {len(number)} characters; send at most "
            f"{MOST_ID_CHARACTERS}"
        )
    if not number:  # 0 and "" stand for none
        if flags.start or flags.end:
            raise WrongInput("parameter 'sequence_id' is missing; sequences have one")
        return None
    return SequenceKey(owner, request.model_name, number, CALLER.get().name), flags


def _wanted(request: pb.ModelInferRequest, adapter: ModelAdapter) -> dict[str, int]:
    ports = {port.name: port for port in adapter.outputs}
    if not request.outputs:
        return dict.fromkeys(ports, 0)
    wanted: dict[str, int] = {}
    for output in request.outputs:
        if output.name not in ports:
            raise WrongInput(
                f"output {output.name!r} is unknown; model {request.model_name!r} gives "
                f"{', '.join(map(repr, ports))}"
            )
        if output.name in wanted:
            raise WrongInput(f"output {output.name!r} is asked for twice; ask once")
        wanted[output.name] = _classes(output, ports[output.name])
    return wanted


def _classes(output: pb.ModelInferRequest.InferRequestedOutputTensor, port: TensorMetadata) -> int:
    """How many of the likeliest labels are wanted instead of the numbers."""
    parameters = dict(output.parameters)
    given = {k: v for k, v in parameters.items() if k == "classification"}
    for name in parameters.keys() - given.keys() - {_BINARY}:
        refuse_parameter(f"output {output.name!r}", name)
    count = InferParameters(given).whole("classification") or 0
    if count and not port.labels:
        raise WrongInput(
            f"output {output.name!r} has no labels to classify by; leave 'classification' out"
        )
    return min(count, len(port.labels))


def _labelled(array: Array, count: int, ports: tuple[TensorMetadata, ...], name: str) -> Array:
    """Triton's classification extension: the ``count`` largest as "value:index:label"."""
    if not count:
        return array
    labels = next(port.labels for port in ports if port.name == name)
    places = np.argsort(-array, axis=-1, kind="stable")[..., :count]
    values = np.take_along_axis(array, places, -1)
    texts = [
        f"{value:f}:{place}:{labels[place]}"
        for value, place in zip(
            values.reshape(-1).tolist(), places.reshape(-1).tolist(), strict=True
        )
    ]
    return bytes_array(texts, places.shape)


def _say(response: pb.ModelInferResponse, parameters: Mapping[str, Setting]) -> None:
    for name, value in parameters.items():
        _set(response.parameters[name], value)


def _set(parameter: pb.InferParameter, value: Setting) -> None:
    if isinstance(value, str):
        parameter.string_param = value
    elif isinstance(value, bool):
        parameter.bool_param = value
    elif isinstance(value, int):
        parameter.int64_param = value
    else:
        parameter.double_param = value


class _Limit:
    """The time that a request gave itself, from now on. seconds: None for any."""

    def __init__(self, seconds: float | None) -> None:
        self.seconds = seconds
        self._end = None if seconds is None else asyncio.get_running_loop().time() + seconds

    def watch(self) -> AbstractAsyncContextManager[None]:
        """Raises TimedOut once it is over."""
        return nullcontext() if self._end is None else self._watch()

    @asynccontextmanager
    async def _watch(self) -> AsyncIterator[None]:
        try:
            async with asyncio.timeout_at(self._end):
                yield
        except TimeoutError as error:
            raise TimedOut(
                f"the request took longer than the {self.seconds} s of its parameter 'timeout'"
            ) from error
