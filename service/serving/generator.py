"""The generator: a prompt, a source or a vector in, a stream of tokens out."""

from __future__ import annotations

import secrets
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from service.engine.automaton import (
    CHOICES,
    Constraint,
    ConstraintPlace,
    ConstraintSpec,
    TokenAutomaton,
)
from service.engine.errors import ResumeRefused, WrongInput
from service.engine.requests import (
    LIKELIEST,
    Event,
    Finished,
    FinishReason,
    GenerateRequest,
    NextTokenDistribution,
    NextTokenRequest,
    SampleFinished,
    Snapshot,
    Start,
    State,
    TagSnapshot,
    TokenMade,
)
from service.serving.constraints import ModelConstraints
from service.serving.embedder import Embedder
from service.serving.generator_input import EncodedInput, GeneratorInput
from service.serving.inputs import ReadingModel, checked_size, off_loop
from service.serving.model_info import ModelCard
from service.serving.named_states import (
    MadeState,
    NamedState,
    StateParams,
    digest_of_state,
    known_inputs,
    of_known_tokens,
)
from service.serving.output_stream import TokenStream, run_batch
from service.serving.presets import Presets
from service.serving.resume_token import GENERATE, ResumeTokens, ServedBundle
from service.serving.sampling_params import GenerateParams, GenerateValidator, ScoreParams
from service.serving.worker import EngineThread

if TYPE_CHECKING:
    from bundle.tokenizer import Tokenizer

_SEEDS = 2**64


@dataclass(frozen=True)
class OpenStream:
    """A stream under way: read ``tokens``, and close it.

    echo: the input's tokens, where the request wants them. sign: makes a resume token of a
    snapshot.
    """

    tokens: TokenStream
    seed: int
    unknown_symbols: int
    echo: list[ScoredToken]
    sign: Callable[[Snapshot | TagSnapshot], bytes]
    codec: Tokenizer

    def text_of(self, token: int, position: int) -> str:
        return self.codec.piece(token, position == 0)


# A token that may come next: its id, its text and its log-probability.
NextToken = tuple[int, str, float]


@dataclass(frozen=True)
class ScoredToken:
    """log_probability: None for a token that follows nothing. top: the likeliest tokens in its
    place, the likeliest first, where they were asked for."""

    token: int
    text: str
    log_probability: float | None
    top: Sequence[NextToken] = ()


@dataclass(frozen=True)
class ScoredChoice:
    """One of several ways to go on. probability: that it is this one, if it is one of them."""

    tokens: list[ScoredToken]
    probability: float = 0.0

    @property
    def log_probability(self) -> float:
        return _total(self.tokens)

    @property
    def log_probability_per_token(self) -> float:
        return self.log_probability / len(self.tokens)


@dataclass(frozen=True)
class ScoredText:
    """tokens: none where the text was read for what may follow it: choices and next_tokens."""

    tokens: list[ScoredToken]
    unknown_symbols: int
    choices: Sequence[ScoredChoice] = ()
    next_tokens: Sequence[NextToken] = ()

    @property
    def log_probability(self) -> float:
        """Of all tokens together."""
        return _total(self.tokens)

    @property
    def size(self) -> int:
        """Tokens of the answer."""
        ahead = sum(len(choice.tokens) for choice in self.choices) + len(self.next_tokens)
        return len(self.tokens) + ahead


def _total(tokens: Sequence[ScoredToken]) -> float:
    total = 0.0  # not sum(), which rounds otherwise in later Pythons
    for token in tokens:
        total += token.log_probability or 0.0
    return total


@dataclass(frozen=True)
class ScoreItem:
    """The log-probability of each target after the token beside it.

    source: ids or values that prefill the model first; empty for a generator. state: to go on from
    instead; None to begin. keeps_state: asks for the state after all tokens, of which there may be
    none then, instead of log-probabilities.
    """

    tokens: tuple[int, ...]
    targets: tuple[int, ...]
    source: tuple[Any, ...] = ()
    state: State | None = None
    keeps_state: bool = False

    @property
    def length(self) -> int:
        return len(self.tokens)


