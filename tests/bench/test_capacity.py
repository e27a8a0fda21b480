"""The arithmetic of docs/capacity.md, on figures that can be checked by hand."""

from dataclasses import replace

import pytest

from bench.capacity import request_of
from bench.capacity_page import BUSY, Findings, WorkersCost, page
from bench.machine import Machine

MACHINE = Machine("a CPU", 2, ("avx2",), "Linux", "3.11", {"onnxruntime": "1"}, 0.1)


def cost(tokens_per_second, cpu_us):
    return {"tokens_per_second": tokens_per_second, "cpu_us": cpu_us}


@pytest.fixture
def found():
    return Findings(
        streams={
            "1": {"fp32": cost(900, 1000.0), "int8": cost(2500, 400.0)},
            "64": {"fp32": cost(8000, 120.0), "int8": cost(16000, 60.0)},
        },
        models={"food fp32": cost(20000, 40.0), "prose int8": cost(16000, 60.0)},
        replicas={"1 fp32": cost(8000, 120.0), "2 fp32": cost(6000, 150.0)},
        sized_tokens=40,
        parameters={"food": 700_000, "prose": 3_300_000},
        vocabularies={"food": 2500, "prose": 68},
        stream_bytes=50_000.0,
        state_bytes=8192,
        process_bytes=300_000_000,
        workers={
            "1": WorkersCost(64, 72.0, 15.0, 30.0, 280_000_000),
            "2": WorkersCost(64, 80.0, 16.0, 32.0, 530_000_000),
        },
    )


def test_cores_are_rate_times_cost_over_what_one_may_carry(found):
    text = page(found, MACHINE, 3, 128)
    words = " ".join(text.split())
    cores = 1_000_000 * 5 * 60e-6 / BUSY / 0.9
    assert f"need {cores:,.0f} cores, which are 35 machines of 16" in words
    assert "and 50 GB of memory between them: 28,571 streams and 1.4 GB each, beside" in words
    thousand = next(line for line in text.splitlines() if line.startswith("| 1,000 |"))
    fp32 = [f"{1000 * rate * 120e-6 / BUSY / 0.9:,.1f}" for rate in (1, 5, 20)]
    int8 = [f"{1000 * rate * 60e-6 / BUSY / 0.9:,.1f}" for rate in (1, 5, 20)]
    assert thousand == "| " + " | ".join(["1,000", *fp32, *int8, "0.05 GB"]) + " |"


def test_many_cores_are_a_model_and_say_so(found):
    text = page(found, MACHINE, 3, 128)
    assert "**A model, not a measurement**" in text
    tokens = [31.2 * 0.9 * 1e6 / cpu_us for cpu_us in (120.0, 60.0)]
    memory = (280 + 23 * 250 + 7 * 100) / 1000
    streams = 24 * 64
    cells = ["32", "24", "8", f"{streams:,}", *(f"{rate:,.0f}" for rate in tokens)]
    assert "| " + " | ".join([*cells, f"{memory:.1f} GB"]) + " |" in text
    assert f"| 2 | 1 | 1 | 64 | {1.3e6 / 120:,.0f} | {1.3e6 / 60:,.0f} | 0.3 GB |" in text


def test_assumptions_of_the_model_are_figures_of_the_same_run(found):
    words = " ".join(page(found, MACHINE, 3, 128).split())
    assert "a core beside others carries 0.90 of what it carries alone: two workers" in words
    assert "(here Envoy and the parent used 0.25 of a worker's)" in words
    assert "memory of one worker 280 MB and of a further one 250 MB" in words
    assert "here 40% of the server's" in words


def test_two_workers_that_cost_less_are_no_gain_to_count_on(found):
    cheap = WorkersCost(64, 60.0, 12.0, 30.0, 530_000_000)
    found = replace(found, workers={**found.workers, "2": cheap})
    assert found.efficiency == 1
    tokens = 31.2e6 / 60
    assert f"| {tokens:,.0f} | 6.7 GB |" in page(found, MACHINE, 3, 128)


def test_a_large_vocabulary_is_compared_as_it_was_measured(found):
    models = {"food fp32": cost(9000, 110.0), "prose fp32": cost(8000, 100.0)}
    found = replace(found, models=models, vocabularies={"food": 2500, "prose": 50})
    words = " ".join(page(found, MACHINE, 3, 128).split())
    assert "among 50 times as many tokens as `prose`, with 0.21 of its weights" in words
    assert "a token costs 1.10 times as much, drawn with top-p, and with a bias" in words


def test_every_measured_figure_is_reported(found):
    text = page(found, MACHINE, 3, 128)
    assert "| 64 | 8,000 | 120 | 16,000 | 60 |" in text
    assert "| food fp32 | 0.7 M | 2,500 | 20,000 | 40 |" in text
    assert "| 2 fp32 | 6,000 | 150 |" in text
    assert "medians of 3 rounds" in text
    assert "40 tokens a stream, the least" in text


@pytest.mark.parametrize(
    ("model", "kind", "fields"),
    [("prose", "prompt", 0), ("g2p", "source", 0), ("food", "vector", 29)],
)
def test_a_model_is_sent_what_it_reads(model, kind, fields):
    request = request_of(model, 1, 20, fields)
    assert request.WhichOneof("input") == kind
    assert len(request.vector.values) == fields
    assert (request.max_tokens, request.min_tokens) == (20, 20)
