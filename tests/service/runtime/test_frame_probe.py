"""What the probe finds of a graph that is stepped over numbers, in every row of its batches."""

import onnxruntime
import pytest

from bundle.manifest import StateTensor
from service.runtime.frame_probe import probe_steps
from service.runtime.frame_runner import FrameRunner
from service.runtime.probe import OutputNotFinite
from service.step_model import FramePort, StepModel
from tests.export import foreign_graphs as graphs

MODEL = StepModel(
    (FramePort("x", "float32", (4,)),),
    (FramePort("y", "float32", (4,)),),
    (StateTensor("s", "float32", (4,), carried=True),),
)


def runner(text: str) -> FrameRunner:
    """Of a graph whose state comes back as ``next_s``."""
    content = graphs.graph(text.replace("s_out", "next_s")).SerializeToString()
    return FrameRunner(onnxruntime.InferenceSession(content, providers=["CPUExecutionProvider"]))


FREE = graphs.LEAKY.replace("float[1,4]", "float[batch,4]")


def test_rows_that_are_independent_keep_their_promise():
    found = probe_steps([runner(FREE), runner(FREE)], MODEL, 1, is_promised=True)
    assert found.batch_invariant
    assert found == probe_steps([runner(FREE)], MODEL, 1, is_promised=True)


@pytest.mark.parametrize("text", [graphs.MIXED, graphs.CROWDED], ids=["mixed", "crowded"])
def test_a_row_that_differs_in_a_batch_breaks_the_promise(text):
    """The first row of the crowded graph does not."""
    assert not probe_steps([runner(text)], MODEL, 1, is_promised=True).batch_invariant


def test_rows_that_may_differ_may_not_be_nan():
    assert not probe_steps([runner(graphs.MIXED)], MODEL, 1, is_promised=False).batch_invariant
    with pytest.raises(OutputNotFinite, match="computes NaN as 'y'"):
        probe_steps([runner(graphs.CROWDED)], MODEL, 1, is_promised=False)


def test_a_row_alone_may_not_be_nan():
    with pytest.raises(OutputNotFinite, match="computes NaN as 'y'"):
        probe_steps([runner(graphs.NOT_FINITE)], MODEL, 1, is_promised=True)
