"""Percentiles, ratios and verdicts on made-up measurements."""

import itertools
from dataclasses import dataclass, replace

import numpy as np
import onnx
import pytest
from tqdm import tqdm

from bench.bars import BARS, evaluate
from bench.before import Before, read_before
from bench.callers import inter_token_seconds, make_request
from bench.constrained import Constrained, ConstraintRow
from bench.doors import (
    BARE_GRAPH,
    CLASSIFY,
    EVENTS,
    GENERATE,
    INFER,
    STREAM_INFER,
    DoorRow,
    Doors,
)
from bench.findings import PEER, Findings, ratio
from bench.frames import OURS, FrameRound, FrameRow, Frames
from bench.front_ends import ENVOY, GRPCIO
from bench.joining import Joining
from bench.kernels import WATCHED, Kernels, LoopRow
from bench.loads import LoadRound
from bench.loops import LoopRound
from bench.machine import Machine
from bench.medians import Spread, alternate, median_round, p50_p99, spread
from bench.memory import Memory
from bench.prefixes import PrefixRow
from bench.products import step_matrices
from bench.report import bars_table, write_report
from bench.settings import PROMPT, Settings
from bench.starting import StartRound, StartRow, Starts
from bench.stream_loads import equal_prompts, first_tokens, new_prompts, vectors
from bench.streams import StreamRound, StreamRow, of_foods, single
from bench.words import GREEDY, NUCLEUS, TEMPERATURE_ALONE, WordRow, Words
from bench.workers import CALLED, STREAMED, Workers, WorkersRound, WorkersRow
from bundle.store import read_bundle


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


def test_a_spread_holds_the_extremes_of_each_number():
    found = spread([Pair(1, 9), Pair(3, 7), Pair(2, 8)])
    assert found == Spread(median=Pair(2, 8), least=Pair(1, 7), greatest=Pair(3, 9))


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


def door(unit: str, what: str, per_second: float, cpu_us: float) -> DoorRow:
    return DoorRow(unit, what, spread([LoadRound(per_second, cpu_us, 0)]))


def frames(what: str, streams: int, cpu_us: float, p99_ms: float) -> FrameRow:
    return FrameRow(what, streams, spread([FrameRound(cpu_us, 15, 5.0, p99_ms, 1.0, 0.0, 0.0)]))


def workers(unit: str, count: int, server_cpu_us: float) -> WorkersRow:
    return WorkersRow(unit, count, spread([WorkersRound(2000, server_cpu_us, 20.0, 15.0, 0.5)]))


