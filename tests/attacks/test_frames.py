"""Attacks by HTTP/2 frames and by connections, without a token; below the methods of any service.

What grpcio's server cannot bound waits here by name for Envoy, the other front end; as a proxy at
the edge, tests/ops/test_edge.py attacks Envoy in the same ways.
"""

from __future__ import annotations

from contextlib import ExitStack
from typing import ClassVar

import pytest

from tests.attacks.frame_fuzzer import FrameFuzzer
from tests.attacks.frames import (
    FLOODS,
    FrameConnection,
    allow_files,
    closed,
    header_bombs,
    silent_connections,
    slow_handshakes,
    unfinished_bodies,
    unsettled_connections,
)
from tests.attacks.harness import MEBIBYTE, Threat, Witness
from tests.front_ends import is_envoy

SECURED = {"callers": ("ann",), "caller": "ann"}
# Of a test of connections: short, so that the test is.
HANDSHAKE_SECONDS = 2


def use_of(service):
    """What its process used since the attack began, for the report."""
    usage = service.usage
    return (
        f"+{usage.grown() / 1e6:.0f} MB, {usage.most('files')} files, "
        f"{usage.most('threads')} threads"
    )


class TestUnfinishedBodies:
    """600 messages of 1 MB that never end, from a caller without a token.

    Bound: it is refused before its body is read. Setting: max_calls_per_connection.
    """

    threat = Threat(
        "600 bodies of 1 MB that never end, without a token, on one connection and on many",
        "refused before the body is read; of an unread body 64 KiB are taken",
        ("max_calls_per_connection", "max_connections"),
    )
    METHODS = ("/unroll.v1.UnrollService/Classify", "/unroll.v1.UnrollService/StreamTag")

    CONNECTIONS = (1, pytest.param(60, marks=pytest.mark.attacks))

    @pytest.mark.parametrize("connections", CONNECTIONS)
    def test_of_a_stranger_are_not_read(self, attacked, attacks, connections):
        with attacked(**SECURED) as (service, _), ExitStack() as stack:
            for path in self.METHODS:
                calls = {"calls": 600, "connections": connections, "path": path, "seconds": 2}
                held, sent = unfinished_bodies(stack, service.port, **calls)
                attacks.report(
                    f"600 unfinished bodies on {connections} connections: {use_of(service)}, "
                    f"{sent / 1e6:.0f} MB sent, {len(held[0].answers)} of one connection answered"
                )
            assert service.usage.grown() < 100 * MEBIBYTE


class TestBodiesOfCallers:
    """The same from a caller who may call, or where no token is required.

    Bound: bodies on their way are counted; each has body_seconds once it is its turn.
    """

    threat = Threat(
        "the same 600 where nobody is asked for a token",
        "so many bodies are read at once as the memory budget has room for; the others wait "
        "unread, and have their seconds when it is their turn",
        ("memory_budget_bytes", "body_seconds", "max_calls_per_connection"),
    )

    @pytest.mark.attacks
    def test_take_what_the_budget_has_room_for(self, attacked, attacks):
        how = {"body_seconds": 2, "memory_budget_bytes": 128 * MEBIBYTE}
        with attacked(**how) as (service, _), ExitStack() as stack:
            _, sent = unfinished_bodies(stack, service.port, calls=600, connections=6)
            attacks.report(
                f"600 unfinished bodies without tokens: {use_of(service)}, {sent / 1e6:.0f} MB sent"
            )
            assert service.usage.grown() < 256 * MEBIBYTE


class TestHeaderBombs:
    """Header blocks of 15 KB that are 58 MB when they are decoded, by references.

    Bound: max_metadata_bytes, which grpcio holds from the acknowledgement of its SETTINGS on.
    """

    threat = Threat(
        "600 header blocks of 15 KB which decode to 58 MB each",
        "refused while they are decoded; with grpcio, those of a caller that never acknowledges "
        "SETTINGS take up to 0.8 MB each ([At the edge](#at-the-edge))",
        ("max_metadata_bytes", "max_calls_per_connection"),
    )

    def test_are_refused_while_they_are_decoded(self, attacked, attacks):
        with attacked(**SECURED) as (service, _), ExitStack() as stack:
            held = header_bombs(stack, service.port, blocks=600, acknowledges=True)
            attacks.report(f"600 header bombs on one connection: {use_of(service)}")
            assert held[0].resets or held[0].is_closed
            assert service.usage.grown() < 64 * MEBIBYTE

    @pytest.mark.attacks
    @pytest.mark.xfail(
        not is_envoy(),
        raises=AssertionError,
        reason="waits for Envoy, which counts headers as it decodes them: gRPC core has no limit "
        "for a caller that never acknowledges its SETTINGS; measured: 600 blocks on one "
        "connection +120 to +280 MB, 1,200 on twelve +890 MB",
    )
    def test_that_acknowledge_nothing_are_refused_too(self, attacked, attacks):
        with attacked(**SECURED) as (service, _), ExitStack() as stack:
            header_bombs(stack, service.port, blocks=1200, connections=12)
            attacks.report(f"1,200 header bombs on 12, none acknowledging: {use_of(service)}")
            assert service.usage.grown() < 64 * MEBIBYTE


