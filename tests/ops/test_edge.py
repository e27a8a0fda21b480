"""Envoy at the edge with deploy/envoy/edge.yaml, attacked as the service is in tests/attacks/.

The service behind it is the real one; the attacks go to Envoy's port, without a token. What is
measured is of both processes, and a witness calls through Envoy all the while.
"""

from __future__ import annotations

import asyncio
from contextlib import ExitStack
from dataclasses import dataclass

import grpc
import pytest

from tests.attacks.frame_fuzzer import FrameFuzzer
from tests.attacks.frames import (
    FLOODS,
    FrameConnection,
    allow_files,
    closed,
    header_block,
    header_bombs,
    silent_connections,
    unfinished_bodies,
)
from tests.attacks.harness import MEBIBYTE, Service, Usage, Witness
from tests.attacks.test_frames import send_steps
from tests.attacks.traffic import Raw
from tests.ops.proxies import Proxy
from unroll import Client, Sampling
from unroll.v1 import unroll_pb2 as pb

pytestmark = pytest.mark.ops

HEAP_BYTES = 256 * MEBIBYTE
CONNECTIONS = 2000
CLASSIFY = "/unroll.v1.UnrollService/Classify"


@dataclass(frozen=True)
class Edge:
    """The service, Envoy before it, and what Envoy uses.

    target, tokens: of calls through Envoy, as Witness takes them for a service.
    """

    service: Service
    proxy: Proxy
    envoy: Usage

    @property
    def target(self):
        return self.proxy.target

    @property
    def port(self):
        return self.proxy.port

    @property
    def tokens(self):
        return self.service.tokens

    def begin(self):
        self.service.usage.restart()
        self.envoy.restart()

    def check(self, witness, *, service_mebibytes=48):
        """Nothing of the attack reached the service, and Envoy kept within its heap."""
        witness.report().check(10)
        self.service.check_answers()
        assert self.service.usage.grown() < service_mebibytes * MEBIBYTE
        # What its heap cannot count: code, stacks, and pages that are not released yet.
        assert self.envoy.peak() < HEAP_BYTES + 64 * MEBIBYTE

    def strangers(self):
        """Calls without a token that reached the service."""
        return self.service.metrics().sum("unroll_requests_total", code="UNAUTHENTICATED")

    def said(self):
        of_service, of_envoy = self.service.usage, self.envoy
        return (
            f"service +{of_service.grown() / 1e6:.0f} MB, {of_service.most('files')} files; "
            f"Envoy +{of_envoy.grown() / 1e6:.0f} MB to {of_envoy.peak() / 1e6:.0f}, "
            f"{of_envoy.most('files')} files"
        )


@pytest.fixture
def start_edge(need, tmp_path):
    """Starts the service and Envoy before it; both are ended."""
    (program,) = need("envoy")
    with ExitStack() as stack:

        def start(connections=CONNECTIONS, edit=str):
            service = stack.enter_context(Service(tmp_path / "service", callers=("ann",)))
            limits = {
                "PROXY_HEAP_BYTES": str(HEAP_BYTES),
                "PROXY_MAX_CONNECTIONS": str(connections),
            }
            replicas = ((service.port, service.http_port),)
            proxy = Proxy("edge", program, replicas, tmp_path, edit=edit, **limits)
            stack.callback(proxy.stop)
            proxy.wait_for(1)
            envoy = Usage(proxy.process, 2 * HEAP_BYTES)
            envoy.start()
            stack.callback(envoy.stop)
            return Edge(service, proxy, envoy)

        yield start


