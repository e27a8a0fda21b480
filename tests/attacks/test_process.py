"""What holds the process itself: its stop, its probes, its log, its signals."""

from __future__ import annotations

import asyncio
import json
import signal
import threading
import time
from contextlib import suppress
from typing import Self

import grpc
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc

from service.access.auth import new_token
from tests.attacks.harness import MODELS, Service, Threat, Witness, wait_until
from tests.attacks.traffic import (
    HEALTH,
    LOAD,
    UNLOAD,
    UNROLL,
    Raw,
    at_once,
    call,
    is_refusal_with_a_delay,
)
from tests.attacks.traffic import statuses as counted
from unroll.inference import grpc_service_pb2 as inference
from unroll.v1 import unroll_pb2 as pb

SERVING, NOT_SERVING = (
    health_pb2.HealthCheckResponse.SERVING,
    health_pb2.HealthCheckResponse.NOT_SERVING,
)


class Watcher:
    """A well-behaved Health.Watch call; ``with`` ends it. statuses: what it was sent so far."""

    def __init__(self, service: Service, name: str) -> None:
        self.statuses: list[int] = []
        self._channel = grpc.insecure_channel(service.target)
        request = health_pb2.HealthCheckRequest(service=name)
        self._call = health_pb2_grpc.HealthStub(self._channel).Watch(request)
        self._thread = threading.Thread(target=self._read)
        self._thread.start()

    def receives(self, status: int, seconds: float = 5.0) -> bool:
        """Whether its last one is ``status``, within ``seconds``."""
        return wait_until(lambda: self.statuses[-1:] == [status], seconds)

    def _read(self) -> None:
        with suppress(grpc.RpcError):
            for response in self._call:
                self.statuses.append(response.status)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._call.cancel()
        self._thread.join()
        self._channel.close()


class TestUnreadWatches:
    """Health.Watch with a window of 0, which needs no token, and changes of what is served.

    Bound: no watcher holds up a load, another watcher or a stop. Setting: propagation_seconds.
    """

    threat = Threat(
        "Health.Watch calls without a token that are never read",
        "other watchers, loads and the stop do not wait for them",
        ("propagation_seconds", "grace_seconds"),
    )

    def test_hold_up_nothing(self, tmp_path):
        with (
            Service(tmp_path, (*MODELS, "sentiment"), callers=("ann",)) as service,
            Witness(service, "ann") as witness,
            Raw(service) as unread,
            Watcher(service, "sentiment") as other,
        ):
            for name in ("", "sentiment", "sentiment", "pos"):
                unread.call(f"{HEALTH}/Watch", health_pb2.HealthCheckRequest(service=name))
            assert other.receives(SERVING)
            for _ in range(3):
                for method, status in ((UNLOAD, NOT_SERVING), (LOAD, SERVING)):
                    assert self._change(service, method) == "OK"
                    assert other.receives(status)
            witness.report().check(10)
            service.check_answers()
            service.signal(signal.SIGTERM)
            assert other.receives(NOT_SERVING)
            assert service.process.wait(service.grace_seconds + 8) == 0

    @staticmethod
    def _change(service, method):
        """The status of loading or unloading a model; field 2 is the name in both messages."""
        request = inference.RepositoryModelLoadRequest(model_name="sentiment")
        how = {"token": service.tokens["ann"], "timeout": 10}
        (outcome,) = asyncio.run(
            at_once(service, 1, lambda channel, _: call(channel, method, request, **how))
        )
        return outcome.status


class TestBursts:
    """Thousands of valid calls at once, on few and on many connections.

    Bound: each is answered or refused with a delay; none is cancelled. Setting: max_queue,
    max_calls_per_connection.
    """

    threat = Threat(
        "8,000 valid calls at once",
        "each answered, or RESOURCE_EXHAUSTED with a delay; none is cancelled, all are counted",
        ("max_queue", "max_calls_per_connection"),
    )
    CALLS = (
        2_000,
        pytest.param(4_000, marks=pytest.mark.attacks),
        pytest.param(8_000, marks=pytest.mark.attacks),
    )

    @pytest.mark.parametrize("calls", CALLS)
    def test_are_answered_or_refused(self, attacked, attacks, calls):
        request = pb.ClassifyRequest(model="nationality", texts=["Ada Lovelace"])

        with attacked(callers=("ann",), caller="ann", seconds=30) as (service, _):
            before, token = service.metrics(), service.tokens["ann"]

            async def classify(channel, _):
                return await call(channel, f"{UNROLL}/Classify", request, token=token)

            outcomes = asyncio.run(at_once(service, calls, classify, channels=8))
            attacks.report(f"{calls} Classify at once: {counted(outcomes)}")
            refused = [o for o in outcomes if o.status != "OK"]
            assert all(map(is_refusal_with_a_delay, refused)), counted(refused)
            assert len({o.answer for o in outcomes if o.status == "OK"}) == 1
            # Nothing is refused, or answered, that no metric counts.
            seen = service.metrics().since(before).sum("unroll_requests_total", method="Classify")
            assert seen >= calls


