"""The graph that moves streams between rows: Gather(Concat(current, incoming), index)."""

import numpy as np
import onnxruntime
import pytest

from bundle.manifest import ROWS
from bundle.store import read_bundle


@pytest.fixture(params=["letters", "speller"])
def bundle(tiny_models, request):
    return read_bundle(tiny_models / request.param / "1")


@pytest.mark.parametrize(("rows", "incoming", "moved"), [(1, 1, 1), (4, 1, 7), (3, 5, 2)])
def test_every_tensor_moves_by_the_index_of_its_kind(bundle, rows, incoming, moved):
    """Rows, incoming rows and moved rows may each be any number."""
    random, state = np.random.default_rng(rows), bundle.manifest.state
    session = onnxruntime.InferenceSession(bundle.path_of(ROWS))
    kinds = {"from_carried"} | {"from_fixed" for tensor in state if not tensor.carried}
    index = {kind: random.integers(0, rows + incoming, moved) for kind in kinds}
    current = {t.name: random.random((rows, *t.shape), np.float32) for t in state}
    new = {f"incoming_{t.name}": random.random((incoming, *t.shape), np.float32) for t in state}
    found = session.run(None, {**index, **current, **new})
    for tensor, part in zip(state, found, strict=True):
        everything = np.concatenate([current[tensor.name], new[f"incoming_{tensor.name}"]])
        chosen = index["from_carried" if tensor.carried else "from_fixed"]
        assert np.array_equal(part, everything[chosen])


def test_a_classifier_has_no_rows_to_move(tiny_models):
    assert ROWS not in read_bundle(tiny_models / "mood" / "1").manifest.graphs
