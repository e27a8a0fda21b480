"""One call of ModelStreamInfer: requests side by side, each with responses of its own."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import grpc

from service.engine.errors import RequestError, ServiceStopping
from service.rpc.errors import told
from service.rpc.inference.answering import Answering
from service.rpc.inference.outbox import Outbox
from service.rpc.interceptors import checked
from service.rpc.reception import Admission, Reception
from service.rpc.writing import write
from unroll.inference import grpc_service_pb2 as pb

METHOD = "ModelStreamInfer"
# With this header an error ends the call with a status, instead of being told in a message.
STATUS_HEADER = ("triton_grpc_error", "true")
# Requests of one call that are under way; further ones are not read until one has ended.
MOST_AT_ONCE = 256
# Responses of one call that wait to be written.
MOST_UNWRITTEN = 64


class InferStream:
    """serve() it once.

    stall_seconds: how long a response may wait for its caller to read.
    """

    def __init__(
        self,
        answering: Answering,
        context: grpc.aio.ServicerContext,
        reception: Reception,
        stall_seconds: float,
    ) -> None:
        self.answering = answering
        self.context = context
        self.reception = reception
        self.stall_seconds = stall_seconds
        self.ends_with_status = any(
            (key, value.lower()) == STATUS_HEADER
            for key, value in context.invocation_metadata() or ()
        )
        self._places = asyncio.Semaphore(MOST_AT_ONCE)
        self._outbox = Outbox(
            lambda response: write(context, response, stall_seconds), MOST_UNWRITTEN
        )

    async def serve(self, requests: AsyncIterator[Any]) -> None:
        """Until the caller has sent all and has all, or the server stops.

        requests: as CallInterceptor gives them to methods that let requests in themselves.

        Sequences that began here end here. Raises ServiceStopping, ReaderStalled, and with the
        header whatever a request is refused with.
        """
        writing = asyncio.ensure_future(self._outbox.run())
        writing.add_done_callback(_forgive)
        try:
            is_cut_off = await self._answer_all(requests, writing)
        finally:
            self.answering.sequences.end_of_owner(self)
            self._outbox.close()
            await asyncio.wait((writing,))
        if is_cut_off:
            raise ServiceStopping("the server is stopping; open the stream to another one")

    async def _answer_all(
        self, requests: AsyncIterator[Any], writing: asyncio.Future[None]
    ) -> bool:
        """Whether the stop of the server cut the requests off."""
        try:
            async with asyncio.TaskGroup() as group:
                watching = group.create_task(_raise_of(writing))
                async with asyncio.TaskGroup() as answering:
                    reading = answering.create_task(self._read(requests, answering))
                    await self._until_read_or_stopping(reading)
                    is_cut_off = not reading.done()
                    reading.cancel()
                watching.cancel()
        except BaseExceptionGroup as errors:
            raise _first_of(errors) from None
        return is_cut_off

    async def _until_read_or_stopping(self, reading: asyncio.Task[None]) -> None:
        stopping = asyncio.create_task(self.reception.gate.closed.wait())
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
            with Admission(self.reception, METHOD, self.context) as admission:
                admission.enter(request)
                await self.answering.stream(checked(request), self, self._send)
                await self._outbox.written()
            if admission.failure:
                await self._tell(request, admission.failure)
        finally:
            self._places.release()

    async def _tell(self, request: Any, failure: RequestError) -> None:
        if self.ends_with_status:
            raise failure
        response = pb.ModelStreamInferResponse(error_message=told(failure))
        response.infer_response.SetInParent()
        if isinstance(request, pb.ModelInferRequest):
            about = response.infer_response
            about.id, about.model_name = request.id, request.model_name
            about.model_version = request.model_version
        await self._outbox.put(response)
        await self._outbox.written()

    async def _send(self, response: pb.ModelInferResponse) -> None:
        await self._outbox.put(pb.ModelStreamInferResponse(infer_response=response))


def _forgive(writing: asyncio.Future[None]) -> None:
    """What a write fails with once its call is over, nobody is there to be told."""
    if not writing.cancelled():
        writing.exception()


async def _raise_of(work: asyncio.Future[None]) -> None:
    """What ``work`` raises; it goes on when this is cancelled."""
    await asyncio.shield(work)


def _first_of(errors: BaseExceptionGroup[BaseException]) -> BaseException:
    first = errors.exceptions[0]
    return _first_of(first) if isinstance(first, BaseExceptionGroup) else first