def start(what: str, seconds: float, resident_bytes: float) -> StartRow:
    return StartRow(what, spread([StartRound(seconds, resident_bytes)]))


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
            LoopRow(WATCHED, "fp32", 64, 4752, 210),
            LoopRow("bare", "int8", 1, 2600, 380),
            LoopRow("bare", "int8", 16, 12000, 80),
            LoopRow("bare", "int8", 64, 15200, 66),
            LoopRow("bare", "int8", 128, 18000, 55),
            LoopRow("engine", "int8", 64, 14440, 69),
        ),
        inner=512,
        outer=2048,
        flops_per_token=8_000_000,
        product_gflops={16: 60.0, 64: 80.0},
    ),
    words=Words(
        (
            WordRow(10_000, 256, NUCLEUS, 160.0, 80.0),
            WordRow(10_000, 512, NUCLEUS, 240.0, 160.0),
            WordRow(10_000, 256, GREEDY, 104.0, 80.0),
            WordRow(10_000, 256, TEMPERATURE_ALONE, 120.0, 80.0),
            WordRow(50_000, 256, NUCLEUS, 1280.0, 400.0),
            WordRow(50_000, 256, GREEDY, 480.0, 400.0),
            WordRow(50_000, 256, TEMPERATURE_ALONE, 520.0, 400.0),
        ),
    ),
    streams=(
        streamed("unroll fp32", 64, 6500, 180),
        streamed("unroll int8", 64, 9000, 90),
        streamed(PEER, 64, 1000, 1000),
        streamed(of_foods("unroll fp32"), 64, 8000, 90),
        StreamRow("bare step fp32", 64, 5, None, LoopRound(8000, 125)),
        StreamRow("bare step int8", 64, 5, None, LoopRound(18000, 60)),
        streamed("unroll int8", 1, 3000),
        StreamRow("bare step int8", 1, 5, None, LoopRound(6000, 160)),
        streamed("unroll int8", 16, 8400),
        streamed(single("unroll int8"), 16, 6600),
        StreamRow("bare step int8", 16, 5, None, LoopRound(12000, 80)),
        streamed(single("unroll int8"), 64, 9900),
        streamed("unroll int8", 256, 9500),
        StreamRow("bare step int8", 256, 5, None, LoopRound(19000, 52)),
        streamed("unroll fp32", 1024, 5200),
        streamed("unroll int8", 1024, 9500),
    ),
    joining=(
        Joining("unroll fp32", 63, 10.0, 25.0, 8000, 900.0, 500.0, 14.0, 42.0, 1.0, 2000, 15.0),
        Joining("unroll int8", 63, 4.0, 18.0, 8000, 900.0, 400.0, 14.0, 42.0, 1.0, 2000, 6.0),
    ),
    constrained=Constrained(
        (ConstraintRow("choices", 40, 90, 3.0, 12.0), ConstraintRow("regex", 9, 60, 7.5, 30.0))
    ),
    prefixes=(
        PrefixRow("fp32", 2000, 50.0, 50.25, 0.005, 0.4, 1.2),
        PrefixRow("int8", 2000, 100.0, 100.1, 0.001, 0.3, 1.3),
    ),
    memory=Memory(200, 400, True, 8192, 8192 + 20 * 1024, 20000),
    doors=Doors(
        rows=(
            door(INFER, GRPCIO, 1200, 900),
            door(INFER, ENVOY, 4000, 290),
            door(INFER, "Triton", 3600, 320),
            door(CLASSIFY, GRPCIO, 2000, 400),
            door(CLASSIFY, ENVOY, 3000, 300),
            door(CLASSIFY, BARE_GRAPH, 5000, 200),
            door(STREAM_INFER, GRPCIO, 5000, 290),
            door(STREAM_INFER, ENVOY, 10000, 90),
            door(GENERATE, ENVOY, 10000, 80),
            door(EVENTS, ENVOY, 9000, 100),
        ),
        skipped={"pyvoy": "this Python has no shared libpython"},
        callers=64,
        precision="int8",
    ),
    workers=Workers(
        rows=(
            workers(STREAMED, 1, 50.0),
            workers(STREAMED, 2, 50.0),
            workers(CALLED, 1, 400.0),
            workers(CALLED, 2, 500.0),
        ),
        callers=64,
        resident_bytes={1: 400_000_000, 2: 700_000_000},
        proportional_bytes={1: 400_000_000, 2: 700_000_000},
    ),
    frames=Frames(
        rows=(
            frames(OURS, 64, 150, 12.0),
            frames(OURS, 256, 100, 20.0),
            frames(OURS, 1000, 80, 900.0),  # faster a frame, and too late
            frames("one session a stream", 16, 640, 30.0),
            frames("one session a stream", 64, 500, 400.0),
        ),
        bare_us={1: 110.0, 64: 60.0},
    ),
    start=Starts((start(GRPCIO, 0.9, 300e6), start(ENVOY, 2.0, 450e6)), {}),
)
EXPECTED = {
    "engine loop without network / bare step, fp32, batch 64": (0.99, "met, aim too"),
    "engine loop without network / bare step, fp32, batch 1": (0.9, "met"),
    "engine loop without network / bare step, int8, batch 64": (0.95, "met"),
    "engine loop, whole state watched / not watched, fp32, batch 64": (0.6, "met"),
    "tokens/s at 64 streams / one loop a request, fp32": (6.5, "met"),
    "tokens/s at 64 streams / one loop a request, int8": (9, "met"),
    "server CPU a token at 64 streams / bare step's, fp32": (1.44, "MISSED"),
    "server CPU a token at 64 streams / bare step's, int8": (1.5, "met"),
    "tokens/s at 1 streams / bare step, int8": (0.5, "MISSED"),
    "tokens/s at 16 streams / bare step, int8": (0.7, "met, aim too"),
    "tokens/s at 64 streams / bare step, int8": (0.5, "MISSED"),
    "tokens/s at 256 streams / bare step, int8": (0.5, "MISSED"),
    "tokens/s at 16 streams, one token a message / bare step, int8": (0.55, "met"),
    "tokens/s at 64 streams, one token a message / bare step, int8": (0.55, "met"),
    "server CPU a ModelInfer of one text, 64 callers": (290, "met"),
    "ModelInfer of one text, 64 callers": (4000, "met"),
    "server CPU a text of Classify, 32 a request / bare graph's": (1.5, "MISSED"),
    "ModelStreamInfer at 64, one token a message: envoy / grpcio": (2, "met"),
    "server CPU a token at 64, one a message: server-sent events / gRPC": (1.25, "met"),
    "streams of frames a core, p99 at most 32 ms / one session a stream": (6.4, "met"),
    "server CPU a frame at 64 streams / bare step's of 64 rows": (2.5, "met"),
    "two workers on two cores / one on one, token of Generate": (2.0, "met, aim too"),
    "two workers on two cores / one on one, request of ModelInfer": (1.6, "MISSED"),
    "int8 step / fp32 step, worst of batch 16, 64, 128": (1.9, "met"),
    "int8 step / fp32 step, batch 1": (2.6, "met, aim too"),
    "fp32 step's matrix products / machine's rate, batch 64": (0.8, "MISSED"),
    "step at 10,000 words, 64 rows, top-p / its products": (2.0, "met"),
    "step at 50,000 words, 64 rows, top-p / its products": (3.2, "MISSED"),
    "step at 10,000 words, 64 rows, greedy or temperature / its products": (1.5, "met"),
    "step at 50,000 words, 64 rows, greedy or temperature / its products": (1.3, "met, aim too"),
    "server CPU a token at 64 streams, of 4,801 foods / of prose, fp32": (0.5, "met, aim too"),
    "a constrained token's mask at 10,000 words, µs": (7.5, "met"),
    "time to first token beside 63 streams, in decode steps, fp32": (2.5, "met"),
    "time to first token beside 63 streams, in decode steps, int8": (4.5, "MISSED"),
    "first token of 8,000 characters beside 63 streams / alone, fp32": (1.8, "met"),
    "first token of 8,000 characters beside 63 streams / alone, int8": (2.25, "MISSED"),
    "time to first token of a cached prompt beside 63 streams, in decode steps": (1.5, "met"),
    "processor time of a prompt that the prefix cache does not know / without one": (0.5, "met"),
    "p99 inter-token time while 8,000 characters join / without": (3.0, "MISSED"),
    "tokens/s at 1,024 streams / at the best number, fp32": (0.8, "MISSED"),
    "tokens/s at 1,024 streams / at the best number, int8": (1.0, "met, aim too"),
    "memory of a further idle stream, beyond its state": (20, "met"),
    "from process start to ready, all models": (2.0, "met"),
    "resident when ready, all models": (450, "MISSED"),
}


