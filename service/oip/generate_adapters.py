"""Adapters of generators: a prompt, a source or a vector in; a response per token out."""

from __future__ import annotations

import json
from collections.abc import AsyncGenerator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from bundle.sampling import SAMPLING_PARAMETERS
from service.engine.automaton import CHOICES, JSON_SCHEMA, REGEX, ConstraintSpec
from service.engine.errors import WrongInput
from service.engine.requests import Event
from service.oip.adapters import STATE, InferResult, ModelAdapter, Setting
from service.oip.direct import DirectResponses
from service.oip.parameters import InferParameters
from service.oip.tensors import Array, TensorMetadata, texts_of
from service.oip.token_responses import DirectTokens, result_of
from service.serving.generator import GeneratorModel, OpenStream
from service.serving.named_states import NamedState
from service.serving.sampling_params import GenerateParams, SamplingParams

_LISTS = ("allowed_tokens", "banned_tokens")
_KNOWN = (
    *(parameter.name for parameter in SAMPLING_PARAMETERS), *_LISTS, "max_tokens", "min_tokens",
    "seed", "stop", "logit_bias", "tokens_per_message", "no_cache", CHOICES, REGEX, JSON_SCHEMA,
    "preset", STATE,
)  # fmt: skip


# Of one response, that may leave at once: a larger one counts as an answer while it is unread.
_MOST_DIRECT_TOKENS = 64

# Tokens of a request that does not say: a load generator sends a prompt and nothing else.
_USUAL_TOKENS = 256


@dataclass(frozen=True)
class GenerationSettings:
    """tokens_per_message: of a response, where the request is streamed. start: a state to begin
    from."""

    sampling: SamplingParams
    max_tokens: int
    min_tokens: int
    stop: tuple[str, ...]
    tokens_per_message: int
    no_cache: bool
    constraint: ConstraintSpec | None = None
    preset: str = ""
    start: NamedState | None = None


class GenerateAdapter(ModelAdapter):
    """Unlike a model of Triton that is decoupled, it can be asked for one response, too.

    reads: the one input, named as what prefills the model.
    """

    max_batch = 0
    is_decoupled = True
    begins_from_states = True
    settings_help = f"this model knows {', '.join(_KNOWN)}"

    def __init__(self, model: GeneratorModel, reads: TensorMetadata) -> None:
        super().__init__(model.card)
        self.model = model
        self.inputs = (reads,)
        self.outputs = (
            TensorMetadata("text", "BYTES", (1,)),
            TensorMetadata("tokens", "INT64", (-1,)),
            TensorMetadata("log_probabilities", "FP32", (-1,)),
            TensorMetadata("finish_reason", "BYTES", (1,)),
        )

    def settings(self, parameters: InferParameters) -> GenerationSettings:
        allowed, banned = (_ids(parameters, name) for name in _LISTS)
        sampling = SamplingParams(
            _values(parameters),
            parameters.whole("seed", 2**64 - 1),
            _bias(parameters),
            allowed,
            banned,
        )
        return GenerationSettings(
            sampling,
            self._most_tokens(parameters),
            parameters.whole("min_tokens") or 0,
            _stops(parameters),
            parameters.whole("tokens_per_message") or 1,
            parameters.flag("no_cache"),
            _constraint(parameters),
            parameters.text("preset"),
        )

    def begun_from(self, settings: GenerationSettings, state: NamedState) -> GenerationSettings:
        return replace(settings, start=state)

    def inputs_of(self, settings: GenerationSettings) -> Sequence[TensorMetadata]:
        """A state stands for the input, or for its beginning."""
        (reads,) = self.inputs
        return (replace(reads, optional=True),) if settings.start else self.inputs

    def _most_tokens(self, parameters: InferParameters) -> int:
        wanted = parameters.whole("max_tokens")
        usual = min(_USUAL_TOKENS, self.card.limits["output_tokens"])
        return usual if wanted is None else wanted

    async def infer(self, inputs: Mapping[str, Array], settings: GenerationSettings) -> InferResult:
        """All tokens in one response."""
        events: list[Event] = []
        stream = await self._open(inputs, settings)
        try:
            async for some in stream.tokens:
                events += some
        finally:
            stream.tokens.close()
        return result_of(events, _first(stream))

    async def stream(
        self,
        inputs: Mapping[str, Array],
        settings: GenerationSettings,
        direct: DirectResponses | None = None,
    ) -> AsyncGenerator[InferResult, None]:
        stream = await self._open(inputs, settings)
        if direct is not None and settings.tokens_per_message <= _MOST_DIRECT_TOKENS:
            stream.tokens.write_through(DirectTokens(direct))
        try:
            said = _first(stream)
            async for events in stream.tokens:
                yield result_of(events, said)
                said = {}
        finally:
            stream.tokens.close()

    def value(self, array: Array) -> str | Sequence[float]:
        """The input, as a request of unroll.v1 has it. Raises WrongInput."""
        raise NotImplementedError

    async def _open(self, inputs: Mapping[str, Array], settings: GenerationSettings) -> OpenStream:
        name = self.inputs[0].name
        prefills: dict[str, Any] = dict.fromkeys(("prompt", "source", "vector"))
        if name in inputs:
            prefills[name] = self.value(inputs[name])
        params = GenerateParams(
            **prefills,
            max_tokens=settings.max_tokens,
            sampling=settings.sampling,
            stop=settings.stop,
            min_tokens=settings.min_tokens,
            tokens_per_message=settings.tokens_per_message,
            no_cache=settings.no_cache,
            constraint=settings.constraint,
            preset=settings.preset,
            start=settings.start,
        )
        return await self.model.generate(params)


