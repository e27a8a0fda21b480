"""Test an endpoint of the Open Inference Protocol: open-inference-conformance HOST:PORT

Exits with 0 where every applicable case passed, 1 where one failed, 2 where nothing could be
tested. docs/conformance.md lists the cases.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

import grpc

from conformance import protocol as pb
from conformance import report
from conformance.cases import MUST
from conformance.endpoint import Endpoint
from conformance.runner import Result, run, select
from conformance.selection import NothingToTest, Selection, choose, read_inputs

_DESCRIPTION = """\
Conformance tests of a server of the Open Inference Protocol. Exit code: 0 every applicable case
passed, 1 a case failed, 2 nothing could be tested."""
_MODEL_OPTIONS = {
    "--model": "model to test, repeatable (default: all that RepositoryIndex lists as READY)",
    "--stream-model": "model that answers a request many times, repeatable",
    "--sequence-model": "model that keeps sequences, repeatable",
}


def parse(arguments: Sequence[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="open-inference-conformance", description=_DESCRIPTION)
    parser.add_argument("target", nargs="?", metavar="HOST:PORT", help="endpoint, without TLS")
    parser.add_argument(
        "--http",
        default="",
        metavar="HOST:PORT",
        help="endpoint of REST (default: the same HOST:PORT)",
    )
    parser.add_argument("--list", action="store_true", help="table of all cases; nothing is sent")
    parser.add_argument(
        "--only", nargs="+", default=[], metavar="ID", help="cases to run (default: all)"
    )
    parser.add_argument("--must", action="store_true", help="cases of the level must, no others")
    for option, text in _MODEL_OPTIONS.items():
        parser.add_argument(option, action="append", default=[], metavar="NAME", help=text)
    parser.add_argument(
        "--inputs", type=Path, metavar="FILE", help="tensors by input name, JSON file"
    )
    parser.add_argument(
        "--stable", action="store_true", help="equal answers required of equal requests"
    )
    parser.add_argument("--json", type=Path, metavar="FILE", help="report for programs")
    parser.add_argument(
        "--timeout",
        type=float,
        default=10.0,
        metavar="SECONDS",
        help="deadline of each call, seconds (default: 10)",
    )
    parsed = parser.parse_args(arguments)
    if not (parsed.target or parsed.list):
        parser.error("say which endpoint: HOST:PORT")
    return parsed


def main(arguments: Sequence[str] | None = None) -> int:
    """The exit code."""
    options = parse(arguments)
    try:
        cases = select(options.only, MUST if options.must else "")
        if options.list:
            print(report.list_of(cases))
            return 0
        selection = Selection(
            models=options.model,
            stream_models=options.stream_model,
            sequence_models=options.sequence_model,
            inputs=read_inputs(options.inputs) if options.inputs else {},
            stable=options.stable,
        )
        with Endpoint(options.target, options.timeout, options.http) as endpoint:
            return _test(endpoint, selection, cases, options.json)
    except (NothingToTest, KeyError, OSError, ValueError) as error:
        print(error.args[0] if isinstance(error, KeyError) else error, file=sys.stderr)
    except grpc.RpcError as error:
        print(f"{options.target}: {error.code().name}: {error.details()}", file=sys.stderr)
    return 2


def _test(endpoint: Endpoint, selection: Selection, cases: list, json_file: Path | None) -> int:
    server = _server(endpoint)
    chosen = choose(endpoint, selection)
    print(report.heading(endpoint.target, server, chosen), end="\n\n")
    results: list[Result] = []
    for line in report.lines_of(_collected(run(endpoint, chosen, cases), results)):
        print(line, flush=True)
    print(f"\n{report.summary(results)}")
    if json_file:
        content = report.as_json(endpoint.target, server, chosen, results)
        json_file.write_text(json.dumps(content, indent=1))
    return 0 if report.conforms(results) else 1


def _collected(results: Iterable[Result], collected: list[Result]) -> Iterator[Result]:
    """Each as it comes, and in the list, too."""
    for result in results:
        collected.append(result)
        yield result


def _server(endpoint: Endpoint) -> Any:
    """Its metadata; None where the call fails. Raises grpc.RpcError where nobody answers."""
    try:
        return endpoint.call("ServerMetadata", pb.ServerMetadataRequest())
    except grpc.RpcError as error:
        if error.code() is grpc.StatusCode.UNAVAILABLE:
            raise
        return None


if __name__ == "__main__":
    sys.exit(main())
