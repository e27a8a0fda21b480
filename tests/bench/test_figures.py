"""Percentiles, ratios and verdicts on made-up measurements."""

from dataclasses import dataclass, replace

import numpy as np
import onnx
import pytest
from tqdm import tqdm

from bench.bars import BARS, evaluate
from bench.callers import inter_token_seconds, make_request
from bench.findings import PEER, Findings, ratio
from bench.joining import Joining
from bench.kernels import Kernels, LoopRow
from bench.loops import LoopRound
from bench.medians import alternate, median_round, p50_p99
from bench.memory import Memory
from bench.products import step_matrices
from bench.report import bars_table
from bench.starting import Start
from bench.streams import StreamRound, StreamRow


@dataclass(frozen=True)
class Pair:
    left: float
    right: float


def test_percentiles_are_measured_values():
    """1 … 100 ms: half are at most 51, and 99 % at most 100."""
    waits = np.arange(1, 101) / 1000
    assert p50_p99(waits) == pytest.approx((51, 100))
    assert p50_p99(np.array([])) == (0.0, 0.0)


def test_each_number_has_its_own_median():
    assert median_round([Pair(1, 9), Pair(3, 7), Pair(2, 8)]) == Pair(2, 8)


def test_every_other_round_runs_in_reverse_order():
    order = []
    contestants = {
        what: lambda what=what: order.append(what) or Pair(len(order), 0) for what in "abc"
    }
    found = alternate(contestants, 3, tqdm(disable=True))
    assert order == [*"abccbaabc"]
    assert found["c"] == Pair(4, 0)  # rounds gave 3, 4, 9


def test_a_message_of_several_tokens_shares_the_time_since_the_last():
    """The first message's tokens have nothing to wait since."""
    arrivals = [(10.0, 2), (10.5, 1), (11.1, 3)]
    assert inter_token_seconds(arrivals) == pytest.approx([0.5, 0.2, 0.2, 0.2])
    assert inter_token_seconds(arrivals, begin=11.0) == pytest.approx([0.2, 0.2, 0.2])
    assert inter_token_seconds(arrivals, end=10.6) == pytest.approx([0.5])
    assert len(inter_token_seconds(arrivals[:1])) == 0


def test_only_matrices_that_a_row_is_multiplied_by_count(tmp_path):
    """A looked-up embedding and an added bias are no products."""
    floats = onnx.TensorProto.FLOAT
    nodes = [
        onnx.helper.make_node("Gather", ["embedding", "token"], ["looked_up"]),
        onnx.helper.make_node("MatMul", ["looked_up", "weight"], ["product"]),
        onnx.helper.make_node("Add", ["product", "bias"], ["sum"]),
    ]
    graph = onnx.helper.make_graph(
        nodes,
        "step",
        [onnx.helper.make_tensor_value_info("token", onnx.TensorProto.INT64, ["batch"])],
        [onnx.helper.make_tensor_value_info("sum", floats, ["batch", 20])],
        [
            onnx.helper.make_tensor(name, floats, shape, np.zeros(shape).ravel())
            for name, shape in {"embedding": (7, 5), "weight": (5, 20), "bias": (1, 20)}.items()
        ],
    )
    onnx.save(onnx.helper.make_model(graph), tmp_path / "step.onnx")
    assert step_matrices(tmp_path / "step.onnx") == [(20, 5)]


def test_a_ratio_of_something_unmeasured_is_none():
    assert ratio(3.0, 2.0) == 1.5
    assert ratio(None, 2.0) is None
    assert ratio(3.0, None) is None


def streamed(what: str, streams: int, rate: float, decode_cpu_us: float = 0.0) -> StreamRow:
    round_ = StreamRound(rate, 0, decode_cpu_us, 0, 0, 0, 0, 0, 1)
    return StreamRow(what, streams, 5, round_, None)