class GenerateFromText(GenerateAdapter):
    """A text, as ``prompt`` or as ``source``."""

    def __init__(self, model: GeneratorModel) -> None:
        super().__init__(model, TensorMetadata(model.input.name, "BYTES", (1,)))

    def value(self, array: Array) -> str:
        return texts_of(array, self.inputs[0].name)[0]


class GenerateFromVector(GenerateAdapter):
    def __init__(self, model: GeneratorModel) -> None:
        fields = model.card.vector_fields
        super().__init__(model, TensorMetadata(model.input.name, "FP32", (len(fields),)))

    def value(self, array: Array) -> list[float]:
        values: list[float] = array.tolist()
        return values


def _first(stream: OpenStream) -> dict[str, Setting]:
    """What the first response says. The seed is a text: it may be above what int64 holds."""
    return {"seed": str(stream.seed), "unknown_symbols": stream.unknown_symbols}


def _values(parameters: InferParameters) -> dict[str, float]:
    """The sampling parameters that are there."""
    given = {
        p.name: parameters.whole(p.name, int(p.most)) if p.is_whole else parameters.number(p.name)
        for p in SAMPLING_PARAMETERS
    }
    return {name: value for name, value in given.items() if value is not None}


def _stops(parameters: InferParameters) -> tuple[str, ...]:
    """One text, or a JSON list of several."""
    value = parameters.take("stop")
    if value is None:
        return ()
    if not isinstance(value, str):
        raise WrongInput(f"parameter 'stop' is {value!r}; send a text, or a JSON list of texts")
    if not value.startswith("["):
        return (value,)
    stops = _json(value, "stop", "a JSON list of texts")
    if not (isinstance(stops, list) and all(isinstance(stop, str) for stop in stops)):
        raise WrongInput("parameter 'stop' is JSON; send a list of texts")
    return tuple(stops)


def _constraint(parameters: InferParameters) -> ConstraintSpec | None:
    given = {kind: parameters.take(kind) for kind in (CHOICES, REGEX, JSON_SCHEMA)}
    kinds = [kind for kind, value in given.items() if value is not None]
    if len(kinds) > 1:
        raise WrongInput(f"parameters {' and '.join(kinds)} exclude each other; send one")
    for kind in kinds:
        texts = [given[kind]]
        if kind == CHOICES:
            texts = _json(given[kind], CHOICES, "a JSON list of texts")
        if not (isinstance(texts, list) and all(isinstance(text, str) for text in texts)):
            wanted = "a JSON list of texts" if kind == CHOICES else "a text"
            raise WrongInput(f"parameter {kind!r} is {given[kind]!r}; send {wanted}")
        return ConstraintSpec(kind, tuple(texts))
    return None


def _ids(parameters: InferParameters, name: str) -> tuple[int, ...]:
    value = parameters.take(name)
    if value is None:
        return ()
    ids = _json(value, name, "a JSON list of ids")
    if not (isinstance(ids, list) and all(type(number) is int and number >= 0 for number in ids)):
        raise WrongInput(f"parameter {name!r} is JSON; send a list of ids")
    return tuple(ids)


def _bias(parameters: InferParameters) -> dict[int, float]:
    value = parameters.take("logit_bias")
    if value is None:
        return {}
    found = _json(value, "logit_bias", "a JSON object of ids and what to add to each")
    try:
        bias = {int(token): float(added) for token, added in found.items()}
    except (AttributeError, TypeError, ValueError, OverflowError) as error:
        raise WrongInput(
            "parameter 'logit_bias' is JSON; send an object of ids and what to add to each"
        ) from error
    if any(token < 0 for token in bias):
        raise WrongInput(f"parameter 'logit_bias' names the id {min(bias)}; ids are 0 and above")
    return bias


def _json(value: Any, name: str, wanted: str) -> Any:
    try:
        return json.loads(value)
    except (TypeError, ValueError, RecursionError) as error:
        raise WrongInput(f"parameter {name!r} is {value!r}; send {wanted}") from error
