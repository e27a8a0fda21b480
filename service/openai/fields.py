"""The fields of a request: what each one becomes in unroll.v1's GenerateRequest or EmbedRequest."""

from __future__ import annotations

import binascii
import json
from base64 import b64decode
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from math import nan
from typing import Any, TypeVar

from bundle.sampling import SAMPLING_PARAMETERS, SamplingParameter
from service.openai.errors import FieldInvalid
from service.serving.inputs import MAX_TEXTS
from service.serving.sampling_params import MAX_BEAMS, MAX_SAMPLES, MAX_TOP
from unroll.v1 import unroll_pb2 as pb

# Each is a call of its own.
MAX_PROMPTS = 128
# OpenAI's, for a prompt; other inputs have an end of their own.
DEFAULT_MAX_TOKENS = 16
# Of a list or an object, while its own limit is not known here: more would hold up every stream.
_MOST_ENTRIES = 20_000
_MOST_32 = 2**32 - 1
_MOST_64 = 2**64 - 1
_MOST_FLOAT = 3.4028235e38  # of float32
_KINDS = {bool: "true or false", str: "a string", list: "a list", dict: "an object"}


@dataclass
class CompletionRequest:
    """What one request asks for.

    generate: of every prompt, without it. prompts: none where the input is another one.
    logprobs: of how many of the likeliest tokens, beside the one that was made; None for none.
    """

    generate: pb.GenerateRequest = field(default_factory=pb.GenerateRequest)
    prompts: list[str] = field(default_factory=list)
    inputs: list[str] = field(default_factory=list)
    choices: int = 1
    best_of: int | None = None
    logprobs: int | None = None
    is_streamed: bool = False
    includes_usage: bool = False
    options: Mapping[str, Any] | None = None

    @property
    def model(self) -> str:
        return str(self.generate.model)

    def messages(self) -> Iterator[pb.GenerateRequest]:
        """One for each prompt, in order; one where there is none."""
        if not self.prompts:
            yield self.generate
        for prompt in self.prompts:
            message = pb.GenerateRequest()
            message.CopyFrom(self.generate)
            message.prompt = prompt
            yield message


def completion_of(content: Mapping[str, Any]) -> CompletionRequest:
    """Raises FieldInvalid. A field that is null is as one that is not there."""
    request = CompletionRequest()
    _read(request, content, _READERS)
    _settle(request)
    return request


def _settle(request: CompletionRequest) -> None:
    """What depends on several fields."""
    generate = request.generate
    if not generate.model:
        raise FieldInvalid("model", "the request names no model; GET /v1/models lists them")
    if len(request.inputs) > 1:
        first, second = request.inputs[:2]
        raise FieldInvalid(second, f"the request has {first} and {second}; send one of them")
    if request.prompts and not generate.HasField("max_tokens"):
        generate.max_tokens = DEFAULT_MAX_TOKENS
    _settle_choices(request)
    _settle_stream(request)


def _settle_choices(request: CompletionRequest) -> None:
    count, best_of = request.choices, request.best_of
    if best_of is None or best_of == count:
        request.generate.samples = count
        return
    if best_of < count:
        raise FieldInvalid("best_of", f"best_of is {best_of}, n {count}; choose at least n")
    if best_of > MAX_BEAMS:
        raise FieldInvalid("best_of", f"best_of is {best_of}; choose up to {MAX_BEAMS}")
    if request.is_streamed:
        raise FieldInvalid("best_of", "best_of above n cannot be streamed; leave one of the two")
    if request.logprobs:
        raise FieldInvalid(
            "logprobs", "best_of above n searches, and reports no likelier tokens; send logprobs 0"
        )
    request.generate.beam.width, request.generate.beam.best = best_of, count


def _settle_stream(request: CompletionRequest) -> None:
    options = request.options
    if options is None:
        return
    if not request.is_streamed:
        raise FieldInvalid("stream_options", "stream_options goes with stream; set it, too")
    for name, value in options.items():
        where = f"stream_options.{name}"
        if name != "include_usage":
            raise _unknown(where)
        request.includes_usage = value is not None and _flag(where, value)


def _read(
    request: Request, content: Mapping[str, Any], readers: Mapping[str, _Reader[Request]]
) -> None:
    for name, value in content.items():
        reader = readers.get(name)
        if reader is None:
            raise _unknown(name)
        if value is not None:
            reader(request, name, value)


