"""One call of ModelStreamInfer: requests side by side, each with responses of its own."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import grpc

from service.engine.errors import ReaderStalled, RequestError, ServiceStopping
from service.rpc.errors import told
from service.rpc.inference.answering import Answering
from service.rpc.interceptors import Admission, CallCounter, Gate, checked
from service.rpc.writing import write
from unroll.inference import grpc_service_pb2 as pb

METHOD = "ModelStreamInfer"
# With this header an error ends the call with a status, instead of being told in a message.
STATUS_HEADER = ("triton_grpc_error", "true")
# Requests of one call that are under way; further ones are not read until one has ended.
MOST_AT_ONCE = 256


class InferStream:
    """serve() it once.

    stall_seconds: how long a response may wait for its caller to read.
    """

    def __init__(
        self,
        answering: Answering,
        context: grpc.aio.ServicerContext,
        gate: Gate,
        count: CallCounter,
        stall_seconds: float,
    ) -> None:
        self.answering = answering
        self.context = context
        self.gate = gate
        self.count = count
        self.stall_seconds = stall_seconds
        self.ends_with_status = any(
            (key, value.lower()) == STATUS_HEADER
            for key, value in context.invocation_metadata() or ()
        )
        self._places = asyncio.Semaphore(MOST_AT_ONCE)
        # Two writes at once are refused by gRPC.
        self._writing = asyncio.Lock()

    async def serve(self, requests: AsyncIterator[Any]) -> None:
        """Until the caller has sent all and has all, or the server stops.

        requests: as CallInterceptor gives them to methods that let requests in themselves.

        Sequences that began here end here. Raises ServiceStopping, ReaderStalled, and with the
        header whatever a request is refused with.
        """
        try:
            async with asyncio.TaskGroup() as group:
                reading = group.create_task(self._read(requests, group))
                await self._until_read_or_stopping(reading)
                is_cut_off = not reading.done()
                reading.cancel()
        except BaseExceptionGroup as errors:
            raise errors.exceptions[0] from None
        finally:
            self.answering.sequences.end_of_owner(self)
        if is_cut_off:
            raise ServiceStopping("the server is stopping; open the stream to another one")

    async def _until_read_or_stopping(self, reading: asyncio.Task[None]) -> None:
        stopping = asyncio.create_task(self.gate.closed.wait())
        try:
            await asyncio.wait((reading, stopping), return_when=asyncio.FIRST_COMPLETED)
        finally:
            stopping.cancel()

    async def _read(self, requests: AsyncIterator[Any], group: asyncio.TaskGroup) -> None:
        async for request in requests:
            await self._places.acquire()
            group.create_task(self._answer(request))

    async def _answer(self, request: Any) -> None:
        try:
            with Admission(self.gate, self.count, METHOD, self.context) as admission:
                admission.enter(request)
                await self.answering.stream(checked(request), self, self._send)
            if admission.failure:
                await self._tell(request, admission.failure)
        finally:
            self._places.release()

    async def _tell(self, request: Any, failure: RequestError) -> None:
        if self.ends_with_status or isinstance(failure, ReaderStalled):
            raise failure
        response = pb.ModelStreamInferResponse(error_message=told(failure))
        response.infer_response.SetInParent()
        if isinstance(request, pb.ModelInferRequest):
            about = response.infer_response
            about.id, about.model_name = request.id, request.model_name
            about.model_version = request.model_version
        await self._write(response)

    async def _send(self, response: pb.ModelInferResponse) -> None:
        await self._write(pb.ModelStreamInferResponse(infer_response=response))

    async def _write(self, response: pb.ModelStreamInferResponse) -> None:
        # To its end, even where the request's own time is up: grpc takes no write back.
        async with self._writing:
            writing = asyncio.ensure_future(write(self.context, response, self.stall_seconds))
            try:
                await asyncio.shield(writing)
            except asyncio.CancelledError:
                await asyncio.gather(writing, return_exceptions=True)
                raise
