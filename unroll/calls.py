"""Every call of a client, written once: signature, documentation, request and answer.

``Client`` and ``AsyncClient`` differ only in how they run a call (clients.py).
"""

from __future__ import annotations

from collections.abc import (
    AsyncGenerator,
    AsyncIterable,
    Callable,
    Coroutine,
    Generator,
    Iterable,
    Sequence,
)
from typing import TYPE_CHECKING, Any, Concatenate, Generic, ParamSpec, TypeVar, Unpack, overload

from unroll import types
from unroll.channel import NO_RETRIES, Connection, Retries, Tls
from unroll.failover import ResumableStream
from unroll.forecasts import (
    ForecastChunk,
    ForecastOptions,
    ResumableForecast,
    Series,
    forecast_request,
)
from unroll.repository import IndexRequest, LoadRequest, RepositoryStub, UnloadRequest
from unroll.step_streams import Frame, StepChunk, StepOptions, to_sequence
from unroll.tag_streams import Part, TagChunk, TagStreamOptions
from unroll.types import (
    Chunk,
    Classification,
    Embedding,
    FilledBlank,
    GenerateOptions,
    ModelState,
    NamedState,
    NextToken,
    ScoredText,
    TaggedText,
)
from unroll.v1 import unroll_pb2 as pb
from unroll.v1.unroll_pb2_grpc import UnrollServiceStub

Arguments = ParamSpec("Arguments")
Value = TypeVar("Value")


class Unary(Generic[Value]):
    """For types alone: a Value of Client, a coroutine of one of AsyncClient."""


class Stream(Generic[Value]):
    """For types alone: a generator of Values, of AsyncClient an asynchronous one."""


if TYPE_CHECKING:
    from unroll.clients import AsyncClient, Client

    class unary(Generic[Arguments, Value]):
        def __init__(self, method: Callable[Concatenate[Any, Arguments], Unary[Value]]) -> None: ...

        @overload
        def __get__(self, client: Client, owner: Any = None) -> Callable[Arguments, Value]: ...
        @overload
        def __get__(
            self, client: AsyncClient, owner: Any = None
        ) -> Callable[Arguments, Coroutine[Any, Any, Value]]: ...
        def __get__(self, client: Any, owner: Any = None) -> Any: ...

    class streamed(Generic[Arguments, Value]):
        def __init__(
            self, method: Callable[Concatenate[Any, Arguments], Stream[Value]]
        ) -> None: ...

        @overload
        def __get__(
            self, client: Client, owner: Any = None
        ) -> Callable[Arguments, Generator[Value, None, None]]: ...
        @overload
        def __get__(
            self, client: AsyncClient, owner: Any = None
        ) -> Callable[Arguments, AsyncGenerator[Value, None]]: ...
        def __get__(self, client: Any, owner: Any = None) -> Any: ...

else:

    def unary(method):
        return method

    streamed = unary


class Stubs:
    """Of both services that a server offers, over one channel."""

    def __init__(self, channel: Any) -> None:
        self.unroll = UnrollServiceStub(channel)
        self.repository = RepositoryStub(channel)


