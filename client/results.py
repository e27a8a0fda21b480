"""Typed values for what goes in and comes out, and the only code here that knows messages."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

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
class Sampling:
    """How tokens are drawn; None takes the model's default, seed None one of the server's."""

    temperature: float | None = None
    top_k: int | None = None
    top_p: float | None = None
    seed: int | None = None


@dataclass(frozen=True)
class Token:
    """log_probability: natural logarithm; None where it was not asked for or there is none."""

    id: int
    text: str
    position: int
    log_probability: float | None


@dataclass(frozen=True)
class Answer:
    """How a stream ended: reason ``end``, ``stop`` or ``length``; times in seconds."""

    reason: str
    input_tokens: int
    output_tokens: int
    unknown_symbols: int
    queue_seconds: float
    time_to_first_token_seconds: float


@dataclass(frozen=True)
class Piece:
    """One message of a stream: its new tokens, the seed in the first, the answer in the last."""

    tokens: list[Token]
    seed: int | None
    answer: Answer | None

    @property
    def text(self) -> str:
        return "".join(token.text for token in self.tokens)


@dataclass(frozen=True)
class ScoredText:
    """log_probability: sum over the tokens that have one."""

    tokens: list[Token]
    log_probability: float
    unknown_symbols: int


def generate_request(
    model: str,
    version: str,
    prompt: str | None,
    source: str | None,
    vector: Sequence[float] | None,
    max_tokens: int | None,
    sampling: Sampling,
    stop: Sequence[str],
    log_probabilities: bool,
) -> pb.GenerateRequest:
    request = pb.GenerateRequest(
        model=model,
        model_version=version,
        max_tokens=max_tokens,
        sampling=pb.Sampling(
            temperature=sampling.temperature,
            top_k=sampling.top_k,
            top_p=sampling.top_p,
            seed=sampling.seed,
        ),
        stop=stop,
        log_probabilities=log_probabilities,
    )
    if prompt is not None:
        request.prompt = prompt
    if source is not None:
        request.source = source
    if vector is not None:
        request.vector.CopyFrom(pb.Vector(values=vector))
    return request


def score_request(
    model: str, version: str, texts: Sequence[str], sources: Sequence[str]
) -> pb.ScoreRequest:
    """sources: one for each text, or none at all."""
    pairs = zip(texts, sources or [""] * len(texts), strict=True)
    items = [pb.ScoreItem(text=text, source=source) for text, source in pairs]
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


def to_piece(response: pb.GenerateResponse) -> Piece:
    return Piece(
        [_to_token(token) for token in response.tokens],
        response.seed if response.HasField("seed") else None,
        _to_answer(response) if response.finish_reason else None,
    )


def _to_answer(response: pb.GenerateResponse) -> Answer:
    reason = pb.FinishReason.Name(response.finish_reason)
    usage = response.usage
    return Answer(
        reason.removeprefix("FINISH_REASON_").lower(),
        usage.input_tokens,
        usage.output_tokens,
        usage.unknown_symbols,
        usage.queue_seconds,
        usage.time_to_first_token_seconds,
    )


def to_scores(response: pb.ScoreResponse) -> list[ScoredText]:
    return [
        ScoredText([_to_token(t) for t in row.tokens], row.log_probability, row.unknown_symbols)
        for row in response.scores
    ]


def _to_token(token: pb.Token) -> Token:
    has = token.HasField("log_probability")
    return Token(token.id, token.text, token.position, token.log_probability if has else None)


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
