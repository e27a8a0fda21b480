"""Concurrent callers, each of which does what its seed says and records it."""

from __future__ import annotations

import asyncio
import json
import random
from collections.abc import AsyncIterator, Callable, Coroutine, Iterable, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from typing import Any

import grpc

from tests.robustness import requests
from tests.robustness.history import (
    CLASSIFY,
    GENERATE,
    HANDED_OVER,
    LEFT,
    LOAD,
    OK,
    SEQUENCE,
    TAGS,
    UNLOAD,
    Call,
    History,
)
from tests.robustness.requests import LETTERS, MOOD, SECONDS, SPELLER, TAGGER, VERSIONS
from unroll.inference import grpc_service_pb2 as inference_pb
from unroll.inference import grpc_service_pb2_grpc
from unroll.v1 import unroll_pb2 as pb
from unroll.v1 import unroll_pb2_grpc

# How often a caller goes on with a stream before it lets it be.
MOST_RESUMES = 4
# That a model's engine broke: it answers again once it is loaded anew.
BROKEN = "INTERNAL"
# That a service stops, or has.
GONE = (HANDED_OVER, "UNAVAILABLE", "CANCELLED")


class Caller:
    """One caller on connections of its own; ``async with`` closes them.

    targets: services; it calls the first one until that stops, and then the next one.
    """

    def __init__(self, targets: Sequence[str], seed: str, history: History) -> None:
        self.history = history
        self.choose = random.Random(seed)
        options = (("grpc.use_local_subchannel_pool", 1),)
        self._channels = [grpc.aio.insecure_channel(target, options) for target in targets]
        self._place = 0

    @property
    def _unroll(self) -> unroll_pb2_grpc.UnrollServiceStub:
        return unroll_pb2_grpc.UnrollServiceStub(self._channels[self._place])

    @property
    def _inference(self) -> grpc_service_pb2_grpc.GRPCInferenceServiceStub:
        return grpc_service_pb2_grpc.GRPCInferenceServiceStub(self._channels[self._place])

    async def __aenter__(self) -> Caller:
        return self

    async def __aexit__(self, *_: object) -> None:
        for channel in self._channels:
            await channel.close()

    async def act(self, count: int, ways: Sequence[Way] = ()) -> None:
        """So many things, one after the other. ways: to choose from; none for all of them."""
        for _ in range(count):
            await self.choose.choice(ways or WAYS)(self)

    async def operate(self, count: int = 1) -> None:
        """Load and unload MOOD, alone in doing so."""
        for _ in range(count):
            if self.choose.random() < 0.25:
                await self._unload(MOOD)
            else:
                versions = self.choose.choice((["1"], ["2"], ["1", "2"]))
                await self.load(MOOD, versions)
            await asyncio.sleep(self.choose.choice((0.0, 0.02, 0.1)))

    # -- unroll.v1 -----------------------------------------------------------------------------

    async def generate(self) -> None:
        """A stream that may be left, and that is gone on with wherever it ended early."""
        name = self.choose.choice(list(requests.GENERATED))
        request = pb.GenerateRequest()
        request.CopyFrom(requests.GENERATED[name])
        request.tokens_per_message = self.choose.choice((0, 0, 1, 5, 50))
        group, start = self.history.group(), 0
        for _ in range(MOST_RESUMES):
            points: list[pb.ResumePoint] = []
            leave_after = self.choose.choice((1, 4, 20)) if self.choose.random() < 0.3 else 0
            with self.history.call(GENERATE, name, group, start) as call:
                await self._read(
                    call, self._unroll.Generate(request, timeout=SECONDS), points, leave_after
                )
            await self._mend(call, request.model)
            if call.status == OK or not (points or start):
                return
            if points:
                start = points[-1].next_position
                request = pb.GenerateRequest(
                    model=request.model,
                    resume_token=points[-1].token,
                    log_probabilities=True,
                    resume_every=16,
                )

    async def tag(self) -> None:
        """The same of a stream of tags."""
        name = self.choose.choice(list(requests.TAGGED))
        words = requests.TAGGED[name]
        begin = pb.StreamTagStart(model=TAGGER, resume_every=16)
        group, start = self.history.group(), 0
        for _ in range(MOST_RESUMES):
            points: list[pb.ResumePoint] = []
            leave_after = self.choose.choice((1, 4)) if self.choose.random() < 0.3 else 0
            sent = self._word_requests(begin, words[start:])
            with self.history.call(TAGS, name, group, start) as call:
                await self._read(
                    call, self._unroll.StreamTag(sent, timeout=SECONDS), points, leave_after
                )
            await self._mend(call, TAGGER)
            if call.status == OK or not (points or start):
                return
            if points:
                start = points[-1].next_position
                begin = pb.StreamTagStart(
                    model=TAGGER, resume_every=16, resume_token=points[-1].token
                )

    def _word_requests(
        self, begin: pb.StreamTagStart, words: tuple[str, ...]
    ) -> Iterable[pb.StreamTagRequest]:
        parts = [pb.StreamTagRequest(start=begin)]
        each = self.choose.choice((1, 5, 50))
        for place in range(0, len(words), each):
            some = pb.Words(words=words[place : place + each])
            parts.append(pb.StreamTagRequest(words=some))
        return parts

    async def _read(self, call: Call, stream: Any, points: list[Any], leave_after: int) -> None:
        """leave_after: so many messages; 0 to read all."""
        call.answer = []
        messages = 0
        while (message := await stream.read()) is not grpc.aio.EOF:
            if isinstance(message, pb.GenerateResponse):
                call.answer += map(requests.token_of, message.tokens)
                call.finishes += bool(message.finish_reason)
                is_moved = message.finish_reason == pb.FINISH_REASON_HANDED_OVER
            else:
                call.answer += map(requests.label_of, message.tokens)
                call.finishes += message.HasField("usage")
                is_moved = message.handed_over
            if is_moved:
                call.status = HANDED_OVER
            points += message.resume_points
            messages += 1
            if messages == leave_after and not call.finishes:
                stream.cancel()
                call.status = LEFT
                return

    async def classify(self) -> None:
        name = self.choose.choice(list(requests.CLASSIFIED))
        request = pb.ClassifyRequest(model=MOOD, texts=requests.CLASSIFIED[name])
        with self.history.call(CLASSIFY, name) as call:
            response = await self._unroll.Classify(request, timeout=SECONDS)
            call.answer = requests.classes_of(response)
        if call.status in GONE:
            await self._mend(call, MOOD)

    # -- the inference protocol ----------------------------------------------------------------

    async def sequence(self) -> None:
        """Requests that go on from each other, some of them at the same time."""
        group, count = self.history.group(), self.choose.randint(2, 5)
        await self._part(group, is_first=True)
        for _ in range(count):
            together = self.choose.choice((1, 1, 2))
            await asyncio.gather(*(self._part(group) for _ in range(together)))
        await self._part(group, is_last=True)

    async def _part(self, group: int, is_first: bool = False, is_last: bool = False) -> None:
        part = self.choose.choice(requests.PARTS)
        request = requests.part_request(group, part, is_first, is_last)
        with self.history.call(SEQUENCE, (part, is_first, is_last), group) as call:
            response = await self._inference.ModelInfer(request, timeout=SECONDS)
            call.answer = requests.part_answer(response)
        await self._mend(call, TAGGER)

    async def streamed_sequence(self) -> None:
        """A sequence whose requests are those of one call, and which ends with that."""
        group, count = self.history.group(), self.choose.randint(3, 6)
        stream = self._inference.ModelStreamInfer(timeout=SECONDS)
        for place in range(count):
            call = await self._streamed_part(stream, group, place == 0, place == count - 1)
            if call.status != OK:
                break
        stream.cancel()
        await self._mend(call, TAGGER)

    async def _streamed_part(self, stream: Any, group: int, is_first: bool, is_last: bool) -> Call:
        part = self.choose.choice(requests.PARTS)
        with self.history.call(SEQUENCE, (part, is_first, is_last), group) as call:
            call.may_be_unread = True
            await stream.write(requests.part_request(group, part, is_first, is_last))
            response = await stream.read()
            if response is grpc.aio.EOF:
                call.status = "no answer"
                return call
            call.may_be_unread = False
            if response.error_message:
                call.status, call.detail = BROKEN, response.error_message
            else:
                call.answer = requests.part_answer(response.infer_response)
        return call

    async def load(self, name: str, versions: Iterable[str] = ()) -> Call:
        """versions: those that are to be served; none for what was before."""
        request = inference_pb.RepositoryModelLoadRequest(model_name=name)
        if versions:
            policy = {"specific": {"versions": [int(version) for version in versions]}}
            request.parameters["config"].string_param = json.dumps({"version_policy": policy})
        with self.history.call(LOAD, (name, frozenset(versions))) as call:
            await self._inference.RepositoryModelLoad(request, timeout=SECONDS)
        return call

    async def _unload(self, name: str) -> None:
        request = inference_pb.RepositoryModelUnloadRequest(model_name=name)
        with self.history.call(UNLOAD, (name, frozenset())):
            await self._inference.RepositoryModelUnload(request, timeout=SECONDS)

    async def _mend(self, call: Call, name: str) -> None:
        """Have a model loaded anew whose engine may have broken; leave a service that stops."""
        place = self._place
        if call.status == BROKEN:
            call = await self.load(name)
        if call.status in GONE and place == self._place:
            self._place = min(place + 1, len(self._channels) - 1)

    async def mend_all(self) -> None:
        """Once no fault comes any more, every model is to be served again."""
        loads = [await self.load(name) for name in (LETTERS, SPELLER, TAGGER)]
        loads.append(await self.load(MOOD, VERSIONS))
        assert all(load.status == OK for load in loads), loads


@asynccontextmanager
async def all_of(callers: Sequence[Caller]) -> AsyncIterator[Sequence[Caller]]:
    """Closes them."""
    async with AsyncExitStack() as stack:
        yield [await stack.enter_async_context(caller) for caller in callers]


Way = Callable[[Caller], Coroutine[Any, Any, None]]
WAYS: Sequence[Way] = (
    Caller.generate, Caller.generate, Caller.tag, Caller.classify, Caller.sequence,
    Caller.streamed_sequence,
)  # fmt: skip
