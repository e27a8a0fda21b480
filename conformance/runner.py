"""Runs cases on the chosen models, and keeps what came of each."""

from __future__ import annotations

from collections.abc import Collection, Iterator
from dataclasses import dataclass

import grpc

from conformance import (  # noqa: F401 - importing them registers their cases
    core_contents,
    core_infer,
    core_metadata,
    core_refusals,
    decoupled,
    extensions,
    rest_core,
    rest_extensions,
    sequences,
    streaming,
)
from conformance.cases import (
    SEQUENCE,
    SERVER,
    STREAM,
    Case,
    Failure,
    NotApplicable,
    registered,
)
from conformance.endpoint import OVER_HTTP, RPCS, Endpoint
from conformance.selection import Chosen
from conformance.subjects import status_of

PASSED, FAILED, NOT_APPLICABLE, NOT_OFFERED = "passed", "failed", "not applicable", "not offered"


@dataclass(frozen=True)
class Outcome:
    """Of one case on one model; model is empty where it ran on the server. note: why not."""

    model: str
    status: str
    expected: str = ""
    found: str = ""
    note: str = ""


@dataclass(frozen=True)
class Result:
    """Of a case on everything that it ran on."""

    case: Case
    outcomes: tuple[Outcome, ...]

    @property
    def status(self) -> str:
        """The first of failed, passed, not applicable and not offered that any outcome has."""
        found = {outcome.status for outcome in self.outcomes}
        order = (FAILED, PASSED, NOT_APPLICABLE, NOT_OFFERED)
        return next(status for status in order if status in found)


def select(ids: Collection[str] = (), level: str = "") -> list[Case]:
    """Raises KeyError for an id that no case has."""
    cases = registered()
    unknown = sorted(set(ids) - {case.id for case in cases})
    if unknown:
        raise KeyError(f"no case has the id {', '.join(unknown)}; --list shows all")
    chosen = [case for case in cases if not ids or case.id in ids]
    return [case for case in chosen if not level or case.level == level]


def run(endpoint: Endpoint, chosen: Chosen, cases: Collection[Case]) -> Iterator[Result]:
    """A result each, as they come."""
    for case in cases:
        yield Result(case, tuple(_outcomes(endpoint, chosen, case)))


def _outcomes(endpoint: Endpoint, chosen: Chosen, case: Case) -> Iterator[Outcome]:
    if case.needs and not endpoint.offers(case.needs):
        yield Outcome("", NOT_OFFERED, note=_what_is_missing(endpoint, case.needs))
    elif case.on == SERVER:
        yield _outcome(case, "", endpoint)
    elif not chosen.by_kind[case.on]:
        status = NOT_OFFERED if case.on in (STREAM, SEQUENCE) else NOT_APPLICABLE
        yield Outcome("", status, note=f"no {case.on} model is listed or named")
    else:
        for subject in chosen.by_kind[case.on]:
            yield _outcome(case, subject.model.name, subject)


def _what_is_missing(endpoint: Endpoint, feature: str) -> str:
    if feature == OVER_HTTP:
        return f"the protocol is not spoken over HTTP at {endpoint.rest.target}"
    is_rpc = feature in RPCS
    why = "is not implemented" if is_rpc else "is not among the server's extensions"
    return f"{feature} {why}"


def _outcome(case: Case, model: str, subject: object) -> Outcome:
    try:
        case.check(subject)
    except Failure as failure:
        return Outcome(model, FAILED, failure.expected, failure.found)
    except NotApplicable as reason:
        return Outcome(model, NOT_APPLICABLE, note=str(reason))
    except grpc.RpcError as error:
        return Outcome(model, FAILED, "an answer", status_of(error))
    except Exception as error:
        # An answer that no case foresaw must not end the run: the others have yet to run.
        return Outcome(model, FAILED, "an answer that the case can follow", repr(error))
    return Outcome(model, PASSED)
