"""Messages to domain values and back: the only code that knows unroll.v1's fields."""

from __future__ import annotations

import struct
from collections.abc import Sequence
from functools import lru_cache
from typing import Any

from bundle.sampling import SAMPLING_PARAMETERS
from service.engine.automaton import CHOICES, JSON_SCHEMA, REGEX, ConstraintSpec
from service.engine.errors import WrongInput
from service.engine.requests import (
    Checkpoint,
    Event,
    Finished,
    FinishReason,
    ResumePolicy,
    SampleFinished,
    TokenMade,
    TokensMade,
)
from service.refused_model import RefusedModel
from service.serving.classifier import Classified
from service.serving.embedder import Embedded
from service.serving.fill_mask import FilledBlank
from service.serving.forecaster import (
    CovariateParams,
    ForecastMessage,
    ForecastParams,
    ResumeParams,
    SeriesParams,
)
from service.serving.generator import OpenStream, ScoredText, ScoredToken
from service.serving.model_info import ModelCard
from service.serving.named_states import NamedState, check_alone
from service.serving.online_tagger import TagMessage, TagStream, TagStreamParams
from service.serving.presets import Presets
from service.serving.sampling_params import (
    BeamParams,
    GenerateParams,
    SamplingParams,
    ScoreParams,
)
from service.serving.state_access import watchable
from service.serving.tagger import TaggedText, TaggedToken, TagParams
from service.v1.state_converters import to_changes, to_watch
from service.v1.step_converters import BATCHING, from_stepper
from service.varint import varint
from unroll.v1 import unroll_pb2 as pb

_TASKS = {
    "classify": pb.TASK_CLASSIFY,
    "tag": pb.TASK_TAG,
    "fill": pb.TASK_FILL,
    "generate": pb.TASK_GENERATE,
    "seq2seq": pb.TASK_SEQ2SEQ,
    "vec2seq": pb.TASK_VECTOR_TO_SEQUENCE,
    "forecast": pb.TASK_FORECAST,
    "step": pb.TASK_STEP,
}
_REASONS = {
    FinishReason.END: pb.FINISH_REASON_END,
    FinishReason.STOP: pb.FINISH_REASON_STOP,
    FinishReason.LENGTH: pb.FINISH_REASON_LENGTH,
    FinishReason.HANDED_OVER: pb.FINISH_REASON_HANDED_OVER,
    FinishReason.UNFINISHED: pb.FINISH_REASON_UNFINISHED,
}

_NO_PRESETS = Presets()

# The tag of GenerateResponse.tokens; Token.log_probability with its tag.
_TOKENS, _PROBABILITY = b"\x0a", struct.Struct("<Bf")


def to_params(
    request: pb.GenerateRequest, subject: str, start: NamedState | None = None
) -> GenerateParams:
    """Raises WrongInput for a state beside a resume token."""
    if start:
        check_alone(request.resume_token or None)
    kind = request.WhichOneof("input")
    return GenerateParams(
        prompt=request.prompt if kind == "prompt" else None,
        source=request.source if kind == "source" else None,
        vector=tuple(request.vector.values) if kind == "vector" else None,
        resume_token=request.resume_token if kind == "resume_token" else None,
        allow_inexact=request.allow_inexact,
        max_tokens=request.max_tokens if request.HasField("max_tokens") else None,
        min_tokens=request.min_tokens,
        sampling=_to_sampling(request.sampling),
        stop=tuple(request.stop),
        samples=request.samples or 1,
        beam=_to_beam(request.beam) if request.HasField("beam") else None,
        log_probabilities=request.log_probabilities,
        top=request.top_log_probabilities,
        echo=request.echo,
        checkpoints=ResumePolicy(request.resume_every, request.resume_at_end, on_stop=True),
        tokens_per_message=request.tokens_per_message,
        subject=subject,
        watch=to_watch(request),
        set_state=to_changes(request.set_state),
        no_cache=request.no_cache,
        constraint=_to_constraint(request.constraint) if request.HasField("constraint") else None,
        start=start,
        preset=request.preset,
    )


def _to_constraint(constraint: pb.Constraint) -> ConstraintSpec:
    match constraint.WhichOneof("kind"):
        case "choices":
            return ConstraintSpec(CHOICES, tuple(constraint.choices.texts))
        case "regex":
            return ConstraintSpec(REGEX, (constraint.regex,))
        case "json_schema":
            return ConstraintSpec(JSON_SCHEMA, (constraint.json_schema,))
        case _:
            raise WrongInput("constraint has no kind; set choices, regex or json_schema")