def _unknown(name: str) -> FieldInvalid:
    shown = _shown(name)
    return FieldInvalid(shown, f"unknown parameter: {shown!r}; leave it", "unknown_parameter")


def _shown(name: str) -> str:
    return name if len(name) <= 64 else f"{name[:64]}…"


# -- values: each raises FieldInvalid ----------------------------------------------------------


def _wrong(name: str, value: Any, wanted: str) -> FieldInvalid:
    kind = _KINDS.get(type(value), "a number")
    return FieldInvalid(name, f"{name} is {kind}; send {wanted}", "invalid_type")


def _flag(name: str, value: Any) -> bool:
    if not isinstance(value, bool):
        raise _wrong(name, value, "true or false")
    return value


def _text(name: str, value: Any) -> str:
    if not isinstance(value, str):
        raise _wrong(name, value, "a string")
    if not value.isascii():
        try:
            value.encode()
        except UnicodeEncodeError:
            message = f"{name} holds half of a surrogate pair; send both halves"
            raise FieldInvalid(name, message) from None
    return value


def _list(name: str, value: Any, wanted: str) -> list[Any]:
    if not isinstance(value, list):
        raise _wrong(name, value, wanted)
    _check_entries(name, len(value))
    return value


def _object(name: str, value: Any, wanted: str) -> dict[str, Any]:
    if not isinstance(value, dict):
        raise _wrong(name, value, wanted)
    _check_entries(name, len(value))
    return value


def _check_entries(name: str, count: int) -> None:
    if count > _MOST_ENTRIES:
        raise FieldInvalid(name, f"{name} holds {count} entries; send at most {_MOST_ENTRIES}")


def _whole(name: str, value: Any, least: int = 0, most: int = _MOST_32) -> int:
    if isinstance(value, float) and value.is_integer():
        value = int(value)
    if not isinstance(value, int) or isinstance(value, bool):
        raise _wrong(name, value, "a whole number")
    if not least <= value <= most:
        shown = value if abs(value) <= _MOST_64 else "too large"
        raise FieldInvalid(name, f"{name} is {shown}; choose one from {least} to {most}")
    return value


def _number(name: str, value: Any) -> float:
    if not isinstance(value, int | float) or isinstance(value, bool):
        raise _wrong(name, value, "a number")
    if not -_MOST_FLOAT <= value <= _MOST_FLOAT:
        raise FieldInvalid(name, f"{name} is beyond what a float32 holds; send a smaller number")
    return float(value)


def _octets(name: str, value: Any) -> bytes:
    try:
        return b64decode(_text(name, value), validate=True)
    except (binascii.Error, ValueError):
        raise FieldInvalid(name, f"{name} is not in base64; send it as it came") from None


def _ids(name: str, value: Any) -> list[int]:
    return [_whole(name, number) for number in _list(name, value, "a list of token ids")]


# -- fields ------------------------------------------------------------------------------------

Request = TypeVar("Request")
_Reader = Callable[[Request, str, Any], None]


def _sets(read: Callable[[str, Any], Any]) -> _Reader[CompletionRequest]:
    """The message's field of the same name."""

    def reader(request: CompletionRequest, name: str, value: Any) -> None:
        setattr(request.generate, name, read(name, value))

    return reader


def _sets_input(read: Callable[[str, Any], Any]) -> _Reader[CompletionRequest]:
    def reader(request: CompletionRequest, name: str, value: Any) -> None:
        request.inputs.append(name)
        setattr(request.generate, name, read(name, value))

    return reader


def _keeps(attribute: str, read: Callable[[str, Any], Any]) -> _Reader[CompletionRequest]:
    """For what is settled once every field is known."""

    def reader(request: CompletionRequest, name: str, value: Any) -> None:
        setattr(request, attribute, read(name, value))

    return reader


def _samples(parameter: SamplingParameter) -> _Reader[CompletionRequest]:
    def reader(request: CompletionRequest, name: str, value: Any) -> None:
        number = _number(name, value)
        if problem := parameter.problem(number):
            raise FieldInvalid(name, problem)
        chosen = _whole(name, value) if parameter.is_whole else number
        setattr(request.generate.sampling, name, chosen)

    return reader


def _prompt(request: CompletionRequest, name: str, value: Any) -> None:
    request.inputs.append(name)
    if isinstance(value, str):
        request.prompts = [_text(name, value)]
        return
    prompts = _list(name, value, "a string or a list of strings")
    if any(not isinstance(prompt, str) for prompt in prompts):
        raise FieldInvalid(
            name, "prompts of token ids are not read here; send strings", "invalid_type"
        )
    if not 1 <= len(prompts) <= MAX_PROMPTS:
        raise FieldInvalid(name, f"there are {len(prompts)} prompts; send 1 to {MAX_PROMPTS}")
    request.prompts = [_text(name, prompt) for prompt in prompts]


