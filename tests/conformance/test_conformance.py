"""The suite passes a correct server, and every case of it can fail."""

from __future__ import annotations

import contextlib
import itertools
import json
import re
from collections.abc import Collection, Iterator, Sequence
from dataclasses import replace
from pathlib import Path

import pytest

from conformance import report
from conformance.__main__ import main
from conformance.cases import CORE, EXTENSIONS, PARTS, REST, STREAMING, Case
from conformance.endpoint import Endpoint
from conformance.runner import FAILED, NOT_OFFERED, PASSED, Result, run, select
from conformance.selection import Selection, choose
from tests.conformance.broken import FAULTS, Fault
from tests.conformance.careless import CARELESS
from tests.conformance.reference import Code, ReferenceServer, serving
from tests.conformance.reference_http import (
    HTTP_CARELESS,
    HTTP_FAULTS,
    HttpFault,
    ReferenceHttp,
    serving_http,
)
from tests.conformance.reference_models import ReferenceModel, repeat
from tests.conformance.reference_reading import invalid
from unroll.inference import grpc_service_pb2 as pb

PAGE = Path("docs/conformance.md")


def results_of(
    server: ReferenceServer,
    models: Sequence[str] = (),
    cases: Collection[Case] | None = None,
    timeout: float = 10.0,
    stable: bool = False,
    http: type[ReferenceHttp] | None = None,
) -> list[Result]:
    """http: what speaks for the server over HTTP; without one it is not spoken."""
    with contextlib.ExitStack() as stack:
        target = stack.enter_context(serving(server))
        rest = stack.enter_context(serving_http(http(server))) if http else ""
        endpoint = stack.enter_context(Endpoint(target, timeout, rest))
        chosen = choose(endpoint, Selection(models=models, stable=stable))
        return list(run(endpoint, chosen, select() if cases is None else cases))


def ids_of(results: Collection[Result], status: str) -> set[str]:
    return {result.case.id for result in results if result.status == status}


def test_correct_server_passes_every_case():
    """The reference server passes all cases, each on at least one model."""
    results = results_of(ReferenceServer(), stable=True, http=ReferenceHttp)
    assert [report.line_of(result) for result in results if result.status != PASSED] == []
    assert report.conforms(results)


@pytest.mark.parametrize("fault", FAULTS, ids=lambda fault: fault.server.__name__)
def test_broken_server_fails_its_case_and_no_other(fault: Fault):
    """A server with one fault fails the case meant for it, and what cannot but fail with it."""
    results = results_of(fault.server(), fault.models, timeout=fault.timeout)
    assert ids_of(results, FAILED) == {fault.meant, *fault.follows}


@pytest.mark.parametrize("fault", HTTP_FAULTS, ids=lambda fault: fault.server.__name__)
def test_broken_http_fails_its_case_and_no_other(fault: HttpFault):
    """So does a server that is well over gRPC, and has one fault over HTTP."""
    results = results_of(ReferenceServer(), http=fault.server)
    assert ids_of(results, FAILED) == {fault.meant, *fault.follows}


def test_every_case_can_fail():
    """There is no case that every server passes."""
    found = {id for fault in (*FAULTS, *HTTP_FAULTS) for id in (fault.meant, *fault.follows)}
    left = [case for case in select() if case.id not in found]
    for server in CARELESS:
        results = results_of(
            server(), ("sums", "kinds", "repeat", "accumulate"), left, timeout=5.0, stable=True
        )
        failed = ids_of(results, FAILED)
        assert failed, f"{server.__name__} shows nothing that the others do not"
        left = [case for case in left if case.id not in failed]
    for http in HTTP_CARELESS:
        failed = ids_of(results_of(ReferenceServer(), cases=left, http=http), FAILED)
        assert failed, f"{http.__name__} shows nothing that the others do not"
        left = [case for case in left if case.id not in failed]
    assert [case.id for case in left] == []


class Coalesces(ReferenceServer):
    """Puts one or two values into a response, as it happens."""

    def __init__(self) -> None:
        super().__init__()
        portions = itertools.cycle([1, 2, 2])
        self.models["repeat"] = replace(
            self.models["repeat"],
            compute=lambda inputs, state: repeat(inputs, state, next(portions)),
        )


def test_portions_are_the_servers_choice():
    """A server that puts the same outputs into other numbers of responses conforms."""
    results = results_of(Coalesces(), stable=True)
    assert ids_of(results, FAILED) == set()


