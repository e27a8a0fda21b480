"""The arithmetic of docs/capacity.md, on figures that can be checked by hand."""

import pytest

from bench.capacity import request_of
from bench.capacity_page import BUSY, Findings, page
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
        parameters={"food": 700_000, "prose": 3_300_000},
        vocabularies={"food": 2500, "prose": 68},
        stream_bytes=50_000.0,
        state_bytes=8192,
        process_bytes=300_000_000,
    )


def test_cores_are_rate_times_cost_over_how_busy_one_may_be(found):
    text = page(found, MACHINE, 3, 128)
    words = " ".join(text.split())
    cores = 1_000_000 * 5 * 60e-6 / BUSY
    assert f"need {cores:,.0f} cores, which are 32 machines of 16" in words
    assert "and 50 GB of memory between them: 31,250 streams and 1.6 GB each" in words
    thousand = next(line for line in text.splitlines() if line.startswith("| 1,000 |"))
    fp32 = [f"{1000 * rate * 120e-6 / BUSY:,.1f}" for rate in (1, 5, 20)]
    int8 = [f"{1000 * rate * 60e-6 / BUSY:,.1f}" for rate in (1, 5, 20)]
    assert thousand == "| " + " | ".join(["1,000", *fp32, *int8, "0.05 GB"]) + " |"


def test_many_cores_are_a_model_and_say_so(found):
    text = page(found, MACHINE, 3, 128)
    assert "**A model, not a measurement**" in text
    tokens = [31.2 * 0.9 * 1e6 / cpu_us for cpu_us in (120.0, 60.0)]
    cells = ["32", "24", "8", *(f"{rate:,.0f}" for rate in tokens), "8.0 GB"]
    assert "| " + " | ".join(cells) + " |" in text
    assert f"| 2 | 1 | 1 | {1.3e6 / 120:,.0f} | {1.3e6 / 60:,.0f} | 0.3 GB |" in text


def test_every_measured_figure_is_reported(found):
    text = page(found, MACHINE, 3, 128)
    assert "| 64 | 8,000 | 120 | 16,000 | 60 |" in text
    assert "| food fp32 | 0.7 M | 2,500 | 20,000 | 40 |" in text
    assert "| 2 fp32 | 6,000 | 150 |" in text
    assert "medians of 3 rounds" in text


@pytest.mark.parametrize(
    ("model", "kind"), [("prose", "prompt"), ("g2p", "source"), ("food", "vector")]
)
def test_a_model_is_sent_what_it_reads(model, kind):
    request = request_of(model, 1, 20)
    assert request.WhichOneof("input") == kind
    assert (request.max_tokens, request.min_tokens) == (20, 20)
