"""A synchronous and an asynchronous client over the same conversions: no logic of their own."""

from __future__ import annotations

import asyncio
import time
from collections.abc import (
    AsyncGenerator,
    AsyncIterable,
    AsyncIterator,
    Callable,
    Iterable,
    Iterator,
    Sequence,
)
from contextlib import aclosing, contextmanager
from typing import Any, Self, TypeVar, Unpack

import grpc

from unroll import types
from unroll.channel import DEFAULT_TARGET, RETRIES, Connection, Retries, Tls
from unroll.failover import REASON_LOST, ResumableStream, has_lost_its_reason
from unroll.replay_buffer import AwaitedParts, ReadParts
from unroll.tag_failover import CarriedTags, TagAttempt
from unroll.tag_streams import Part, TagPiece, TagStreamOptions, to_start, to_tag_piece
from unroll.types import (
    Classification,
    FilledBlank,
    GenerateOptions,
    Piece,
    RequestFailed,
    ScoredText,
    TaggedText,
)
from unroll.v1 import unroll_pb2 as pb
from unroll.v1 import unroll_pb2_grpc

Converted = TypeVar("Converted")


@contextmanager
def _failures() -> Iterator[None]:
    """Turns a failed call's status into RequestFailed."""
    try:
        yield
    except grpc.RpcError as error:
        raise types.to_failure(error) from error


class _Calls:
    """What both clients know of their calls.

    timeout: deadline of each call in seconds, None for none.
    """

    def __init__(
        self,
        target: str,
        timeout: float | None,
        tls: Tls | None,
        token: str | None,
        retries: Retries,
    ) -> None:
        self.timeout = timeout
        self.retries = retries
        self._connection = Connection(target, tls, token, retries)

    @property
    def _how(self) -> dict[str, Any]:
        return {"timeout": self.timeout, "metadata": self._connection.metadata}

    def _until(self, deadline: float | None) -> dict[str, Any]:
        """deadline: of a stream that may take several calls."""
        left = None if deadline is None else max(0.0, deadline - time.monotonic())
        return {**self._how, "timeout": left}

    def _deadline(self) -> float | None:
        return None if self.timeout is None else time.monotonic() + self.timeout


def _each(call: Any, convert: Callable[[Any], Converted]) -> Iterator[Converted]:
    """Its responses; the call is cancelled when they are not read any more."""
    try:
        with _failures():
            for response in call:
                yield convert(response)
    finally:
        call.cancel()


async def _each_of(
    call: Any, convert: Callable[[Any], Converted]
) -> AsyncGenerator[Converted, None]:
    try:
        with _failures():
            async for response in call:
                yield convert(response)
    finally:
        call.cancel()


async def _tags_of(call: Any) -> AsyncGenerator[TagPiece, None]:
    """As _each_of, for a call into which is still sent.

    gRPC ends such a call by an error of its own where the server ends it while a message is sent,
    and drops the server's status (grpc#36066). What the server told comes whole all the same, so
    its last message says whether it ended well.
    """
    piece = None
    try:
        async with aclosing(_each_of(call, to_tag_piece)) as pieces:
            async for piece in pieces:
                yield piece
    except RequestFailed as failure:
        if not has_lost_its_reason(failure):
            raise
        if piece is None or piece.end is None:
            raise RequestFailed("UNAVAILABLE", REASON_LOST) from failure


def _shorter(seconds: float, deadline: float | None) -> float:
    """``seconds``, or what is left before the deadline."""
    return seconds if deadline is None else max(0.0, min(seconds, deadline - time.monotonic()))


