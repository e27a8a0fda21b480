"""How a synchronous and an asynchronous client run the calls of calls.py."""

from __future__ import annotations

import asyncio
import time
from collections.abc import (
    AsyncGenerator,
    AsyncIterable,
    AsyncIterator,
    Callable,
    Generator,
    Iterable,
    Iterator,
)
from contextlib import aclosing, contextmanager
from dataclasses import dataclass
from typing import Any, Self, TypeVar

import grpc

from unroll import types
from unroll.calls import Calls
from unroll.channel import DEFAULT_TARGET, RETRIES, Retries, Tls
from unroll.failover import REASON_LOST, Attempt, ResumableStream, has_lost_its_reason
from unroll.forecasts import ForecastChunk, ResumableForecast
from unroll.kept_status import KeptStatus
from unroll.replay_buffer import FRAMES, WORDS, AwaitedParts, PartKind, Parts, ReadParts
from unroll.step_failover import ResumableStepStream
from unroll.step_streams import StepChunk, StepOptions, to_step_chunk, to_step_start
from unroll.tag_failover import ResumableTagStream
from unroll.tag_streams import Part, TagStreamOptions, to_start, to_tag_chunk
from unroll.types import Chunk, RequestFailed
from unroll.v1 import unroll_pb2 as pb

Converted = TypeVar("Converted")


@contextmanager
def _failures() -> Iterator[None]:
    """Turns a failed call's status into RequestFailed."""
    try:
        yield
    except grpc.RpcError as error:
        raise types.to_failure(error) from error


class _Deadlines(Calls):
    """What a call of either client is made with."""

    def _how(self) -> dict[str, Any]:
        return {"timeout": self.timeout, "metadata": self._connection.metadata}

    def _until(self, deadline: float | None) -> dict[str, Any]:
        """deadline: of a stream that may take several calls, by time.monotonic()."""
        left = None if deadline is None else max(0.0, deadline - time.monotonic())
        return {**self._how(), "timeout": left}

    def _deadline(self) -> float | None:
        return None if self.timeout is None else time.monotonic() + self.timeout

    def _pushing_tags(self, model: str, options: TagStreamOptions) -> _Pushing:
        return _Pushing(
            self._stubs.unroll.StreamTag,
            lambda: to_start(model, options),
            to_tag_chunk,
            lambda parts: ResumableTagStream(model, options, self.retries, parts),
            lambda chunk, parts: chunk.end is not None,
        )

    def _pushing_frames(self, model: str, options: StepOptions) -> _Pushing:
        return _Pushing(
            self._stubs.unroll.StreamStep,
            lambda: to_step_start(model, options),
            to_step_chunk,
            lambda parts: ResumableStepStream(model, options, self.retries, parts),
            _is_end_of_frames,
        )


@dataclass(frozen=True)
class _Pushing:
    """A call into which its caller sends, and how it is made again elsewhere.

    method: of the stub. start: its first message, convert: of an answer; resumable: over several
    calls. is_last: whether a chunk of the answers is the last one of a call that ended well.
    """

    method: Any
    start: Callable[[], Any]
    convert: Callable[[Any], Any]
    resumable: Callable[[Parts], Any]
    is_last: Callable[[Any, Parts], bool]


def _each(call: Any, convert: Callable[[Any], Converted]) -> Generator[Converted, None, None]:
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


async def _answers_of(
    call: Any, convert: Callable[[Any], Any], is_last: Callable[[Any], bool]
) -> AsyncGenerator[Any, None]:
    """As _each_of, for a call into which is still sent. is_last: whether a chunk says that the call
    ended well.

    Where the server's status is lost, though its last message came, that says whether the call
    ended well.
    """
    chunk, kept = None, KeptStatus(call)
    try:
        with _failures():
            async for response in call:
                chunk = convert(response)
                yield chunk
    except RequestFailed as raised:
        failure = await kept.in_place_of(raised)
        if failure is None:
            return
        if not has_lost_its_reason(failure):
            raise failure from raised
        if chunk is None or not is_last(chunk):
            raise RequestFailed("UNAVAILABLE", REASON_LOST) from raised
    finally:
        call.cancel()


