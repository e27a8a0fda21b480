"""Calls drawn from seeds: the same draw and number give the same call."""

from __future__ import annotations

import random
from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from google.protobuf.message import Message

from tests.fuzz import octets, tensors
from tests.fuzz.methods import Method
from tests.fuzz.structure import StructureMutator, donors_of
from unroll.inference.grpc_service_pb2 import ModelInferRequest

_NOT_OFFERED = (
    "SystemSharedMemoryStatus", "SystemSharedMemoryRegister", "SystemSharedMemoryUnregister",
    "CudaSharedMemoryStatus", "CudaSharedMemoryRegister", "CudaSharedMemoryUnregister",
    "TraceSetting",
)  # fmt: skip
# Of all that are drawn, relative to one another; what is not named weighs 1.
_WEIGHTS = {
    **dict.fromkeys(_NOT_OFFERED, 0.1),
    "Generate": 4.0,
    "StreamTag": 3.0,
    "StreamStep": 3.0,
    "ModelInfer": 8.0,
    "ModelStreamInfer": 4.0,
    "RepositoryModelLoad": 0.1,
    "RepositoryModelUnload": 0.1,
}
_WEIGHT_OF_A_METHOD_WITHOUT_FIELDS = 0.1
_OCTETS_SHARE = 0.25
# Of requests with tensors: that stay true to themselves.
_TRUE_SHARE = 0.5
# Answers that are read before a call is cancelled; others are left at once.
_READS = (1, 1, 2, 5, 30)
_CANCELLED_SHARE = 0.5
_LEFT_SHARE = 0.1
# Of streams of requests whose errors are to come as a status.
_STATUS_SHARE = 0.2
# How such a call is printed.
WANTS_STATUS = "--status"


@dataclass(frozen=True)
class Seed:
    """A call that is served: its method, and what it sends."""

    method: Method
    messages: tuple[Message, ...]


@dataclass(frozen=True)
class Call:
    """mutated: how many of its messages are. readable: how many of those are messages still.

    reads: answers after which it is cancelled, 0 for one that is left at once; None for all.
    wants_status: it is to end with the status of the first error, as Triton's header requests.
    """

    number: int
    method: Method
    messages: tuple[bytes, ...]
    mutated: int
    readable: int
    reads: int | None
    wants_status: bool = False

    def __str__(self) -> str:
        """What `python -m tests.fuzz` takes after its target, to send it again."""
        sent = [data.hex() or "-" for data in self.messages]
        return " ".join([self.method.path, *([WANTS_STATUS] if self.wants_status else []), *sent])


class Drawing:
    """Draws calls of every method that ``seeds`` have. name: of the draw."""

    def __init__(self, name: str, seeds: Sequence[Seed]) -> None:
        self.name = name
        self._donors = donors_of(message for seed in seeds for message in seed.messages)
        self._seeds: dict[str, list[Seed]] = defaultdict(list)
        for seed in seeds:
            self._seeds[seed.method.path].append(seed)
        self._paths = sorted(self._seeds)
        self._weights = [_weight(self._seeds[path][0].method) for path in self._paths]

    def calls(self, messages: int, first: int = 0) -> Iterator[Call]:
        """Calls from number ``first`` on, until they hold so many mutated messages."""
        number = first
        while messages > 0:
            call = self.call(number)
            messages -= call.mutated
            number += 1
            yield call

    def call(self, number: int) -> Call:
        choose = random.Random(f"{self.name} {number}")
        (path,) = choose.choices(self._paths, self._weights)
        seeds = self._seeds[path]
        seed, other = choose.choice(seeds), choose.choice(seeds)
        method = seed.method
        sent = _reordered(choose, seed.messages) if method.takes_stream else [*seed.messages]
        changes = [choose.random() < 0.4 for _ in sent]
        changes[choose.randrange(len(sent))] = True
        mutation = _Mutation(choose, StructureMutator(choose, self._donors))
        data = tuple(
            mutation.of(message, choose.choice(other.messages)) if changed else _bytes_of(message)
            for message, changed in zip(sent, changes, strict=True)
        )
        mutated = [part for part, changed in zip(data, changes, strict=True) if changed]
        return Call(
            number,
            method,
            data,
            len(mutated),
            sum(map(method.reads, mutated)),
            _reads(choose, method),
            method.name == "ModelStreamInfer" and choose.random() < _STATUS_SHARE,
        )


def _reads(choose: random.Random, method: Method) -> int | None:
    if choose.random() < _LEFT_SHARE:
        return 0
    is_cancelled = method.gives_stream and choose.random() < _CANCELLED_SHARE
    return choose.choice(_READS) if is_cancelled else None


def _weight(method: Method) -> float:
    if not method.request.DESCRIPTOR.fields:
        return _WEIGHT_OF_A_METHOD_WITHOUT_FIELDS
    return _WEIGHTS.get(method.name, 1.0)


def _reordered(choose: random.Random, messages: Sequence[Message]) -> list[Message]:
    """Now and then one of a stream's messages is missing, comes twice or elsewhere."""
    sent = [*messages]
    place = choose.randrange(len(sent))
    match choose.randrange(12):
        case 0 if len(sent) > 1:
            del sent[place]
        case 1:
            sent.insert(choose.randint(0, len(sent)), sent[place])
        case 2:
            choose.shuffle(sent)
    return sent


class _Mutation:
    def __init__(self, choose: random.Random, structure: StructureMutator) -> None:
        self.choose = choose
        self.structure = structure

    def of(self, message: Message, other: Message) -> bytes:
        """``message`` changed a little, never as it was. other: of the same kind."""
        was = _bytes_of(message)
        while True:
            data = self._once(message, _bytes_of(other))
            if data != was:
                return data

    def _once(self, message: Message, other: bytes) -> bytes:
        choose = self.choose
        changes_octets = choose.random() < _OCTETS_SHARE or not message.DESCRIPTOR.fields
        if not changes_octets or choose.random() < 0.2:
            changed = type(message)()
            changed.CopyFrom(message)
            is_true = isinstance(changed, ModelInferRequest) and choose.random() < _TRUE_SHARE
            for _ in range(choose.choice((1, 1, 1, 2, 3))):
                if is_true:
                    tensors.change(choose, changed)
                else:
                    self.structure.mutate(changed)
            message = changed
        data = _bytes_of(message)
        return octets.mutated(choose, data, other) if changes_octets else data


def _bytes_of(message: Message) -> bytes:
    return message.SerializeToString(deterministic=True)