def test_answers_are_the_same_bits_through_the_edge(start_edge, saw):
    """Streams too, and a deadline of the caller's goes through."""
    edge = start_edge()

    def answers(target):
        with Client(target, timeout=30, token=edge.tokens["ann"]) as client:
            sampling = Sampling(temperature=0.8, seed=3)
            pieces = client.generate("prose", prompt="In the", max_tokens=600, sampling=sampling)
            tokens = [token.id for piece in pieces for token in piece.tokens]
            tags = client.stream_tag("pos-online", [["the"], ["old"], ["man"]])
            return (
                tokens,
                repr(client.classify("nationality", ["Ada Lovelace"])),
                [token.label for piece in tags for token in piece.tokens],
            )

    direct, through = answers(edge.service.target), answers(edge.target)
    assert through == direct
    saw(f"{len(direct[0])} tokens, a class and 3 tags: the same through Envoy as without it")


@pytest.mark.parametrize(("calls", "connections"), [(100, 1), (600, 60), (600, 6)])
def test_unfinished_bodies_stay_at_the_edge(start_edge, saw, calls, connections):
    """A connection carries at most 100 calls, so more bodies take more connections."""
    edge = start_edge()
    with Witness(edge, "ann") as witness, ExitStack() as stack:
        edge.begin()
        held, sent = unfinished_bodies(
            stack, edge.port, calls=calls, connections=connections, seconds=10
        )
        edge.check(witness)
        reset = sum(len(one.resets) for one in held)
        assert sent > 50e6, "the attack is one"
        assert edge.strangers() == 0
    saw(
        f"{calls} bodies of 1 MB on {connections} connections, {sent / 1e6:.0f} MB sent, "
        f"{reset} reset: {edge.said()}"
    )


def test_header_bombs_are_refused_as_they_are_decoded(start_edge, saw):
    """The attack that the service by itself waits for: tests/attacks/test_frames.py."""
    edge = start_edge()
    with Witness(edge, "ann") as witness, ExitStack() as stack:
        edge.begin()
        held = header_bombs(stack, edge.port, blocks=1200, connections=12)
        refused = sum(len(one.resets) for one in held)
        edge.check(witness)
        assert refused > 1100, "what builds the table is no bomb yet"
        assert edge.strangers() == 0
    saw(f"1,200 header bombs on 12 connections, {refused} reset: {edge.said()}")


def test_floods_end_at_the_edge(start_edge, saw):
    edge = start_edge()
    with Witness(edge, "ann") as witness:
        edge.begin()
        for flood, amount in FLOODS.values():
            with ExitStack() as stack:
                flood(stack, edge.port, amount)
                edge.check(witness)
    saw(f"{len(FLOODS)} kinds of flood: {edge.said()}")


def test_50_000_resets_end_their_connection(start_edge, saw):
    """Without Envoy they cost the service 235 MB and its other callers seconds."""
    edge = start_edge()
    resets, _ = FLOODS["rapid resets"]
    with Witness(edge, "ann") as witness, ExitStack() as stack:
        edge.begin()
        (held,) = resets(stack, edge.port, 50_000)
        edge.check(witness)
        assert held.is_closed
    saw(f"50,000 resets: {edge.said()}")


def test_silent_connections_keep_nobody_out(start_edge, saw):
    """1,100 of them, where the service by itself may open 1,024 files: none reaches it."""
    allow_files(4096)
    edge = start_edge()
    edge.begin()
    with ExitStack() as stack:
        held = silent_connections(stack, edge.port, 1100)
        assert len(held) == 1100
        with Witness(edge, "ann") as newcomer:
            edge.check(newcomer)
    assert edge.service.usage.most("files") < 200
    saw(f"1,100 silent connections, and a newcomer beside them: {edge.said()}")


def test_connections_beyond_the_limit_are_refused(start_edge, saw):
    """Those that are there go on, and operators still reach Envoy."""
    edge = start_edge(connections=100)
    with Witness(edge, "ann") as witness, ExitStack() as stack:
        edge.begin()
        held = silent_connections(stack, edge.port, 300)
        refused = closed(held, 5)
        edge.check(witness)
        assert refused >= 200
        assert edge.proxy.serving() == 1, "operators reach it"
    saw(f"300 connections where 100 may be: {refused} refused, the witness went on")


