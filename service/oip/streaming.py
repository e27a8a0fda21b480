"""One call of ModelStreamInfer: requests side by side, each with responses of its own."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from functools import partial

from service.access.admission import Admission, AdmissionControl, release_with_call
from service.access.memory_budget import Reservation
from service.engine.errors import RequestError, ServiceStopping
from service.oip.direct import DirectCall
from service.oip.infer import MOST_ID_CHARACTERS, InferHandler
from service.oip.writer import ResponseQueue
from service.rpc.call import MessageRequest, ServerCall
from service.rpc.pipeline import read_message
from service.rpc.status import message_of
from service.rpc.writer import MessageWriter
from unroll.inference import grpc_service_pb2 as pb

SERVICE = pb.DESCRIPTOR.services_by_name["GRPCInferenceService"].full_name
METHOD = "ModelStreamInfer"
# With this header an error ends the call with a status, instead of coming in a message.
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
        handler: InferHandler,
        call: ServerCall,
        admission: AdmissionControl,
        stall_seconds: float,
    ) -> None:
        self.handler = handler
        self.call = call
        self.admission = admission
        self.stall_seconds = stall_seconds
        self.ends_with_status = any(
            (key, value.lower()) == STATUS_HEADER
            for key, value in call.metadata
            if isinstance(value, str)
        )
        self._unread: set[Reservation] = set()
        self._places = asyncio.Semaphore(MOST_AT_ONCE)
        self._writer = MessageWriter(call, stall_seconds)
        self._outbox = ResponseQueue(self._writer.write, MOST_UNWRITTEN)
        self._direct = DirectCall(self._has_room, self._writer.write_now)

    async def serve(self, requests: AsyncIterator[bytes]) -> None:
        """Until the caller has sent all and has all, or the server stops.

        requests: their bytes, as the pipeline gives them to methods that admit them themselves.

        Sequences that began here end here. Raises ServiceStopping, ReaderStalled, and with the
        header whatever a request is refused with.
        """
        writing = asyncio.ensure_future(self._outbox.run())
        writing.add_done_callback(_forgive)
        try:
            is_cut_off = await self._answer_all(requests, writing)
        finally:
            self.handler.sequences.end_of_owner(self)
            self._outbox.close()
            await asyncio.wait((writing,))
            # What nobody read stays in the transport's hands until the call is gone.
            for held in self._unread:
                release_with_call(held)
        if is_cut_off:
            raise ServiceStopping("the server is stopping; open the stream to another one")

    async def _answer_all(
        self, requests: AsyncIterator[bytes], writing: asyncio.Future[None]
    ) -> bool:
        """Whether the stop of the server cut the requests off."""
        try:
            async with asyncio.TaskGroup() as group:
                watching = group.create_task(_raise_of(writing))
                async with asyncio.TaskGroup() as handler:
                    reading = handler.create_task(self._read(requests, handler))
                    await self._until_read_or_stopping(reading)
                    is_cut_off = not reading.done()
                    reading.cancel()
                watching.cancel()
        except BaseExceptionGroup as errors:
            raise _first_of(errors) from None
        return is_cut_off

    async def _until_read_or_stopping(self, reading: asyncio.Task[None]) -> None:
        stopping = asyncio.create_task(self.admission.inflight.closed.wait())
        try:
            await asyncio.wait((reading, stopping), return_when=asyncio.FIRST_COMPLETED)
        finally:
            stopping.cancel()

    async def _read(self, requests: AsyncIterator[bytes], group: asyncio.TaskGroup) -> None:
        async for data in requests:
            await self._places.acquire()
            group.create_task(self._answer(data))
            del data  # which is the task's alone

    async def _answer(self, data: bytes) -> None:
        about = pb.ModelInferResponse()
        try:
            failure = await self._answered(data, about)
            # Nobody may read why for as long as the call lasts: the request is not kept for that.
            del data
            if failure:
                await self._report(about, failure)
        finally:
            self._places.release()

    async def _answered(self, data: bytes, about: pb.ModelInferResponse) -> RequestError | None:
        """Why the request in ``data`` was refused. about: is set to which one it is."""
        with Admission(self.admission, self.call) as admission:
            request = read_message(admission, data, pb.ModelInferRequest)
            admission.enter(MessageRequest(request))
            _name(about, request)
            await self.handler.stream(request, self, self._send, self._direct)
            await self._outbox.written()
        return admission.failure

    async def _report(self, about: pb.ModelInferResponse, failure: RequestError) -> None:
        if self.ends_with_status:
            raise failure
        response = pb.ModelStreamInferResponse(
            error_message=message_of(failure), infer_response=about
        )
        await self._outbox.put(response)
        await self._outbox.written()

    async def _send(self, response: pb.ModelInferResponse) -> None:
        """Raises Overloaded where unread responses take too much already."""
        held = self.admission.hold_answer(response.ByteSize())
        if held:
            self._unread.add(held)
        await self._outbox.put(pb.ModelStreamInferResponse(infer_response=response))
        if held:
            # Nobody waits for that here: the model's version is free before its answer is read.
            self._outbox.when_written(partial(self._release, held))

    def _has_room(self) -> bool:
        """As DirectCall has it."""
        return self._outbox.is_empty and self._writer.has_room()

    def _release(self, held: Reservation) -> None:
        self._unread.discard(held)
        held.release()


async def stream_one(
    handler: InferHandler,
    request: pb.ModelInferRequest,
    call: ServerCall,
    admission: AdmissionControl,
    stall_seconds: float,
) -> None:
    """The responses to the one request of a call, each written before the next is made.

    A sequence that begins here ends here. Raises ReaderStalled, and as InferHandler.stream().
    """
    owner, writer = object(), MessageWriter(call, stall_seconds)

    async def send(response: pb.ModelInferResponse) -> None:
        held = admission.hold_answer(response.ByteSize())
        try:
            await writer.write(response)
        finally:
            if held:
                held.release()

    try:
        await handler.stream(request, owner, send)
    finally:
        handler.sequences.end_of_owner(owner)


def _name(about: pb.ModelInferResponse, request: pb.ModelInferRequest) -> None:
    """Which request a response is about; what is too long to be repeated is left out."""
    if len(request.id) <= MOST_ID_CHARACTERS:
        about.id = request.id
    about.model_name = request.model_name[:MOST_ID_CHARACTERS]
    about.model_version = request.model_version[:MOST_ID_CHARACTERS]


def _forgive(writing: asyncio.Future[None]) -> None:
    """What a write fails with once its call is over, nobody is there to see."""
    if not writing.cancelled():
        writing.exception()


async def _raise_of(work: asyncio.Future[None]) -> None:
    """What ``work`` raises; it goes on when this is cancelled."""
    await asyncio.shield(work)


def _first_of(errors: BaseExceptionGroup[BaseException]) -> BaseException:
    first = errors.exceptions[0]
    return _first_of(first) if isinstance(first, BaseExceptionGroup) else first