class TestUnreadLog:
    """A log whose reader has stopped, while every request is logged.

    Bound: log_queue_bytes wait, what is beyond is dropped and counted; nothing waits for it.
    """

    threat = Threat(
        "the log's pipe is not read, while each request writes to it",
        "lines beyond the queue are dropped and counted; calls, probes and the stop go on",
        ("log_queue_bytes", "log_requests"),
    )

    def test_holds_up_nothing(self, tmp_path, attacks):
        calls = attacks.amount(600, 20_000)
        request = pb.ClassifyRequest(model="nationality", texts=["Ada " * 25])
        how = {"log_requests": True, "log_texts": True, "log_format": "json"}

        async def classify(channel, _):
            return await call(channel, f"{UNROLL}/Classify", request, timeout=5)

        with Service(tmp_path, unread_log=True, log_queue_bytes=65_536, **how) as service:
            with Witness(service) as witness:
                outcomes = asyncio.run(at_once(service, calls, classify, side_by_side=16))
                assert counted(outcomes) == {"OK": calls}
                service.check_answers()
                witness.report().check(10)
                assert service.metrics().sum("unroll_log_lines_dropped_total") > 0
            assert service.terminate() == 0


class TestStoppedProcess:
    """SIGSTOP for as long as a machine that is moved may take, then SIGCONT.

    Bound: what was under way goes on; time that stood still ends no stream and no sequence.
    """

    threat = Threat(
        "the process is stopped for 75 s in the midst of streams, and goes on",
        "connections and streams survive; the bits stay; nothing is ended for having been silent",
        ("stall_seconds",),
    )

    def test_goes_on(self, attacked, attacks):
        seconds = attacks.amount(3, 75)
        request = pb.GenerateRequest(
            model="prose", prompt="In the", max_tokens=1000, sampling=pb.Sampling(seed=1)
        )

        async def stopped(service):
            how = {"token": service.tokens["ann"], "streams": True, "timeout": seconds + 60}
            calls = asyncio.ensure_future(
                at_once(service, 4, lambda c, _: call(c, f"{UNROLL}/Generate", request, **how))
            )
            await asyncio.sleep(0.3)
            service.signal(signal.SIGSTOP)
            await asyncio.sleep(seconds)
            service.signal(signal.SIGCONT)
            return await calls

        with attacked(callers=("ann",), caller="ann") as (service, witness):
            witness.pause()  # its calls have deadlines
            outcomes = asyncio.run(stopped(service))
            witness.resume()
            assert counted(outcomes) == {"OK": 4}
            assert len({_tokens(outcome.answer) for outcome in outcomes}) == 1


def _tokens(answer):
    """Ids of a stream's messages, joined: their boundaries follow the moment."""
    joined = pb.GenerateResponse.FromString(answer)
    return tuple(token.id for token in joined.tokens)


class TestHangUp:
    """SIGHUP, as a terminal that closes or an operator's habit sends it.

    Bound: it ends nothing; files that are read again are read again. Setting: auth_tokens.
    """

    threat = Threat(
        "SIGHUP",
        "nothing ends; tokens and certificates are read again at once",
        ("auth_tokens", "tls_certificate"),
    )

    def test_ends_nothing_and_reads_tokens_again(self, attacked):
        with attacked(callers=("ann",), caller="ann") as (service, witness):
            secret, line = new_token("bob", ["infer"])
            path = service.log_path.with_name("tokens")
            path.write_text(f"{path.read_text()}{line}\n")
            for _ in range(5):
                service.signal(signal.SIGHUP)
                time.sleep(0.1)
            request = pb.ListModelsRequest()

            def outcome():
                return asyncio.run(
                    at_once(
                        service, 1,
                        lambda c, _: call(c, f"{UNROLL}/ListModels", request, token=secret),
                    )
                )[0]  # fmt: skip

            assert wait_until(lambda: outcome().status == "OK", 5), outcome()
            witness.report().check(10)


class TestStopUnderLoad:
    """SIGTERM amid calls of every kind, and a second one when the grace is over.

    Bound: grace_seconds, and a few more to hand over. Setting: grace_seconds.
    """

    threat = Threat(
        "SIGTERM while 90 streams run that nobody reads",
        "ends with 0 within the grace and the seconds of handing over",
        ("grace_seconds",),
    )

    def test_ends_within_the_grace(self, tmp_path):
        request = pb.GenerateRequest(model="prose", prompt="In the", max_tokens=8000)
        tags = pb.StreamTagRequest(start=pb.StreamTagStart(model="pos-online"))
        words = pb.StreamTagRequest(words=pb.Words(words=["the"] * 500))
        with Service(tmp_path, grace_seconds=1) as service, Raw(service) as unread:
            for _ in range(80):
                unread.call(f"{UNROLL}/Generate", request)
            for _ in range(10):
                unread.call(f"{UNROLL}/StreamTag", tags, words, end=False)
            unread.pump(0.5)
            assert service.terminate() == 0, json.dumps(service.log()[-2000:])