class Client(_Calls):
    """Use it as a context manager, or close() it.

    target: HOST:PORT, several with commas between, or what gRPC resolves (dns:///NAME:PORT);
    calls go to each address in turn. timeout: deadline of each call in seconds, None for none;
    of a stream it is that of all the calls it takes. tls: None for a connection in the clear.
    token: sent as a bearer token. retries: what is done about servers that break or stop.
    version, of each call: of the model; empty for the one that is served.
    Every method raises RequestFailed, and ValueError for a number its field cannot hold.
    """

    def __init__(
        self,
        target: str = DEFAULT_TARGET,
        timeout: float | None = None,
        *,
        tls: Tls | None = None,
        token: str | None = None,
        retries: Retries = RETRIES,
    ) -> None:
        super().__init__(target, timeout, tls, token, retries)
        self.channel = self._connection.open(grpc)
        self._stub = unroll_pb2_grpc.UnrollServiceStub(self.channel)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        self.channel.close()

    def classify(
        self, model: str, texts: Sequence[str], *, version: str = ""
    ) -> list[Classification]:
        with _failures():
            request = pb.ClassifyRequest(model=model, model_version=version, texts=texts)
            return types.to_classifications(self._stub.Classify(request, **self._how))

    def tag(
        self,
        model: str,
        texts: Sequence[str | Sequence[str]],
        *,
        top: int = 0,
        version: str = "",
    ) -> list[TaggedText]:
        """Each a text, or its words. top: how many of the likeliest labels are told, too."""
        with _failures():
            request = types.tag_request(model, version, texts, top)
            return types.to_tagged(self._stub.Tag(request, **self._how))

    def stream_tag(
        self,
        model: str,
        parts: Iterable[Part],
        *,
        carry_on: bool = True,
        **options: Unpack[TagStreamOptions],
    ) -> Iterator[TagPiece]:
        """Labels as they come, for texts or words as they come.

        ``parts`` is read on another thread, as fast as the server takes them; what it raises
        is raised here, once whatever came before is labelled. Closing the iterator cancels.
        carry_on: on another server where one breaks or stops; docs/client.md says how far.
        """
        read = ReadParts(parts, keeps=carry_on)
        if carry_on:
            yield from self._carried_tags(CarriedTags(model, options, self.retries, read), read)
        else:
            call = self._stub.StreamTag(
                read.requests(to_start(model, options), 0, 0, lambda: True), **self._how
            )
            yield from _each(call, to_tag_piece)
        read.check()

    def _carried_tags(self, stream: CarriedTags, parts: ReadParts) -> Iterator[TagPiece]:
        deadline = self._deadline()
        while not stream.is_over:
            time.sleep(_shorter(stream.attempt.wait_seconds, deadline))
            yield from self._tag_attempt(stream, stream.attempt, parts, deadline)

    def _tag_attempt(
        self, stream: CarriedTags, attempt: TagAttempt, parts: ReadParts, deadline: float | None
    ) -> Iterator[TagPiece]:
        requests = parts.requests(
            attempt.start, attempt.first, attempt.skip, lambda: stream.attempt is attempt
        )
        call = self._stub.StreamTag(requests, **self._until(deadline))
        try:
            for response in call:
                piece = stream.take(response)
                if piece:
                    yield piece
                if stream.attempt is not attempt:
                    return
            stream.end()
        except grpc.RpcError as error:
            stream.fail(types.to_failure(error))
        finally:
            call.cancel()

    def fill(
        self, model: str, texts: Sequence[str], *, top: int = 0, version: str = ""
    ) -> list[FilledBlank]:
        """Each with one blank, such as ___. top: how many words to tell, 0 for 5."""
        with _failures():
            request = types.fill_request(model, version, texts, top)
            return types.to_filled(self._stub.Fill(request, **self._how))

    def generate(
        self, model: str, *, carry_on: bool = True, **options: Unpack[GenerateOptions]
    ) -> Iterator[Piece]:
        """Tokens as they come; closing the iterator cancels the call.

        carry_on: on another server where one breaks or stops, so that the stream is whole all the
        same: no token lost or told twice. docs/client.md says what that takes.
        """
        if carry_on:
            yield from self._carried(ResumableStream(model, options, self.retries))
        else:
            request = types.generate_request(model, options)
            yield from _each(self._stub.Generate(request, **self._how), types.to_piece)

    def _carried(self, stream: ResumableStream) -> Iterator[Piece]:
        deadline, calls = self._deadline(), []
        try:
            while stream.open_attempts:
                made = [attempt for attempt in stream.open_attempts if attempt.call is None]
                time.sleep(
                    _shorter(max((attempt.wait_seconds for attempt in made), default=0.0), deadline)
                )
                for attempt in made:
                    attempt.call = self._stub.Generate(attempt.request, **self._until(deadline))
                    calls.append(attempt.call)
                # A message of each in turn: all of them run meanwhile.
                for attempt in [
                    attempt for attempt in stream.open_attempts if attempt.call is not None
                ]:
                    try:
                        response = next(attempt.call)
                    except StopIteration:
                        stream.end(attempt)
                    except grpc.RpcError as error:
                        stream.fail(attempt, types.to_failure(error))
                    else:
                        piece = stream.take(attempt, response)
                        if piece:
                            yield piece
        finally:
            for call in calls:
                call.cancel()

    def score(
        self,
        model: str,
        texts: Sequence[str],
        sources: Sequence[str] = (),
        *,
        vectors: Sequence[Sequence[float]] = (),
        version: str = "",
    ) -> list[ScoredText]:
        with _failures():
            request = types.score_request(model, version, texts, sources, vectors)
            return types.to_scores(self._stub.Score(request, **self._how))

    def list_models(self) -> pb.ListModelsResponse:
        with _failures():
            response: pb.ListModelsResponse = self._stub.ListModels(
                pb.ListModelsRequest(), **self._how
            )
            return response

    def get_model(self, name: str, version: str = "", *, with_vocabulary: bool = False) -> pb.Model:
        request = pb.GetModelRequest(name=name, version=version, with_vocabulary=with_vocabulary)
        with _failures():
            model: pb.Model = self._stub.GetModel(request, **self._how).model
            return model


