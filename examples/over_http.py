"""Calls by HTTP and JSON, as curl makes them, of a server whose front end speaks them."""

from __future__ import annotations

import http.client
import json
import re
import shlex
from collections.abc import Mapping
from typing import Any

from examples.demonstrations import TourFailed

_CLASSIFY = "/unroll.v1.UnrollService/Classify"
_COMPLETIONS = "/v1/completions"
_ADDRESS = re.compile(r"[^,/]+:\d+")
_SECONDS = 10


def show_classify(target: str, model: str, text: str, label: str) -> bool:
    """False where the server speaks gRPC alone.

    Raises TourFailed when the call breaks, or its answer is not ``label``.
    """
    answer = _show(target, _CLASSIFY, {"model": model, "texts": [text]})
    if answer is None:
        return False
    found = _at(answer, "classifications", 0, "labels", 0, "label")
    if found != label:
        raise TourFailed(f"over HTTP {model} calls {text!r} {found}, not {label}")
    return True


def show_completion(target: str, request: Mapping[str, Any], text: str) -> bool:
    """As OpenAI's API has it. text: that gRPC gives for it. False and raises: as show_classify."""
    answer = _show(target, _COMPLETIONS, request)
    if answer is None:
        return False
    found = _at(answer, "choices", 0, "text")
    if found != text:
        raise TourFailed(f"over HTTP {request['model']} writes {found!r}, and over gRPC {text!r}")
    return True


def show_page(target: str) -> bool:
    """Print where the server's page is; False where it has none."""
    if not _ADDRESS.fullmatch(target):
        return False
    connection = http.client.HTTPConnection(target, timeout=_SECONDS)
    try:
        connection.request("GET", "/")
        if connection.getresponse().status != http.client.OK:
            return False
    except (OSError, http.client.HTTPException):
        return False
    finally:
        connection.close()
    print(f"A page to look inside: http://{target}/", flush=True)
    return True


def _show(target: str, path: str, request: Mapping[str, Any]) -> str | None:
    """The answer, printed below the command; None for a server that speaks gRPC alone."""
    if not _ADDRESS.fullmatch(target):
        return None
    asked = json.dumps(request)
    answer = _post(target, path, asked)
    if answer is not None:
        print(f"\n$ curl --json {shlex.quote(asked)} http://{target}{path}")
        print(f"  {answer}", flush=True)
    return answer


def _post(target: str, path: str, asked: str) -> str | None:
    """The answer; None for a server that has none over HTTP/1.1.

    Raises TourFailed for one that answers, and not with what was asked for.
    """
    connection = http.client.HTTPConnection(target, timeout=_SECONDS)
    try:
        try:
            connection.request("POST", path, asked, {"content-type": "application/json"})
            response = connection.getresponse()
        except (OSError, http.client.HTTPException):
            return None
        try:
            answer = response.read().decode()
        except (OSError, http.client.HTTPException, UnicodeDecodeError) as error:
            raise TourFailed(f"over HTTP the answer of {path} breaks off: {error!r}") from error
    finally:
        connection.close()
    if response.status != http.client.OK:
        raise TourFailed(f"over HTTP {path} answers {response.status}: {answer.strip()}")
    return answer


def _at(answer: str, *places: str | int) -> Any:
    """What stands there in the answer's JSON. Raises TourFailed."""
    try:
        found: Any = json.loads(answer)
        for place in places:
            found = found[place]
    except (ValueError, LookupError, TypeError) as error:
        raise TourFailed(f"over HTTP the answer is {answer!r}, without {places[0]!r}") from error
    return found
