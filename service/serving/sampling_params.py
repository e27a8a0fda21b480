"""Parameters of generation requests, and their validation."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from bundle.sampling import LARGEST_PENALTY, SAMPLING_PARAMETERS, SamplingParameter
from service.constraints.patterns import check as check_constraint
from service.engine.automaton import ConstraintSpec
from service.engine.errors import WrongInput
from service.engine.requests import (
    NO_CHECKPOINTS,
    Beam,
    GenerateRequest,
    ResumePolicy,
    Sampling,
    Snapshot,
)
from service.serving.model_info import ModelCard
from service.serving.named_states import NamedState
from service.serving.output_stream import FULL
from service.serving.presets import Presets
from service.serving.state_access import (
    StateChange,
    WatchParams,
    check_resumes,
    watch_bytes,
    watch_of,
    with_changes,
)

# Of a token that waits to be read, and of each likelier one that is sent beside it.
_TOKEN_BYTES, _TOP_BYTES = 256, 160
MAX_STOPS = 16
MAX_STOP_CHARACTERS = 256
MAX_SAMPLES = 64
MAX_BEAMS = 16
MAX_TOP = 20
MAX_TOKENS_PER_MESSAGE = 1024
# A checkpoint copies a stream's state; more often than this it would cost more than tokens.
LEAST_CHECKPOINT_TOKENS = 16
_LARGEST_BIAS = 100.0


@dataclass(frozen=True)
class SamplingParams:
    """What a request says of sampling.

    values: the parameters of bundle/sampling.py that it chooses, by name. seed: None for one of
    the server's.
    """

    values: Mapping[str, float] = field(default_factory=dict)
    seed: int | None = None
    logit_bias: Mapping[int, float] = field(default_factory=dict)
    allowed_tokens: tuple[int, ...] = ()
    banned_tokens: tuple[int, ...] = ()

    def chosen(self) -> list[str]:
        """Names of what the request does not leave to the model."""
        others = {
            "seed": self.seed is not None,
            "logit_bias": self.logit_bias,
            "allowed_tokens": self.allowed_tokens,
            "banned_tokens": self.banned_tokens,
        }
        return [*self.values, *(name for name, is_chosen in others.items() if is_chosen)]


@dataclass(frozen=True)
class BeamParams:
    """As engine.requests.Beam. length_penalty: None for the model's."""

    width: int
    best: int
    length_penalty: float | None = None
    early_stop: bool = False


@dataclass(frozen=True)
class GenerateParams:
    """One of prompt, source, vector, resume_token prefills the model; the others are None.

    subject: who asks, as far as it is known. tokens_per_message: 0 for the server's choice.
    watch: None for nothing of the state. set_state: of a resumed stream. no_cache: as
    GenerateRequest has it. constraint: of the text. start: a state to begin from. preset: empty for
    none.
    """

    prompt: str | None
    source: str | None
    vector: Sequence[float] | None
    max_tokens: int | None
    sampling: SamplingParams
    stop: tuple[str, ...]
    resume_token: bytes | None = None
    allow_inexact: bool = False
    min_tokens: int = 0
    samples: int = 1
    beam: BeamParams | None = None
    log_probabilities: bool = False
    top: int = 0
    echo: bool = False
    checkpoints: ResumePolicy = NO_CHECKPOINTS
    tokens_per_message: int = 0
    subject: str = ""
    watch: WatchParams | None = None
    set_state: tuple[StateChange, ...] = ()
    no_cache: bool = False
    constraint: ConstraintSpec | None = None
    start: NamedState | None = None
    preset: str = ""

    @property
    def inputs(self) -> dict[str, str | Sequence[float] | None]:
        """What may prefill the model, by the names of the fields."""
        return {"prompt": self.prompt, "source": self.source, "vector": self.vector}