def _is_end_of_frames(chunk: StepChunk, parts: Parts) -> bool:
    """A frame that is refused ends the call, too, after the answers to those before it."""
    end = chunk.end
    return end is not None and (end.handed_over or parts.are_answered(end.frames))


def _shorter(seconds: float, deadline: float | None) -> float:
    """``seconds``, or what is left before the deadline."""
    return seconds if deadline is None else max(0.0, min(seconds, deadline - time.monotonic()))


def _new_attempts(stream: ResumableStream) -> tuple[list[Attempt], float]:
    """Those that no call was made for, and the seconds to wait before."""
    new = [attempt for attempt in stream.open_attempts if attempt.call is None]
    return new, max((attempt.wait_seconds for attempt in new), default=0.0)


def _called(stream: ResumableStream) -> list[Attempt]:
    return [attempt for attempt in stream.open_attempts if attempt.call is not None]


class Client(_Deadlines):
    """A client whose calls block. Use it as a context manager, or close() it.

    target: HOST:PORT, several with commas between, or what gRPC resolves (dns:///NAME:PORT);
    calls go to each address in turn. timeout: deadline of each call in seconds, None for none;
    of a stream it is that of all the calls it takes. tls: None for a connection in the clear.
    token: sent as a bearer token. retries: after failures of servers.

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
        super().__init__(target, timeout, tls, token, retries, grpc)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Close the connections; calls under way are cancelled."""
        self.channel.close()

    def _unary(self, method: Any, request: Any, convert: Callable[[Any], Any]) -> Any:
        with _failures():
            return convert(method(request, **self._how()))

    def _stream(self, request: pb.GenerateRequest) -> Any:
        return self._streamed(request)

    def _streamed(self, request: pb.GenerateRequest) -> Generator[Chunk, None, None]:
        yield from _each(self._stubs.unroll.Generate(request, **self._how()), types.to_chunk)

    def _resumable(self, stream: ResumableStream) -> Any:
        return self._resumed(stream)

    def _resumed(self, stream: ResumableStream) -> Generator[Chunk, None, None]:
        deadline, calls = self._deadline(), []
        try:
            while stream.open_attempts:
                new, wait_seconds = _new_attempts(stream)
                time.sleep(_shorter(wait_seconds, deadline))
                for attempt in new:
                    attempt.call = self._stubs.unroll.Generate(
                        attempt.request, **self._until(deadline)
                    )
                    calls.append(attempt.call)
                # A message of each in turn: all of them run meanwhile.
                for attempt in _called(stream):
                    try:
                        response = next(attempt.call)
                    except StopIteration:
                        stream.end(attempt)
                    except grpc.RpcError as error:
                        stream.fail(attempt, types.to_failure(error))
                    else:
                        if chunk := stream.take(attempt, response):
                            yield chunk
        finally:
            for call in calls:
                call.cancel()

    def _forecasts(self, forecast: ResumableForecast) -> Any:
        return self._resumed_forecast(forecast)

    def _resumed_forecast(
        self, forecast: ResumableForecast
    ) -> Generator[ForecastChunk, None, None]:
        deadline = self._deadline()
        while not forecast.is_over:
            time.sleep(_shorter(forecast.wait_seconds, deadline))
            call = self._stubs.unroll.Forecast(forecast.request, **self._until(deadline))
            try:
                for response in call:
                    if chunk := forecast.take(response):
                        yield chunk
                forecast.end()
            except grpc.RpcError as error:
                forecast.fail(types.to_failure(error))
            finally:
                call.cancel()

    def _tags(
        self,
        model: str,
        parts: Iterable[Part] | AsyncIterable[Part],
        options: TagStreamOptions,
        failover: bool,
    ) -> Any:
        return self._pushed(self._pushing_tags(model, options), _read(parts, failover), failover)

    def _steps(
        self,
        model: str,
        frames: Iterable[Any] | AsyncIterable[Any],
        options: StepOptions,
        failover: bool,
    ) -> Any:
        parts = _read(frames, failover, FRAMES)
        return self._pushed(self._pushing_frames(model, options), parts, failover)

    def _pushed(
        self, pushing: _Pushing, parts: ReadParts, failover: bool
    ) -> Generator[Any, None, None]:
        if failover:
            yield from self._resumed_pushes(pushing, pushing.resumable(parts), parts)
        else:
            requests = parts.requests(pushing.start(), 0, 0, lambda: True)
            yield from _each(pushing.method(requests, **self._how()), pushing.convert)
        parts.check()

    def _resumed_pushes(
        self, pushing: _Pushing, stream: Any, parts: ReadParts
    ) -> Generator[Any, None, None]:
        deadline = self._deadline()
        while not stream.is_over:
            time.sleep(_shorter(stream.attempt.wait_seconds, deadline))
            yield from self._attempt(pushing, stream, stream.attempt, parts, deadline)

    def _attempt(
        self,
        pushing: _Pushing,
        stream: Any,
        attempt: Any,
        parts: ReadParts,
        deadline: float | None,
    ) -> Generator[Any, None, None]:
        requests = parts.requests(
            attempt.start, attempt.first, attempt.skip, lambda: stream.attempt is attempt
        )
        call = pushing.method(requests, **self._until(deadline))
        try:
            for response in call:
                if chunk := stream.take(response):
                    yield chunk
                if stream.attempt is not attempt:
                    return
            stream.end()
        except grpc.RpcError as error:
            stream.fail(types.to_failure(error))
        finally:
            call.cancel()