class AsyncClient(_Calls):
    """As Client, for use inside an event loop."""

    def __init__(
        self,
        target: str = DEFAULT_TARGET,
        timeout: float | None = None,
        *,
        tls: Tls | None = None,
        token: str | None = None,
        retries: Retries = RETRIES,
    ) -> None:
        super().__init__(target, timeout, tls, token, retries)
        self.channel = self._connection.open(grpc.aio)
        self._stub = unroll_pb2_grpc.UnrollServiceStub(self.channel)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()

    async def close(self) -> None:
        await self.channel.close()

    async def classify(
        self, model: str, texts: Sequence[str], *, version: str = ""
    ) -> list[Classification]:
        with _failures():
            request = pb.ClassifyRequest(model=model, model_version=version, texts=texts)
            response = await self._stub.Classify(request, **self._how)
            return types.to_classifications(response)

    async def tag(
        self,
        model: str,
        texts: Sequence[str | Sequence[str]],
        *,
        top: int = 0,
        version: str = "",
    ) -> list[TaggedText]:
        """Each a text, or its words. top: how many of the likeliest labels are told, too."""
        with _failures():
            request = types.tag_request(model, version, texts, top)
            return types.to_tagged(await self._stub.Tag(request, **self._how))

    async def stream_tag(
        self,
        model: str,
        parts: AsyncIterable[Part],
        *,
        carry_on: bool = True,
        **options: Unpack[TagStreamOptions],
    ) -> AsyncIterator[TagPiece]:
        """As Client.stream_tag; ``parts`` is read by a task of its own."""
        awaited = AwaitedParts(parts, keeps=carry_on)
        try:
            if carry_on:
                stream = CarriedTags(model, options, self.retries, awaited)
                pieces = self._carried_tags(stream, awaited)
            else:
                start = to_start(model, options)
                requests = awaited.requests(
                    start, 0, 0, lambda: True, lambda: call.initial_metadata()
                )
                call: Any = self._stub.StreamTag(requests, **self._how)
                pieces = _tags_of(call)
            async with aclosing(pieces):
                async for piece in pieces:
                    yield piece
            awaited.check()
        finally:
            awaited.close()

    async def _carried_tags(
        self, stream: CarriedTags, parts: AwaitedParts
    ) -> AsyncGenerator[TagPiece, None]:
        deadline = self._deadline()
        while not stream.is_over:
            await asyncio.sleep(_shorter(stream.attempt.wait_seconds, deadline))
            pieces = self._tag_attempt(stream, stream.attempt, parts, deadline)
            async with aclosing(pieces):
                async for piece in pieces:
                    yield piece

    async def _tag_attempt(
        self, stream: CarriedTags, attempt: TagAttempt, parts: AwaitedParts, deadline: float | None
    ) -> AsyncGenerator[TagPiece, None]:
        requests = parts.requests(
            attempt.start,
            attempt.first,
            attempt.skip,
            lambda: stream.attempt is attempt,
            lambda: call.initial_metadata(),
        )
        call = self._stub.StreamTag(requests, **self._until(deadline))
        try:
            async for response in call:
                piece = stream.take(response)
                if piece:
                    yield piece
                if stream.attempt is not attempt:
                    return
            stream.end()
        except grpc.RpcError as error:
            stream.fail(types.to_failure(error))
        finally:
            call.cancel()

    async def fill(
        self, model: str, texts: Sequence[str], *, top: int = 0, version: str = ""
    ) -> list[FilledBlank]:
        """Each with one blank, such as ___. top: how many words to tell, 0 for 5."""
        with _failures():
            request = types.fill_request(model, version, texts, top)
            return types.to_filled(await self._stub.Fill(request, **self._how))

    async def generate(
        self, model: str, *, carry_on: bool = True, **options: Unpack[GenerateOptions]
    ) -> AsyncIterator[Piece]:
        """As Client.generate."""
        if carry_on:
            pieces = self._carried(ResumableStream(model, options, self.retries))
        else:
            request = types.generate_request(model, options)
            pieces = _each_of(self._stub.Generate(request, **self._how), types.to_piece)
        async with aclosing(pieces):
            async for piece in pieces:
                yield piece

    async def _carried(self, stream: ResumableStream) -> AsyncGenerator[Piece, None]:
        deadline, calls = self._deadline(), []
        try:
            while stream.open_attempts:
                made = [attempt for attempt in stream.open_attempts if attempt.call is None]
                longest = max((attempt.wait_seconds for attempt in made), default=0.0)
                await asyncio.sleep(_shorter(longest, deadline))
                for attempt in made:
                    call = self._stub.Generate(attempt.request, **self._until(deadline))
                    calls.append(call)
                    attempt.call = aiter(call)
                for attempt in [
                    attempt for attempt in stream.open_attempts if attempt.call is not None
                ]:
                    try:
                        response = await anext(attempt.call)
                    except StopAsyncIteration:
                        stream.end(attempt)
                    except grpc.RpcError as error:
                        stream.fail(attempt, types.to_failure(error))
                    else:
                        piece = stream.take(attempt, response)
                        if piece:
                            yield piece
        finally:
            for call in calls:
                call.cancel()

    async def score(
        self,
        model: str,
        texts: Sequence[str],
        sources: Sequence[str] = (),
        *,
        vectors: Sequence[Sequence[float]] = (),
        version: str = "",
    ) -> list[ScoredText]:
        with _failures():
            request = types.score_request(model, version, texts, sources, vectors)
            return types.to_scores(await self._stub.Score(request, **self._how))

    async def list_models(self) -> pb.ListModelsResponse:
        with _failures():
            response: pb.ListModelsResponse = await self._stub.ListModels(
                pb.ListModelsRequest(), **self._how
            )
            return response

    async def get_model(
        self, name: str, version: str = "", *, with_vocabulary: bool = False
    ) -> pb.Model:
        request = pb.GetModelRequest(name=name, version=version, with_vocabulary=with_vocabulary)
        with _failures():
            model: pb.Model = (await self._stub.GetModel(request, **self._how)).model
            return model