def unread_bytes(params: GenerateParams, card: ModelCard) -> int:
    """What the answer takes at most while nobody reads it.

    A beam's tokens come all at once; of a stream only so many wait, and as many may be in the
    message that is being sent. Raises WrongInput for a watch of what there is not.
    """
    longest = card.limits["output_tokens"]
    if params.beam:
        waiting = params.beam.best * min(params.max_tokens or longest, longest)
    else:
        waiting = max(FULL * min(params.samples, 4), 2 * params.tokens_per_message)
    beside = _TOP_BYTES * min(params.top, MAX_TOP)
    if params.echo:
        # A vector has no tokens, and is refused for its echo later.
        read = len(params.prompt or params.source or "")
        waiting += min(read, card.limits.get("input_tokens", 0))
    return waiting * (_TOKEN_BYTES + beside + watch_bytes(watch_of(params.watch, card), card))


@dataclass(frozen=True)
class ScoreParams:
    """A text, and the source or the vector that it is the answer to, where there is one.

    choices: ways to go on. top_next: how many of the likeliest next tokens are answered.
    """

    text: str
    source: str | None = None
    vector: Sequence[float] | None = None
    choices: tuple[str, ...] = ()
    top_next: int = 0

    @property
    def looks_ahead(self) -> bool:
        """Whether it asks for what follows the text, not for the text."""
        return bool(self.choices or self.top_next)

    @property
    def characters(self) -> int:
        return len(self.text) + len(self.source or "") + sum(map(len, self.choices))

    @property
    def inputs(self) -> dict[str, str | Sequence[float] | None]:
        """What the text may be the answer to, by the names of the fields."""
        return {"source": self.source, "vector": self.vector}