class TestFloods:
    """Frames by the thousand on one connection: resets, SETTINGS, PING, CONTINUATION and others.

    Bound: the front end's own limits, and max_calls_per_connection.
    """

    threat = Threat(
        "floods of resets, SETTINGS, PING, CONTINUATION, half-closed calls, windows of 0, "
        "oversized frames",
        "nothing is kept of them; some hundred resets end the connection; with grpcio, tens of "
        "thousands take up to 235 MB and hold others up ([At the edge](#at-the-edge))",
        ("max_calls_per_connection",),
    )

    # No more in `make attacks` than in the quick half: those have a test of their own.
    ONCE = frozenset(("rapid resets",))

    def test_leave_nothing_behind(self, attacked, attacks):
        with attacked(**SECURED) as (service, witness):
            for name, (flood, quick) in FLOODS.items():
                more = quick if name in self.ONCE else min(10 * quick, 100_000)
                self._flood(service, witness, attacks, name, flood, attacks.amount(quick, more))
            assert service.usage.grown() < 150 * MEBIBYTE

    @pytest.mark.attacks
    @pytest.mark.xfail(
        not is_envoy(),
        raises=AssertionError,
        reason="waits for Envoy, which ends a connection after some hundred resets: gRPC core lets "
        "16,384 calls wait, so that no burst is cancelled, and those that were reset long ago are "
        "among them; measured: +235 MB, which come back, and other callers wait for seconds or are "
        "cancelled meanwhile",
    )
    def test_of_50_000_resets_leaves_nothing_either(self, attacked, attacks):
        with attacked(**SECURED) as (service, witness):
            flood, _ = FLOODS["rapid resets"]
            self._flood(service, witness, attacks, "rapid resets", flood, 50_000)
            assert service.usage.grown() < 150 * MEBIBYTE

    @staticmethod
    def _flood(service, witness, attacks, name, flood, amount):
        began = service.usage.samples[-1].cpu
        with ExitStack() as stack:
            held = flood(stack, service.port, amount)
            ended = sum(one.is_closed for one in held)
            attacks.report(
                f"{amount} {name}: {use_of(service)}, "
                f"{service.usage.samples[-1].cpu - began:.1f} s of processor, "
                f"{ended} of {len(held)} connections ended"
            )
            witness.report().check(10)


class TestSilentConnections:
    """1,100 connections where the process may open 1,024 files: silent, or stuck in a handshake,
    or in the one of HTTP/2, whose SETTINGS are to be acknowledged.

    Bound: max_connections, and handshake_seconds until they are closed.
    """

    threat = Threat(
        "1,100 connections that say nothing, or half a handshake, at 1,024 files",
        "`max_connections` at most; closed after `handshake_seconds`; callers who are connected go "
        "on, new ones are refused meanwhile, which only a proxy at the edge can tell apart",
        ("max_connections", "handshake_seconds"),
    )
    HOW: ClassVar = {"handshake_seconds": HANDSHAKE_SECONDS, "max_connections": 500, "files": 1024}
    KINDS = (
        silent_connections,
        pytest.param(slow_handshakes, marks=pytest.mark.attacks),
        pytest.param(unsettled_connections, marks=pytest.mark.attacks),
    )

    @pytest.mark.parametrize("kind", KINDS)
    def test_are_closed_and_callers_go_on(self, attacked, attacks, kind):
        allow_files(2048)
        with attacked(**SECURED, **self.HOW) as (service, witness), ExitStack() as stack:
            held = kind(stack, service.port, 1100)
            service.check_answers()
            witness.report().check(10)
            ended = closed(held, HANDSHAKE_SECONDS + 8)
            attacks.report(f"{len(held)} {kind.__name__}: {use_of(service)}, {ended} closed")
            assert ended == len(held)
            assert service.usage.most("files") < 1024
            # New callers get in again.
            with Witness(service, "ann") as newcomer:
                newcomer.report().check(10)

    @pytest.mark.attacks
    def test_on_the_http_port_keep_no_probe_out(self, attacked, attacks):
        allow_files(2048)
        with attacked(**SECURED, **self.HOW) as (service, _), ExitStack() as stack:
            held = silent_connections(stack, service.http_port, 1100)
            service.check_answers()
            attacks.report(f"{len(held)} silent on the HTTP port: {use_of(service)}")
            assert service.usage.most("files") < 1024


class TestMutatedFrames:
    """Connections of random frames, drawn from a seed: wrong calls, truncated, padded, out of turn.

    Bound: a connection at most.
    """

    threat = Threat(
        "random and mutated HTTP/2 frames, in and out of calls, cut short, from a seed",
        "the connection that sent them ends at most; rows, requests and memory come back",
    )

    def test_end_their_own_connection_at_most(self, attacked, attacks, request):
        connections = attacks.amount(150, 5_000)
        fuzzer = FrameFuzzer(request.config.getoption("--fuzz-name"))
        with attacked() as (service, witness):
            for number in range(connections):
                send_steps(service.port, fuzzer.draw(number), abruptly=number % 3 == 0)
                assert service.is_alive, f"ended by connection {number} of {fuzzer.seed!r}"
                if number % 1000 == 999:
                    witness.report().check(10)
            attacks.report(f"{connections} connections of random frames: {use_of(service)}")
            assert service.usage.grown() < 100 * MEBIBYTE


def send_steps(port, steps, *, abruptly):
    """Each step by itself, what comes back is read; abruptly: the end is a TCP reset."""
    with FrameConnection(port, speaks=False) as connection:
        for step in steps:
            connection.send(step)
            connection.turn(0.005)
        connection.pump(0.02)
        if abruptly:
            connection.abort()
