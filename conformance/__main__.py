"""Test an endpoint of the Open Inference Protocol: python -m conformance HOST:PORT

Exits with 0 where every applicable case passed, 1 where one failed, 2 where nothing could be
tested. docs/conformance.md tells what the cases are.
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
from conformance.choosing import NothingToTest, Selection, choose, read_inputs
from conformance.endpoint import Endpoint
from conformance.running import Result, run, select


def parse(arguments: Sequence[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m conformance", description=__doc__)
    parser.add_argument("target", nargs="?", metavar="HOST:PORT", help="the endpoint, no TLS")
    parser.add_argument("--list", action="store_true", help="print all cases and stop")
    parser.add_argument("--only", nargs="+", default=[], metavar="ID", help="run these cases")
    parser.add_argument("--must", action="store_true", help="leave out what the text does not say")
    for kind in ("", "stream-", "sequence-"):
        text = f"{kind or 'a model, or a '}model to test; may be given several times"
        parser.add_argument(
            f"--{kind}model", action="append", default=[], metavar="NAME", help=text
        )
    parser.add_argument("--inputs", type=Path, metavar="FILE", help="tensors by input name, JSON")
    parser.add_argument("--stable", action="store_true", help="answers that vary are a failure")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the report there, too")
    parser.add_argument("--timeout", type=float, default=10.0, help="seconds a call may take")
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
        with Endpoint(options.target, options.timeout) as endpoint:
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
    for line in report.lines_of(_kept(run(endpoint, chosen, cases), results)):
        print(line, flush=True)
    print(f"\n{report.summary(results)}")
    if json_file:
        content = report.as_json(endpoint.target, server, chosen, results)
        json_file.write_text(json.dumps(content, indent=1))
    return 0 if report.conforms(results) else 1


def _kept(results: Iterable[Result], kept: list[Result]) -> Iterator[Result]:
    """Each as it comes, and in the list, too."""
    for result in results:
        kept.append(result)
        yield result


def _server(endpoint: Endpoint) -> Any:
    """Its metadata; None where it does not tell. Raises grpc.RpcError where nobody answers."""
    try:
        return endpoint.call("ServerMetadata", pb.ServerMetadataRequest())
    except grpc.RpcError as error:
        if error.code() is grpc.StatusCode.UNAVAILABLE:
            raise
        return None


if __name__ == "__main__":
    sys.exit(main())
