"""What the seeds themselves are answered: the same before, during and after all else."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import grpc
from google.protobuf.message import Message

from tests.fuzz.drawing import Seed
from tests.fuzz.inference_seeds import going_on_seeds
from tests.fuzz.methods import Method
from tests.fuzz.sending import send
from tests.fuzz.unroll_seeds import resuming_seeds
from unroll.inference import grpc_service_pb2 as inference_pb
from unroll.v1 import unroll_pb2 as pb

_GO_ON = ("Generate", "StreamTag", "ModelInfer")


@dataclass(frozen=True)
class _Whole:
    """A seed as it is, read to its end."""

    method: Method
    messages: tuple[bytes, ...]
    reads: int | None = None
    wants_status: bool = False


async def call(channel: grpc.aio.Channel, seed: Seed) -> list[Message]:
    """The messages that it is answered with. Raises AssertionError where it is refused."""
    sent = tuple(message.SerializeToString() for message in seed.messages)
    answer = await send(channel, _Whole(seed.method, sent))
    assert answer.status == "OK", f"{seed.method.name}: {answer.status}, {answer.details}"
    return [seed.method.response.FromString(data) for data in answer.messages]


async def call_all(target: str, seeds: Sequence[Seed]) -> list[bytes]:
    """What each of ``seeds`` is answered, one after another, without what time makes of it."""
    async with grpc.aio.insecure_channel(target) as channel:
        return [_constant(await call(channel, seed)) for seed in seeds]


async def seeds_from_answers(target: str, seeds: Sequence[Seed]) -> list[Seed]:
    """Calls that go on from what ``seeds`` are answered: resume tokens, and states."""
    points: dict[str, list[bytes]] = defaultdict(list)
    stepped: list[tuple[Any, Any]] = []
    async with grpc.aio.insecure_channel(target) as channel:
        for seed in seeds:
            answers = await call(channel, seed) if seed.method.name in _GO_ON else []
            for answer in answers:
                if isinstance(answer, inference_pb.ModelInferResponse):
                    has_state = any(o.name.startswith("next_") for o in answer.outputs)
                    stepped += [(seed.messages[0], answer)] if has_state else []
                else:
                    points[seed.method.name] += [point.token for point in answer.resume_points]
    return [*resuming_seeds(points["Generate"], points["StreamTag"]), *going_on_seeds(stepped)]


def _constant(messages: Sequence[Message]) -> bytes:
    """The messages as one: how many there are depends on how busy the server is."""
    if isinstance(messages[0], inference_pb.ModelStreamInferResponse):
        return repr(_by_request(messages)).encode()
    whole = type(messages[0])()
    for message in messages:
        whole.MergeFrom(message)
    if change := _WITHOUT_TIME.get(type(whole)):
        change(whole)
    return whole.SerializeToString(deterministic=True)


def _by_request(messages: Sequence[Any]) -> dict[str, Any]:
    """What each request of a stream was answered, by its id: all elements of each output."""
    by_id: dict[str, Any] = defaultdict(lambda: defaultdict(list))
    for message in messages:
        response = message.infer_response
        of_request = by_id[response.id]
        of_request["errors"] += [message.error_message] if message.error_message else []
        for number, output in enumerate(response.outputs):
            raw = response.raw_output_contents[number : number + 1]
            of_request[output.name] += _elements(output, raw)
    return {
        id: {name: _joined(by_id[id][name]) for name in sorted(by_id[id])} for id in sorted(by_id)
    }


def _elements(output: Any, raw: Sequence[bytes]) -> list[Any]:
    if raw and output.datatype != "BYTES":
        return [raw[0]]
    if raw:
        return _texts(raw[0])
    return [element for _, elements in output.contents.ListFields() for element in elements]


def _texts(raw: bytes) -> list[bytes]:
    texts, place = [], 0
    while place < len(raw):
        end = place + 4 + int.from_bytes(raw[place : place + 4], "little")
        texts.append(raw[place + 4 : end])
        place = end
    return texts


def _joined(elements: list[Any]) -> Any:
    """A text may come in any number of pieces."""
    is_text = elements and isinstance(elements[0], bytes)
    return b"".join(elements) if is_text else elements


def _of_generate(response: pb.GenerateResponse) -> None:
    """Samples run side by side, in an order of the moment; a beam's seed draws nothing."""
    _clear_times(response)
    response.ClearField("seed")
    for several in (response.tokens, response.ends, response.resume_points):
        several.sort(key=lambda part: (part.sample, getattr(part, "position", 0)))


def _clear_times(response: Any) -> None:
    response.usage.queue_seconds = response.usage.time_to_first_token_seconds = 0
    response.usage.cached_tokens = 0  # it says what came before
    for point in response.resume_points:
        point.token = b""  # it says when it expires


def _of_forecast(response: pb.ForecastResponse) -> None:
    """Series run side by side, in an order of the moment."""
    response.usage.queue_seconds = response.usage.time_to_first_token_seconds = 0
    response.resume_token = b""
    response.steps.sort(key=lambda step: (step.series, step.position))


def _of_frames(response: pb.StreamStepResponse) -> None:
    response.usage.queue_seconds = response.usage.time_to_first_answer_seconds = 0
    for point in response.resume_points:
        point.token = b""


_WITHOUT_TIME: dict[type[Message], Callable[[Any], None]] = {
    pb.GenerateResponse: _of_generate,
    pb.StreamTagResponse: _clear_times,
    pb.ForecastResponse: _of_forecast,
    pb.StreamStepResponse: _of_frames,
}
