"""A synchronous and an asynchronous client over the same conversions: no logic of their own."""

from __future__ import annotations

from collections.abc import AsyncIterable, AsyncIterator, Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import Self, Unpack

import grpc

from client import results
from client.results import (
    Classification,
    FilledBlank,
    GenerateOptions,
    Piece,
    ScoredText,
    TaggedText,
)
from client.tag_streams import Part, Sending, TagPiece, TagStreamOptions, to_tag_piece
from unroll.v1 import unroll_pb2 as pb
from unroll.v1 import unroll_pb2_grpc

DEFAULT_TARGET = "127.0.0.1:50051"


@contextmanager
def _failures() -> Iterator[None]:
    """Turns a failed call's status into RequestFailed."""
    try:
        yield
    except grpc.RpcError as error:
        raise results.to_failure(error) from error


class Client:
    """Use it as a context manager, or close() it.

    target: HOST:PORT. timeout: deadline of each call in seconds, None for none.
    version, of each call: of the model; empty for the one that is served.
    Every method raises RequestFailed, and ValueError for a number its field cannot hold.
    """

    def __init__(self, target: str = DEFAULT_TARGET, timeout: float | None = None) -> None:
        self.timeout = timeout
        self.channel = grpc.insecure_channel(target)
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
            return results.to_classifications(self._stub.Classify(request, timeout=self.timeout))

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
            request = results.tag_request(model, version, texts, top)
            return results.to_tagged(self._stub.Tag(request, timeout=self.timeout))

    def stream_tag(
        self, model: str, parts: Iterable[Part], **options: Unpack[TagStreamOptions]
    ) -> Iterator[TagPiece]:
        """Labels as they come, for texts or words as they come.

        ``parts`` is read on another thread, as fast as the server takes them; what it raises
        is raised here, once whatever came before is labelled. Closing the iterator cancels.
        """
        sending = Sending(model, options)
        call = self._stub.StreamTag(sending.requests(parts), timeout=self.timeout)
        try:
            with _failures():
                for response in call:
                    yield to_tag_piece(response)
            sending.check()
        finally:
            call.cancel()

    def fill(
        self, model: str, texts: Sequence[str], *, top: int = 0, version: str = ""
    ) -> list[FilledBlank]:
        """Each with one blank, such as ___. top: how many words to tell, 0 for 5."""
        with _failures():
            request = results.fill_request(model, version, texts, top)
            return results.to_filled(self._stub.Fill(request, timeout=self.timeout))

    def generate(self, model: str, **options: Unpack[GenerateOptions]) -> Iterator[Piece]:
        """Tokens as they come; closing the iterator cancels the call."""
        request = results.generate_request(model, options)
        call = self._stub.Generate(request, timeout=self.timeout)
        try:
            with _failures():
                for response in call:
                    yield results.to_piece(response)
        finally:
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
            request = results.score_request(model, version, texts, sources, vectors)
            return results.to_scores(self._stub.Score(request, timeout=self.timeout))

    def list_models(self) -> pb.ListModelsResponse:
        with _failures():
            response: pb.ListModelsResponse = self._stub.ListModels(
                pb.ListModelsRequest(), timeout=self.timeout
            )
            return response

    def get_model(self, name: str, version: str = "", *, with_vocabulary: bool = False) -> pb.Model:
        request = pb.GetModelRequest(name=name, version=version, with_vocabulary=with_vocabulary)
        with _failures():
            model: pb.Model = self._stub.GetModel(request, timeout=self.timeout).model
            return model


class AsyncClient:
    """As Client, for use inside an event loop."""

    def __init__(self, target: str = DEFAULT_TARGET, timeout: float | None = None) -> None:
        self.timeout = timeout
        self.channel = grpc.aio.insecure_channel(target)
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
            response = await self._stub.Classify(request, timeout=self.timeout)
            return results.to_classifications(response)

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
            request = results.tag_request(model, version, texts, top)
            return results.to_tagged(await self._stub.Tag(request, timeout=self.timeout))

    async def stream_tag(
        self, model: str, parts: AsyncIterable[Part], **options: Unpack[TagStreamOptions]
    ) -> AsyncIterator[TagPiece]:
        """As Client.stream_tag; ``parts`` is read by a task of its own."""
        sending = Sending(model, options)
        requests = sending.requests_of(parts, lambda: call.initial_metadata())
        call = self._stub.StreamTag(requests, timeout=self.timeout)
        try:
            with _failures():
                async for response in call:
                    yield to_tag_piece(response)
            sending.check()
        finally:
            call.cancel()

    async def fill(
        self, model: str, texts: Sequence[str], *, top: int = 0, version: str = ""
    ) -> list[FilledBlank]:
        """Each with one blank, such as ___. top: how many words to tell, 0 for 5."""
        with _failures():
            request = results.fill_request(model, version, texts, top)
            return results.to_filled(await self._stub.Fill(request, timeout=self.timeout))

    async def generate(
        self, model: str, **options: Unpack[GenerateOptions]
    ) -> AsyncIterator[Piece]:
        """Tokens as they come; closing the iterator cancels the call."""
        request = results.generate_request(model, options)
        call = self._stub.Generate(request, timeout=self.timeout)
        try:
            with _failures():
                async for response in call:
                    yield results.to_piece(response)
        finally:
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
            request = results.score_request(model, version, texts, sources, vectors)
            return results.to_scores(await self._stub.Score(request, timeout=self.timeout))

    async def list_models(self) -> pb.ListModelsResponse:
        with _failures():
            response: pb.ListModelsResponse = await self._stub.ListModels(
                pb.ListModelsRequest(), timeout=self.timeout
            )
            return response

    async def get_model(
        self, name: str, version: str = "", *, with_vocabulary: bool = False
    ) -> pb.Model:
        request = pb.GetModelRequest(name=name, version=version, with_vocabulary=with_vocabulary)
        with _failures():
            model: pb.Model = (await self._stub.GetModel(request, timeout=self.timeout)).model
            return model
