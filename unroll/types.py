"""Typed values for what goes in and comes out, and the only code here that knows messages."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields
from typing import Any, TypedDict

import grpc
from google.rpc import error_details_pb2
from grpc_status import rpc_status

from unroll.v1 import unroll_pb2 as pb


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
    """labels: every label with its probability, the most probable first."""

    labels: list[tuple[str, float]]
    input_tokens: int
    unknown_symbols: int

    @property
    def best(self) -> tuple[str, float]:
        return self.labels[0]


@dataclass(frozen=True)
class TaggedToken:
    """text: as it was sent. top: the likeliest labels, as (label, probability)."""

    text: str
    label: str
    probability: float
    position: int
    top: tuple[tuple[str, float], ...] = ()


@dataclass(frozen=True)
class TaggedText:
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


def _number(meaning: str) -> Any:
    """A number that a request may leave out; ``meaning`` is its flag's help."""
    return field(default=None, metadata={"help": meaning})


@dataclass(frozen=True)
class Sampling:
    """How tokens are drawn; None takes the model's default, seed None one of the server's.

    Each is explained at its field in proto/unroll/v1/unroll.proto. Tokens are given by id.
    """

    temperature: float | None = _number("sampling temperature (0 = most probable token)")
    top_k: int | None = _number("most probable tokens kept (0 = all)")
    top_p: float | None = _number("mass of the most probable tokens kept (1 = all)")
    seed: int | None = _number("seed of the draws (default: the server's choice)")
    min_p: float | None = _number("least share of the likeliest token's probability (0 = any)")
    repetition_penalty: float | None = _number("divisor of repeated tokens' logits (1 = none)")
    frequency_penalty: float | None = _number("logit lost for each repetition, -2 to 2")
    presence_penalty: float | None = _number("logit lost once by repeated tokens, -2 to 2")
    typical_p: float | None = _number("mass of the most typical tokens kept (1 = all)")
    logit_bias: Mapping[int, float] = field(default_factory=dict)
    allowed_tokens: Sequence[int] = ()
    banned_tokens: Sequence[int] = ()


def sampling_numbers() -> dict[str, tuple[type[int] | type[float], str]]:
    """The numbers of Sampling by name: their types, and what they mean."""
    return {
        part.name: (int if str(part.type).startswith("int") else float, part.metadata["help"])
        for part in fields(Sampling)
        if "help" in part.metadata
    }


@dataclass(frozen=True)
class Beam:
    """Search for the most probable answer among ``width`` side by side; tell the best few."""

    width: int
    best: int = 1
    length_penalty: float | None = None
    early_stop: bool = False


class GenerateOptions(TypedDict, total=False):
    """What a call of generate may say, as in proto/unroll/v1/unroll.proto.

    One of prompt, source, vector, resume_token is what prefills the model.
    """

    prompt: str | None
    source: str | None
    vector: Sequence[float] | None
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


@dataclass(frozen=True)
class Token:
    """log_probability: natural logarithm; None where it was not asked for or there is none.

    sample: which of the request's streams it belongs to. top: the likeliest tokens here, as
    (id, text, log-probability).
    """

    id: int
    text: str
    position: int
    log_probability: float | None
    sample: int = 0
    top: tuple[tuple[int, str, float], ...] = ()


@dataclass(frozen=True)
class Answer:
    """How a stream ended: reason ``end``, ``stop`` or ``length``; times in seconds.

    handed_over: the server stops, and the stream could go on elsewhere; only where its caller
    does without carry_on. Of a stream that was carried on with, tokens are those of all its
    calls; unknown_symbols and times are the first that a server told.
    """

    reason: str
    input_tokens: int
    output_tokens: int
    unknown_symbols: int
    queue_seconds: float
    time_to_first_token_seconds: float


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
    """token: goes on with the sample from ``next_position``, as generate's resume_token."""

    sample: int
    token: bytes
    next_position: int


@dataclass(frozen=True)
class Piece:
    """One message of a stream: its new tokens, the seed in the first, the answer in the last.

    echo: the prompt's tokens, in the first where asked for. ends: the samples that ended with
    these tokens. resume_points: where samples could go on from.
    """

    tokens: list[Token]
    seed: int | None
    answer: Answer | None
    echo: list[Token] = field(default_factory=list)
    ends: list[SampleEnd] = field(default_factory=list)
    resume_points: list[ResumePoint] = field(default_factory=list)

    @property
    def text(self) -> str:
        return "".join(token.text for token in self.tokens)


@dataclass(frozen=True)
class ScoredText:
    """log_probability: sum over the tokens that have one."""

    tokens: list[Token]
    log_probability: float
    unknown_symbols: int


def generate_request(model: str, options: GenerateOptions) -> pb.GenerateRequest:
    """Raises ValueError for a number its field cannot hold."""
    rest: dict[str, Any] = dict(options)
    sampling, beam, vector = (rest.pop(name, None) for name in ("sampling", "beam", "vector"))
    request = pb.GenerateRequest(model=model, model_version=rest.pop("version", ""), **rest)
    if sampling is not None:
        request.sampling.MergeFrom(pb.Sampling(**vars(sampling)))
    if beam is not None:
        request.beam.MergeFrom(pb.Beam(**vars(beam)))
    if vector is not None:
        request.vector.CopyFrom(pb.Vector(values=vector))
    return request


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
    vectors: Sequence[Sequence[float]],
) -> pb.ScoreRequest:
    """sources, vectors: one for each text, or none at all."""
    items = [pb.ScoreItem(text=text) for text in texts]
    if sources:
        for item, source in zip(items, sources, strict=True):
            item.source = source
    if vectors:
        for item, vector in zip(items, vectors, strict=True):
            item.vector.CopyFrom(pb.Vector(values=vector))
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
    return TaggedToken(token.text, token.label, token.probability, token.position, top)


def to_filled(response: pb.FillResponse) -> list[FilledBlank]:
    return [
        FilledBlank(
            [(word.word, word.probability) for word in blank.words],
            blank.input_tokens,
            blank.unknown_symbols,
        )
        for blank in response.blanks
    ]


def to_piece(response: pb.GenerateResponse) -> Piece:
    return Piece(
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
    return ResumePoint(point.sample, point.token, point.next_position)


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
    )


def to_scores(response: pb.ScoreResponse) -> list[ScoredText]:
    return [
        ScoredText([to_token(t) for t in row.tokens], row.log_probability, row.unknown_symbols)
        for row in response.scores
    ]


def to_token(token: pb.Token, tells_log_probability: bool = True) -> Token:
    has = tells_log_probability and token.HasField("log_probability")
    return Token(
        token.id,
        token.text,
        token.position,
        token.log_probability if has else None,
        token.sample,
        tuple((top.id, top.text, top.log_probability) for top in token.top),
    )


def to_failure(error: grpc.RpcError) -> RequestFailed:
    """The status of a failed call, with the delay from RetryInfo where there is one."""
    code = error.code()
    name = code.name if code is not None else "UNKNOWN"
    return RequestFailed(name, error.details() or "", _retry_after(error))


def _retry_after(error: grpc.RpcError) -> float | None:
    status = rpc_status.from_call(error)
    for detail in status.details if status else ():
        info = error_details_pb2.RetryInfo()
        if detail.Unpack(info):
            return float(info.retry_delay.seconds + info.retry_delay.nanos / 1e9)
    return None