class Calls:
    """The calls of both clients."""

    def __init__(
        self,
        target: str,
        timeout: float | None,
        tls: Tls | None,
        token: str | None,
        retries: Retries,
        module: Any,
    ) -> None:
        """module: grpc or grpc.aio, which opens the channel."""
        self.timeout = timeout
        self.retries = retries
        self._connection = Connection(target, tls, token, retries)
        self.channel = self._connection.open(module)
        self._stubs = Stubs(self.channel)

    # -- how a call is run, which each client knows -----------------------------------------------

    def _unary(self, method: Any, request: Any, convert: Callable[[Any], Value]) -> Unary[Value]:
        raise NotImplementedError

    def _stream(self, request: pb.GenerateRequest) -> Stream[Chunk]:
        raise NotImplementedError

    def _resumable(self, stream: ResumableStream) -> Stream[Chunk]:
        raise NotImplementedError

    def _tags(
        self,
        model: str,
        parts: Iterable[Part] | AsyncIterable[Part],
        options: TagStreamOptions,
        failover: bool,
    ) -> Stream[TagChunk]:
        raise NotImplementedError

    def _steps(
        self,
        model: str,
        frames: Iterable[Any] | AsyncIterable[Any],
        options: StepOptions,
        failover: bool,
    ) -> Stream[StepChunk]:
        raise NotImplementedError

    def _forecasts(self, forecast: ResumableForecast) -> Stream[ForecastChunk]:
        raise NotImplementedError

    # -- the calls ---------------------------------------------------------------------------------

    @unary
    def classify(
        self,
        model: str,
        texts: Sequence[str] = (),
        *,
        frames: Sequence[Any] = (),
        version: str = "",
    ) -> Unary[list[Classification]]:
        """One classification for each text, in their order; or for each sequence of frames.

        frames: of a model that reads numbers, each a NumPy array (frames, channels), or a list of
        lists; sent in float32. version: of the model; empty for the one that is served, as in every
        other call.

        Raises ValueError for frames of several sizes in one sequence.
        """
        request = pb.ClassifyRequest(
            model=model,
            model_version=version,
            texts=texts,
            frames=[to_sequence(one) for one in frames],
        )
        return self._unary(self._stubs.unroll.Classify, request, types.to_classifications)

    @unary
    def tag(
        self,
        model: str,
        texts: Sequence[str | Sequence[str]],
        *,
        top: int = 0,
        version: str = "",
    ) -> Unary[list[TaggedText]]:
        """A label for each token of each text, in their order.

        texts: each a text, which the server splits into tokens, or a list of tokens. top: number
        of the most probable labels beside each token, 0 to 20.
        """
        request = types.tag_request(model, version, texts, top)
        return self._unary(self._stubs.unroll.Tag, request, types.to_tagged)

    @streamed
    def stream_tag(
        self,
        model: str,
        parts: Iterable[Part] | AsyncIterable[Part],
        *,
        failover: bool = True,
        **options: Unpack[TagStreamOptions],
    ) -> Stream[TagChunk]:
        """Labels as they come, for texts or lists of tokens as they come.

        parts: Client reads it on another thread, AsyncClient by a task of its own (an
        asynchronous iterable too), as fast as the server takes them. What it raises is raised
        here, once everything before is labelled. Closing the iterator cancels the call.
        failover: resume on another server where one breaks or stops; docs/client.md has the
        limits. options: those of TagStreamOptions.
        """
        return self._tags(model, parts, options, failover)

    @streamed
    def stream_step(
        self,
        model: str,
        frames: Iterable[Frame | Any] | AsyncIterable[Frame | Any],
        *,
        failover: bool = True,
        **options: Unpack[StepOptions],
    ) -> Stream[StepChunk]:
        """What a model makes of frames of numbers, as they come.

        frames: each a NumPy array, of one step or with an axis more in front of several; a mapping
        of such by the names of the model's inputs; or a Frame. They are read as parts of stream_tag
        are, and what was read may be changed. failover: resume on another server where one breaks
        or stops; docs/client.md has the limits. options: those of StepOptions.
        """
        return self._steps(model, frames, options, failover)

    @unary
    def fill(
        self, model: str, texts: Sequence[str], *, top: int = 0, version: str = ""
    ) -> Unary[list[FilledBlank]]:
        """The most probable words for the blank of each text, in their order.

        texts: each with one blank, three or more underscores. top: number of words for each
        blank, up to 100; 0 is 5.
        """
        request = types.fill_request(model, version, texts, top)
        return self._unary(self._stubs.unroll.Fill, request, types.to_filled)

    @streamed
    def generate(
        self, model: str, *, failover: bool = True, **options: Unpack[GenerateOptions]
    ) -> Stream[Chunk]:
        """Tokens as they come. Closing the iterator cancels the call.

        failover: resume on another server where one breaks or stops, no token lost or delivered
        twice; docs/client.md says what that takes. options: those of GenerateOptions, with one
        input among them: prompt, source, vector or resume_token. Parameters of sampling are
        keywords (``temperature=0.8, seed=1``) or one value (``sampling=Sampling(…)``).

        Raises OptionInvalid for two inputs, and for sampling said both ways.
        """
        chosen = types.normalised(options)
        if failover:
            return self._resumable(ResumableStream(model, chosen, self.retries))
        return self._stream(types.generate_request(model, chosen))

    @streamed
    def forecast(
        self,
        model: str,
        series: Sequence[Series | Sequence[float | None]],
        *,
        failover: bool = True,
        **options: Unpack[ForecastOptions],
    ) -> Stream[ForecastChunk]:
        """How each series may go on, step by step as it is drawn. Closing the iterator cancels the
        call.

        series: each a Series, or its values where the model needs nothing else. failover: made anew
        on another server where one breaks or stops, no step lost or delivered twice. options: those
        of ForecastOptions.
        """
        request = forecast_request(model, series, options)
        retries = self.retries if failover else NO_RETRIES
        return self._forecasts(ResumableForecast(request, retries))

    @unary
    def score(
        self,
        model: str,
        texts: Sequence[str],
        sources: Sequence[str] = (),
        *,
        vectors: Sequence[Sequence[float | None]] = (),
        choices: Sequence[str] | Sequence[Sequence[str]] = (),
        version: str = "",
    ) -> Unary[list[ScoredText]]:
        """The log-probability of each token of each text, in their order.

        sources, vectors: what the texts are the answers to, one for each text, for models that
        generate from a source or a vector. choices: up to 128 ways to go on, the same for all texts
        or a sequence of them for each: these are scored, after the text, which is read once.
        """
        request = types.score_request(model, version, texts, sources, vectors, choices)
        return self._unary(self._stubs.unroll.Score, request, types.to_scores)

    @unary
    def next_tokens(
        self,
        model: str,
        texts: Sequence[str],
        sources: Sequence[str] = (),
        *,
        vectors: Sequence[Sequence[float | None]] = (),
        top: int = 5,
        version: str = "",
    ) -> Unary[list[list[NextToken]]]:
        """The likeliest tokens to come after each text, the likeliest first; nothing is drawn.

        sources, vectors: as score has them; a text may be empty beside one. top: number of tokens,
        1 to 20.
        """
        request = types.score_request(model, version, texts, sources, vectors, top_next=top)
        return self._unary(self._stubs.unroll.Score, request, types.to_next_tokens)

    @unary
    def embed(
        self, model: str, texts: Sequence[str], *, tensors: Sequence[str] = (), version: str = ""
    ) -> Unary[list[Embedding]]:
        """Each text as a vector of length 1, in their order: the state that reading it leaves.

        tensors: names in Model.state, none for the hidden state of the last layer.
        """
        request = pb.EmbedRequest(model=model, model_version=version, texts=texts, tensors=tensors)
        return self._unary(self._stubs.unroll.Embed, request, types.to_embeddings)

    @unary
    def create_state(
        self,
        name: str,
        model: str,
        *,
        prompt: str | None = None,
        source: str | None = None,
        resume_token: bytes | None = None,
        state: str = "",
        ttl_seconds: float | None = None,
        replace: bool = False,
        allow_inexact: bool = False,
        version: str = "",
    ) -> Unary[NamedState]:
        """Keep a state by name, from which any number of streams may begin.

        prompt, source, resume_token: what it is made of, one of them. state: the name of one that
        the prompt is read after; it stays as it is. ttl_seconds: how long it is kept, None for as
        long as the server keeps any. replace: take the place of one with that name, which is
        ALREADY_EXISTS otherwise. allow_inexact: as of generate. The answer alone has
        unknown_symbols.
        """
        request = pb.CreateStateRequest(
            name=name,
            model=model,
            model_version=version,
            prompt=prompt,
            source=source,
            resume_token=resume_token,
            state=state,
            ttl_seconds=ttl_seconds,
            replace=replace,
            allow_inexact=allow_inexact,
        )
        return self._unary(self._stubs.unroll.CreateState, request, types.to_created_state)

    @unary
    def list_states(self, model: str = "") -> Unary[list[NamedState]]:
        """The caller's named states, by name; of one model, or of all."""
        request = pb.ListStatesRequest(model=model)
        return self._unary(
            self._stubs.unroll.ListStates,
            request,
            lambda response: [types.to_named_state(state) for state in response.states],
        )

    @unary
    def delete_state(self, name: str) -> Unary[None]:
        """Forget a named state; streams that began from it go on."""
        request = pb.DeleteStateRequest(name=name)
        return self._unary(self._stubs.unroll.DeleteState, request, _nothing)

    @unary
    def list_models(self) -> Unary[pb.ListModelsResponse]:
        """What is served, and what was refused at load, as messages of unroll.v1."""
        return self._unary(self._stubs.unroll.ListModels, pb.ListModelsRequest(), _as_it_is)

    @unary
    def get_model(
        self, name: str, version: str = "", *, with_vocabulary: bool = False
    ) -> Unary[pb.Model]:
        """One model, as a message of unroll.v1."""
        request = pb.GetModelRequest(name=name, version=version, with_vocabulary=with_vocabulary)
        return self._unary(self._stubs.unroll.GetModel, request, lambda response: response.model)

    @unary
    def load_model(self, name: str) -> Unary[None]:
        """Load the newest version of a model, or load it anew (inference protocol).

        Returns once it is served; the version before serves until then. The server may reserve
        this to the role ``admin``.
        """
        request = LoadRequest(model_name=name)
        return self._unary(self._stubs.repository.RepositoryModelLoad, request, _nothing)

    @unary
    def unload_model(self, name: str) -> Unary[None]:
        """Stop serving a model, calls under way to their end (inference protocol)."""
        request = UnloadRequest(model_name=name)
        return self._unary(self._stubs.repository.RepositoryModelUnload, request, _nothing)

    @unary
    def repository(self) -> Unary[list[ModelState]]:
        """The state of every version in the server's model repository (inference protocol)."""
        return self._unary(self._stubs.repository.RepositoryIndex, IndexRequest(), types.to_states)


def _as_it_is(response: Any) -> Any:
    return response


def _nothing(response: Any) -> None:
    return None
