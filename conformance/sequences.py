"""Sequences: Triton's parameters sequence_id, sequence_start and sequence_end.

They are sent over ModelStreamInfer where the endpoint offers it, else over ModelInfer.
"""

from __future__ import annotations

import secrets
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import grpc
import numpy as np
from numpy.typing import NDArray

from conformance import protocol as pb
from conformance import requests
from conformance.cases import (
    SEQUENCE,
    SEQUENCES,
    SHOULD,
    Failure,
    NotApplicable,
    Section,
    expect,
)
from conformance.endpoint import Stream
from conformance.streams import ENABLE_EMPTY_FINAL, answers, filled, is_final, receive, rest
from conformance.subjects import REFUSALS, Arrays, Subject
from conformance.subjects import same as same_outputs
from conformance.tensors import agree

STEPS = 3

sequence = Section(SEQUENCES, "Sequence extension")


def fresh_id() -> int:
    """One that no sequence of an earlier run has."""
    return 1 + secrets.randbelow(2**52)


def steps_of(subject: Subject) -> list[requests.Arrays]:
    """Inputs of a sequence's requests: the file's, or variable dimensions one at a time."""
    if subject.steps:
        return list(subject.steps)
    return [requests.guess(subject.model, time=1)] * STEPS


class SequenceClient:
    """Requests one after another, each answered before the next."""

    def __init__(self, subject: Subject, stream: Stream | None) -> None:
        self.subject, self._stream = subject, stream

    def infer(
        self, arrays: requests.Arrays, id: int | str, start: bool = False, end: bool = False
    ) -> Arrays:
        """The last outputs that come. Raises Failure for an error."""
        found = filled(answers(self.responses(arrays, id, start, end)))
        expect(bool(found), "outputs", "none")
        return self.subject.read(found[-1])

    def refuses(self, arrays: requests.Arrays, id: int | str, why: str) -> None:
        """A request that goes on with a sequence has an error, in band or as a status."""
        try:
            found = self.responses(arrays, id)
        except Failure as failure:
            error = failure.__cause__
            if not isinstance(error, grpc.RpcError) or error.code() not in REFUSALS:
                raise
        else:
            expect(bool(found[-1].error_message), why, "an answer")

    def responses(
        self, arrays: requests.Arrays, id: int | str, start: bool = False, end: bool = False
    ) -> list[pb.ModelStreamInferResponse]:
        """All to one request."""
        named = {"sequence_id": id, "sequence_start": start, "sequence_end": end}
        is_decoupled = self.subject.model.is_decoupled
        if self._stream is None:
            answer = self.subject.infer(self.subject.request(arrays, parameters=named))
            return [pb.ModelStreamInferResponse(infer_response=answer)]
        if is_decoupled:
            named[ENABLE_EMPTY_FINAL] = True
        self._stream.send(self.subject.request(arrays, id="step", parameters=named))
        found = [receive(self._stream)]
        while is_decoupled and not _is_last(found[-1]):
            found.append(receive(self._stream))
        return found

    def close(self) -> None:
        """Wait until the stream has ended, so that the server has seen it go."""
        if self._stream is not None:
            rest(self._stream)

    def run(self, steps: Sequence[requests.Arrays], id: int | str) -> list[Arrays]:
        """A whole sequence: what each of its requests is answered with."""
        last = len(steps) - 1
        return [self.infer(step, id, at == 0, at == last) for at, step in enumerate(steps)]


def _is_last(response: pb.ModelStreamInferResponse) -> bool:
    return bool(response.error_message) or is_final(response.infer_response)


@contextmanager
def sequence_client(subject: Subject) -> Iterator[SequenceClient]:
    if not subject.endpoint.offers("ModelStreamInfer"):
        yield SequenceClient(subject, None)
        return
    with subject.endpoint.stream() as stream:
        yield SequenceClient(subject, stream)


def same_steps(found: Sequence[Arrays], expected: Sequence[Arrays]) -> None:
    for one, other in zip(found, expected, strict=True):
        same_outputs(one, other)


@sequence("seq-infer-001", SEQUENCE, "sequence_start")
def sequence_is_answered(subject: Subject) -> None:
    """The requests of a sequence are answered, from its start to its end."""
    with sequence_client(subject) as client:
        found = client.run(steps_of(subject), fresh_id())
    expect(all(found), "outputs of each request", [sorted(outputs) for outputs in found])


@sequence("seq-infer-002", SEQUENCE, "sequence_id")
def pieces_equal_the_whole(subject: Subject) -> None:
    """Inputs in parts give what one request with all of them gives."""
    if subject.steps or not _grows(subject):
        raise NotApplicable("no input has a variable dimension that pieces could fill")
    with sequence_client(subject) as client:
        pieces = client.run(steps_of(subject), fresh_id())
        (whole,) = client.run([requests.guess(subject.model, time=STEPS)], fresh_id())
    for name, expected in whole.items():
        found = _joined([piece[name] for piece in pieces], expected)
        expect(agree(found, expected), f"{name} = {expected.tolist()}", found.tolist())