class GenerateValidator:
    """One model's defaults and limits.

    vocabulary: tokens it knows. never_sampled_ids: those it never makes. rows: how many streams
    decode at once, which a beam search takes together. presets: of the server.
    """

    def __init__(
        self,
        card: ModelCard,
        vocabulary: int,
        never_sampled_ids: Sequence[int],
        end_id: int | None,
        rows: int,
        presets: Presets,
    ) -> None:
        self.card = card
        self.presets = presets
        self.vocabulary = vocabulary
        self.never_sampled_ids = frozenset(never_sampled_ids)
        self.end_id = end_id
        self.rows = rows

    def can_make(self, tokens: Iterable[int]) -> bool:
        """Whether a stream could be made of these alone."""
        return (self.never_sampled_ids | {self.end_id}).isdisjoint(tokens)

    def fresh(
        self, params: GenerateParams, tokens: Sequence[Any], seed: int, arrived: float
    ) -> GenerateRequest:
        """Raises WrongInput."""
        max_tokens = self._max_tokens(params.max_tokens, _least_tokens(params))
        beam = self._checked_beam(params, params.beam) if params.beam else None
        if not 1 <= params.samples <= MAX_SAMPLES:
            raise WrongInput(f"samples is {params.samples}; choose 1 to {MAX_SAMPLES}")
        if params.min_tokens > max_tokens:
            raise WrongInput(f"min_tokens is {params.min_tokens}, max_tokens {max_tokens}")
        check_tokens_per_message(params.tokens_per_message)
        check_checkpoints(params.checkpoints)
        check_resumes(params.set_state, is_resumed=False)
        if params.constraint:
            check_constraint(params.constraint)
        return GenerateRequest(
            tokens=tuple(tokens),
            sampling=self._sampling(self._with_preset(params), seed, params.min_tokens),
            max_tokens=max_tokens,
            stop=_checked_stops(params.stop),
            arrived=arrived,
            min_tokens=params.min_tokens,
            samples=params.samples,
            top=_checked_top(params),
            beam=beam,
            checkpoints=params.checkpoints,
            watch=watch_of(params.watch, self.card),
            no_cache=params.no_cache,
        )

    def resumed(
        self, params: GenerateParams, snapshot: Snapshot, arrived: float
    ) -> GenerateRequest:
        """Go on from ``snapshot``; only its seed, its length and what comes beside a token may
        be chosen.

        Raises WrongInput.
        """
        kept = [name for name in params.sampling.chosen() if name != "seed"]
        for name, is_set in (
            ("stop", params.stop),
            ("min_tokens", params.min_tokens),
            ("samples", params.samples != 1),
            ("beam", params.beam),
            ("echo", params.echo),
            ("constraint", params.constraint),
            ("preset", params.preset),
        ):
            kept += [name] if is_set else []
        if kept:
            raise WrongInput(
                f"a resumed stream keeps its {kept[0]}; leave it, or send a new request"
            )
        check_tokens_per_message(params.tokens_per_message)
        check_checkpoints(params.checkpoints)
        seed = params.sampling.seed
        return GenerateRequest(
            tokens=snapshot.tokens,
            sampling=snapshot.sampling if seed is None else replace(snapshot.sampling, seed=seed),
            max_tokens=self._further(params.max_tokens, snapshot),
            stop=snapshot.stop,
            arrived=arrived,
            min_tokens=snapshot.min_tokens,
            first_sample=snapshot.sample,
            top=_checked_top(params),
            checkpoints=params.checkpoints,
            resumed=with_changes(snapshot, params.set_state, self.card),
            watch=watch_of(params.watch, self.card),
            no_cache=params.no_cache,
        )

    def _further(self, params: int | None, snapshot: Snapshot) -> int:
        """max_tokens of a resumed stream counts from the first token that it will deliver."""
        if params is not None:
            further = snapshot.made - len(snapshot.held) + self._max_tokens(params)
            return max(snapshot.made + 1, further)
        if snapshot.made >= snapshot.max_tokens:
            raise WrongInput(
                f"the stream had made all of its {snapshot.max_tokens} tokens; set max_tokens "
                "for how many more"
            )
        return snapshot.max_tokens

    def _max_tokens(self, params: int | None, least: int = 1) -> int:
        limit = self.card.limits["output_tokens"]
        if params is None:
            return limit
        if not least <= params <= limit:
            raise WrongInput(
                f"max_tokens is {params}; model {self.card.name!r} makes 1 to {limit}, or 0 for a "
                "prompt's own tokens alone, with echo"
            )
        return params

    def _with_preset(self, params: GenerateParams) -> SamplingParams:
        """What the request says of sampling; where it says nothing, what its preset does."""
        if not params.preset:
            return params.sampling
        preset = self.presets.chosen(self.card, params.preset)
        return replace(params.sampling, values={**preset, **params.sampling.values})

    def _sampling(self, params: SamplingParams, seed: int, min_tokens: int) -> Sampling:
        defaults = self.presets.defaults(self.card)
        values = {p.name: self._value(p, params, defaults) for p in SAMPLING_PARAMETERS}
        self._check_choice(params, min_tokens)
        return Sampling(seed, values, self._bias(params), tuple(sorted(set(params.allowed_tokens))))

    def _value(
        self, parameter: SamplingParameter, params: SamplingParams, defaults: Mapping[str, float]
    ) -> float:
        """The request's choice, or else the model's, or else the table's."""
        name, card = parameter.name, self.card
        value = params.values.get(name)
        if value is None:
            return defaults.get(name, parameter.default)
        problem = parameter.problem(value)
        if problem:
            raise WrongInput(problem)
        if name in card.missing_parameters and value != parameter.neutral:
            raise WrongInput(
                f"model {card.name!r} was exported without {name}; leave it, or export the "
                "bundle again"
            )
        return value

    def _bias(self, params: SamplingParams) -> tuple[tuple[int, float], ...]:
        bias = {
            token: _between(value, 0.0, f"logit_bias[{token}]", -_LARGEST_BIAS, _LARGEST_BIAS)
            for token, value in params.logit_bias.items()
        }
        bias |= dict.fromkeys(params.banned_tokens, float("-inf"))
        return tuple(sorted(bias.items()))

    def _check_choice(self, params: SamplingParams, min_tokens: int) -> None:
        """Every token exists, and something is left to draw."""
        for name, tokens in (
            ("logit_bias", params.logit_bias),
            ("allowed_tokens", params.allowed_tokens),
            ("banned_tokens", params.banned_tokens),
        ):
            for token in tokens:
                if token >= self.vocabulary:
                    raise WrongInput(
                        f"{name} names token {token}, model {self.card.name!r} knows 0 to "
                        f"{self.vocabulary - 1}; GetModel with_vocabulary lists them"
                    )
        if not (params.allowed_tokens or params.banned_tokens):
            return
        every = params.allowed_tokens or range(self.vocabulary)
        left = set(every) - set(params.banned_tokens) - self.never_sampled_ids
        if not left - ({self.end_id} if min_tokens else set()):
            raise WrongInput("allowed_tokens and banned_tokens leave nothing to draw")

    def _checked_beam(self, params: GenerateParams, beam: BeamParams) -> Beam:
        most = min(MAX_BEAMS, self.rows)
        if not 1 <= beam.width <= most:
            raise WrongInput(f"beam.width is {beam.width}; choose 1 to {most}")
        if not 1 <= beam.best <= beam.width:
            raise WrongInput(f"beam.best is {beam.best}; choose 1 to beam.width ({beam.width})")
        penalty = _between(
            beam.length_penalty, self.card.length_penalty, "beam.length_penalty",
            -LARGEST_PENALTY, LARGEST_PENALTY,
        )  # fmt: skip
        drawing = set(params.sampling.chosen()) - {"allowed_tokens", "banned_tokens"}
        others = (
            *sorted(drawing),
            *(["preset"] if params.preset else []),
            *(["stop"] if params.stop else []),
            *(["samples"] if params.samples != 1 else []),
            *(["top_log_probabilities"] if params.top else []),
            *(["watch"] if params.watch else []),
            *(["resume tokens"] if params.checkpoints.is_asked_for else []),
        )
        if others:
            raise WrongInput(f"beam search goes without {others[0]}; leave one of the two")
        return Beam(beam.width, beam.best, penalty, beam.early_stop)