def test_every_bar_has_its_own_ratio():
    verdicts = {verdict.what: verdict for verdict in evaluate(FINDINGS)}
    assert verdicts.keys() == EXPECTED.keys()
    for what, (value, outcome) in EXPECTED.items():
        assert verdicts[what].value == pytest.approx(value), what
        assert verdicts[what].outcome == outcome, what


def test_a_missed_bar_is_shown_as_missed():
    table = bars_table(evaluate(FINDINGS))
    assert (
        "| resident when ready, all models | ≤ 380 MB (aim 300 MB) | 450.00 MB | MISSED |" in table
    )
    assert table.endswith("31 met, 13 missed, 0 not measured.")


def test_bars_are_of_grpcio_where_envoy_is_missing():
    only = tuple(row for row in FINDINGS.doors.rows if row.what != ENVOY)
    start_rows = tuple(row for row in FINDINGS.start.rows if row.what != ENVOY)
    findings = replace(
        FINDINGS,
        doors=replace(FINDINGS.doors, rows=only),
        start=replace(FINDINGS.start, rows=start_rows),
    )
    found = {verdict.what: verdict for verdict in evaluate(findings)}
    assert found["server CPU a ModelInfer of one text, 64 callers"].value == 900
    assert found["from process start to ready, all models"].value == 0.9
    gain = found["ModelStreamInfer at 64, one token a message: envoy / grpcio"]
    assert (gain.value, gain.outcome) == (None, "not measured")


def test_the_page_shows_spreads_and_what_could_not_run():
    rounds = [LoadRound(rate, cpu, 100.0) for rate, cpu in ((900, 1.5), (1000, 1.25), (1200, 1.0))]
    doors = replace(FINDINGS.doors, rows=(DoorRow(INFER, GRPCIO, spread(rounds)),))
    findings = replace(FINDINGS, doors=doors, streams=())
    machine = Machine("a CPU", 2, (), "Linux", "3.11", {}, 0.1)
    page = write_report(findings, evaluate(findings), machine, Settings())
    figures = "1,000 (900 – 1,200) | 1.2 (1.0 – 1.5) | 100 (100 – 100)"
    assert f"| request of ModelInfer | grpcio | {figures} |" in page
    assert "Not measured: pyvoy (this Python has no shared libpython)." in page
    assert "| envoy | 2.00 (2.00 – 2.00) | 450 (450 – 450) |" in page
    assert "| 10,000 | 256 | top-p | 160 | 80 | 2.00 |" in page