def _to_beam(beam: pb.Beam) -> BeamParams:
    penalty = beam.length_penalty if beam.HasField("length_penalty") else None
    return BeamParams(beam.width, beam.best or 1, penalty, beam.early_stop)


def _to_sampling(sampling: pb.Sampling) -> SamplingParams:
    names = (parameter.name for parameter in SAMPLING_PARAMETERS)
    return SamplingParams(
        values={name: getattr(sampling, name) for name in names if sampling.HasField(name)},
        seed=sampling.seed if sampling.HasField("seed") else None,
        logit_bias=dict(sampling.logit_bias),
        allowed_tokens=tuple(sampling.allowed_tokens),
        banned_tokens=tuple(sampling.banned_tokens),
    )


def from_events(
    events: Sequence[Event], params: GenerateParams, stream: OpenStream, is_first: bool
) -> pb.GenerateResponse:
    """The events that gathered since the last response, as one message."""
    response = pb.GenerateResponse()
    if is_first:
        response.seed = stream.seed
        for position, scored in enumerate(stream.echo):
            _add_scored(response.echo, position, scored)
    add, with_log_probabilities = response.tokens.add, params.log_probabilities
    for event in events:
        if type(event) is TokenMade:
            token = add(id=event.token, text=event.text, position=event.position)
            if with_log_probabilities:
                token.log_probability = event.log_probability
            if event.sample:
                token.sample = event.sample
            if event.top:
                _add_top(token, event, stream)
            if event.state:
                token.state = event.state
        else:
            _add_other(response, event, stream)
    return response


@lru_cache(maxsize=65_536)
def _token_head(token: int, text: str) -> bytes:
    """A Token's id and text, as protobuf writes them."""
    head: bytes = pb.Token(id=token, text=text).SerializeToString()
    return head


@lru_cache(maxsize=4096)
def _token_place(position: int, sample: int) -> tuple[bytes, bytes]:
    """A Token's position, and its sample, as protobuf writes them."""
    return (
        pb.Token(position=position).SerializeToString(),
        pb.Token(sample=sample).SerializeToString(),
    )


class TokenEncoder:
    """Tokens as a GenerateResponse on the wire, out of bytes that are made once an entry of the
    vocabulary: the same bytes as protobuf's, in a fifth of the time."""

    def __init__(self, with_log_probabilities: bool) -> None:
        self._with = with_log_probabilities

    def __call__(self, made: Sequence[TokenMade | TokensMade]) -> bytes:
        parts: list[bytes] = []
        for event in made:
            if type(event) is TokensMade:
                pieces, position, sample = event.pieces, event.position, event.sample
                for token, known in zip(event.tokens, event.log_probabilities, strict=True):
                    head = _token_head(token, pieces[token])
                    parts.append(self._token(head, position, known, sample))
                    position += 1
            elif type(event) is TokenMade:
                head = _token_head(event.token, event.text)
                parts.append(self._token(head, event.position, event.log_probability, event.sample))
        return b"".join(parts)

    def _token(self, head: bytes, position: int, log_probability: float, sample: int) -> bytes:
        place, last = _token_place(position, sample)
        probability = _PROBABILITY.pack(0x25, log_probability) if self._with else b""
        body = head + place + probability + last
        return _TOKENS + varint(len(body)) + body


def _add_top(token: pb.Token, made: TokenMade, stream: OpenStream) -> None:
    for number, log_probability in made.top:
        text = stream.text_of(number, made.position)
        token.top.add(id=number, text=text, log_probability=log_probability)


def _add_other(response: pb.GenerateResponse, event: Event, stream: OpenStream) -> None:
    if isinstance(event, SampleFinished):
        response.ends.add(
            sample=event.sample,
            finish_reason=_REASONS[event.reason],
            output_tokens=event.output_tokens,
            log_probability=event.log_probability,
            score=event.score,
        )
    elif isinstance(event, Checkpoint):
        response.resume_points.add(
            sample=event.sample,
            token=stream.sign(event.snapshot),
            next_position=event.snapshot.next_position,
            changed=event.snapshot.changed,
        )
    elif isinstance(event, Finished):
        response.finish_reason = _REASONS[event.reason]
        response.usage.CopyFrom(_usage(event, stream.unknown_symbols))


