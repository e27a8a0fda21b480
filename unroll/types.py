"""Typed values for what goes in and comes out, and their messages."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, cast

import grpc
from google.protobuf.message import DecodeError
from google.rpc import error_details_pb2, status_pb2

from unroll.sampling import FLAGS, Sampling, SamplingKeywords
from unroll.v1 import unroll_pb2 as pb

# What a call of generate reads: one of these options.
INPUTS = ("prompt", "source", "vector", "resume_token")
# What its output may be held to: one of these options.
_CONSTRAINTS = ("choices", "regex", "json_schema")
# Metadata of what a failed call has beside its status and message.
_DETAILS = "grpc-status-details-bin"


class OptionInvalid(ValueError):
    """Options of a call that exclude each other; nothing was sent."""


class RequestFailed(Exception):
    """The server refused or could not finish a call.

    code: the gRPC status, such as ``INVALID_ARGUMENT``. retry_after_seconds: when to try
    again, None where the server did not say.
    """

    def __init__(self, code: str, message: str, retry_after_seconds: float | None = None) -> None:
        super().__init__(f"{code}: {message}")
        self.code = code
        self.message = message
        self.retry_after_seconds = retry_after_seconds


@dataclass(frozen=True)
class Classification:
    """labels: every label of the model with its probability, the most probable first."""

    labels: list[tuple[str, float]]
    input_tokens: int
    unknown_symbols: int

    @property
    def best(self) -> tuple[str, float]:
        return self.labels[0]


@dataclass(frozen=True)
class TaggedToken:
    """text: as it was sent. top: the likeliest labels, as (label, probability). state: what was
    watched of the state after it was read, as in Token.
    """

    text: str
    label: str
    probability: float
    position: int
    top: tuple[tuple[str, float], ...] = ()
    state: bytes = b""


@dataclass(frozen=True)
class TaggedText:
    """unknown_symbols: number of tokens outside the vocabulary."""

    tokens: list[TaggedToken]
    unknown_symbols: int


@dataclass(frozen=True)
class FilledBlank:
    """words: with their probabilities, the most probable first."""

    words: list[tuple[str, float]]
    input_tokens: int
    unknown_symbols: int

    @property
    def best(self) -> tuple[str, float]:
        return self.words[0]


@dataclass(frozen=True)
class Beam:
    """Beam search: the ``best`` of ``width`` hypotheses side by side.

    length_penalty: a hypothesis is ranked by log-probability / tokens ** length_penalty; None
    is the model's. early_stop: end once ``width`` hypotheses have ended.
    """

    width: int
    best: int = 1
    length_penalty: float | None = None
    early_stop: bool = False


@dataclass(frozen=True)
class Watch:
    """What of the state comes beside each token.

    tensors: names in Model.state, none for the hidden state of each layer; "attention" where
    Model.attended is above 0. units: of each of them, from 0; none for all.
    """

    tensors: Sequence[str] = ()
    units: Sequence[int] = ()


@dataclass(frozen=True)
class StateChange:
    """values: one for each of the units, from 0, of a tensor named in Model.state."""

    tensor: str
    units: Sequence[int]
    values: Sequence[float]


class GenerateOptions(SamplingKeywords, total=False):
    """Options of generate beside those of sampling; proto/unroll/v1/unroll.proto has each in full.

    The input, one of: prompt, text to continue; source, of a sequence-to-sequence model; vector,
    of a vector-to-sequence model, None for what is unknown; resume_token, of a ResumePoint
    (allow_inexact: even where other kernels may round otherwise).

    Length: max_tokens, None for the model's limit; min_tokens, before which neither the end token
    nor a stop text ends the output; stop, texts that end it and are not part of it.

    Outputs: samples, 1 to 64 independent ones of one input; beam, to search instead of sampling;
    echo, for the tokens of the prompt or the source in the first chunk; log_probabilities of each
    token, and of the top_log_probabilities most probable ones at its position, 0 to 20;
    tokens_per_message, 0 for the server's choice.

    Resume points: resume_every so many tokens, at least 16; resume_at_end, where max_tokens or a
    stop text ended the output. version: of the model, empty for the one that is served.

    State: watch, for values of it beside each token; set_state, with a resume_token, for values to
    change before the stream goes on.

    Constrained text, one of: choices, texts of which the output is one; regex, which it matches as
    a whole; json_schema, as text or as what json.loads makes of it, which it satisfies.

    no_cache: neither look the input up in the server's prefix cache nor keep its states there.
    state: name of a state to begin from, with a prompt to read after it or none. preset: name of a
    set of sampling parameters of the server; those that are given come before its own.
    """

    prompt: str | None
    source: str | None
    vector: Sequence[float | None] | None
    resume_token: bytes | None
    allow_inexact: bool
    max_tokens: int | None
    min_tokens: int
    sampling: Sampling
    stop: Sequence[str]
    samples: int
    beam: Beam | None
    log_probabilities: bool
    top_log_probabilities: int
    echo: bool
    tokens_per_message: int
    resume_every: int
    resume_at_end: bool
    version: str
    watch: Watch | None
    set_state: Sequence[StateChange]
    no_cache: bool
    choices: Sequence[str] | None
    regex: str | None
    json_schema: str | Mapping[str, Any] | None
    state: str
    preset: str


@dataclass(frozen=True)
class Token:
    """log_probability: natural logarithm; None where it was not requested or there is none.

    sample: number of the request's stream it belongs to. top: the most probable tokens at this
    position, as (id, text, log-probability). state: what was watched of the state that it was drawn
    from, as numpy.frombuffer(state, "<f2") reads it; empty where nothing was.
    """

    id: int
    text: str
    position: int
    log_probability: float | None
    sample: int = 0
    top: tuple[tuple[int, str, float], ...] = ()
    state: bytes = b""


@dataclass(frozen=True)
class Answer:
    """How a stream ended; times in seconds.

    reason: ``end``, ``stop`` or ``length``; ``unfinished`` where max_tokens were made before the
    output satisfied its constraint; ``handed_over`` where the server stops and the stream
    could go on elsewhere, only without failover. After a failover, output_tokens are those of all
    calls; unknown_symbols, times and cached_tokens are the first that a server reported.
    cached_tokens: of the input, that a prefix cache knew.
    """

    reason: str
    input_tokens: int
    output_tokens: int
    unknown_symbols: int
    queue_seconds: float
    time_to_first_token_seconds: float
    cached_tokens: int = 0


@dataclass(frozen=True)
class SampleEnd:
    """How one sample ended; score: what ranks a hypothesis of a beam search."""

    sample: int
    reason: str
    output_tokens: int
    log_probability: float
    score: float | None


@dataclass(frozen=True)
class ResumePoint:
    """token: resumes the sample at ``next_position``, as resume_token of generate or stream_tag.

    changed: digest of all that set_state changed on the way here; empty where nothing was.
    """

    sample: int
    token: bytes
    next_position: int
    changed: str = ""


@dataclass(frozen=True)
class Chunk:
    """One message of a stream: its new tokens, the seed in the first, the answer in the last.

    echo: the tokens of the prompt or the source, in the first one if requested. ends: the samples
    that ended with these tokens. resume_points: where samples could go on from.
    """

    tokens: list[Token]
    seed: int | None
    answer: Answer | None
    echo: list[Token] = field(default_factory=list)
    ends: list[SampleEnd] = field(default_factory=list)
    resume_points: list[ResumePoint] = field(default_factory=list)

    @property
    def text(self) -> str:
        """The texts of its tokens, joined."""
        return "".join(token.text for token in self.tokens)


@dataclass(frozen=True)
class ScoredChoice:
    """One way to go on; natural logarithms, of all its tokens together and in the mean.

    probability: that it is this one, if it is one of the item's choices.
    """

    tokens: list[Token]
    log_probability: float
    log_probability_per_token: float
    probability: float

    @property
    def text(self) -> str:
        """The texts of its tokens, joined."""
        return "".join(token.text for token in self.tokens)


@dataclass(frozen=True)
class ScoredText:
    """log_probability: sum over the tokens that have one, natural logarithm.

    choices: what was asked for of what may follow the text, of which there are no tokens then.
    """

    tokens: list[Token]
    log_probability: float
    unknown_symbols: int
    choices: list[ScoredChoice] = field(default_factory=list)

    @property
    def best(self) -> int:
        """The place of the likeliest choice. Raises ValueError where there is none."""
        return max(range(len(self.choices)), key=lambda n: self.choices[n].log_probability)


@dataclass(frozen=True)
class NextToken:
    """log_probability: natural logarithm."""

    id: int
    text: str
    log_probability: float


@dataclass(frozen=True)
class Embedding:
    """values: of Euclidean length 1."""

    values: list[float]
    input_tokens: int
    unknown_symbols: int


@dataclass(frozen=True)
class ModelState:
    """A version in the server's model repository.

    state: ``READY``, ``LOADING``, ``UNLOADING`` or ``UNAVAILABLE``, for ``reason``.
    """

    name: str
    version: str
    state: str
    reason: str = ""


@dataclass(frozen=True)
class NamedState:
    """A state that the server keeps by name.

    input_tokens: that led to it, as far as they are known. method: whose streams begin from it.
    bytes: that it takes. created, expires: seconds since 1970. reason: why it cannot be used with
    what is served now; empty where it can. unknown_symbols: of what it was made of, outside the
    vocabulary; None in a list, which does not say.
    """

    name: str
    model: str
    method: str
    input_tokens: int
    bytes: int
    created: float
    expires: float
    digest: str
    precision: str
    fingerprint: str
    reason: str = ""
    unknown_symbols: int | None = field(default=None, compare=False)


def to_created_state(response: pb.CreateStateResponse) -> NamedState:
    return replace(to_named_state(response.state), unknown_symbols=response.unknown_symbols)


def to_named_state(state: pb.NamedState) -> NamedState:
    return NamedState(
        state.name,
        state.model,
        state.method,
        state.input_tokens,
        state.bytes,
        state.created,
        state.expires,
        state.digest,
        state.precision,
        state.fingerprint,
        state.reason,
    )


def normalised(options: GenerateOptions) -> GenerateOptions:
    """The same options, with the parameters of sampling in ``sampling``.

    Raises OptionInvalid for two inputs or constraints, or parameters of sampling said twice;
    TypeError for an option that there is not.
    """
    rest = dict(options)
    for name in rest.keys() - GenerateOptions.__annotations__.keys():
        raise TypeError(f"generate() has no option {name!r}")
    inputs = [name for name in INPUTS if rest.get(name) is not None]
    if len(inputs) > 1:
        raise OptionInvalid(f"{' and '.join(inputs)} exclude each other; give one")
    constraints = [name for name in _CONSTRAINTS if rest.get(name) is not None]
    if len(constraints) > 1:
        raise OptionInvalid(f"{' and '.join(constraints)} exclude each other; give one")
    keywords = {name: rest.pop(name) for name in FLAGS if name in rest}
    parameters: Any = {name: value for name, value in keywords.items() if value is not None}
    if parameters and rest.get("sampling") is not None:
        raise OptionInvalid(f"sampling and {', '.join(parameters)} exclude each other; give one")
    if parameters:
        rest["sampling"] = Sampling(**parameters)
    return cast(GenerateOptions, rest)


def to_watch(watch: Watch) -> pb.Watch:
    """Raises ValueError for a number its field cannot hold."""
    return pb.Watch(**vars(watch))


def to_changes(changes: Sequence[StateChange]) -> list[pb.StateChange]:
    """Raises ValueError for a number its field cannot hold."""
    return [pb.StateChange(**vars(change)) for change in changes]


def generate_request(model: str, options: GenerateOptions) -> pb.GenerateRequest:
    """options: normalised. Raises ValueError for a number its field cannot hold."""
    rest: dict[str, Any] = dict(options)
    sampling, beam, vector = (rest.pop(name, None) for name in ("sampling", "beam", "vector"))
    watch, changes = rest.pop("watch", None), rest.pop("set_state", ())
    constraint = to_constraint(*(rest.pop(name, None) for name in _CONSTRAINTS))
    request = pb.GenerateRequest(model=model, model_version=rest.pop("version", ""), **rest)
    if sampling is not None:
        request.sampling.MergeFrom(sampling.to_message())
    if beam is not None:
        request.beam.MergeFrom(pb.Beam(**vars(beam)))
    if vector is not None:
        request.vector.CopyFrom(to_vector(vector))
    if watch is not None:
        request.watch.CopyFrom(to_watch(watch))
    request.set_state.extend(to_changes(changes))
    if constraint is not None:
        request.constraint.CopyFrom(constraint)
    return request


def to_vector(values: Sequence[float | None]) -> pb.Vector:
    """None is sent as NaN: it is unknown."""
    return pb.Vector(values=[math.nan if value is None else value for value in values])


def to_constraint(
    choices: Sequence[str] | None, regex: str | None, schema: str | Mapping[str, Any] | None
) -> pb.Constraint | None:
    """At most one of them is there."""
    if choices is not None:
        return pb.Constraint(choices=pb.Choices(texts=choices))
    if regex is not None:
        return pb.Constraint(regex=regex)
    if schema is not None:
        text = schema if isinstance(schema, str) else json.dumps(schema, ensure_ascii=False)
        return pb.Constraint(json_schema=text)
    return None


def tag_request(
    model: str, version: str, texts: Sequence[str | Sequence[str]], top: int
) -> pb.TagRequest:
    """texts: each a text, or its words."""
    items = [
        pb.TagItem(text=text) if isinstance(text, str) else pb.TagItem(words=text) for text in texts
    ]
    return pb.TagRequest(model=model, model_version=version, items=items, top_labels=top)


def fill_request(model: str, version: str, texts: Sequence[str], top: int) -> pb.FillRequest:
    return pb.FillRequest(model=model, model_version=version, texts=texts, top_words=top)


def score_request(
    model: str,
    version: str,
    texts: Sequence[str],
    sources: Sequence[str],
    vectors: Sequence[Sequence[float | None]],
    choices: Sequence[str] | Sequence[Sequence[str]] = (),
    top_next: int = 0,
) -> pb.ScoreRequest:
    """sources, vectors: one for each text, or none at all. choices: of each text, or of all."""
    items = [pb.ScoreItem(text=text, top_next_tokens=top_next) for text in texts]
    if choices:
        own = [choices] * len(items) if isinstance(choices[0], str) else choices
        for item, some in zip(items, own, strict=True):
            item.choices.extend(some)
    if sources:
        for item, source in zip(items, sources, strict=True):
            item.source = source
    if vectors:
        for item, vector in zip(items, vectors, strict=True):
            item.vector.CopyFrom(to_vector(vector))
    return pb.ScoreRequest(model=model, model_version=version, items=items)


def to_classifications(response: pb.ClassifyResponse) -> list[Classification]:
    return [
        Classification(
            [(label.label, label.probability) for label in row.labels],
            row.input_tokens,
            row.unknown_symbols,
        )
        for row in response.classifications
    ]


def to_tagged(response: pb.TagResponse) -> list[TaggedText]:
    return [
        TaggedText([to_tagged_token(token) for token in text.tokens], text.unknown_symbols)
        for text in response.texts
    ]


def to_tagged_token(token: pb.TaggedToken) -> TaggedToken:
    top = tuple((label.label, label.probability) for label in token.top)
    return TaggedToken(token.text, token.label, token.probability, token.position, top, token.state)


def to_filled(response: pb.FillResponse) -> list[FilledBlank]:
    return [
        FilledBlank(
            [(word.word, word.probability) for word in blank.words],
            blank.input_tokens,
            blank.unknown_symbols,
        )
        for blank in response.blanks
    ]


def to_chunk(response: pb.GenerateResponse) -> Chunk:
    return Chunk(
        [to_token(token) for token in response.tokens],
        response.seed if response.HasField("seed") else None,
        _to_answer(response) if response.finish_reason else None,
        [to_token(token) for token in response.echo],
        [to_end(end) for end in response.ends],
        [to_resume_point(point) for point in response.resume_points],
    )


def to_reason(value: pb.FinishReason) -> str:
    name: str = pb.FinishReason.Name(value)
    return name.removeprefix("FINISH_REASON_").lower()


def to_resume_point(point: pb.ResumePoint) -> ResumePoint:
    return ResumePoint(point.sample, point.token, point.next_position, point.changed)


def to_end(end: pb.SampleEnd) -> SampleEnd:
    score = end.score if end.HasField("score") else None
    return SampleEnd(
        end.sample, to_reason(end.finish_reason), end.output_tokens, end.log_probability, score
    )


def _to_answer(response: pb.GenerateResponse) -> Answer:
    usage = response.usage
    return Answer(
        to_reason(response.finish_reason),
        usage.input_tokens,
        usage.output_tokens,
        usage.unknown_symbols,
        usage.queue_seconds,
        usage.time_to_first_token_seconds,
        usage.cached_tokens,
    )


def to_scores(response: pb.ScoreResponse) -> list[ScoredText]:
    return [
        ScoredText(
            [to_token(t) for t in row.tokens],
            row.log_probability,
            row.unknown_symbols,
            [_to_choice(choice) for choice in row.choices],
        )
        for row in response.scores
    ]


def _to_choice(choice: pb.ScoredChoice) -> ScoredChoice:
    return ScoredChoice(
        [to_token(token) for token in choice.tokens],
        choice.log_probability,
        choice.log_probability_per_token,
        choice.probability,
    )


def to_next_tokens(response: pb.ScoreResponse) -> list[list[NextToken]]:
    return [
        [NextToken(token.id, token.text, token.log_probability) for token in row.next_tokens]
        for row in response.scores
    ]


def to_embeddings(response: pb.EmbedResponse) -> list[Embedding]:
    return [
        Embedding(list(row.values), row.input_tokens, row.unknown_symbols)
        for row in response.embeddings
    ]


def to_token(token: pb.Token, with_log_probability: bool = True) -> Token:
    has = with_log_probability and token.HasField("log_probability")
    return Token(
        token.id,
        token.text,
        token.position,
        token.log_probability if has else None,
        token.sample,
        tuple((top.id, top.text, top.log_probability) for top in token.top),
        token.state,
    )


def to_states(response: Any) -> list[ModelState]:
    return [ModelState(m.name, m.version, m.state, m.reason) for m in response.models]


def to_failure(error: grpc.RpcError) -> RequestFailed:
    """The status of a failed call, with the delay from RetryInfo where there is one."""
    code = error.code()
    name = code.name if code is not None else "UNKNOWN"
    return RequestFailed(name, error.details() or "", _retry_after(error))


def _retry_after(error: grpc.RpcError) -> float | None:
    for detail in _details(error):
        info = error_details_pb2.RetryInfo()
        if detail.Unpack(info):
            return float(info.retry_delay.seconds + info.retry_delay.nanos / 1e9)
    return None


def _details(error: grpc.RpcError) -> Sequence[Any]:
    """Messages beside the status; none where what came is no google.rpc.Status."""
    for key, value in error.trailing_metadata() or ():
        if key == _DETAILS:
            try:
                return list(status_pb2.Status.FromString(value).details)
            except DecodeError:
                return ()
    return ()
