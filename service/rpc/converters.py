"""Messages to domain values and back: the only code that knows unroll.v1's fields."""

from __future__ import annotations

from collections.abc import Sequence

from service.engine.catalogue import RefusedModel
from service.engine.errors import ResumeUnsupported
from service.engine.models import (
    Classified,
    GenerationWish,
    ModelCard,
    OpenStream,
    SamplingWish,
    ScoredText,
)
from service.engine.requests import Event, Finished, FinishReason, TokenMade
from unroll.v1 import unroll_pb2 as pb

_TASKS = {
    "classify": pb.TASK_CLASSIFY,
    "generate": pb.TASK_GENERATE,
    "seq2seq": pb.TASK_SEQ2SEQ,
}
_REASONS = {
    FinishReason.END: pb.FINISH_REASON_END,
    FinishReason.STOP: pb.FINISH_REASON_STOP,
    FinishReason.LENGTH: pb.FINISH_REASON_LENGTH,
}


def to_wish(request: pb.GenerateRequest) -> GenerationWish:
    """Raises ResumeUnsupported for a resume token."""
    kind = request.WhichOneof("input")
    if kind == "resume_token":
        raise ResumeUnsupported(
            "this server issues no resume tokens, so it cannot go on with one; "
            "send the prompt and the seed again"
        )
    return GenerationWish(
        prompt=request.prompt if kind == "prompt" else None,
        source=request.source if kind == "source" else None,
        vector=request.vector.values if kind == "vector" else None,
        max_tokens=request.max_tokens if request.HasField("max_tokens") else None,
        sampling=_to_sampling(request.sampling),
        stop=tuple(request.stop),
    )


def _to_sampling(sampling: pb.Sampling) -> SamplingWish:
    return SamplingWish(
        temperature=sampling.temperature if sampling.HasField("temperature") else None,
        top_k=sampling.top_k if sampling.HasField("top_k") else None,
        top_p=sampling.top_p if sampling.HasField("top_p") else None,
        seed=sampling.seed if sampling.HasField("seed") else None,
    )


def from_events(
    events: Sequence[Event], with_log_probabilities: bool, stream: OpenStream, is_first: bool
) -> pb.GenerateResponse:
    """The events that gathered since the last response, as one message."""
    response = pb.GenerateResponse()
    if is_first:
        response.seed = stream.seed
    for event in events:
        if isinstance(event, TokenMade):
            token = response.tokens.add(id=event.token, text=event.text, position=event.position)
            if with_log_probabilities:
                token.log_probability = event.log_probability
        elif isinstance(event, Finished):
            response.finish_reason = _REASONS[event.reason]
            response.usage.CopyFrom(_usage(event, stream.unknown_symbols))
    return response


def _usage(finished: Finished, unknown_symbols: int) -> pb.Usage:
    return pb.Usage(
        input_tokens=finished.input_tokens,
        output_tokens=finished.output_tokens,
        unknown_symbols=unknown_symbols,
        queue_seconds=finished.queue_seconds,
        time_to_first_token_seconds=finished.first_token_seconds,
    )


def from_classified(rows: Sequence[Classified]) -> pb.ClassifyResponse:
    return pb.ClassifyResponse(
        classifications=[
            pb.Classification(
                labels=[pb.LabelProbability(label=k, probability=p) for k, p in row.labels],
                input_tokens=row.input_tokens,
                unknown_symbols=row.unknown_symbols,
            )
            for row in rows
        ]
    )


def from_scored(rows: Sequence[ScoredText]) -> pb.ScoreResponse:
    return pb.ScoreResponse(scores=[_score(row) for row in rows])


def _score(row: ScoredText) -> pb.Score:
    score = pb.Score(unknown_symbols=row.unknown_symbols)
    for position, scored in enumerate(row.tokens):
        token = score.tokens.add(id=scored.token, text=scored.text, position=position)
        if scored.log_probability is not None:
            token.log_probability = scored.log_probability
            score.log_probability += scored.log_probability
    return score


def from_card(card: ModelCard) -> pb.Model:
    model = pb.Model(
        name=card.name,
        version=card.version,
        task=_TASKS[card.task],
        description=card.description,
        labels=card.labels,
        limits=card.limits,
        digest=card.digest,
        provider=card.provider,
    )
    if card.task != "classify":
        model.default_sampling.temperature = card.sampling.temperature
        model.default_sampling.top_k = card.sampling.top_k
        model.default_sampling.top_p = card.sampling.top_p
    for figure in card.figures:
        model.figures.add(
            name=figure.name,
            value=figure.value,
            unit=figure.unit,
            split=figure.split,
            examples=figure.examples,
        )
    for source in card.data:
        model.data.add(package=source.package, version=source.version, licence=source.licence)
    return model


def from_refused(refused: RefusedModel) -> pb.RefusedModel:
    return pb.RefusedModel(name=refused.name, version=refused.version, reason=refused.reason)
