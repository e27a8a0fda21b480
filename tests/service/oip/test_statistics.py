"""ModelStatistics while it is read: every answer agrees with itself, whatever calls are doing."""

import random
import threading
import time
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress

import grpc
import pytest

from tests.service.oip.calls import Inference, ask
from tests.service.oip.test_adapters import padded
from tests.service.oip.test_sequences import flags
from tests.tiny import LETTER_READER
from unroll import Client
from unroll.inference import grpc_service_pb2 as pb

MODELS = ("mood", "letters", "tags-online")
PHASES = ("queue", "compute_input", "compute_infer", "compute_output")
CALLERS, ACTIONS = 6, 40
IDS = LETTER_READER.encode("abcd").ids


class Caller:
    """Does one thing after the other and keeps, by model, what became of its requests.

    ended: Counter of (model, "answered" | "refused" | "given up").
    """

    def __init__(self, target, seed):
        self.random = random.Random(seed)
        self.target, self.seed = target, seed
        self.ended = Counter()

    def run(self):
        actions = [
            *(self.classify, self.generate, self.stream, self.sequence, self.step, self.native),
            *(self.be_refused, self.be_refused_in_stream, self.give_up, self.give_up_stream),
        ]
        with Inference(self.target) as self.inference, Client(self.target) as self.client:
            for _ in range(ACTIONS):
                self.random.choice(actions)()
        return self.ended

    def letters(self, count, **parameters):
        said = {"max_tokens": count, "seed": self.random.randrange(99)}
        return ask("letters", {"prompt": ["abc"]}, parameters=said | parameters)

    def answered(self, model, requests=1):
        self.ended[model, "answered"] += requests

    # -- that end well -------------------------------------------------------------------------

    def classify(self):
        rows = self.random.randint(1, 4)
        self.inference.infer("mood", {"text": [["not good"]] * rows})
        self.answered("mood")

    def generate(self):
        self.inference.stub.ModelInfer(self.letters(self.random.randint(1, 20)), timeout=30)
        self.answered("letters")

    def stream(self):
        """Requests side by side on one call."""
        requests = [self.letters(count) for count in self.random.sample(range(1, 20), 3)]
        responses = self.inference.stream(*requests)
        assert not any(response.error_message for response in responses)
        self.answered("letters", len(requests))

    def sequence(self):
        number = f"{self.seed} {self.random.random()}"
        for place in range(3):
            said = flags(number, place, 3)
            self.inference.infer("tags-online", {"text": [["the food"]]}, parameters=said)
            self.answered("tags-online")

    def step(self):
        """Rows that an engine has as pieces of work of their own."""
        self.inference.infer("letters.tensors", padded([IDS, IDS[:2], IDS[:1]]), True)
        self.answered("letters")

    def native(self):
        """The calls of unroll.v1 are counted with them."""
        list(self.client.generate("letters", prompt="abc", max_tokens=9, samples=2))
        list(self.client.stream_tag("tags-online", ["the food", "is good"]))
        self.answered("letters")
        self.answered("tags-online")

    # -- that do not ---------------------------------------------------------------------------

    def be_refused(self):
        with pytest.raises(grpc.RpcError):
            self.inference.stub.ModelInfer(ask("mood", {"text": [[""]]}), timeout=30)
        self.ended["mood", "refused"] += 1

    def be_refused_in_stream(self):
        (response,) = self.inference.stream(self.letters(5, wrong=1))
        assert response.error_message
        self.ended["letters", "refused"] += 1

    def give_up(self):
        requests = {"letters": self.letters(50), "mood": ask("mood", {"text": [["good"]] * 8})}
        model = self.random.choice(list(requests))
        call = self.inference.stub.ModelInfer.future(requests[model], timeout=30)
        time.sleep(self.random.choice((0.0, 0.001, 0.005)))
        call.cancel()
        with suppress(grpc.FutureCancelledError):
            call.result()
        self.ended[model, "given up"] += 1

    def give_up_stream(self):
        call = self.inference.stub.ModelStreamInfer(iter([self.letters(200)]), timeout=30)
        for _ in range(self.random.randint(0, 3)):
            next(call)
        call.cancel()
        self.ended["letters", "given up"] += 1


class Watcher:
    """Reads statistics until it is stopped; seen: of each model, the answers that differ."""

    def __init__(self, read):
        self.read, self.is_stopped = read, threading.Event()
        self.seen = {model: [] for model in MODELS}

    def run(self):
        while not self.is_stopped.is_set():
            for model, stats in self.read():
                counts = (stats.success.count, *(getattr(stats, name).count for name in PHASES))
                if not self.seen[model] or self.seen[model][-1] != counts:
                    self.seen[model].append(counts)
            time.sleep(0.0005)


def test_every_count_agrees_in_every_answer(start_service):
    """However calls end, and whenever between their answer and their end they are looked at."""
    service = start_service()

    def over_the_wire():
        every = reading.stub.ModelStatistics(pb.ModelStatisticsRequest(), timeout=30).model_stats
        return [(one.name, one.inference_stats) for one in every if one.name in MODELS]

    def within():
        """Far more often, so at moments that a call's way through the server hides."""
        return [(m, service.app.registry.find(m).statistics.snapshot()) for m in MODELS]

    callers = [Caller(service.target, seed) for seed in range(CALLERS)]
    with Inference(service.target) as reading, ThreadPoolExecutor(CALLERS + 2) as pool:
        watchers = [Watcher(over_the_wire), Watcher(within)]
        watching = [pool.submit(watcher.run) for watcher in watchers]
        try:
            calls = [pool.submit(caller.run) for caller in callers]
            ended = sum((call.result() for call in calls), Counter())
        finally:
            for watcher in watchers:
                watcher.is_stopped.set()
        for watched in watching:
            watched.result()
    service.run(service.app.inflight.wait_until_empty(10))
    for watcher in watchers:
        for model, seen in watcher.seen.items():
            assert len(seen) > 5, "it was read while calls were going on"
            assert [counts for counts in seen if len(set(counts)) > 1] == [], model
            assert seen == sorted(seen)
    for model, stats in within():
        answered, refused, given_up = (
            ended[model, how] for how in ("answered", "refused", "given up")
        )
        # One that is given up may have been answered by then, or not even have come.
        assert answered <= stats.success.count <= answered + given_up
        assert refused <= stats.fail.count <= refused + given_up
        assert stats.success.count + stats.fail.count <= answered + refused + given_up
        counts = {getattr(stats, name).count for name in PHASES}
        assert counts == {stats.success.count}