def test_figures_of_before_stand_beside_those_of_the_run():
    resident = "resident when ready, all models"
    earlier = Before("abc1234", "2026-01-02", {"A": "one CPU", "B": "other"}, "Read on.", {
        resident: (None, "444 MB"), "tokens/s of long ago": ("1", "2"),
    })  # fmt: skip
    machine = Machine("a CPU", 2, (), "Linux", "3.11", {}, 0.1)
    findings = replace(FINDINGS, streams=())
    page = write_report(findings, evaluate(findings), machine, Settings(), earlier)
    section = page.split("## Before and now")[1].split("## ")[0]
    assert section.strip().splitlines()[:3] == [
        "| what | before, A | before, B | this run |",
        "| --- | --- | --- | --- |",
        f"| {resident} | – | 444 MB | 450.00 MB |",
    ]
    assert "abc1234 of 2026-01-02" in section
    assert "A: one CPU; B: other. This run: a CPU, 2 cores" in section
    assert "long ago" not in section


def test_a_run_of_none_of_the_figures_of_before_does_not_show_them():
    findings = Findings(has_int8=True)
    machine = Machine("a CPU", 2, (), "Linux", "3.11", {}, 0.1)
    page = write_report(findings, evaluate(findings), machine, Settings(), read_before())
    assert "Before and now" not in page


def test_each_figure_of_before_is_of_a_bar_and_of_every_machine():
    before = read_before()
    assert before.figures.keys() <= {bar.what for bar in BARS}
    assert {len(figures) for figures in before.figures.values()} == {len(before.machines)}


def test_what_was_not_measured_is_neither_met_nor_missed():
    verdicts = evaluate(Findings(has_int8=False))
    assert [verdict.is_met for verdict in verdicts] == [None] * len(BARS)
    assert {verdict.outcome for verdict in verdicts} == {"not measured", "no int8 in this bundle"}


def test_streams_that_ran_on_are_not_weighed_as_idle():
    restless = replace(FINDINGS.memory, settled=False)
    verdicts = evaluate(replace(FINDINGS, memory=restless))
    (memory,) = [verdict for verdict in verdicts if "idle" in verdict.what]
    assert memory.value is None


def test_each_seed_has_its_own_prompt_of_the_same_characters():
    prompts = [make_request("prose", seed, 1).prompt for seed in range(100)]
    assert len(set(prompts)) == 100
    assert {"".join(sorted(prompt)) for prompt in prompts} == {"".join(sorted(PROMPT))}
    assert make_request("prose", 7, 1).prompt == prompts[7]


def test_no_prompt_of_a_run_comes_twice_and_the_cache_is_asked():
    numbers = itertools.count()
    loads = [new_prompts("prose", streams, 8, numbers) for streams in (3, 5)]
    requests = [request for load in (*loads, *loads) for request in load()]
    assert len({request.prompt for request in requests}) == len(requests) == 16
    assert not any(request.no_cache for request in requests)


def test_equal_prompts_have_seeds_of_their_own():
    requests = equal_prompts("prose", 4, 8)()
    assert {request.prompt for request in requests} == {PROMPT}
    assert len({request.sampling.seed for request in requests}) == 4
    assert not any(request.no_cache for request in requests)


def test_streams_of_vectors_may_be_as_long_as_the_model_allows(tiny_models):
    manifest = read_bundle(tiny_models / "foods" / "1").manifest
    first, second = vectors(manifest, 2, itertools.count())()
    assert len(first.vector.values) == len(manifest.vector)
    assert first.vector != second.vector
    assert (first.max_tokens, first.min_tokens) == (manifest.limits["output_tokens"], 0)
    few = first_tokens(first)  # for the channel to connect
    assert (few.max_tokens, few.vector) == (4, first.vector)


def test_the_workload_is_the_stated_one():
    request = make_request("prose", 3, 128)
    assert len(request.prompt) == 32
    assert request.max_tokens == 128
    assert request.sampling.temperature == pytest.approx(0.8)
    assert request.sampling.top_p == pytest.approx(0.95)