def _grows(subject: Subject) -> bool:
    needed = requests.inputs_needed(subject.model)
    return any(requests.time_axis(subject.model, tensor) is not None for tensor in needed)


def _joined(pieces: list[NDArray[Any]], whole: NDArray[Any]) -> NDArray[Any]:
    """The pieces along the dimension that the whole is longer in; the last where there is none."""
    last = pieces[-1]
    longer = [
        axis
        for axis, (size, piece) in enumerate(zip(whole.shape, last.shape, strict=True))
        if size != piece
    ]
    return np.concatenate(pieces, axis=longer[0]) if longer else last


@sequence("seq-infer-003", SEQUENCE, "sequence_id")
def sequences_do_not_mix(subject: Subject) -> None:
    """Two sequences on one connection, request by request in turn, give what each gives alone."""
    one = steps_of(subject)
    with sequence_client(subject) as client:
        expected = client.run(one, fresh_id())
        other = _other_steps(subject, client)
        other_expected = client.run(other, fresh_id())
        ids = (fresh_id(), fresh_id())
        found: tuple[list[Arrays], list[Arrays]] = ([], [])
        for at in range(len(one)):
            for which, steps in enumerate((one, other)):
                flags = {"start": at == 0, "end": at == len(one) - 1}
                found[which].append(client.infer(steps[at], ids[which], **flags))
    same_steps(found[0], expected)
    same_steps(found[1], other_expected)


def _other_steps(subject: Subject, client: SequenceClient) -> list[requests.Arrays]:
    """Other contents, if the model takes them."""
    others: list[requests.Arrays] = [requests.varied(step) for step in steps_of(subject)]
    try:
        client.run(others, fresh_id())
    except Failure:
        return steps_of(subject)
    return others


@sequence("seq-infer-004", SEQUENCE, "sequence_end")
def next_sequence_begins_anew(subject: Subject) -> None:
    """After its end an id can start again, and begins from nothing."""
    id = fresh_id()
    with sequence_client(subject) as client:
        first = client.run(steps_of(subject), id)
        same_steps(client.run(steps_of(subject), id), first)


@sequence("seq-infer-005", SEQUENCE, "sequence_id", level=SHOULD)
def ids_are_numbers_or_strings(subject: Subject) -> None:
    """An id may be a number or a string."""
    with sequence_client(subject) as client:
        numbered = client.run(steps_of(subject), fresh_id())
        same_steps(client.run(steps_of(subject), f"sequence-{fresh_id()}"), numbered)


@sequence("seq-infer-006", SEQUENCE, "sequence_start")
def single_request(subject: Subject) -> None:
    """A request may be the start and the end of its sequence at once."""
    id = fresh_id()
    with sequence_client(subject) as client:
        expect(bool(client.run(steps_of(subject)[:1], id)[0]), "outputs", "none")
        client.refuses(_next(subject), id, "an error: the sequence has ended")


def _next(subject: Subject) -> requests.Arrays:
    """What a request that goes on may hold."""
    return steps_of(subject)[1]


@sequence("seq-refuse-001", SEQUENCE, "sequence_start")
def start_is_required(subject: Subject) -> None:
    """A request without sequence_start for an id that has none is refused."""
    with sequence_client(subject) as client:
        client.refuses(_next(subject), fresh_id(), "an error: no such sequence")


@sequence("seq-refuse-002", SEQUENCE, "sequence_end")
def ended_id_is_unknown(subject: Subject) -> None:
    """After sequence_end the id is unknown again."""
    id = fresh_id()
    with sequence_client(subject) as client:
        client.run(steps_of(subject), id)
        client.refuses(_next(subject), id, "an error: the sequence has ended")


@sequence("seq-refuse-003", SEQUENCE, "sequence_id")
def refusal_leaves_other_sequences(subject: Subject) -> None:
    """A refused request leaves the sequences under way as they are."""
    steps, id = steps_of(subject), fresh_id()
    with sequence_client(subject) as client:
        expected = client.run(steps, fresh_id())
        found = []
        for at, step in enumerate(steps):
            found.append(client.infer(step, id, start=at == 0, end=at == len(steps) - 1))
            client.refuses(_next(subject), fresh_id(), "an error: no such sequence")
    same_steps(found, expected)


@sequence("seq-life-001", SEQUENCE, "ModelStreamInfer", level=SHOULD)
def sequence_dies_with_its_stream(subject: Subject) -> None:
    """A sequence that a stream left open is unknown once the stream is gone."""
    if not subject.endpoint.offers("ModelStreamInfer"):
        raise NotApplicable("ModelStreamInfer is not offered")
    id = fresh_id()
    with sequence_client(subject) as client:
        client.infer(steps_of(subject)[0], id, start=True)
        client.close()
    with sequence_client(subject) as client:
        client.refuses(_next(subject), id, "an error: its stream is gone")