FINDINGS = Findings(
    has_int8=True,
    kernels=Kernels(
        loops=(
            LoopRow("bare", "fp32", 1, 1000, 1000),
            LoopRow("bare", "fp32", 16, 5000, 200),
            LoopRow("bare", "fp32", 64, 8000, 125),
            LoopRow("bare", "fp32", 128, 8000, 125),
            LoopRow("engine", "fp32", 1, 900, 1100),
            LoopRow("engine", "fp32", 64, 7920, 126),
            LoopRow("bare", "int8", 1, 2600, 380),
            LoopRow("bare", "int8", 16, 12000, 80),
            LoopRow("bare", "int8", 64, 15200, 66),
            LoopRow("bare", "int8", 128, 18000, 55),
        ),
        inner=512,
        outer=2048,
        flops_per_token=8_000_000,
        product_gflops={16: 60.0, 64: 80.0},
    ),
    streams=(
        streamed("unroll fp32", 64, 6500, 180),
        streamed("unroll int8", 64, 9000, 90),
        streamed(PEER, 64, 1000, 1000),
        StreamRow("bare step fp32", 64, 5, None, LoopRound(8000, 125)),
        streamed("unroll fp32", 1024, 5200),
        streamed("unroll int8", 1024, 9500),
    ),
    joining=(Joining("unroll fp32", 63, 10.0, 25.0, 8000, 900.0, 14.0, 42.0, 1.0),),
    memory=Memory(200, 400, True, 8192, 8192 + 20 * 1024, 20000),
    start=Start(1.0, 400e6),
)
EXPECTED = {
    "engine loop without network / bare step, fp32, batch 64": (0.99, "met, aim too"),
    "engine loop without network / bare step, fp32, batch 1": (0.9, "met"),
    "tokens/s at 64 streams / one loop a request, fp32": (6.5, "met"),
    "tokens/s at 64 streams / one loop a request, int8": (9, "met"),
    "server CPU a token at 64 streams / bare step's, fp32": (1.44, "met"),
    "int8 step / fp32 step, worst of batch 16, 64, 128": (1.9, "met"),
    "int8 step / fp32 step, batch 1": (2.6, "met, aim too"),
    "fp32 step's matrix products / machine's rate, batch 64": (0.8, "MISSED"),
    "time to first token beside 63 streams, in decode steps": (2.5, "met"),
    "p99 inter-token time while 8,000 characters join / without": (3.0, "MISSED"),
    "tokens/s at 1,024 streams / at the best number, fp32": (0.8, "MISSED"),
    "tokens/s at 1,024 streams / at the best number, int8": (1.0, "met, aim too"),
    "memory of a further idle stream, beyond its state": (20, "met"),
    "from process start to ready, all models": (1.0, "met, aim too"),
    "resident when ready, all models": (400, "MISSED"),
}


def test_every_bar_has_its_own_ratio():
    verdicts = {verdict.what: verdict for verdict in evaluate(FINDINGS)}
    assert verdicts.keys() == EXPECTED.keys()
    for what, (value, outcome) in EXPECTED.items():
        assert verdicts[what].value == pytest.approx(value), what
        assert verdicts[what].outcome == outcome, what


def test_a_missed_bar_is_shown_as_missed():
    table = bars_table(evaluate(FINDINGS))
    assert "| resident when ready, all models | ≤ 350 MB | 400.00 MB | MISSED |" in table
    assert table.endswith("11 met, 4 missed, 0 not measured.")


def test_what_was_not_measured_is_neither_met_nor_missed():
    verdicts = evaluate(Findings(has_int8=False))
    assert [verdict.is_met for verdict in verdicts] == [None] * len(BARS)
    assert {verdict.outcome for verdict in verdicts} == {"not measured", "no int8 in this bundle"}


def test_streams_that_ran_on_are_not_weighed_as_idle():
    restless = replace(FINDINGS.memory, settled=False)
    verdicts = evaluate(replace(FINDINGS, memory=restless))
    (memory,) = [verdict for verdict in verdicts if "idle" in verdict.what]
    assert memory.value is None


def test_the_workload_is_the_stated_one():
    request = make_request("prose", 3, 128)
    assert len(request.prompt) == 32
    assert request.max_tokens == 128
    assert request.sampling.temperature == pytest.approx(0.8)
    assert request.sampling.top_p == pytest.approx(0.95)
