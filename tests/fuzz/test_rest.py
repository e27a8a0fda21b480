"""Mutated requests over HTTP: no failure of the server, no hang, no leak, no answer changed."""

from __future__ import annotations

import http.client
import itertools
import json
import re
import threading
from base64 import b64decode
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from tests.fuzz.http_seeds import CONNECT_JSON, UNROLL, WEB_TEXT, Request
from tests.fuzz.rest_requests import mutated, seeds
from tests.fuzz.test_fuzz import FAULTS, RESIDENT_BYTES, SETTINGS
from tests.promise.processes import Watched
from tests.service.connect.conftest import envelopes
from tests.service.rest.exchanges import events_of
from unroll.v1 import unroll_pb2 as pb

# Of a completion: its id, when it was made, what of its input was read before, and sealed states,
# which hold the time.
_OWN = re.compile(rb'"(id":"cmpl-|resume_token":")[^"]*"|"(created|cached_tokens)":[0-9]+')
ROUNDS, AT_ONCE, SECONDS = 5, 8, 20.0
# What a caller can be told of a request of its own making.
STATUSES = {200, 400, 401, 403, 404, 405, 409, 413, 415, 429, 431, 501, 504}
# What an answer that has begun well may end with where the server failed.
_FAILED = re.compile(rb'grpc-status: (2|13|15)\r|"code": ?"(unknown|internal|data_loss)"')
_STREAMS = (f"{UNROLL}/Generate", f"{UNROLL}/StreamTag")


class Caller:
    """A connection that is opened anew where the server closed it."""

    def __init__(self, target: str) -> None:
        self._target = target
        self._connection = http.client.HTTPConnection(target, timeout=SECONDS)

    def send(self, request: Request) -> tuple[int, bytes]:
        """Raises OSError or HTTPException where no whole answer comes."""
        try:
            return self._send(request)
        except (ConnectionError, http.client.RemoteDisconnected):
            # Whatever was wrong with the request before, this one is sent on its own.
            self._connection.close()
            return self._send(request)

    def _send(self, request: Request) -> tuple[int, bytes]:
        self._connection.request(request.method, request.path, request.body, request.headers)
        response = self._connection.getresponse()
        return response.status, response.read()

    def close(self) -> None:
        self._connection.close()


def answers_of(target: str) -> list[tuple[int, Any]]:
    caller = Caller(target)
    try:
        return [_comparable(request, *caller.send(request)) for request in seeds()]
    finally:
        caller.close()


def _comparable(request: Request, status: int, body: bytes) -> tuple[int, Any]:
    """Without what is another one each time, and of a stream its tokens: a reader that is behind
    gets several of them at once."""
    if "Content-Type" in request.headers and body[:1] != b"{":
        return status, _messages(request, body)
    if not body.startswith(b"data: "):
        return status, _OWN.sub(b"", body)
    if b'"text_completion"' not in body:
        return status, [token for event in events_of(body) for token in event["tokens"]]
    texts: dict[int, str] = {}
    for event in events_of(body.removesuffix(b"data: [DONE]\n\n")):
        for choice in event["choices"]:
            texts[choice["index"]] = texts.get(choice["index"], "") + choice["text"]
    return status, texts


def _messages(request: Request, body: bytes) -> list[Any]:
    """What an answer in envelopes holds, without what comes at its end."""
    kind = request.headers["Content-Type"]
    if kind == WEB_TEXT:
        quads = [body[at : at + 4] for at in range(0, len(body), 4)]
        body = b"".join(map(b64decode, quads))
    messages = [message for flags, message in envelopes(body) if flags == 0]
    assert messages, f"{request} is answered by {body!r}"
    if request.path not in _STREAMS:
        return messages
    if kind == CONNECT_JSON:
        read = map(json.loads, messages)
        return [token for each in read for token in each.get("tokens", ())]
    answers = map(pb.GenerateResponse.FromString, messages)
    return [token.id for each in answers for token in each.tokens]


def send_all(target: str, requests: Iterator[Request]) -> tuple[Counter[int], list[str]]:
    """How many ended with each status, and what should not have happened."""
    statuses: Counter[int] = Counter()
    findings: list[str] = []
    lock = threading.Lock()

    def call() -> None:
        caller = Caller(target)
        try:
            while True:
                with lock:
                    request = next(requests, None)
                if request is None:
                    return
                try:
                    status, body = caller.send(request)
                except (OSError, http.client.HTTPException) as error:
                    findings.append(f"{request}: {error!r}")
                    caller.close()
                    continue
                with lock:
                    statuses[status] += 1
                if status not in STATUSES or _FAILED.search(body):
                    findings.append(f"{request}: {status} {body[:300]!r}")
        finally:
            caller.close()

    with ThreadPoolExecutor(AT_ONCE) as pool:
        for done in [pool.submit(call) for _ in range(AT_ONCE)]:
            done.result()
    return statuses, findings


@pytest.mark.timeout(3600)
def test_mutated_requests_break_nothing(fuzzed_models: Path, tmp_path: Path, fuzz: Any) -> None:
    """Every request gets an answer that blames it or serves it, and leaves nothing behind."""
    log, keys = tmp_path / "log", tmp_path / "keys"
    keys.write_text("00112233445566778899aabbccddeeff\n")
    statuses: Counter[int] = Counter()
    resident = []
    requests = mutated(fuzz.name, fuzz.messages)
    settings = {"models": fuzzed_models, "resume_keys": keys, "front_end": "envoy", **SETTINGS}
    with Watched(log, **settings) as watched:
        expected = answers_of(watched.target)
        for _ in range(ROUNDS):
            some = itertools.islice(requests, fuzz.messages // ROUNDS)
            found, findings = send_all(watched.target, some)
            statuses += found
            assert not findings, "\n".join(finding[:1500] for finding in findings[:5])
            assert not FAULTS.search(logged := log.read_text()), logged[-10_000:]
            watched.check_all_is_released()
            assert answers_of(watched.target) == expected
            resident.append(watched.report("memory")["resident"])
    grown = resident[-1] - resident[0]
    fuzz.report(
        f"fuzz over HTTP: {sum(statuses.values())} mutated requests, "
        f"{', '.join(f'{n} {status}' for status, n in statuses.most_common())}; "
        f"{grown / 1e6:+.1f} MB resident"
    )
    assert sum(statuses.values()) == fuzz.messages
    assert statuses[200] > fuzz.messages / 20
    assert grown < RESIDENT_BYTES
