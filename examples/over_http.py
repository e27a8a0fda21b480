"""One call by HTTP and JSON, as curl makes it, of a server whose front end speaks them."""

from __future__ import annotations

import http.client
import json
import re
import shlex

from examples.demonstrations import TourFailed

_METHOD = "/unroll.v1.UnrollService/Classify"
_ADDRESS = re.compile(r"[^,/]+:\d+")
_SECONDS = 10


def show_over_http(target: str, model: str, text: str, label: str) -> bool:
    """False where the server speaks gRPC alone, or has no such model.

    Raises TourFailed when the answer is not ``label``.
    """
    if not _ADDRESS.fullmatch(target):
        return False
    asked = json.dumps({"model": model, "texts": [text]})
    answer = _post(target, asked)
    if answer is None:
        return False
    print(f"\n$ curl --json {shlex.quote(asked)} http://{target}{_METHOD}")
    print(f"  {answer}", flush=True)
    found = json.loads(answer)["classifications"][0]["labels"][0]["label"]
    if found != label:
        raise TourFailed(f"over HTTP {model} calls {text!r} {found}, not {label}")
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


def _post(target: str, asked: str) -> str | None:
    """The answer; None for a server that has none over HTTP/1.1, or another status."""
    connection = http.client.HTTPConnection(target, timeout=_SECONDS)
    try:
        connection.request("POST", _METHOD, asked, {"content-type": "application/json"})
        response = connection.getresponse()
        answer = response.read().decode()
        return answer if response.status == http.client.OK else None
    except (OSError, http.client.HTTPException):
        return None
    finally:
        connection.close()