def test_what_takes_too_long_is_ended(start_edge, saw):
    """Bodies that never end and connections that never speak, with a minute cut to 2 seconds."""

    def cut(text):
        assert text.count("60s") == 3
        return text.replace("60s", "2s")

    edge = start_edge(edit=cut)
    with Raw(edge, window=65_535, reads=True) as caller, ExitStack() as stack:
        (silent,) = silent_connections(stack, edge.port, 1)
        number = caller.call(CLASSIFY, end=False)
        assert caller.pump(10, caller.all_ended)
        status = caller.answers[number].status
        assert status == str(grpc.StatusCode.DEADLINE_EXCEEDED.value[0])
        assert closed([silent], 10) == 1
    saw("a body without an end: DEADLINE_EXCEEDED; a silent connection: closed")


def test_a_body_far_beyond_the_largest_ends_at_the_edge(start_edge, saw):
    edge = start_edge()
    before = edge.service.metrics().sum("unroll_requests_total")
    with Raw(edge, window=65_535, reads=True) as caller:
        number = caller.call(CLASSIFY, bytes(3 * MEBIBYTE))
        caller.pump(10, caller.all_ended)
        assert caller.answers[number].status == str(grpc.StatusCode.UNKNOWN.value[0])
    assert edge.service.metrics().sum("unroll_requests_total") == before
    saw("3 MiB: UNKNOWN, and the service saw nothing")


REFUSED = {
    "a name with an underscore": (CLASSIFY, [("x_token", "1")]),
    "65 headers more": (CLASSIFY, [(f"x-{n}", "1") for n in range(65)]),
    "headers of 17 KB": (CLASSIFY, [(f"x-{n}", "a" * 3400) for n in range(5)]),
    "an escaped slash": ("/unroll.v1.UnrollService%2FClassify", []),
    "reflection": ("/grpc.reflection.v1alpha.ServerReflection/ServerReflectionInfo", []),
    "a service that is none": ("/nobody.knows/It", []),
}


def test_what_is_no_call_of_ours_ends_at_the_edge(start_edge, saw):
    edge = start_edge()
    before = edge.service.metrics().sum("unroll_requests_total")
    for what, (path, extra) in REFUSED.items():
        with FrameConnection(edge.port) as connection:
            connection.open(1, header_block(path, extra), end=True)

            def ended(of=connection):
                return bool(of.answers or of.resets or of.is_closed)

            connection.pump(5, ended)
            assert ended(), what
    assert edge.service.metrics().sum("unroll_requests_total") == before
    saw(f"refused by Envoy: {', '.join(REFUSED)}")


def test_a_message_beyond_the_largest_is_refused_by_name(start_edge, saw):
    """By the service, with its own words, as long as it is not much beyond."""
    edge = start_edge()
    request = pb.ClassifyRequest(model="nationality", texts=["a" * (MEBIBYTE + 1000)])
    metadata = (("authorization", f"Bearer {edge.tokens['ann']}"),)

    async def status():
        async with grpc.aio.insecure_channel(edge.target) as channel:
            call = channel.unary_unary(CLASSIFY)(request.SerializeToString(), metadata=metadata)
            return await call.code(), await call.details()

    code, details = asyncio.run(status())
    assert code is grpc.StatusCode.RESOURCE_EXHAUSTED, details
    saw(f"1 MiB and 1,000 bytes: {code.name}, {details[:60]!r}")


def test_random_frames_end_at_the_edge(start_edge, saw):
    edge = start_edge()
    fuzzer = FrameFuzzer("edge")
    with Witness(edge, "ann") as witness:
        edge.begin()
        for number in range(300):
            send_steps(edge.port, fuzzer.draw(number), abruptly=number % 3 == 0)
        edge.check(witness)
        assert edge.proxy.process.poll() is None
    saw(f"300 connections of random frames: {edge.said()}")
