"""Triton's extensions over REST: configuration, index, statistics, and text in one flat object."""

from __future__ import annotations

import json
from typing import Any

from conformance.cases import (
    ANY_MODEL,
    REST,
    SERVER,
    SHOULD,
    UNARY,
    Failure,
    NotApplicable,
    Section,
    expect,
)
from conformance.endpoint import OVER_HTTP, Endpoint
from conformance.requests import WORD
from conformance.rest_client import Reply, answered, refused
from conformance.rest_core import INFER
from conformance.rest_requests import path_of, request_of, text_input
from conformance.subjects import Subject, brief

SENT = 2

configuration = Section(REST, "HTTP: model configuration extension", needs=OVER_HTTP)
repository = Section(REST, "HTTP: model repository extension", needs=OVER_HTTP)
statistics = Section(REST, "HTTP: statistics extension", needs=OVER_HTTP)
generate = Section(REST, "Generate extension", needs=OVER_HTTP)


def _need(endpoint: Endpoint, rpc: str) -> None:
    if not endpoint.offers(rpc):
        raise NotApplicable(f"{rpc} is not implemented")


@configuration("rest-ext-001", ANY_MODEL, "GET v2/models/NAME/config")
def config_is_the_models(subject: Subject) -> None:
    """A model's configuration names it, its tensors and its largest batch, a number."""
    _need(subject.endpoint, "ModelConfig")
    found = subject.endpoint.rest.get(path_of(subject, "/config"))
    expect(isinstance(found, dict), "an object", brief(found))
    expect(found.get("name") == subject.model.name, subject.model.name, repr(found.get("name")))
    names = [one.get("name") for one in found.get("input", ())]
    expected = [tensor.name for tensor in subject.model.inputs]
    expect(names == expected, f"inputs {expected}", names)
    largest = found.get("max_batch_size", 0)
    expected_size = subject.model.max_batch_size
    expect(largest == expected_size, f"max_batch_size {expected_size}", repr(largest))


@repository("rest-ext-002", SERVER, "POST v2/repository/index")
def index_lists_the_ready_ones(endpoint: Endpoint) -> None:
    """The index is a list with every model that RepositoryIndex lists as READY."""
    _need(endpoint, "RepositoryIndex")
    for content in (b"", {"ready": True}):
        found = answered(endpoint.rest.send("POST", "/v2/repository/index", content)).found
        expect(isinstance(found, list), "a list", brief(found))
        ready = {one["name"] for one in found if one.get("state") == "READY"}
        expected = set(endpoint.ready_models())
        expect(ready == expected, f"READY: {sorted(expected)}", sorted(ready))


@statistics("rest-ext-003", UNARY, "GET v2/models/NAME/stats")
def successes_are_counted(subject: Subject) -> None:
    """A request over HTTP counts as a success, in numbers."""
    _need(subject.endpoint, "ModelStatistics")
    before = _successes(subject)
    for _ in range(SENT):
        path = path_of(subject, INFER)
        answered(subject.endpoint.rest.send("POST", path, request_of(subject)))
    found = _successes(subject) - before
    expect(found == SENT, f"{SENT} successes more", found)


def _successes(subject: Subject) -> int:
    found = subject.endpoint.rest.get(path_of(subject, "/stats"))
    try:
        count = sum(one["inference_stats"]["success"]["count"] for one in found["model_stats"])
    except (KeyError, TypeError) as error:
        raise Failure("model_stats with the count of successes", brief(found)) from error
    return int(count)


@statistics("rest-ext-004", SERVER, "GET v2/models/stats")
def statistics_of_all(endpoint: Endpoint) -> None:
    """Statistics of no model in particular are those of all."""
    _need(endpoint, "ModelStatistics")
    found = endpoint.rest.get("/v2/models/stats")
    listed = found.get("model_stats") if isinstance(found, dict) else None
    expect(isinstance(listed, list), "a list of model_stats", brief(found))
    assert isinstance(listed, list), "it was looked at"
    missing = set(endpoint.ready_models()) - {one.get("name") for one in listed}
    expect(not missing, "every model that is READY", f"none of {sorted(missing)}")


# -- text in one flat object -------------------------------------------------------------------


def _generated(subject: Subject, way: str, content: dict[str, Any]) -> Reply:
    """Raises NotApplicable where nobody speaks it."""
    reply = subject.endpoint.rest.send("POST", path_of(subject, f"/{way}"), content)
    if reply.status in (404, 405, 501):
        raise NotApplicable(f"{way} is not offered ({reply.status})")
    return reply


def _text_of(subject: Subject) -> dict[str, Any]:
    name = text_input(subject)
    text = subject.arrays[name].reshape(-1)[0].decode()
    return {name: text or WORD, "parameters": dict(subject.parameters)}


@generate("rest-generate-001", UNARY, "$generate_response", level=SHOULD)
def text_is_answered(subject: Subject) -> None:
    """A text in a flat object is answered by one object that names the model."""
    found = answered(_generated(subject, "generate", _text_of(subject))).found
    _check_response(subject, found)


def _check_response(subject: Subject, found: Any) -> None:
    name = found.get("model_name") if isinstance(found, dict) else None
    expect(name == subject.model.name, f"model_name {subject.model.name!r}", brief(found))
    expect(len(found) > 2, "outputs beside the model's name and version", brief(found))


@generate("rest-generate-002", UNARY, "text/event-stream", level=SHOULD)
def text_is_streamed(subject: Subject) -> None:
    """A stream is server-sent events, each an object that names the model."""
    reply = answered(_generated(subject, "generate_stream", _text_of(subject)))
    kind = reply.headers.get("content-type", "")
    expect(kind.startswith("text/event-stream"), "text/event-stream", repr(kind))
    events = [part for part in reply.body.decode("utf8", "replace").split("\n\n") if part.strip()]
    expect(bool(events), "an event", brief(reply.body))
    for event in events:
        expect(event.startswith("data:"), "data: and an object", brief(event))
        try:
            found = json.loads(event.removeprefix("data:"))
        except ValueError as error:
            raise Failure("data: and an object", brief(event)) from error
        _check_response(subject, found)


@generate("rest-generate-003", UNARY, "$generate_error_response.error", level=SHOULD)
def refusals_come_before_a_stream(subject: Subject) -> None:
    """A request that is wrong is refused with a status and an object, streamed or not."""
    wrong = {text_input(subject): {"a": 1}}
    for way in ("generate", "generate_stream"):
        found = refused(_generated(subject, way, wrong)).found
        error = found.get("error") if isinstance(found, dict) else None
        expect(isinstance(error, str) and bool(error), "an error in words", brief(found))