def _read(
    parts: Iterable[Any] | AsyncIterable[Any], failover: bool, kind: PartKind = WORDS
) -> ReadParts:
    if not isinstance(parts, Iterable):
        raise TypeError("an asynchronous iterable needs AsyncClient")
    return ReadParts(parts, failover, kind)


class AsyncClient(_Deadlines):
    """As Client, for use inside an event loop: answers are awaited, streams are read by async for.

    Use it as an asynchronous context manager, or await close().
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
        super().__init__(target, timeout, tls, token, retries, grpc.aio)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()

    async def close(self) -> None:
        """Close the connections; calls under way are cancelled."""
        await self.channel.close()

    async def _ask(self, method: Any, request: Any, convert: Callable[[Any], Any]) -> Any:
        with _failures():
            return convert(await method(request, **self._how()))

    def _unary(self, method: Any, request: Any, convert: Callable[[Any], Any]) -> Any:
        return self._ask(method, request, convert)

    def _stream(self, request: pb.GenerateRequest) -> Any:
        return self._streamed(request)

    async def _streamed(self, request: pb.GenerateRequest) -> AsyncGenerator[Chunk, None]:
        call = self._stubs.unroll.Generate(request, **self._how())
        async with aclosing(_each_of(call, types.to_chunk)) as chunks:
            async for chunk in chunks:
                yield chunk

    def _resumable(self, stream: ResumableStream) -> Any:
        return self._resumed(stream)

    async def _resumed(self, stream: ResumableStream) -> AsyncGenerator[Chunk, None]:
        deadline, calls = self._deadline(), []
        try:
            while stream.open_attempts:
                new, wait_seconds = _new_attempts(stream)
                await asyncio.sleep(_shorter(wait_seconds, deadline))
                for attempt in new:
                    call = self._stubs.unroll.Generate(attempt.request, **self._until(deadline))
                    calls.append(call)
                    attempt.call = aiter(call)
                for attempt in _called(stream):
                    try:
                        response = await anext(attempt.call)
                    except StopAsyncIteration:
                        stream.end(attempt)
                    except grpc.RpcError as error:
                        stream.fail(attempt, types.to_failure(error))
                    else:
                        if chunk := stream.take(attempt, response):
                            yield chunk
        finally:
            for call in calls:
                call.cancel()

    def _forecasts(self, forecast: ResumableForecast) -> Any:
        return self._resumed_forecast(forecast)

    async def _resumed_forecast(
        self, forecast: ResumableForecast
    ) -> AsyncGenerator[ForecastChunk, None]:
        deadline = self._deadline()
        while not forecast.is_over:
            await asyncio.sleep(_shorter(forecast.wait_seconds, deadline))
            call = self._stubs.unroll.Forecast(forecast.request, **self._until(deadline))
            try:
                async for response in call:
                    if chunk := forecast.take(response):
                        yield chunk
                forecast.end()
            except grpc.RpcError as error:
                forecast.fail(types.to_failure(error))
            finally:
                call.cancel()

    def _tags(
        self,
        model: str,
        parts: Iterable[Part] | AsyncIterable[Part],
        options: TagStreamOptions,
        failover: bool,
    ) -> Any:
        awaited = AwaitedParts(_asynchronous(parts), failover)
        return self._pushed(self._pushing_tags(model, options), awaited, failover)

    def _steps(
        self,
        model: str,
        frames: Iterable[Any] | AsyncIterable[Any],
        options: StepOptions,
        failover: bool,
    ) -> Any:
        awaited = AwaitedParts(_asynchronous(frames), failover, FRAMES)
        return self._pushed(self._pushing_frames(model, options), awaited, failover)

    async def _pushed(
        self, pushing: _Pushing, parts: AwaitedParts, failover: bool
    ) -> AsyncGenerator[Any, None]:
        try:
            if failover:
                chunks = self._resumed_pushes(pushing, pushing.resumable(parts), parts)
            else:
                requests = parts.requests(
                    pushing.start(), 0, 0, lambda: True, lambda: call.initial_metadata()
                )
                call: Any = pushing.method(requests, **self._how())
                chunks = _answers_of(
                    call, pushing.convert, lambda chunk: pushing.is_last(chunk, parts)
                )
            async with aclosing(chunks):
                async for chunk in chunks:
                    yield chunk
            parts.check()
        finally:
            parts.close()

    async def _resumed_pushes(
        self, pushing: _Pushing, stream: Any, parts: AwaitedParts
    ) -> AsyncGenerator[Any, None]:
        deadline = self._deadline()
        while not stream.is_over:
            await asyncio.sleep(_shorter(stream.attempt.wait_seconds, deadline))
            chunks = self._attempt(pushing, stream, stream.attempt, parts, deadline)
            async with aclosing(chunks):
                async for chunk in chunks:
                    yield chunk

    async def _attempt(
        self,
        pushing: _Pushing,
        stream: Any,
        attempt: Any,
        parts: AwaitedParts,
        deadline: float | None,
    ) -> AsyncGenerator[Any, None]:
        requests = parts.requests(
            attempt.start,
            attempt.first,
            attempt.skip,
            lambda: stream.attempt is attempt,
            lambda: call.initial_metadata(),
        )
        call = pushing.method(requests, **self._until(deadline))
        kept = KeptStatus(call)
        try:
            async for response in call:
                if chunk := stream.take(response):
                    yield chunk
                if stream.attempt is not attempt:
                    return
            stream.end()
        except grpc.RpcError as error:
            if failure := await kept.in_place_of(types.to_failure(error)):
                stream.fail(failure)
            else:
                stream.end()
        finally:
            call.cancel()


async def _asynchronous(parts: Iterable[Any] | AsyncIterable[Any]) -> AsyncIterator[Any]:
    if isinstance(parts, AsyncIterable):
        async for part in parts:
            yield part
    else:
        for part in parts:
            yield part
