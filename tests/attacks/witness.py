"""A well-behaved caller: python -m tests.attacks.witness, the process behind harness.Witness.

The first line in, JSON: target, token, models, pause_seconds. It calls each of these,
stores the answers and says so; from then on it calls again and compares, bit by bit. A line in that
says report is answered with what was seen since the last one, as JSON; pause, once no call is
under way; resume, at once. The end of the input ends it.
"""

from __future__ import annotations

import json
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable
from typing import Any

import grpc

from unroll import Client, RequestFailed, Sampling
from unroll.inference import grpc_service_pb2 as inference
from unroll.inference import grpc_service_pb2_grpc
from unroll.v1 import unroll_pb2 as pb

# A call that takes longer has failed.
DEADLINE_SECONDS = 30.0
_WORDS = ["the", "old", "man", "the", "boat"]
_TEXTS = ["a very good film", "it was not so bad at all"]

Call = Callable[[Client], Any]


def calls_of(model: Any) -> dict[str, Call]:
    """A call of each method that the model has; the answers hold no times."""
    name = model.name
    if model.task == pb.TASK_CLASSIFY:
        return {"Classify": lambda client: client.classify(name, _TEXTS)}
    if model.task == pb.TASK_TAG and model.streams_tags:
        return {"StreamTag": lambda client: _stream_tag(client, name)}
    if model.task == pb.TASK_TAG:
        return {"Tag": lambda client: client.tag(name, [_WORDS, *_TEXTS], top=3)}
    if model.task == pb.TASK_GENERATE:
        return {
            "Generate": lambda client: _generate(client, name, prompt="In the beginning"),
            "Score": lambda client: client.score(name, _TEXTS),
            "Score of choices": lambda client: client.score(name, _TEXTS, choices=_TEXTS),
            "Embed": lambda client: client.embed(name, _TEXTS),
        }
    if model.task == pb.TASK_SEQ2SEQ:
        return {"Generate from a source": lambda client: _generate(client, name, source="house")}
    return {}


def _generate(client: Client, name: str, **start: Any) -> Any:
    sampling = Sampling(temperature=0.8, seed=7)
    pieces = list(
        client.generate(name, max_tokens=40, sampling=sampling, log_probabilities=True, **start)
    )
    return [token for piece in pieces for token in piece.tokens]


def _stream_tag(client: Client, name: str) -> Any:
    pieces = list(client.stream_tag(name, [[word] for word in _WORDS], top=2))
    return [token for piece in pieces for token in piece.tokens]


class Notes:
    """What was seen since the last report."""

    def __init__(self, kinds: list[str]) -> None:
        self._kinds = kinds
        self._lock = threading.Lock()
        self._clear()

    def _clear(self) -> None:
        self._calls: Counter[str] = Counter()
        self._failed: list[str] = []
        self._differing: list[str] = []
        self._slowest = dict.fromkeys(self._kinds, 0.0)
        self._lags: list[float] = []

    def call(self, kind: str, seconds: float, failure: str, is_same: bool) -> None:
        with self._lock:
            self._calls[kind] += not failure
            self._slowest[kind] = max(self._slowest[kind], seconds)
            if failure:
                self._failed.append(f"{kind}: {failure}")
            elif not is_same:
                self._differing.append(kind)

    def lag(self, seconds: float, failure: str) -> None:
        with self._lock:
            if failure:
                self._failed.append(f"ServerLive: {failure}")
            else:
                self._lags.append(seconds)

    def take(self) -> dict[str, Any]:
        """Everything, and nothing after it."""
        with self._lock:
            seen = {
                "calls": {kind: self._calls[kind] for kind in self._kinds},
                "failed": self._failed,
                "differing": self._differing,
                "slowest": self._slowest,
                "lags": sorted(self._lags),
            }
            self._clear()
            return seen


class Calls:
    """Whether calls are made: those that are go through ``one``."""

    def __init__(self) -> None:
        self._may_go = threading.Event()
        self._may_go.set()
        self._under_way = threading.Lock(), threading.Lock()

    def one(self, caller: int, call: Callable[[], None]) -> None:
        """Wait for resume() if need be. caller: 0 or 1, one for each thread."""
        self._may_go.wait()
        with self._under_way[caller]:
            if self._may_go.is_set():
                call()

    def pause(self) -> None:
        self._may_go.clear()
        for lock in self._under_way:
            with lock:
                pass

    def resume(self) -> None:
        self._may_go.set()


class Rounds:
    """Calls one after the other, of each kind in turn, counted as whole rounds."""

    def __init__(
        self, client: Client, by_kind: dict[str, Call], pause_seconds: float, calls: Calls
    ) -> None:
        self.ended = 0
        self._calls = calls
        self.notes = Notes(list(by_kind))
        self._client, self._by_kind, self._pause = client, by_kind, pause_seconds
        self._expected = {kind: repr(call(client)) for kind, call in by_kind.items()}
        self._round_ended = threading.Condition()

    def run(self) -> None:
        while True:
            for kind, call in self._by_kind.items():
                self._calls.one(0, lambda kind=kind, call=call: self._call(kind, call))
                time.sleep(self._pause)
            with self._round_ended:
                self.ended += 1
                self._round_ended.notify_all()

    def wait(self) -> None:
        """Until the round that is under way, and a whole one after it, have ended."""
        with self._round_ended:
            wanted = self.ended + 2
            self._round_ended.wait_for(lambda: self.ended >= wanted, 4 * DEADLINE_SECONDS)

    def _call(self, kind: str, call: Call) -> None:
        failure, answer = "", None
        began = time.monotonic()
        try:
            answer = call(self._client)
        except RequestFailed as error:
            failure = str(error)
        seconds = time.monotonic() - began
        self.notes.call(kind, seconds, failure, repr(answer) == self._expected[kind])


def call_the_loop(target: str, notes: Notes, calls: Calls) -> None:
    """A call that needs the event loop and nothing else, again and again."""
    with grpc.insecure_channel(target, [("grpc.use_local_subchannel_pool", 1)]) as channel:
        stub = grpc_service_pb2_grpc.GRPCInferenceServiceStub(channel)

        def call() -> None:
            failure, began = "", time.monotonic()
            try:
                stub.ServerLive(inference.ServerLiveRequest(), timeout=DEADLINE_SECONDS)
            except grpc.RpcError as error:
                failure = f"{error.code().name}: {error.details()}"
            notes.lag(time.monotonic() - began, failure)

        while True:
            calls.one(1, call)
            time.sleep(0.02)


def main() -> None:
    how = json.loads(sys.stdin.readline())
    client = Client(how["target"], DEADLINE_SECONDS, token=how.get("token"))
    by_kind: dict[str, Call] = {}
    for model in client.list_models().models:
        by_kind |= calls_of(model) if model.name in how["models"] else {}
    calls = Calls()
    rounds = Rounds(client, by_kind, how["pause_seconds"], calls)
    for work in (rounds.run, lambda: call_the_loop(how["target"], rounds.notes, calls)):
        threading.Thread(target=work, daemon=True).start()
    print(json.dumps("ready"), flush=True)
    for line in sys.stdin:
        answer: Any = line.strip()
        if answer == "report":
            rounds.wait()
            answer = rounds.notes.take()
        elif answer == "pause":
            calls.pause()
        else:
            calls.resume()
        print(json.dumps(answer), flush=True)


if __name__ == "__main__":
    main()