def _vector(request: CompletionRequest, name: str, value: Any) -> None:
    request.inputs.append(name)
    given = _list(name, value, "a list of numbers")
    values = [nan if number is None else _number(name, number) for number in given]
    request.generate.vector.SetInParent()
    request.generate.vector.values.extend(values)


def _stop(request: CompletionRequest, name: str, value: Any) -> None:
    texts = [value] if isinstance(value, str) else _list(name, value, "a string or a list of them")
    request.generate.stop.extend(_text(name, text) for text in texts)


def _logprobs(request: CompletionRequest, name: str, value: Any) -> None:
    request.logprobs = _whole(name, value, most=MAX_TOP)
    request.generate.log_probabilities = True
    request.generate.top_log_probabilities = request.logprobs


def _seed(request: CompletionRequest, name: str, value: Any) -> None:
    request.generate.sampling.seed = _whole(name, value, most=_MOST_64)


def _logit_bias(request: CompletionRequest, name: str, value: Any) -> None:
    for token, bias in _object(name, value, "an object of token ids and numbers").items():
        where = f"{name}.{_shown(token)}"
        if not (token.isascii() and token.isdecimal() and len(token) <= 10):
            raise FieldInvalid(where, f"{where} is no token id; send ids as decimal numbers")
        number = _whole(where, int(token))
        request.generate.sampling.logit_bias[number] = _number(where, bias)


def _tokens(request: CompletionRequest, name: str, value: Any) -> None:
    getattr(request.generate.sampling, name).extend(_ids(name, value))


def _guided_choice(request: CompletionRequest, name: str, value: Any) -> None:
    texts = [_text(name, text) for text in _list(name, value, "a list of strings")]
    _constrain(request, name).choices.texts.extend(texts)
    request.generate.constraint.choices.SetInParent()


def _guided_regex(request: CompletionRequest, name: str, value: Any) -> None:
    _constrain(request, name).regex = _text(name, value)


def _guided_json(request: CompletionRequest, name: str, value: Any) -> None:
    """A schema, as an object or as its text."""
    if isinstance(value, str):
        text = _text(name, value)
    else:
        schema = _object(name, value, "a JSON schema, as an object or a string")
        text = _text(name, json.dumps(schema, ensure_ascii=False))
    _constrain(request, name).json_schema = text


def _response_format(request: CompletionRequest, name: str, value: Any) -> None:
    """OpenAI's ``{"type": "json_schema", "json_schema": {"schema": …}}``."""
    kind = _object(name, value, "an object").get("type")
    if kind == "text":
        return
    if kind != "json_schema":
        raise FieldInvalid(f"{name}.type", f"{name}.type is not 'text' or 'json_schema'")
    where = f"{name}.json_schema"
    described = _object(where, value.get("json_schema"), "an object with the schema")
    _guided_json(request, f"{where}.schema", described.get("schema"))


def _structured_outputs(request: CompletionRequest, name: str, value: Any) -> None:
    """vLLM's ``{"choice": […]}``, ``{"regex": …}`` or ``{"json": …}``."""
    given = _object(name, value, "an object with choice, regex or json")
    for kind, constraint in given.items():
        where = f"{name}.{kind}"
        if kind not in _STRUCTURED:
            raise _unknown(where)
        if constraint is not None:
            _STRUCTURED[kind](request, where, constraint)
    if all(constraint is None for constraint in given.values()):
        raise FieldInvalid(name, f"{name} has no constraint; send choice, regex or json in it")


_STRUCTURED: dict[str, _Reader[CompletionRequest]] = {
    "choice": _guided_choice,
    "regex": _guided_regex,
    "json": _guided_json,
}


def _constrain(request: CompletionRequest, name: str) -> pb.Constraint:
    """The request's constraint, of which there may be one."""
    if request.generate.HasField("constraint"):
        raise FieldInvalid(name, f"{name} stands beside another constraint; send one of them")
    return request.generate.constraint


def _suffix(request: CompletionRequest, name: str, value: Any) -> None:
    if _text(name, value):
        raise FieldInvalid(
            name, "these models read from left to right and know no suffix; leave it"
        )


