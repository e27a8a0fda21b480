"""A service that makes up its tokens, and breaks, hands over and refuses where a test says so."""

from __future__ import annotations

import hashlib
import json
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field

import grpc
from google.protobuf import any_pb2
from google.protobuf.duration_pb2 import Duration
from google.rpc import code_pb2, error_details_pb2, status_pb2
from grpc_status import rpc_status

from unroll import RequestFailed
from unroll.v1 import unroll_pb2 as pb
from unroll.v1 import unroll_pb2_grpc

# What it makes of a request that does not say.
MOST_TOKENS = 40


@dataclass(frozen=True)
class Act:
    """What becomes of one call.

    breaks_after: so many messages. hands_over_after: likewise. refuses: with this status, at once.
    tokens_only: refuses resume tokens alone. bundle: another one makes other tokens.
    held: the last so many tokens before a resume point come again after it. loses: the message
    of this number never arrives.
    """

    breaks_after: int | None = None
    hands_over_after: int | None = None
    refuses: str = ""
    tokens_only: bool = False
    retry_after_seconds: float = 0.0
    code: str = "UNAVAILABLE"
    message: str = "Socket closed"
    bundle: str = ""
    held: int = 0
    loses: int | None = None


WELL = Act()


def made(seed: int, sample: int, position: int, bundle: str = "") -> int:
    """The id of a token; no two neighbours are alike by more than chance."""
    key = f"{bundle} {seed} {sample} {position}".encode()
    return int.from_bytes(hashlib.sha256(key).digest()[:2], "little")


def worth(token: int) -> float:
    """Its log-probability: eighths, so that sums are exact in any order."""
    return -(token % 64 + 1) / 8


@dataclass
class Row:
    """A sample: where it is, and after how many tokens it ends."""

    sample: int
    made: int
    length: int
    sent: int = 0
    log_probability: float = 0.0

    @property
    def reason(self) -> pb.FinishReason:
        return pb.FINISH_REASON_LENGTH if self.sample % 2 == 0 else pb.FINISH_REASON_END


def generate(request: pb.GenerateRequest, act: Act, seed_of_server: int = 99) -> Iterator:
    """The responses of one call; raises RequestFailed where it does not end well."""
    resumed = json.loads(request.resume_token) if request.resume_token else None
    if act.refuses and (resumed or not act.tokens_only):
        raise RequestFailed(act.refuses, "not here", act.retry_after_seconds or None)
    for number, response in enumerate(_responses(request, act, resumed, seed_of_server)):
        if number == act.breaks_after:
            raise RequestFailed(act.code, act.message)
        if number != act.loses:
            yield response
        if response.finish_reason == pb.FINISH_REASON_HANDED_OVER:
            return


def _responses(request, act, resumed, seed_of_server):
    if resumed:
        seed = resumed["seed"]
        rows = [Row(resumed["sample"], resumed["made"], resumed["length"])]
    else:
        seed = request.sampling.seed if request.sampling.HasField("seed") else seed_of_server
        length = request.max_tokens or MOST_TOKENS
        # They end one after the other, the last one first.
        rows = [Row(n, 0, max(1, length - 5 * n)) for n in range(request.samples or 1)]
    every, output, is_first, number = request.resume_every, 0, True, 0

    def point(row, position):
        facts = {"seed": seed, "sample": row.sample, "made": position, "length": row.length}
        token = json.dumps(facts).encode()
        return pb.ResumePoint(sample=row.sample, token=token, next_position=position)

    while rows:
        number += 1
        response = pb.GenerateResponse()
        if is_first:
            response.seed = seed
            if request.echo:
                response.echo.add(id=1, text=request.prompt)
        is_first = False
        if act.hands_over_after is not None and number > act.hands_over_after:
            response.finish_reason = pb.FINISH_REASON_HANDED_OVER
            response.usage.CopyFrom(_usage(output))
            response.resume_points.extend(point(row, row.made) for row in rows)
            yield response
            return
        for row in list(rows):
            token = made(seed, row.sample, row.made, act.bundle)
            added = response.tokens.add(id=token, text=f"{token} ", position=row.made)
            added.sample = row.sample
            if request.log_probabilities:
                added.log_probability = worth(token)
            row.made, row.sent = row.made + 1, row.sent + 1
            row.log_probability += worth(token)
            output += 1
            if row.made >= row.length:
                rows.remove(row)
                if request.resume_at_end and row.reason == pb.FINISH_REASON_LENGTH:
                    response.resume_points.append(point(row, row.made))
                response.ends.add(
                    sample=row.sample,
                    finish_reason=row.reason,
                    output_tokens=row.sent,
                    log_probability=row.log_probability,
                )
                if not rows:
                    response.finish_reason = row.reason
                    response.usage.CopyFrom(_usage(output))
            elif every and row.made % every == 0:
                response.resume_points.append(point(row, max(0, row.made - act.held)))
        yield response


