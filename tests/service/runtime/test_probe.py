import numpy as np
import pytest

from bundle.manifest import ROWS
from bundle.store import read_bundle
from service.runtime.probe import OutputNotFinite, computes_alike, probe
from service.runtime.sessions import SessionSettings, open_session
from tests.tiny import NAMES

CPU = SessionSettings("cpu", "CPUExecutionProvider", 1)


@pytest.fixture
def sessions(tiny_models):
    def of(name):
        bundle = read_bundle(tiny_models / name / "1")
        graphs = [graph for graph in bundle.manifest.graphs if graph != ROWS]
        return {graph: open_session(bundle, graph, CPU) for graph in graphs}

    return of


class Leaning:
    """A session whose rows lean on the number of their batch-mates, or on how they are cut."""

    def __init__(self, session, graph_axis):
        self.session, self.axis = session, graph_axis

    def __getattr__(self, name):
        return getattr(self.session, name)

    def run(self, names, feed):
        size = feed["tokens"].shape[self.axis]
        return [out + np.float32(1e-6) * size for out in self.session.run(names, feed)]


@pytest.mark.parametrize("name", NAMES)
def test_rows_are_found_to_be_independent(sessions, name):
    probed = probe(sessions(name), 5)
    assert probed.batch_invariant
    assert len(probed.fingerprint) == 64
    assert probe(sessions(name), 5) == probed, "the probe is made of the same rows each time"


@pytest.mark.parametrize("axis", [0, 1], ids=["batch", "pieces"])
def test_a_kernel_that_leans_on_its_batch_is_found(sessions, axis):
    found = sessions("letters")
    honest = probe(found, 5)
    leaning = probe(found | {"prime": Leaning(found["prime"], axis)}, 5)
    assert not leaning.batch_invariant
    assert leaning.fingerprint != honest.fingerprint


def test_other_weights_have_another_fingerprint(sessions):
    found = sessions("letters")
    assert probe({"step": found["step"]}, 5) != probe({"step": found["step_int8"]}, 5)


def test_a_session_on_more_threads_must_compute_the_same(sessions):
    found = sessions("letters")
    assert computes_alike([found["step"]], found["step"], 5)
    assert not computes_alike([found["step_int8"]], found["step"], 5)


class Giving:
    """A session one of whose outputs holds ``value`` in its last place."""

    def __init__(self, session, output, value):
        self.session, self.output, self.value = session, output, value

    def __getattr__(self, name):
        return getattr(self.session, name)

    def run(self, names, feed):
        ports = names or [port.name for port in self.session.get_outputs()]
        outputs = self.session.run(names, feed)
        if self.output in ports:
            outputs[ports.index(self.output)].flat[-1] = self.value
        return outputs


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize(
    ("name", "graph", "output"),
    [
        ("mood", "predict", "probabilities"),
        ("letters", "step", "log_probabilities"),
        ("letters", "step", "logits"),
        ("letters", "step", "next_hidden_0"),
        ("letters", "score", "log_probabilities"),
        ("speller", "prime", "next_memory"),
    ],
)
def test_an_output_that_is_not_finite_is_refused(sessions, name, graph, output, value):
    """But for the logarithm of a probability of zero, which is -inf."""
    giving = {graph: Giving(sessions(name)[graph], output, value)}
    if value == -np.inf and output.startswith("log_"):
        assert probe(giving, 5)
        return
    with pytest.raises(OutputNotFinite, match=f"graph '{graph}' computes .* as '{output}'"):
        probe(giving, 5)


def test_a_session_on_more_threads_that_gives_nan_is_not_alike(sessions):
    step = sessions("letters")["step"]
    assert not computes_alike([Giving(step, "log_probability", np.nan)], step, 5)