def _ignored(request: CompletionRequest, name: str, value: Any) -> None:
    """It says nothing of the text that is made."""


_READERS: dict[str, _Reader[CompletionRequest]] = {
    "model": _sets(_text),
    "prompt": _prompt,
    "max_tokens": _sets(_whole),
    "n": _keeps("choices", lambda name, value: _whole(name, value, 1, MAX_SAMPLES)),
    "best_of": _keeps("best_of", lambda name, value: _whole(name, value, 1)),
    "echo": _sets(_flag),
    "logprobs": _logprobs,
    "stop": _stop,
    "stream": _keeps("is_streamed", _flag),
    "stream_options": _keeps("options", lambda name, value: _object(name, value, "an object")),
    "seed": _seed,
    "logit_bias": _logit_bias,
    "suffix": _suffix,
    "user": _ignored,
    "response_format": _response_format,
    # vLLM's, and what its releases before 0.12 had.
    "structured_outputs": _structured_outputs,
    "guided_choice": _guided_choice,
    "guided_regex": _guided_regex,
    "guided_json": _guided_json,
    # Ours.
    **{parameter.name: _samples(parameter) for parameter in SAMPLING_PARAMETERS},
    "allowed_tokens": _tokens,
    "banned_tokens": _tokens,
    "model_version": _sets(_text),
    "source": _sets_input(_text),
    "vector": _vector,
    "resume_token": _sets_input(_octets),
    "allow_inexact": _sets(_flag),
    "min_tokens": _sets(_whole),
    "tokens_per_message": _sets(_whole),
    "resume_every": _sets(_whole),
    "resume_at_end": _sets(_flag),
    "no_cache": _sets(_flag),
    "state": _sets(_text),
    "preset": _sets(_text),
}

# Every one that is read.
FIELDS = frozenset(_READERS)


# -- embeddings --------------------------------------------------------------------------------

_FORMATS = ("float", "base64")


@dataclass
class EmbeddingRequest:
    """is_base64: whether numbers are answered as base64 of their bytes."""

    embed: pb.EmbedRequest = field(default_factory=pb.EmbedRequest)
    is_base64: bool = False


def embedding_of(content: Mapping[str, Any]) -> EmbeddingRequest:
    """Raises FieldInvalid. A field that is null is as one that is not there."""
    request = EmbeddingRequest()
    _read(request, content, _EMBEDDING_READERS)
    if not request.embed.model:
        raise FieldInvalid("model", "the request names no model; GET /v1/models lists them")
    if not request.embed.texts:
        raise FieldInvalid("input", "the request has no input; send a string or a list of strings")
    return request


def _embedding_text(request: EmbeddingRequest, name: str, value: Any) -> None:
    setattr(request.embed, name, _text(name, value))


def _input(request: EmbeddingRequest, name: str, value: Any) -> None:
    texts = [value] if isinstance(value, str) else _list(name, value, "a string or a list of them")
    if any(not isinstance(text, str) for text in texts):
        raise FieldInvalid(
            name, "inputs of token ids are not read here; send strings", "invalid_type"
        )
    if not 1 <= len(texts) <= MAX_TEXTS:
        raise FieldInvalid(name, f"there are {len(texts)} inputs; send 1 to {MAX_TEXTS}")
    request.embed.texts.extend(_text(name, text) for text in texts)


def _encoding_format(request: EmbeddingRequest, name: str, value: Any) -> None:
    if _text(name, value) not in _FORMATS:
        raise FieldInvalid(name, f"{name} is {_shown(value)!r}; choose {' or '.join(_FORMATS)}")
    request.is_base64 = value == "base64"


def _dimensions(request: EmbeddingRequest, name: str, value: Any) -> None:
    raise FieldInvalid(name, "a model's embeddings have one length, that of its state; leave it")


def _tensors(request: EmbeddingRequest, name: str, value: Any) -> None:
    texts = _list(name, value, "a list of names")
    request.embed.tensors.extend(_text(name, text) for text in texts)


def _no_effect(request: EmbeddingRequest, name: str, value: Any) -> None:
    """It says nothing of the vectors."""


_EMBEDDING_READERS: dict[str, _Reader[EmbeddingRequest]] = {
    "model": _embedding_text,
    "input": _input,
    "encoding_format": _encoding_format,
    "dimensions": _dimensions,
    "user": _no_effect,
    # Ours.
    "model_version": _embedding_text,
    "tensors": _tensors,
}

EMBEDDING_FIELDS = frozenset(_EMBEDDING_READERS)