def _usage(output):
    return pb.Usage(
        input_tokens=3,
        output_tokens=output,
        unknown_symbols=1,
        queue_seconds=0.25,
        time_to_first_token_seconds=0.5,
    )


def label(word: str, before: str, bundle: str = "") -> str:
    """Of a word, by the one before it: a stream that goes on wrongly is labelled otherwise."""
    return hashlib.sha256(f"{bundle} {before} {word}".encode()).hexdigest()[:4]


def tag(requests: Iterator[pb.StreamTagRequest], act: Act) -> Iterator[pb.StreamTagResponse]:
    """A response for each request with words, as generate() else."""
    start = next(requests).start
    resumed = json.loads(start.resume_token) if start.resume_token else None
    if act.refuses and (resumed or not act.tokens_only):
        raise RequestFailed(act.refuses, "not here", act.retry_after_seconds or None)
    position, before = (resumed["made"], resumed["before"]) if resumed else (0, "")
    sent = answered = 0

    def point():
        token = json.dumps({"made": position, "before": before}).encode()
        return pb.ResumePoint(token=token, next_position=position)

    for number, request in enumerate(requests):
        words = request.text.split() if request.HasField("text") else request.words.words
        response = pb.StreamTagResponse()
        if number == act.breaks_after:
            raise RequestFailed(act.code, act.message)
        if number == act.hands_over_after:
            response.handed_over = True
            response.requests_read = number
            response.resume_points.append(point())
            response.usage.CopyFrom(_usage(sent))
            yield response
            return
        for word in words:
            labelled = label(word, before, act.bundle)
            response.tokens.add(text=word, label=labelled, probability=0.5, position=position)
            position, before, sent = position + 1, word, sent + 1
            if start.resume_every and position % start.resume_every == 0:
                response.resume_points.append(point())
        answered = number + 1
        yield response
    if answered == act.breaks_after:
        raise RequestFailed(act.code, act.message)
    last = pb.StreamTagResponse(usage=_usage(sent))
    if start.resume_at_end:
        last.resume_points.append(point())
    yield last


@dataclass
class FakeServer(unroll_pb2_grpc.UnrollServiceServicer):
    """acts: of its calls, one after the other; later ones go well. requests: that came.

    token: that calls must bring, as a bearer.
    """

    acts: list[Act] = field(default_factory=list)
    token: str = ""
    credentials: grpc.ServerCredentials | None = None
    requests: list = field(default_factory=list)
    calls: int = 0

    def __post_init__(self):
        self._lock = threading.Lock()
        self._server = grpc.server(ThreadPoolExecutor(16), options=[("grpc.so_reuseport", 0)])
        unroll_pb2_grpc.add_UnrollServiceServicer_to_server(self, self._server)
        if self.credentials:
            self.port = self._server.add_secure_port("127.0.0.1:0", self.credentials)
        else:
            self.port = self._server.add_insecure_port("127.0.0.1:0")
        self._server.start()

    def stop(self):
        self._server.stop(0).wait(10)

    @property
    def target(self):
        return f"127.0.0.1:{self.port}"

    def _next(self):
        with self._lock:
            self.calls += 1
            return self.acts.pop(0) if self.acts else WELL

    def Generate(self, request, context):
        self._check(context)
        self.requests.append(request)
        try:
            yield from generate(request, self._next())
        except RequestFailed as failure:
            _abort(context, failure)

    def StreamTag(self, requests, context):
        self._check(context)
        context.send_initial_metadata(())
        try:
            yield from tag(self._noted(requests), self._next())
        except RequestFailed as failure:
            _abort(context, failure)

    def _noted(self, requests):
        for request in requests:
            self.requests.append(request)
            yield request

    def ListModels(self, request, context):
        self._check(context)
        act = self._next()
        if act.breaks_after is not None:
            context.abort(grpc.StatusCode[act.code], act.message)
        return pb.ListModelsResponse(models=[pb.Model(name=str(self.port))])

    def _check(self, context):
        if self.token:
            sent = dict(context.invocation_metadata()).get("authorization")
            if sent != f"Bearer {self.token}":
                context.abort(grpc.StatusCode.UNAUTHENTICATED, "no such token")


def _abort(context, failure):
    code = grpc.StatusCode[failure.code]
    if failure.retry_after_seconds is None:
        context.abort(code, failure.message)
    delay = Duration()
    delay.FromNanoseconds(round(failure.retry_after_seconds * 1e9))
    detail = any_pb2.Any()
    detail.Pack(error_details_pb2.RetryInfo(retry_delay=delay))
    context.abort_with_status(
        rpc_status.to_status(
            status_pb2.Status(
                code=getattr(code_pb2, failure.code), message=failure.message, details=[detail]
            )
        )
    )