@dataclass(frozen=True)
class OutputSpec:
    """What a generating model writes with.

    begin_id, end_id, never_sampled_ids: as GenerationModel. rows: how many streams decode at once.
    """

    codec: Tokenizer
    begin_id: int | None
    end_id: int | None
    never_sampled_ids: tuple[int, ...]
    vocabulary: int
    rows: int


class GeneratorModel(ReadingModel):
    """Generates from a prompt or, where the writer has a begin_id, from a source or a vector.

    input: what prefills it. presets: of the server.
    tokens_per_message: for requests that do not say; 0 leaves it to coalescing.
    choose_seed: for requests without one. clock: the engine's, in seconds. constraints: compiles
    those of its texts. embedder: of a model that reads texts and carries a state.
    """

    does = "generate"

    def __init__(
        self,
        card: ModelCard,
        input: GeneratorInput,
        writer: OutputSpec,
        thread: EngineThread,
        score_thread: EngineThread,
        resume_tokens: ResumeTokens,
        constraints: ModelConstraints,
        presets: Presets,
        tokens_per_message: int = 0,
        clock: Callable[[], float] = time.monotonic,
        choose_seed: Callable[[], int] = lambda: secrets.randbelow(_SEEDS),
        embedder: Embedder | None = None,
    ) -> None:
        super().__init__(card)
        self.input = input
        self.writer = writer.codec
        self.begin_id, self.end_id = writer.begin_id, writer.end_id
        self.thread = thread
        self.score_thread = score_thread
        self.resume_tokens = resume_tokens
        self.constraints = constraints
        self.tokens_per_message = tokens_per_message
        self.clock = clock
        self.choose_seed = choose_seed
        self._embedder = embedder
        self._rules = GenerateValidator(
            card, writer.vocabulary, writer.never_sampled_ids, writer.end_id, writer.rows, presets
        )

    @property
    def calls(self) -> str:
        return "Generate, Score or Embed" if self._embedder else "Generate or Score"

    @property
    def embedder(self) -> Embedder:
        return self._embedder or super().embedder

    @property
    def is_conditioned(self) -> bool:
        """Whether what it makes begins anew after its input, instead of continuing it."""
        return self.begin_id is not None

    async def generate(self, params: GenerateParams) -> OpenStream:
        """Raises WrongInput, ResumeInvalid, ResumeRefused, StateRefused, QueueFull, Overloaded,
        ConstraintFailed or EngineFailed."""
        bundle = ServedBundle.of(self.card, GENERATE)
        if params.resume_token is None:
            if params.start:
                params.start.check(bundle, params.allow_inexact)
                self._check_start(params)
            if params.echo and not self.input.is_text:
                raise WrongInput(
                    f"model {self.card.name!r} reads a {self.input.name}, which has no tokens to "
                    "echo; leave echo"
                )
            size = sum(len(value) for value in params.inputs.values() if value)
            given = await off_loop(size, lambda: self._read_input(params))
            unknown = given.unknown
            request = self._request(params, given)
            if params.constraint:
                request = await self._constrained(request, params.constraint)
            echo = await self._echo(params, given) if params.echo else []
        else:
            snapshot = self.resume_tokens.open(
                params.resume_token, bundle, params.subject, params.allow_inexact
            )
            unknown, echo = 0, []
            request = self._rules.resumed(params, snapshot, self.clock())
            if snapshot.constrained:
                request = await self._still_constrained(request, snapshot.constrained)
        size = request.beam.width if request.beam else request.samples
        each = params.tokens_per_message or self.tokens_per_message
        if request.max_tokens:
            stream = TokenStream.open(self.thread, request, each, size)
        else:
            stream = TokenStream.of_events(self.thread, _ends_of(request))
        return OpenStream(
            stream,
            request.sampling.seed,
            unknown,
            echo,
            lambda snapshot: self.resume_tokens.sign(snapshot, bundle, params.subject),
            self.writer,
        )

    def _request(self, params: GenerateParams, given: EncodedInput) -> GenerateRequest:
        seed, named = params.sampling.seed, params.start
        tokens = (*named.tokens, *given.ids) if named else given.ids
        request = self._rules.fresh(
            params, tokens, self.choose_seed() if seed is None else seed, self.clock()
        )
        if named is None:
            return request
        return replace(request, start=Start(self._read_of(named), named.state, named.digest))

    def _read_of(self, named: NamedState) -> int:
        """How many of its tokens were read: of a prompt the last one is still to be."""
        return len(named.tokens) - (not self.is_conditioned)

    def _check_start(self, params: GenerateParams) -> None:
        """Raises WrongInput for what does not go with a state to begin from."""
        given = [name for name, value in params.inputs.items() if value is not None]
        if self.is_conditioned and given:
            raise WrongInput(
                f"the state stands for a {self.input.name}; leave {given[0]}, or state"
            )
        if params.echo:
            raise WrongInput("the prompt of a state is not kept as a text; leave echo, or state")

    # -- states --------------------------------------------------------------------------------

    @property
    def state_maker(self) -> GeneratorModel:
        return self

    async def make_state(self, params: StateParams) -> MadeState:
        """As StateMaker. What it is made of is read as the prompt of a stream is."""
        bundle, base = ServedBundle.of(self.card, GENERATE), params.base
        if base:
            base.check(bundle, params.allow_inexact)
        if params.resume_token is not None:
            return self._state_of_token(params.resume_token, params, bundle)
        given = await self._read_for_state(params)
        if base and not given.ids:
            return MadeState(bundle, base.tokens, base.state, base.digest)
        tokens = (*base.tokens[-1:], *given.ids) if base else tuple(given.ids)
        state = await self._state_after(tokens, base.state if base else None)
        whole = (*base.tokens, *given.ids) if base else tokens
        made = MadeState(bundle, whole, state, base.digest if base else 0, given.unknown)
        return of_known_tokens(made, self.card.limits["input_tokens"])

    async def _read_for_state(self, params: StateParams) -> EncodedInput:
        needs, given = self.input.name, known_inputs(params)
        if params.base and (self.is_conditioned or not given):
            if given:
                raise WrongInput(f"the state stands for a {needs}; leave {given[0]}, or state")
            return EncodedInput(())
        if given != [needs]:
            says = f"the request has a {given[0]}" if given else "the request has no input"
            raise WrongInput(f"a state of model {self.card.name!r} is made of a {needs}, {says}")
        text = params.prompt if needs == "prompt" else params.source
        assert text is not None, "it is given"
        if params.base and not text:
            return EncodedInput(())
        read = self.input.read_on if params.base else self.input.read
        return await off_loop(len(text), lambda: read(self, text, needs))

    async def _state_after(self, tokens: tuple[int, ...], start: State | None) -> State:
        """From which a stream of ``tokens`` begins."""
        request = NextTokenRequest(tokens, self.clock(), start, keeps_start=True)
        stream = TokenStream.open(self.thread, request)
        try:
            events = [event async for some in stream for event in some]
        finally:
            stream.close()
        (found,) = [event for event in events if isinstance(event, NextTokenDistribution)]
        return found.state

    def _state_of_token(self, token: bytes, params: StateParams, bundle: ServedBundle) -> MadeState:
        if params.base:
            raise WrongInput("a resume token holds a state of its own; leave it, or state")
        if self.is_conditioned:
            raise WrongInput(
                f"a state of model {self.card.name!r} stands for a {self.input.name} alone; send "
                "that, or go on with the resume token itself"
            )
        snapshot = self.resume_tokens.open(token, bundle, params.subject, params.allow_inexact)
        return MadeState(bundle, (snapshot.token,), snapshot.state, digest_of_state(snapshot.state))

    async def _constrained(self, request: GenerateRequest, spec: ConstraintSpec) -> GenerateRequest:
        constraint = await self.constraints.compiled(spec, request.sampling)
        longest = int(constraint.automaton.longest[0])
        if longest < request.min_tokens:
            raise WrongInput(
                f"min_tokens is {request.min_tokens}, and the longest text that the constraint "
                f"lets through has {longest} tokens; lower it"
            )
        return replace(request, constraint=constraint)

    async def _still_constrained(
        self, request: GenerateRequest, place: ConstraintPlace
    ) -> GenerateRequest:
        """Raises ResumeRefused where the constraint was compiled otherwise, so that its states are
        others."""
        constraint = await self.constraints.compiled(place.spec, request.sampling)
        if constraint.automaton.digest != place.digest:
            raise ResumeRefused(
                "the resume token is from a server that compiles its constraint otherwise; send "
                "the request again"
            )
        if constraint.automaton.is_complete(place.state):
            raise WrongInput("the stream's text is complete: its constraint lets nothing follow")
        return replace(request, constraint=constraint)

    async def _echo(self, params: GenerateParams, given: EncodedInput) -> list[ScoredToken]:
        """The input's tokens; a prompt's with log-probabilities where the request wants those."""
        if not self.is_conditioned and len(given.ids) > 1:
            if params.top and self._rules.can_make(given.ids[1:]):
                return await self._echo_with_top(params, given.ids)
            if params.log_probabilities:
                item = _continuation(given)
                (row,) = await run_batch(self.score_thread, [item])
                return await off_loop(item.length, lambda: self.scored(item, row))
        pieces = self.input.pieces(given.ids)
        return [
            ScoredToken(token, text, None) for token, text in zip(given.ids, pieces, strict=True)
        ]

    async def _echo_with_top(self, params: GenerateParams, ids: Sequence[int]) -> list[ScoredToken]:
        """A prompt with the likeliest tokens beside its own: a stream from its first token, which
        nothing but the others may follow. Scores know of no tokens but those of their texts."""
        automaton = TokenAutomaton.of_one(ids[1:], self._rules.vocabulary)
        request = GenerateRequest(
            tokens=(ids[0],),
            sampling=LIKELIEST,
            max_tokens=len(ids) - 1,
            stop=(),
            arrived=self.clock(),
            top=params.top,
            no_cache=True,
            constraint=Constraint(ConstraintSpec(CHOICES, ()), automaton),
        )
        stream = TokenStream.open(self.thread, request)
        try:
            made = [e async for some in stream for e in some if isinstance(e, TokenMade)]
        finally:
            stream.close()
        echo = [ScoredToken(ids[0], self.writer.piece(ids[0], True), None)]
        return echo + [self._echoed(token, params.log_probabilities) for token in made]

    def _echoed(self, made: TokenMade, with_log_probability: bool) -> ScoredToken:
        piece = self.writer.piece
        return ScoredToken(
            made.token,
            piece(made.token, False),
            made.log_probability if with_log_probability else None,
            [(token, piece(token, False), value) for token, value in made.top],
        )

    async def score(self, all_params: Sequence[ScoreParams]) -> list[ScoredText]:
        """Of texts alone: continuations.py has the rest. Raises WrongInput, QueueFull or
        EngineFailed."""
        size = checked_size("items", [params.characters for params in all_params])
        size += sum(len(params.vector or ()) for params in all_params)
        read = await off_loop(size, lambda: self._score_items(all_params))
        rows = await run_batch(self.score_thread, [item for item, _ in read])
        return await off_loop(
            size,
            lambda: [
                ScoredText(self.scored(item, row), unknown)
                for (item, unknown), row in zip(read, rows, strict=True)
            ],
        )

    def _read_input(self, params: GenerateParams) -> EncodedInput:
        needs = self.input.name
        given = params.inputs[needs]
        if params.start and not given:
            return EncodedInput(())
        if given is None:
            others = [name for name, value in params.inputs.items() if value is not None]
            says = f"the request has a {others[0]}" if others else "the request has no input"
            raise WrongInput(f"model {self.card.name!r} takes a {needs}, {says}; set {needs!r}")
        read = self.input.read_on if params.start else self.input.read
        return read(self, given, needs)

    def _score_items(self, all_params: Sequence[ScoreParams]) -> list[tuple[ScoreItem, int]]:
        return [
            self.score_item(params, f"items[{number}]") for number, params in enumerate(all_params)
        ]

    def score_item(self, params: ScoreParams, where: str) -> tuple[ScoreItem, int]:
        """A text that is scored itself, and how many symbols are unknown. Raises WrongInput."""
        self.check_condition(params, where)
        if not self.is_conditioned:
            return self._continuation(params.text, f"{where}.text")
        name = self.input.name
        given = self.input.read(self, params.inputs[name], f"{where}.{name}")
        limit = self.card.limits["output_tokens"]
        encoded = self.read(self.writer, params.text, f"{where}.text", limit)
        assert self.begin_id is not None, "a model that reads a whole input begins with a marker"
        assert self.end_id is not None, "and ends with one"
        tokens, targets = (self.begin_id, *encoded.ids), (*encoded.ids, self.end_id)
        return ScoreItem(tokens, targets, tuple(given.ids)), given.unknown + encoded.unknown

    def _continuation(self, text: str, what: str) -> tuple[ScoreItem, int]:
        given = self.input.read(self, text, what)
        if len(given.ids) < 2:
            raise WrongInput(
                f"{what} has one token, and what follows nothing has no probability; "
                "send at least two"
            )
        return _continuation(given), given.unknown

    def check_condition(self, params: ScoreParams, where: str) -> None:
        """What the text is the answer to is there, where there is such a thing.

        Raises WrongInput.
        """
        needs, name = self.input.name, self.card.name
        does = f"given a {needs}" if self.is_conditioned else "alone"
        for kind, value in params.inputs.items():
            if kind != needs and value is not None:
                raise WrongInput(
                    f"{where}.{kind} is set, model {name!r} scores texts {does}; leave it"
                )
        if self.is_conditioned and params.inputs[needs] is None:
            raise WrongInput(
                f"{where}.{needs} is empty; model {name!r} scores texts {does}, so set it"
            )

    def scored(self, item: ScoreItem, row: Sequence[float]) -> list[ScoredToken]:
        """Of a whole text: its targets, after the first token where that is the text's, too."""
        if self.is_conditioned:
            return self.scored_targets(item, row)
        first = ScoredToken(item.tokens[0], self.writer.piece(item.tokens[0], True), None)
        # What marks the beginning has no text.
        return [first, *self.scored_targets(item, row, has_begun=bool(first.text))]

    def scored_targets(
        self, item: ScoreItem, row: Sequence[float], has_begun: bool = False
    ) -> list[ScoredToken]:
        """has_begun: whether a token of the same text comes before the first target."""
        return [
            ScoredToken(token, self.writer.piece(token, not (number or has_begun)), float(value))
            for number, (token, value) in enumerate(zip(item.targets, row, strict=True))
        ]


def _ends_of(request: GenerateRequest) -> list[Event]:
    """All that there is to say of one that makes nothing."""
    reason = FinishReason.LENGTH
    ends: list[Event] = [
        SampleFinished(sample, reason, 0, 0.0) for sample in range(request.samples)
    ]
    return [*ends, Finished(reason, len(request.tokens), 0, 0.0, 0.0, 0)]


def _continuation(given: EncodedInput) -> ScoreItem:
    """Each token of a prompt after those before it; the first follows nothing."""
    return ScoreItem(tuple(given.ids[:-1]), tuple(given.ids[1:]))