class CoreOnly(ReferenceServer):
    """The six calls of the protocol, and no extension."""

    def _refuse(self, request: object, context: object) -> None:
        context.abort(Code.UNIMPLEMENTED, "only the protocol itself")

    ModelStreamInfer = ModelConfig = ModelStatistics = RepositoryIndex = _refuse

    def ServerMetadata(self, request: object, context: object) -> object:
        answer = super().ServerMetadata(request, context)
        del answer.extensions[:]
        return answer


def test_parts_that_are_not_offered_are_not_passed():
    """A server of the core alone conforms, and its report says that the rest is not offered."""
    results = results_of(CoreOnly(), models=["sums", "kinds"])
    assert report.conforms(results)
    status = {result.case.id: result.status for result in results}
    assert status["stream-infer-001"] == status["ext-stats-002"] == NOT_OFFERED
    assert status["core-infer-018"] == PASSED, "a batch is guessed from the metadata"
    summary = report.summary(results)
    assert re.search(r"streaming +not offered\nsequences +not offered", summary)
    assert re.search(r"rest +not offered", summary)


def test_command_line_reports_to_people_and_programs(tmp_path: Path, capsys):
    """The exit code, the printed report and the JSON agree."""
    file = tmp_path / "report.json"
    with serving(ReferenceServer()) as target:
        assert main([target, "--json", str(file), "--model", "sums", "--must"]) == 0
        written = json.loads(file.read_text())
        assert written["conforms"]
        assert written["models"]["unary"] == ["sums"]
        assert {case["level"] for case in written["cases"]} == {"must"}
        assert "conforms" in capsys.readouterr().out.splitlines()
    broken = next(fault for fault in FAULTS if fault.meant == "core-refuse-014")
    with serving(broken.server()) as target:
        assert main([target, "--only", "core-refuse-014", "--json", str(file)]) == 1
    (case,) = json.loads(file.read_text())["cases"]
    assert case["field"] == "ModelInferRequest.raw_input_contents"
    assert {one["expected"] for one in case["outcomes"] if one["status"] == FAILED} == {
        "INVALID_ARGUMENT"
    }
    assert "expected INVALID_ARGUMENT; found an answer" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--only", "core-infer-999"], "no case has the id core-infer-999"),
        (["--model", "nobody"], "no model can be tested"),
        (["--inputs", "no-such-file.json"], "no-such-file.json"),
    ],
)
def test_what_cannot_be_tested_is_said(arguments: list[str], message: str, capsys):
    """A request that cannot be met ends with 2 and a message, not with a pass."""
    with serving(ReferenceServer()) as target:
        assert main([target, *arguments]) == 2
    assert message in capsys.readouterr().err


class WantsTwo(ReferenceServer):
    """Its model of sums takes two columns, which its metadata does not declare."""

    def answers(
        self, model: ReferenceModel, request: pb.ModelInferRequest, stream: object
    ) -> Iterator[pb.ModelInferResponse]:
        if model.name == "sums" and request.inputs[0].shape[1] != 2:
            raise invalid("sums takes two columns")
        return super().answers(model, request, stream)


def test_given_inputs_are_used(tmp_path: Path, capsys):
    """A model that refuses the guess is left out, and tested with the inputs of a file."""
    file = tmp_path / "inputs.json"
    wanted = {"sums": {"left": [[1, 2]], "right": [[3, 4]]}, "values": [5, 6, 7, 8]}
    file.write_text(json.dumps(wanted))
    with serving(WantsTwo()) as target:
        assert main([target, "--only", "core-infer-001"]) == 0
        assert "left out: sums: refuses what its metadata suggests" in capsys.readouterr().out
        assert main([target, "--only", "core-infer-001", "--inputs", str(file)]) == 0
        assert "left out" not in capsys.readouterr().out


def test_ids_say_where_they_belong():
    """Each part has cases, and an id begins with the part's word."""
    words = {CORE: "core", STREAMING: "stream", "sequences": "seq", EXTENSIONS: "ext"}
    words[REST] = "rest"
    assert {case.part for case in select()} == set(PARTS)
    for case in select():
        assert re.fullmatch(rf"{words[case.part]}-[a-z]+-\d{{3}}", case.id)


def test_page_lists_the_cases():
    """docs/conformance.md holds the table that --list prints."""
    assert report.list_of(select()) in PAGE.read_text(), (
        "the table of docs/conformance.md differs from `python -m tests.conformance --list`; "
        "paste what that prints"
    )
