"""Which models are tested, and with which inputs."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import grpc

from conformance import requests
from conformance.cases import ANY_MODEL, SEQUENCE, STREAM, UNARY, Failure
from conformance.endpoint import Endpoint, Model
from conformance.sequences import fresh_id, sequence_client, steps_of
from conformance.streams import answers, converse, filled, joined
from conformance.subjects import Arrays, Subject, read, status_of
from conformance.tensors import Malformed, agree, to_array

# Keys of a model in the file of inputs that are no tensors.
PARAMETERS, STEPS = "parameters", "steps"


class NothingToTest(Exception):
    """No model was named and none is listed, or none answers; says what to do."""


@dataclass(frozen=True)
class Selection:
    """What the caller chose. inputs: the file's content, see docs/conformance.md."""

    models: Sequence[str] = ()
    stream_models: Sequence[str] = ()
    sequence_models: Sequence[str] = ()
    inputs: Mapping[str, Any] = field(default_factory=dict)
    stable: bool = False


@dataclass
class Chosen:
    """Subjects by what cases run on. left_out: why, by the model's name."""

    by_kind: dict[str, list[Subject]] = field(
        default_factory=lambda: {kind: [] for kind in (ANY_MODEL, UNARY, STREAM, SEQUENCE)}
    )
    left_out: dict[str, str] = field(default_factory=dict)

    def names(self, kind: str) -> list[str]:
        return [subject.model.name for subject in self.by_kind[kind]]


def read_inputs(path: Path) -> dict[str, Any]:
    """Raises ValueError where it is no JSON object."""
    content = json.loads(path.read_text())
    if not isinstance(content, dict):
        raise ValueError(f"{path} holds no JSON object; see docs/conformance.md for an example")
    return content


def choose(endpoint: Endpoint, selection: Selection) -> Chosen:
    """Raises NothingToTest. A model that was named and does not answer is tested all the same."""
    named = [*selection.models, *selection.stream_models, *selection.sequence_models]
    names = dict.fromkeys(named or endpoint.ready_models())
    if not names:
        raise NothingToTest("the endpoint lists no model as READY; name some with --model")
    chosen = Chosen()
    for name in names:
        try:
            _add(chosen, endpoint, endpoint.describe(name), selection)
        except grpc.RpcError as error:
            chosen.left_out[name] = f"its metadata or configuration: {status_of(error)}"
        except KeyError as error:
            chosen.left_out[name] = f"has the datatype {error}, which is none of the protocol's"
    if not chosen.by_kind[ANY_MODEL]:
        raise NothingToTest(f"no model can be tested: {chosen.left_out}; see --inputs")
    _stream_one_plain_model(chosen, endpoint, selection)
    return chosen


def _add(chosen: Chosen, endpoint: Endpoint, model: Model, selection: Selection) -> None:
    subject = Subject(endpoint, model, **_inputs(model, selection), must_be_stable=selection.stable)
    streams = model.is_decoupled or model.name in selection.stream_models
    is_sequence = model.keeps_sequences or model.name in selection.sequence_models
    refusal = _refusal(subject)
    if not refusal:
        chosen.by_kind[UNARY].append(_with_stability(subject, _unary))
    elif not (streams or is_sequence):
        if model.name not in selection.models:
            chosen.left_out[model.name] = f"refuses what its metadata suggests: {refusal}"
            return
        chosen.by_kind[UNARY].append(subject)
    chosen.by_kind[ANY_MODEL].append(subject)
    if streams and endpoint.offers("ModelStreamInfer"):
        streamed = replace(subject, is_streamed=bool(refusal))
        chosen.by_kind[STREAM].append(_with_stability(streamed, _streamed))
    if (
        is_sequence
        and _says_nothing_of_steps(subject)
        and model.name not in selection.sequence_models
    ):
        chosen.left_out[model.name] = (
            "in sequences: all of its inputs are optional, and nothing says which of them a later "
            "request of a sequence has; give steps in the file of --inputs"
        )
    elif is_sequence:
        sequenced = replace(subject, is_streamed=bool(refusal))
        chosen.by_kind[SEQUENCE].append(_with_stability(sequenced, _sequenced))


def _stream_one_plain_model(chosen: Chosen, endpoint: Endpoint, selection: Selection) -> None:
    """A model that answers once may answer on a stream, too."""
    if selection.stream_models or not endpoint.offers("ModelStreamInfer"):
        return
    for subject in chosen.by_kind[UNARY]:
        if not (subject.model.is_decoupled or subject.model.keeps_sequences):
            chosen.by_kind[STREAM].append(subject)
            return


def _says_nothing_of_steps(subject: Subject) -> bool:
    """Whether a later request may have other inputs than the first, and which is not known."""
    return not subject.steps and all(t.name in subject.model.optional for t in subject.model.inputs)


def _inputs(model: Model, selection: Selection) -> dict[str, Any]:
    """The fields of a Subject that say what is sent."""
    own = selection.inputs.get(model.name)
    own = own if isinstance(own, dict) else {}
    values = {t.name: own.get(t.name, selection.inputs.get(t.name)) for t in model.inputs}
    arrays = requests.guess(model) | _arrays(model, values)
    steps = tuple(_arrays(model, step) for step in own.get(STEPS, ()))
    return {"arrays": arrays, "parameters": own.get(PARAMETERS, {}), "steps": steps}


def _arrays(model: Model, values: Mapping[str, Any]) -> Arrays:
    """Of the inputs that have values; null leaves one to the guess."""
    kinds = {tensor.name: tensor.datatype for tensor in model.inputs}
    return {name: to_array(kinds[name], v) for name, v in values.items() if v is not None}


def _refusal(subject: Subject) -> str:
    """What ModelInfer says to its request; empty where it answers."""
    try:
        subject.endpoint.call("ModelInfer", subject.request())
    except grpc.RpcError as error:
        return status_of(error)
    return ""


def _unary(subject: Subject) -> list[Arrays]:
    return [read(subject.infer(subject.request()))]


def _streamed(subject: Subject) -> list[Arrays]:
    found = filled(answers(converse(subject, subject.request(id="1"))))
    return [joined([read(answer) for answer in found])]


def _sequenced(subject: Subject) -> list[Arrays]:
    with sequence_client(subject) as client:
        (response,) = client.responses(steps_of(subject)[0], fresh_id(), start=True, end=True)
    return [read(response.infer_response)]


def _with_stability(subject: Subject, send: Any) -> Subject:
    """The subject with what two answers to the same request show about it."""
    try:
        one, other = send(subject), send(subject)
    except Malformed:
        return replace(subject, is_readable=False)
    except Failure:
        return subject
    alike = len(one) == len(other) and all(
        set(a) == set(b) and all(agree(a[name], b[name]) for name in a)
        for a, b in zip(one, other, strict=True)
    )
    return replace(subject, is_stable=alike)
