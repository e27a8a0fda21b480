"""A model that is pure arithmetic, so that engines can be tested without graphs."""

from __future__ import annotations

import numpy as np

from service.engine.arena import StateSpec
from service.engine.generating import GenerateEngine, GenerationModel
from service.engine.requests import Failed, Finished, Generation, Sampling, TokenMade

VOCABULARY = 20
END = 19
HIDDEN = StateSpec("hidden", "float32", (2,), carried=True)


def after(hidden, token):
    """The state after reading one token: depends on all that was read and on its order."""
    return (hidden * 3 + token + 1) % 101


class FakeRunner:
    """next token = (state + 10 * uniform) mod END; reads NaN nowhere, or the test fails."""

    def __init__(self):
        self.sides = ()
        self.step_rows = []
        self.prime_calls = []
        self.fail_next = False

    def attach(self, sides):
        self.sides = sides

    def prime(self, tokens, states):
        self.prime_calls.append([len(row) for row in tokens])
        primed = []
        for row, state in zip(tokens, states, strict=True):
            hidden = np.zeros(2, np.float32) if state is None else state["hidden"].copy()
            for token in row:
                hidden = after(hidden, token)
            primed.append({"hidden": hidden})
        return primed

    def step(self, side, rows):
        if self.fail_next:
            raise RuntimeError("the kernel broke")
        self.step_rows.append(rows)
        inputs, outputs = self.sides[side].inputs, self.sides[side].outputs
        assert np.isfinite(inputs["hidden"][:rows]).all()
        hidden = after(inputs["hidden"][:rows], inputs["token"][:rows, None])
        outputs["next_hidden"][:rows] = hidden
        drawn = (
            hidden[:, 0] + 10 * inputs["uniform"][:rows] * (inputs["temperature"][:rows] > 0)
        ) % END
        outputs["next_token"][:rows] = drawn.astype(np.int64)
        outputs["log_probability"][:rows] = -drawn


class Heard:
    """An observer that remembers."""

    def __init__(self):
        self.ended = []
        self.rows = []
        self.idles = 0

    def stepped(self, rows, waiting, primed_tokens, seconds):
        self.rows.append(rows)

    def began(self, queue_seconds):
        pass

    def first_token(self, seconds):
        pass

    def tokens_followed(self, count, seconds):
        assert count >= 0

    def finished(self, reason, input_tokens, output_tokens):
        self.ended.append((reason, input_tokens, output_tokens))

    def idle(self):
        self.idles += 1


class Clock:
    def __init__(self):
        self.now = 100.0

    def __call__(self):
        self.now += 0.001
        return self.now


def make_engine(capacity=8, begin_id=None, end_id=None):
    pieces = [chr(ord("a") + token) for token in range(VOCABULARY)]
    model = GenerationModel((HIDDEN,), begin_id, end_id, (pieces, pieces))
    return GenerateEngine(model, FakeRunner(), capacity, Clock(), Heard())


def request(tokens=(1, 2, 3), max_tokens=5, seed=0, temperature=1.0, stop=()):
    return Generation(tuple(tokens), Sampling(temperature, 0, 1.0, seed), max_tokens, stop, 100.0)


def collect(deliveries, events):
    for sink, event in deliveries:
        events.setdefault(sink, []).append(event)


def run_alone(generation, **options):
    """The events of one request in an engine of its own."""
    engine = make_engine(**options)
    engine.arrive(engine.open(generation, "alone"))
    events = {}
    while not engine.is_idle:
        collect(engine.step(), events)
    return events["alone"]


def tokens_of(events):
    return [event for event in events if isinstance(event, TokenMade)]


def last_of(events):
    assert isinstance(events[-1], Finished | Failed)
    return events[-1]
