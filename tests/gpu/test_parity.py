"""Every graph of the bundled models on CUDA against the same graph on the CPU.

CUDA promises no bits: cuBLAS and cuDNN add in another order, and choose it by the batch.
A product of the largest model sums up to 1,024 terms; in fp32 that is off by about 2e-6 of
its size, and a few layers, gates and a dozen tokens carry that to some 1e-5. With TF32, whose
factors have 10 bits, it would be off by 1e-3: the tolerance lies between the two.
"""

import numpy as np
import pytest

from bundle.manifest import ROWS
from bundle.sampling import GRAPH_PARAMETERS
from bundle.store import read_bundle
from service.runtime.devices import CPU_PROVIDER, CUDA_PROVIDER
from service.runtime.sessions import SessionSettings, open_session
from tests.gpu.cuda import MODELS

pytestmark = pytest.mark.gpu

ABSOLUTE, RELATIVE = 1e-4, 1e-5
SIZES = ((1, 1), (1, 9), (2, 7), (16, 2), (5, 12), (64, 4))  # (batch, time)
ROUNDS = 3  # each from the CPU's state of the one before, so that only one run's error counts

GRAPHS = [
    (bundle.manifest.name, graph)
    for bundle in (read_bundle(folder) for folder in sorted(MODELS.glob("*/1")))
    for graph in bundle.manifest.graphs
    if not graph.endswith("_int8")
]
CPU = SessionSettings("cpu", CPU_PROVIDER, 1)
CUDA = SessionSettings("cuda", CUDA_PROVIDER, 1)


def feed(spec, batch, time, vocabulary, state, random):
    """Valid inputs; ``state`` for those it names."""
    return {port.name: state.get(port.name, _made(port, batch, time, vocabulary, random))
            for port in spec.inputs}  # fmt: skip


def _made(port, batch, time, vocabulary, random):
    sizes = {"batch": batch, "time": time, "rows": batch, "incoming": batch, "adjusted": batch}
    shape = [sizes[axis] if isinstance(axis, str) else axis for axis in port.shape]
    choices = {
        "lengths": np.arange(1, time + 1),
        **{name: parameter.parity for name, parameter in GRAPH_PARAMETERS.items()},
        "seen": (False, True),
        "uniform": np.linspace(0.01, 0.99, 9),
        "from_carried": np.arange(2 * batch),
        "from_fixed": np.arange(2 * batch),
        "token": np.arange(1, vocabulary),
        "tokens": np.arange(1, vocabulary),
        "targets": np.arange(1, vocabulary),
    }
    if port.name == "memory_mask":
        return (np.arange(shape[1]) < random.integers(1, shape[1] + 1, (shape[0], 1))).astype("f4")
    if port.name == "adjusted":
        return np.arange(batch)
    if port.name == "retries":
        return random.random(shape, dtype=np.float32)
    if port.name in choices:
        return random.choice(np.asarray(choices[port.name]), shape).astype(port.dtype)
    return random.uniform(-1, 1, shape).astype(port.dtype)


@pytest.mark.parametrize(("name", "graph"), GRAPHS)
@pytest.mark.parametrize(("batch", "time"), SIZES)
def test_cuda_computes_what_the_cpu_computes(name, graph, batch, time):
    bundle = read_bundle(MODELS / name / "1")
    spec = bundle.manifest.graphs[graph]
    vocabulary = min(len(t.vocabulary) for t in bundle.tokenizers.values())
    sessions = [open_session(bundle, graph, settings) for settings in (CPU, CUDA)]
    random, state = np.random.default_rng(batch * 100 + time), {}
    names = [port.name for port in spec.outputs]
    for _ in range(ROUNDS):
        inputs = feed(spec, batch, time, vocabulary, state, random)
        expected, found = (
            dict(zip(names, session.run(names, inputs), strict=True)) for session in sessions
        )
        for output in set(names) - {"next_token", "log_probability"}:
            if graph == ROWS:
                assert np.array_equal(found[output], expected[output]), output
            elif output == "logits":  # a sum of large terms: its row is its scale
                scale = RELATIVE * np.abs(expected[output]).max() + ABSOLUTE
                assert np.abs(found[output] - expected[output]).max() <= scale
            else:
                np.testing.assert_allclose(found[output], expected[output], RELATIVE, ABSOLUTE)
        if "next_token" in names:
            check_draws(inputs, expected, found)
        state = {n.removeprefix("next_"): rows for n, rows in expected.items()}


def check_draws(inputs, expected, found):
    """Where the likeliest is so by far, both take it; a draw near an edge may differ."""
    greedy = (inputs["temperature"] == 0) & ~inputs["seen"].any(axis=1)
    known = np.sort(expected["log_probabilities"] + inputs["bias"], axis=1)
    clear = greedy & (known[:, -1] - known[:, -2] > 10 * ABSOLUTE)
    assert np.array_equal(found["next_token"][clear], expected["next_token"][clear])


@pytest.mark.parametrize("name", sorted({name for name, graph in GRAPHS if graph == "step"}))
def test_a_generating_bundle_can_be_served_on_cuda(name):
    """Without the graph ``rows`` the service refuses it there; export it again."""
    assert (name, ROWS) in GRAPHS