def _least_tokens(params: GenerateParams) -> int:
    """0 where the tokens of the input may be all that is asked for."""
    makes_some = params.beam or params.constraint or params.checkpoints.is_asked_for
    return 0 if params.echo and not makes_some else 1


def _between(value: float | None, default: float, name: str, least: float, most: float) -> float:
    if value is None:
        return default
    # The wire carries a float32, which may lie beside the limit that was meant.
    if not least - 1e-6 <= value <= most + 1e-6:
        raise WrongInput(f"{name} is {value:g}; choose one from {least:g} to {most:g}")
    return value


def _checked_stops(stops: Sequence[str]) -> tuple[str, ...]:
    if len(stops) > MAX_STOPS:
        raise WrongInput(f"stop holds {len(stops)} texts; send at most {MAX_STOPS}")
    for number, stop in enumerate(stops):
        if not 1 <= len(stop) <= MAX_STOP_CHARACTERS:
            raise WrongInput(
                f"stop[{number}] has {len(stop)} characters; send 1 to {MAX_STOP_CHARACTERS}"
            )
    return tuple(stops)


def check_tokens_per_message(count: int) -> None:
    """Raises WrongInput."""
    if count > MAX_TOKENS_PER_MESSAGE:
        raise WrongInput(
            f"tokens_per_message is {count}; choose up to "
            f"{MAX_TOKENS_PER_MESSAGE}, or 0 for the server's choice"
        )


def _checked_top(params: GenerateParams) -> int:
    if params.top > MAX_TOP:
        raise WrongInput(f"top_log_probabilities is {params.top}; choose up to {MAX_TOP}")
    return params.top


def check_checkpoints(checkpoints: ResumePolicy) -> None:
    """Raises WrongInput."""
    every = checkpoints.every
    if every and every < LEAST_CHECKPOINT_TOKENS:
        raise WrongInput(
            f"resume_every is {every}; choose 0 for never or at least {LEAST_CHECKPOINT_TOKENS}"
        )