def _usage(finished: Finished, unknown_symbols: int) -> pb.Usage:
    return pb.Usage(
        input_tokens=finished.input_tokens,
        output_tokens=finished.output_tokens,
        unknown_symbols=unknown_symbols,
        queue_seconds=finished.queue_seconds,
        time_to_first_token_seconds=finished.first_token_seconds,
        cached_tokens=finished.cached_tokens,
    )


def from_classified(rows: Sequence[Classified]) -> pb.ClassifyResponse:
    return pb.ClassifyResponse(
        classifications=[
            pb.Classification(
                labels=[pb.LabelProbability(label=k, probability=p) for k, p in row.ranked()],
                input_tokens=row.input_tokens,
                unknown_symbols=row.unknown_symbols,
            )
            for row in rows
        ]
    )


def to_tag_params(request: pb.TagRequest) -> list[TagParams]:
    return [TagParams(item.text, tuple(item.words)) for item in request.items]


def from_tagged(texts: Sequence[TaggedText]) -> pb.TagResponse:
    response = pb.TagResponse()
    for tagged in texts:
        text = response.texts.add(unknown_symbols=tagged.unknown_symbols)
        for token in tagged.tokens:
            add_tagged(text.tokens, token)
    return response


def add_tagged(tokens: Any, tagged: TaggedToken) -> None:
    token = tokens.add(
        text=tagged.text,
        label=tagged.label,
        probability=tagged.probability,
        position=tagged.position,
    )
    for label, probability in tagged.top:
        token.top.add(label=label, probability=probability)
    if tagged.state:
        token.state = tagged.state


def to_tag_stream_params(
    start: pb.StreamTagStart, subject: str, named: NamedState | None = None
) -> TagStreamParams:
    return TagStreamParams(
        top=start.top_labels,
        tokens_per_message=start.tokens_per_message,
        checkpoints=ResumePolicy(start.resume_every, start.resume_at_end),
        resume_token=start.resume_token or None,
        allow_inexact=start.allow_inexact,
        subject=subject,
        watch=to_watch(start),
        start=named,
        set_state=to_changes(start.set_state),
    )


def from_tag_message(message: TagMessage, stream: TagStream) -> pb.StreamTagResponse:
    response = pb.StreamTagResponse()
    for token in message.tokens:
        add_tagged(response.tokens, token)
    for snapshot in message.checkpoints:
        response.resume_points.add(
            token=stream.sign(snapshot),
            next_position=snapshot.next_position,
            changed=snapshot.changed,
        )
    if message.finished:
        response.usage.CopyFrom(_usage(message.finished, stream.unknown_symbols))
        if message.finished.reason is FinishReason.HANDED_OVER:
            response.handed_over = True
            response.requests_read = stream.requests_read
    return response


def from_filled(blanks: Sequence[FilledBlank]) -> pb.FillResponse:
    return pb.FillResponse(
        blanks=[
            pb.FilledBlank(
                words=[pb.WordProbability(word=w, probability=p) for w, p in blank.words],
                input_tokens=blank.input_tokens,
                unknown_symbols=blank.unknown_symbols,
            )
            for blank in blanks
        ]
    )


def to_forecast_params(request: pb.ForecastRequest, subject: str) -> ForecastParams:
    """Raises WrongInput for a covariate that comes twice."""
    return ForecastParams(
        [_to_series(series, f"series[{n}]") for n, series in enumerate(request.series)],
        request.horizon,
        request.samples,
        tuple(request.quantiles),
        request.seed if request.HasField("seed") else None,
        request.frequency,
        ResumeParams(request.resume_token, request.allow_inexact, request.resume_every, subject),
    )


def _to_series(series: pb.Series, where: str) -> SeriesParams:
    covariates = {one.name: CovariateParams(one.past, one.future) for one in series.covariates}
    if len(covariates) < len(series.covariates):
        raise WrongInput(f"{where}.covariates has a name twice; send each once")
    return SeriesParams(series.values, series.start, covariates)


def from_forecast(
    message: ForecastMessage, quantiles: Sequence[float], seed: int | None
) -> pb.ForecastResponse:
    """quantiles: none for the samples themselves. seed: in the first response only."""
    response = pb.ForecastResponse(seed=seed, resume_token=message.resume_token)
    for step in message.steps:
        response.steps.add(
            series=step.series,
            position=step.position,
            time=step.time,
            mean=step.mean,
            quantiles=step.quantiles(quantiles),
            samples=() if quantiles else step.samples.tolist(),
        )
    if message.finished:
        response.usage.CopyFrom(_usage(message.finished, 0))
    return response


