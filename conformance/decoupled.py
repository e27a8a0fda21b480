"""Streaming: which response is the final one, and the empty one that says nothing else."""

from __future__ import annotations

from conformance import protocol as pb
from conformance.cases import SHOULD, STREAM, STREAMING, Section, expect
from conformance.streams import (
    ENABLE_EMPTY_FINAL,
    FINAL,
    INTERLEAVED,
    answers,
    converse,
    filled,
    is_final,
    need_one_answer,
    same_answers,
)
from conformance.subjects import Subject, brief

decoupled = Section(STREAMING, "Decoupled responses", needs="ModelStreamInfer")


def _with_final(subject: Subject) -> list[pb.ModelInferResponse]:
    request = subject.request(id="1", parameters={ENABLE_EMPTY_FINAL: True})
    return answers(converse(subject, request))


@decoupled("stream-final-001", STREAM, FINAL)
def one_response_is_final(subject: Subject) -> None:
    """Where an empty final response may come, the last response is final, and no other."""
    flags = [is_final(answer) for answer in _with_final(subject)]
    expected = [False] * (len(flags) - 1) + [True]
    expect(flags == expected, f"final: {expected}", flags)


@decoupled("stream-final-002", STREAM, ENABLE_EMPTY_FINAL)
def empty_response_only_on_request(subject: Subject) -> None:
    """Unless it is requested, no empty response comes, and none before the last is final."""
    found = answers(converse(subject, subject.request(id="1")))
    empty = len(found) - len(filled(found))
    expect(empty == 0, "outputs in each", f"{empty} of {len(found)} responses without")
    early = [index for index, answer in enumerate(found[:-1]) if is_final(answer)]
    expect(not early, "at most the last one final", f"final: {early} of {len(found)}")


@decoupled("stream-final-003", STREAM, ENABLE_EMPTY_FINAL)
def empty_response_is_the_last(subject: Subject) -> None:
    """An empty final response comes once, last, and holds the id, the name and no contents."""
    found = _with_final(subject)
    expect(bool(found), "responses", "none")
    early = [index for index, answer in enumerate(found[:-1]) if not answer.outputs]
    expect(not early, "none empty but the last", f"empty: {early} of {len(found)}")
    last = found[-1]
    if not last.outputs:
        expect(not last.raw_output_contents, "no contents", brief(last))
        expect(last.model_name == subject.model.name, subject.model.name, repr(last.model_name))


@decoupled("stream-final-004", STREAM, ENABLE_EMPTY_FINAL)
def enabling_the_final_changes_nothing_else(subject: Subject) -> None:
    """The responses with outputs are the same whether an empty final one was requested or not."""
    same_answers(subject, _with_final(subject), answers(converse(subject, subject.request(id="1"))))


@decoupled("stream-final-005", STREAM, FINAL)
def only_answer_is_final(subject: Subject) -> None:
    """The response of a model that answers once is the final one, requested or not."""
    need_one_answer(subject)
    flags = [is_final(answer) for answer in answers(converse(subject, subject.request(id="1")))]
    expect(flags == [True], "[True]", flags)


@decoupled("stream-final-006", STREAM, FINAL, level=SHOULD)
def each_response_says_if_final(subject: Subject) -> None:
    """Each response says whether it is the final one, as a bool."""
    for answer in _with_final(subject):
        kind = "no such parameter"
        if FINAL in answer.parameters:
            kind = answer.parameters[FINAL].WhichOneof("parameter_choice")
        expect(kind == "bool_param", "bool_param", kind)


@decoupled("stream-final-007", STREAM, FINAL)
def each_request_has_its_final(subject: Subject) -> None:
    """Of several requests on one stream, each has a final response, after all of its others."""
    enabled = {ENABLE_EMPTY_FINAL: True}
    sent = [subject.request(id=str(index), parameters=enabled) for index in range(INTERLEAVED)]
    found = answers(converse(subject, *sent))
    for request in sent:
        flags = [is_final(answer) for answer in found if answer.id == request.id]
        expect(flags[-1:] == [True] and sum(flags) == 1, f"{request.id}: final last", flags)
