"""A model that is pure arithmetic, so that engines can be tested without graphs."""

from __future__ import annotations

import numpy as np

from bundle.manifest import StateTensor
from bundle.sampling import NEUTRAL
from service.engine.decode import GenerateEngine
from service.engine.dynamic_batcher import BatchDone
from service.engine.requests import (
    Failed,
    Finished,
    GenerateRequest,
    Sampling,
    TokenMade,
    TokensMade,
)
from service.engine.step_engine import GenerationModel
from service.serving.model_info import ModelCard

VOCABULARY = 20
END = 19
HIDDEN = StateTensor("hidden", "float32", (2,), carried=True)
MEMORY = StateTensor("memory", "float32", (1,), carried=False)


def after(hidden, token):
    """The state after reading one token: depends on all that was read and on its order."""
    return (hidden * 3 + token + 1) % 101


class FakeRunner:
    """Scores fall with the distance from (state + 10 * uniform) mod END.

    Reads NaN nowhere, or the test fails.
    """

    def __init__(self):
        self.sides = ()
        self.step_rows = []
        self.prefill_calls = []
        self.fail_next = False

    def attach(self, sides):
        self.sides = sides

    def prefill(self, tokens, states):
        self.prefill_calls.append([len(row) for row in tokens])
        prefilled = []
        for row, state in zip(tokens, states, strict=True):
            hidden = np.zeros(2, np.float32) if state is None else state["hidden"].copy()
            for token in row:
                hidden = after(hidden, token)
            prefilled.append({"hidden": hidden, "memory": np.array([sum(row)], np.float32)})
        return prefilled

    def step(self, side, rows):
        if self.fail_next:
            raise RuntimeError("the kernel broke")
        self.step_rows.append(rows)
        buffers = self.sides[side]
        inputs, outputs, adjusted = buffers.inputs, buffers.outputs, buffers.use.adjusted
        for array in inputs.values():
            assert not np.isnan(array[:rows]).any()
        hidden = after(inputs["hidden"][:rows], inputs["token"][:rows, None])
        outputs["next_hidden"][:rows] = hidden
        goal = hidden[:, 0] + (inputs["memory"][:rows, 0] if "memory" in inputs else 0)
        goal = goal + 10 * inputs["uniform"][:rows] * (inputs["temperature"][:rows] > 0)
        scores = -((np.arange(VOCABULARY) - goal.astype(np.int64)[:, None] % END) % VOCABULARY)
        scores = scores.astype(np.float32)
        known = scores - np.log(np.exp(scores).sum(axis=1, keepdims=True))
        which, seen, bias = (rows[:adjusted] for rows in buffers.adjusted.values())
        assert len(set(which.tolist())) == adjusted
        penalty = np.where(seen, inputs["repetition"][which, None], 1)
        adjusted_scores = scores.copy()
        adjusted_scores[which] = scores[which] * penalty + bias
        drawn = adjusted_scores.argmax(axis=1)
        outputs["next_token"][:rows] = drawn
        if buffers.use.reports:
            buffers.reports["log_probabilities"][:rows] = known
        outputs["log_probability"][:rows] = known[np.arange(rows), drawn]


class Recorder:
    """An observer that remembers."""

    def __init__(self):
        self.ended = []
        self.rows = []
        self.idles = 0
        self.waiting_for_readers = 0
        self.preemptions = 0
        self.broken = 0
        self.answers = []
        self.found = []

    def stepped(self, rows, waiting, prefill_tokens, seconds, prefill_seconds, followed=0, gap=0.0):
        assert followed >= 0
        self.rows.append(rows)

    def began(self, queue_seconds, is_resumed):
        pass

    def answered(self, queue_seconds, compute_seconds):
        self.answers.append((queue_seconds, compute_seconds))

    def first_token(self, seconds):
        pass

    def paused(self, count):
        self.waiting_for_readers = count

    def preempted(self):
        self.preemptions += 1

    def finished(self, reason, input_tokens, output_tokens):
        self.ended.append((reason, input_tokens, output_tokens))

    def not_finite(self):
        self.broken += 1

    def prefix_found(self, tokens):
        self.found.append(tokens)

    def idle(self):
        self.idles += 1


class Clock:
    def __init__(self):
        self.now = 100.0

    def __call__(self):
        self.now += 0.001
        return self.now


class Reader:
    """A sink that keeps what it got; ``room``: how many events until it is full."""

    is_due = True

    def __init__(self, room=10**9, tokens_at_once=1):
        self.events = []
        self.room = room
        self.tokens_at_once = tokens_at_once
        self.runs = []  # sizes of what came as one event

    def put(self, event):
        if type(event) is TokensMade:
            self.runs.append(len(event.tokens))
            self.events += event.one_by_one()
        else:
            self.events.append(event)

    def mark_if_full(self):
        return len(self.events) >= self.room

    def wake(self):
        pass

    @property
    def tokens(self):
        return [event for event in self.events if isinstance(event, TokenMade)]

    def of(self, kind):
        return [event for event in self.events if isinstance(event, kind)]

    @property
    def last(self):
        assert isinstance(self.events[-1], Finished | Failed), self.events[-1]
        return self.events[-1]


def make_engine(capacity=8, begin_id=None, end_id=None, prefixes=None):
    pieces = [chr(ord("a") + token) for token in range(VOCABULARY)]
    state = (HIDDEN,) if begin_id is None else (MEMORY, HIDDEN)
    model = GenerationModel(state, begin_id, end_id, (pieces, pieces), never_sampled_ids=(0,))
    return GenerateEngine(model, FakeRunner(), capacity, Clock(), Recorder(), prefixes=prefixes)


def request(tokens=(1, 2, 3), max_tokens=5, seed=0, temperature=1.0, stop=(), **others):
    drawing = {k: others.pop(k) for k in list(others) if k in {*NEUTRAL, "bias", "allowed"}}
    sampling = Sampling.of(seed, temperature=temperature, **drawing)
    return GenerateRequest(tuple(tokens), sampling, max_tokens, stop, 100.0, **others)


def run_alone(generation, **options):
    """The reader of one request in an engine of its own."""
    engine, reader = make_engine(**options), Reader()
    engine.arrive(engine.open(generation, reader))
    run(engine)
    return reader


def run(engine):
    while not engine.is_idle:
        engine.step()


class FakeThread:
    """Answers each item at once with what ``predict`` makes of it."""

    def __init__(self, predict):
        self.predict = predict
        self.items = []
        self.released = 0

    def submit(self, items, sink, size):
        self.items += items
        sink.put(BatchDone([self.predict(item) for item in items]))
        sink.wake()

    def release(self, work, has_ended=False):
        self.released += 1


def card(name, task, labels=(), limits=None, version="1"):
    return ModelCard(
        name=name,
        version=version,
        task=task,
        description="",
        labels=labels,
        vector_fields=(),
        streams_tags=False,
        limits=limits or {},
        sampling={"temperature": 1.0, "top_k": 0, "top_p": 1.0},
        figures=(),
        data=(),
        digest="d" * 64,
        provider="none",
        precision="fp32",
        precisions=("fp32",),
        vocabulary=(),
        input_ids=0,
        state=(),
        batch_invariant=True,
        fingerprint="f" * 64,
    )