def to_score_params(request: pb.ScoreRequest) -> list[ScoreParams]:
    return [
        ScoreParams(
            item.text,
            item.source or None,
            tuple(item.vector.values) if item.HasField("vector") else None,
            tuple(item.choices),
            item.top_next_tokens,
        )
        for item in request.items
    ]


def from_scored(rows: Sequence[ScoredText]) -> pb.ScoreResponse:
    return pb.ScoreResponse(scores=[_score(row) for row in rows])


def _score(row: ScoredText) -> pb.Score:
    score = pb.Score(unknown_symbols=row.unknown_symbols, log_probability=row.log_probability)
    for position, scored in enumerate(row.tokens):
        _add_scored(score.tokens, position, scored)
    for choice in row.choices:
        message = score.choices.add(
            log_probability=choice.log_probability,
            log_probability_per_token=choice.log_probability_per_token,
            probability=choice.probability,
        )
        for position, scored in enumerate(choice.tokens):
            _add_scored(message.tokens, position, scored)
    for number, text, log_probability in row.next_tokens:
        score.next_tokens.add(id=number, text=text, log_probability=log_probability)
    return score


def from_embedded(rows: Sequence[Embedded]) -> pb.EmbedResponse:
    return pb.EmbedResponse(
        embeddings=[
            pb.Embedding(
                values=row.values.tolist(),
                input_tokens=row.input_tokens,
                unknown_symbols=row.unknown_symbols,
            )
            for row in rows
        ]
    )


def _add_scored(tokens: Any, position: int, scored: ScoredToken) -> None:
    token = tokens.add(id=scored.token, text=scored.text, position=position)
    if scored.log_probability is not None:
        token.log_probability = scored.log_probability
    for number, text, log_probability in scored.top:
        token.top.add(id=number, text=text, log_probability=log_probability)


def from_card(
    card: ModelCard, with_vocabulary: bool = False, presets: Presets = _NO_PRESETS
) -> pb.Model:
    model = pb.Model(
        name=card.name,
        version=card.version,
        task=_TASKS.get(card.task, pb.TASK_UNSPECIFIED),
        description=card.description,
        labels=card.labels,
        vector_fields=card.vector_fields,
        streams_tags=card.streams_tags,
        embeds=card.embeds,
        limits=card.limits,
        digest=card.digest,
        provider=card.provider,
        precision=card.precision,
        precisions=card.precisions,
        batch_invariant=card.batch_invariant,
        batching=BATCHING[card.batching],
        batching_reason=card.batching_reason,
        fingerprint=card.fingerprint,
        cpu_extensions=card.cpu_extensions,
        vocabulary=card.vocabulary if with_vocabulary else (),
    )
    if card.vocabulary or card.streams_tags or card.stepper:
        for name, units in watchable(card).items():
            model.state.add(name=name, units=units)
    model.attended = card.attended
    if card.vocabulary:  # it makes tokens
        for name, value in presets.defaults(card).items():
            setattr(model.default_sampling, name, value)
        for preset, values in presets.of(card).items():
            for name, value in values.items():
                setattr(model.presets[preset], name, value)
    if card.series:
        model.forecaster.CopyFrom(
            pb.Forecaster(
                frequency=card.series.frequency,
                distribution=card.series.distribution,
                covariates=card.series.covariates,
                calendar=card.series.calendar,
                least_context=card.series.least_context,
                context=card.limits["context"],
                horizon=card.limits["horizon"],
            )
        )
    if card.frames:
        model.frames.CopyFrom(
            pb.Frames(channels=card.frames.channels, frame_seconds=card.frames.frame_seconds)
        )
    if card.stepper:
        steps = card.limits["message_steps"]
        model.stepper.CopyFrom(from_stepper(card.stepper, steps))
    for figure in card.figures:
        floors = [floor for floor in card.floors if floor.is_of(figure)]
        model.figures.add(
            name=figure.name,
            value=figure.value,
            unit=figure.unit,
            split=figure.split,
            examples=figure.examples,
            floors=[pb.Floor(by=floor.by, value=floor.value) for floor in floors],
        )
    for source in card.data:
        model.data.add(package=source.package, version=source.version, licence=source.licence)
    return model


def from_refused(refused: RefusedModel) -> pb.RefusedModel:
    return pb.RefusedModel(name=refused.name, version=refused.version, reason=refused.reason)
