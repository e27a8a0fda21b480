"""A wall clock that jumps: what lasts is measured by a clock that does not."""

from __future__ import annotations

import signal
import time

import pytest

from tests.attacks.harness import Threat
from tests.attacks.messages import step_of
from unroll import NO_RETRIES, Client, RequestFailed, Sampling
from unroll.inference import grpc_service_pb2_grpc


class TestClockJumps:
    """The wall clock a day on and a day back, again and again, amid streams and sequences.

    Bound: deadlines, silences, queues and rates are measured by the monotonic clock; only resume
    tokens, which other machines read, expire by the wall clock. Setting: resume_seconds,
    sequence_idle_seconds.
    """

    threat = Threat(
        "the machine's clock jumps a day on and back",
        "streams, sequences and limits do not notice; only resume tokens expire by it",
        ("resume_seconds", "sequence_idle_seconds"),
    )

    def test_end_no_stream_and_no_sequence(self, attacked):
        with (
            attacked(module="tests.attacks.jumping") as (service, witness),
            Client(service.target, 60, retries=NO_RETRIES) as client,
        ):
            options = {"max_tokens": 600, "sampling": Sampling(seed=3)}
            expected = self._tokens(client.generate("prose", prompt="In the", **options))
            infer = grpc_service_pb2_grpc.GRPCInferenceServiceStub(client.channel).ModelInfer
            infer(step_of("prose", sequence_start=True, sequence_id="kept"), timeout=10)
            stream = client.generate("prose", prompt="In the", **options)
            pieces = [next(stream)]
            for jump in (signal.SIGUSR1, signal.SIGUSR2, signal.SIGUSR2, signal.SIGUSR1) * 3:
                service.signal(jump)
                time.sleep(0.03)
                # A sequence that the jump had ended would not be known.
                infer(step_of("prose", sequence_id="kept"), timeout=10)
            assert self._tokens([*pieces, *stream]) == expected
            witness.report().check(10)
            page = service.metrics()
            for what in ("request", "queue", "time_to_first_token", "batch"):
                assert 0 <= page.sum(f"unroll_{what}_seconds_sum") < 1000, what
            infer(step_of("prose", sequence_id="kept", sequence_end=True), timeout=10)

    def test_let_resume_tokens_expire_and_come_back(self, attacked):
        with (
            attacked(module="tests.attacks.jumping") as (service, _),
            Client(service.target, 60, retries=NO_RETRIES) as client,
        ):
            pieces = list(client.generate("prose", prompt="In the", max_tokens=40, resume_every=16))
            token = next(point for piece in pieces for point in piece.resume_points).token

            def resumed():
                return self._tokens(client.generate("prose", resume_token=token, failover=False))

            expected = resumed()
            service.signal(signal.SIGUSR1)
            time.sleep(0.1)
            with pytest.raises(RequestFailed, match="expired"):
                resumed()
            service.signal(signal.SIGUSR2)
            time.sleep(0.1)
            assert resumed() == expected

    @staticmethod
    def _tokens(pieces):
        return [(token.id, token.position) for piece in pieces for token in piece.tokens]
