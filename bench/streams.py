"""Streams a second: this service against one loop a request and against the bare step.

python -m bench.streams [--bundle models/prose/1] [--streams 1 16 64] [--rounds 3] [--tokens 128]

Both servers run as processes of their own and take turns in one run; the client is this
process. A 32-character prompt, temperature 0.8, top-p 0.95, fixed seeds. Reported are medians
of the rounds: tokens a second, server CPU a token (from /proc), time to first token. The last
line is JSON. It takes no decision: a timing is not a test.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import platform
import statistics
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
from tqdm import tqdm

from bundle.store import Bundle, read_bundle
from client import AsyncClient, Sampling
from service.engine.arena import Arena, StateSpec
from service.runtime.runners import GenerateRunner, Primer
from service.runtime.sessions import SessionSettings, open_session

PROMPT = "Before we proceed any further, h"  # 32 characters
BARE_SECONDS = 2.0
TICKS = os.sysconf("SC_CLK_TCK")


@dataclass(frozen=True)
class Measured:
    """One server at one number of streams; medians of the rounds."""

    what: str
    streams: int
    tokens_per_second: float
    server_cpu_us_per_token: float
    first_token_ms_p50: float
    first_token_ms_p99: float


class Server:
    """A server process; ``ready`` is how the line begins that tells its port."""

    def __init__(self, what: str, command: Sequence[str]) -> None:
        self.what = what
        self._process = subprocess.Popen(
            [sys.executable, "-m", *command],
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        assert self._process.stdout is not None, "stdout is a pipe"
        lines = (line for line in self._process.stdout if "gRPC on port " in line)
        ready = next(lines, None)
        if ready is None:
            self.stop()
            raise RuntimeError(f"{what} ended before it was ready: {' '.join(command)}")
        self.target = "127.0.0.1:" + ready.split("gRPC on port ")[1].split(",")[0].strip()

    def cpu_seconds(self) -> float:
        """User and system time of the process so far (proc(5), fields 14 and 15 of stat)."""
        fields = Path(f"/proc/{self._process.pid}/stat").read_text().rsplit(")", 1)[1].split()
        return (int(fields[11]) + int(fields[12])) / TICKS

    def stop(self) -> None:
        self._process.terminate()
        self._process.communicate(timeout=60)


async def _stream(client: AsyncClient, model: str, seed: int, tokens: int) -> float:
    """Read one stream to its end; returns its time to first token in seconds."""
    started, first = time.perf_counter(), 0.0
    sampling = Sampling(temperature=0.8, top_k=0, top_p=0.95, seed=seed)
    count = 0
    async for piece in client.generate(model, prompt=PROMPT, max_tokens=tokens, sampling=sampling):
        first = first or time.perf_counter() - started
        count += len(piece.tokens)
    assert count == tokens, f"a stream ended after {count} tokens"
    return first


async def _round(server: Server, model: str, streams: int, tokens: int) -> tuple[float, ...]:
    """(wall seconds, server CPU seconds, first tokens' times …) of ``streams`` at once."""
    async with AsyncClient(server.target) as client:
        await _stream(client, model, 0, 4)
        cpu, started = server.cpu_seconds(), time.perf_counter()
        firsts = await asyncio.gather(
            *(_stream(client, model, seed, tokens) for seed in range(streams))
        )
        wall = time.perf_counter() - started
    return wall, server.cpu_seconds() - cpu, *firsts


def _summary(what: str, streams: int, tokens: int, rounds: list[tuple[float, ...]]) -> Measured:
    made = streams * tokens
    firsts = sorted(first for _, _, *rest in rounds for first in rest)
    return Measured(
        what,
        streams,
        statistics.median(made / wall for wall, *_ in rounds),
        statistics.median(1e6 * cpu / made for _, cpu, *_ in rounds),
        1e3 * statistics.median(firsts),
        1e3 * firsts[int(0.99 * (len(firsts) - 1))],
    )


def bare_steps_per_second(bundle: Bundle, rows: int, seconds: float) -> float:
    """The step graph alone in a loop, with the engine's own I/O binding."""
    settings = SessionSettings("cpu", "CPUExecutionProvider", threads=1)
    state = bundle.manifest.state
    primer = Primer(open_session(bundle, "prime", settings), state)
    runner = GenerateRunner(primer, open_session(bundle, "step", settings))
    specs = [StateSpec(t.name, t.dtype, t.shape, t.carried) for t in state]
    arena = Arena(specs, rows, len(bundle.tokenizers["output"].vocabulary))
    runner.attach(arena.sides())
    for row in range(rows):
        arena.control(row, token=1, temperature=0.8, top_p=0.95)
    arena.controls["uniform"][:] = np.random.default_rng(0).random(rows, dtype=np.float32)
    steps, started = 0, time.perf_counter()
    while time.perf_counter() - started < seconds:
        runner.step(arena.side, rows)
        arena.swap()
        steps += 1
    return steps / (time.perf_counter() - started)


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m bench.streams")
    parser.add_argument("--bundle", type=Path, default=Path("models/prose/1"))
    parser.add_argument("--streams", type=int, nargs="+", default=[1, 16, 64])
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--tokens", type=int, default=128)
    chosen = parser.parse_args()
    bundle = read_bundle(chosen.bundle)
    servers: list[Server] = []
    try:
        servers.append(Server("unroll", _service_command(chosen.bundle)))
        peer = _peer_command(chosen.bundle, max(chosen.streams))
        servers.append(Server("one loop a request", peer))
        measured = _alternate(servers, bundle.manifest.name, chosen)
    finally:
        for server in servers:
            server.stop()
    bare = {n: n * bare_steps_per_second(bundle, n, BARE_SECONDS) for n in chosen.streams}
    _print_table(measured, bare)
    machine = f"{platform.machine()}, {os.cpu_count()} cores, Python {platform.python_version()}"
    print(
        json.dumps(
            {
                "machine": machine,
                "model": bundle.manifest.name,
                "digest": bundle.digest,
                "tokens": chosen.tokens,
                "rounds": chosen.rounds,
                "measured": [asdict(row) for row in measured],
                "bare_step_tokens_per_second": bare,
            }
        )
    )
    return 0


def _service_command(bundle: Path) -> list[str]:
    free = ["--address", "127.0.0.1:0", "--http-address", "127.0.0.1:0"]
    return ["service", "serve", "--models", str(bundle.parent.parent), "--device", "cpu", *free]


def _peer_command(bundle: Path, streams: int) -> list[str]:
    workers = str(streams + 8)
    return ["bench.peers.loop_server", "--bundle", str(bundle), "--workers", workers]


def _alternate(servers: Sequence[Server], model: str, chosen: argparse.Namespace) -> list[Measured]:
    """Rounds in alternating order, so that a change of the machine's mood meets both."""
    measured = []
    with tqdm(total=len(chosen.streams) * chosen.rounds * len(servers), unit="round") as bar:
        for streams in chosen.streams:
            rounds: dict[str, list[tuple[float, ...]]] = {server.what: [] for server in servers}
            for number in range(chosen.rounds):
                for server in servers if number % 2 == 0 else reversed(servers):
                    bar.set_description(f"{streams} streams, {server.what}")
                    result = asyncio.run(_round(server, model, streams, chosen.tokens))
                    rounds[server.what].append(result)
                    bar.update()
            measured += [
                _summary(what, streams, chosen.tokens, found) for what, found in rounds.items()
            ]
    return measured


def _print_table(measured: Sequence[Measured], bare: dict[int, float]) -> None:
    print(
        "| server | streams | tokens/s | of the bare step | server CPU a token | first token p50 |"
    )
    print("|---|---|---|---|---|---|")
    for row in measured:
        print(
            f"| {row.what} | {row.streams} | {row.tokens_per_second:,.0f} "
            f"| {row.tokens_per_second / bare[row.streams]:.2f} "
            f"| {row.server_cpu_us_per_token:.0f} µs | {row.first_token_ms_p50:.0f} ms |"
        )
    for streams, rate in bare.items():
        print(f"| the bare step, no network | {streams} | {rate:,.0f} | 1 | – | – |")


if __name__ == "__main__":
    sys.exit(main())
