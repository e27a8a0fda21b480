"""Streams of frames in real time: this service, one session a stream, and the bare step."""

from __future__ import annotations

import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
from numpy.typing import NDArray
from tqdm import tqdm

from bench.frame_callers import MODEL_STREAM_INFER, STREAM_STEP, send_frames
from bench.frame_model import FRAME, FRAME_SECONDS, write_frame_model
from bench.medians import Spread, p50_p99, spread, take_turns
from bench.peers.triton import start_triton_stepper
from bench.servers import Missing, Server, start_service
from bench.settings import Settings
from bundle.store import Bundle, read_bundle
from service.runtime.sessions import SessionSettings, open_session

OURS, PEER, TRITON = "unroll", "one session a stream", "Triton, Python backend"
# Rows of the bare step that frames of the service are compared with.
BARE_ROWS = 64
# Of the time between two frames: later than this an answer is of no use to a caller in real time.
LATEST_MS = 1e3 * FRAME_SECONDS
_SOME = 16  # frames, sent in turn


@dataclass(frozen=True)
class FrameRound:
    """server_cpu_us, client_cpu_us: a frame. latencies from when a frame was due to its answer.

    answered: of the frames that were sent, the share that was answered within two seconds of the
    last; refused: the share whose answer was an error. late: of the frames, the share that the
    callers themselves sent late.
    """

    server_cpu_us: float
    client_cpu_us: float
    p50_ms: float
    p99_ms: float
    answered: float
    refused: float
    late: float

    @property
    def is_in_time(self) -> bool:
        return self.p99_ms <= LATEST_MS and self.answered == 1.0

    @property
    def streams_a_core(self) -> float:
        """In real time, by the processor time that a frame takes."""
        return 1e6 * FRAME_SECONDS / self.server_cpu_us if self.server_cpu_us else 0.0


@dataclass(frozen=True)
class FrameRow:
    what: str
    streams: int
    figures: Spread[FrameRound]


@dataclass(frozen=True)
class Frames:
    """bare_us: processor time a row of the bare step, by the rows of a run. skipped: why, by the
    name of a server that cannot run here."""

    rows: tuple[FrameRow, ...]
    bare_us: Mapping[int, float]
    skipped: Mapping[str, str] = field(default_factory=dict)

    def row(self, what: str, streams: int) -> FrameRound | None:
        found = (r.figures.median for r in self.rows if (r.what, r.streams) == (what, streams))
        return next(found, None)

    def streams_a_core(self, what: str) -> float | None:
        """The most, of the numbers of streams whose answers came in time; None where none did."""
        medians = (row.figures.median for row in self.rows if row.what == what)
        return max((m.streams_a_core for m in medians if m.is_in_time), default=None)

    def gain(self) -> float | None:
        ours, peers = self.streams_a_core(OURS), self.streams_a_core(PEER)
        return ours / peers if ours and peers else None

    def overhead(self, streams: int = 64) -> float | None:
        """Processor time of the server a frame against the bare step's; None where some frames were
        not answered: the server had too little of the machine."""
        ours, bare = self.row(OURS, streams), self.bare_us.get(BARE_ROWS)
        is_whole = ours is not None and ours.answered == 1.0
        return ours.server_cpu_us / bare if ours and is_whole and bare else None


def measure_frames(settings: Settings, front_end: tuple[str, ...] = ()) -> Frames:
    """front_end: arguments of the service that choose it."""
    with tempfile.TemporaryDirectory() as folder:
        bundle = read_bundle(write_frame_model(Path(folder)))
        most = max(settings.frame_streams)
        arguments = ("--max-streams", str(most + 8), *front_end)
        workers = ("--workers", str(most + 8))
        skipped = {}
        with ExitStack() as children:
            start = children.enter_context
            servers = [start(start_service(Path(folder), arguments=arguments, what=OURS))]
            loop = ["bench.peers.session_loop", "--bundle", str(bundle.folder), *workers]
            servers.append(start(Server(PEER, loop)))
            try:
                servers.append(start(start_triton_stepper(bundle, what=TRITON)))
            except Missing as missing:
                skipped[TRITON] = str(missing)
            rows = _compare(servers, settings)
        bare = {number: _bare_us(bundle, number) for number in (1, BARE_ROWS)}
        return Frames(tuple(rows), bare, skipped)


def _compare(servers: Sequence[Server], settings: Settings) -> list[FrameRow]:
    rounds = min(settings.rounds, settings.frame_rounds)
    contestants: dict[tuple[str, int], Callable[[], FrameRound]] = {
        (server.what, streams): partial(_round, server, streams, settings.frame_seconds)
        for streams in settings.frame_streams
        for server in servers
    }
    with tqdm(total=rounds * len(contestants), desc="frames", disable=None) as bar:
        found = take_turns(contestants, rounds, bar)
    return [FrameRow(what, streams, spread(all_)) for (what, streams), all_ in found.items()]


def _round(server: Server, streams: int, seconds: float) -> FrameRound:
    random = np.random.Generator(np.random.Philox(key=streams))
    frames = [random.uniform(-0.1, 0.1, FRAME).astype("<f4").tobytes() for _ in range(_SOME)]
    call = MODEL_STREAM_INFER if server.what == TRITON else STREAM_STEP
    sent = send_frames(
        server.target, streams, seconds, FRAME_SECONDS, frames, server.cpu_seconds, call
    )
    p50, p99 = p50_p99(np.array(sent.latencies))
    answered = max(1, sent.answered)
    return FrameRound(
        1e6 * sent.server_cpu_seconds / answered,
        1e6 * sent.cpu_seconds / max(1, sent.sent),
        p50,
        p99,
        sent.answered / max(1, sent.sent),
        sent.refused / max(1, sent.sent),
        sent.late / max(1, sent.sent),
    )


def _bare_us(bundle: Bundle, rows: int) -> float:
    """Processor time a row of the graph alone, the state carried on; of the best of five runs."""
    session = open_session(bundle, "step", SessionSettings("cpu", "CPUExecutionProvider", 1))
    manifest = bundle.manifest
    feed = {s.name: np.zeros((rows, *s.shape), s.dtype) for s in manifest.state}
    (frame,) = (port for port in manifest.graphs["step"].inputs if port.name not in feed)
    feed[frame.name] = np.full((rows, FRAME), 0.01, frame.dtype)
    return min(_bare_round(session, feed, rows) for _ in range(5))


def _bare_round(
    session: onnxruntime.InferenceSession, feed: dict[str, NDArray[Any]], rows: int
) -> float:
    count = max(4, 512 // rows)
    started = time.thread_time()
    for _ in range(count):
        _, *after = session.run(None, feed)
        feed.update(zip(list(feed)[:-1], after, strict=True))
    return 1e6 * (time.thread_time() - started) / (count * rows)
