"""Forecasts through the inference protocol are those of unroll.v1, in float32."""

import math
import re

import numpy as np
import pytest

from unroll import Series

START = "2024-03-01T05:00:00"
TEMPERATURE = "temperature (°C)"
VALUES = [[3.0, 4.0, math.nan, 6.0, 2.5], [1.0, 2.0, 3.0, 2.0, 1.0]]


def tensors(**changes):
    inputs = {
        "values": VALUES,
        "start": [[START], [START]],
        "past_covariates": np.ones((2, 5, 1)).tolist(),
        "future_covariates": np.zeros((2, 3, 1)).tolist(),
    }
    return {name: value for name, value in (inputs | changes).items() if value is not None}


def steps(caller, **options):
    series = [Series(row, START, {TEMPERATURE: [1.0] * 5 + [0.0] * 3}) for row in VALUES]
    chunks = caller.forecast("rides", series, horizon=3, samples=4, seed=6, **options)
    return {(s.series, s.position): s for chunk in chunks for s in chunk.steps}


@pytest.mark.parametrize("raw", [False, True], ids=["typed", "raw"])
@pytest.mark.parametrize("name", ["rides", "rides.tensors"])
def test_samples_are_those_of_the_call(inference, caller, name, raw):
    settings = {"horizon": 3, "samples": 4, "seed": 6}
    outputs = inference.infer(name, tensors(), raw, parameters=settings)
    assert outputs["forecast"].shape == (2, 4, 3)
    for (series, position), step in steps(caller).items():
        found = outputs["forecast"][series, :, position]
        assert found.tolist() == np.float32(step.samples).tolist()
        assert outputs["mean"][series, position] == np.float32(step.mean)


def test_quantiles_are_a_list_in_json(inference, caller):
    settings = {"horizon": 3, "samples": 4, "seed": 6, "quantiles": "[0.1, 0.9]"}
    outputs = inference.infer("rides", tensors(), parameters=settings)
    assert outputs["forecast"].shape == (2, 2, 3)
    wanted = steps(caller, quantiles=[0.1, 0.9])[1, 2].quantiles
    assert outputs["forecast"][1, :, 2] == pytest.approx(wanted, rel=1e-6)


def test_a_model_says_which_tensors_it_takes(inference):
    metadata = inference.metadata("rides")
    assert [(t.name, t.datatype) for t in metadata.inputs] == [
        ("values", "FP32"), ("start", "BYTES"), ("past_covariates", "FP32"),
        ("future_covariates", "FP32"),
    ]  # fmt: skip
    assert [t.name for t in metadata.outputs] == ["forecast", "mean"]


@pytest.mark.parametrize(
    ("changes", "parameters", "message"),
    [
        ({"start": None}, {}, "input 'start' is missing"),
        ({"start": [["noon"], [START]]}, {}, r"series\[0\].start: 'noon'"),
        ({"future_covariates": [[[0.0]]] * 2}, {}, "future has 1 entries; send 3"),
        ({"start": [[START]]}, {}, "'start' has 1 rows"),
        ({}, {"quantiles": "half"}, "parameter 'quantiles' is 'half'"),
        ({}, {"quantiles": "[2]"}, r"quantiles\[0\] is 2"),
        ({}, {"frequency": "D"}, "frequency is 'D'"),
        ({}, {"frequency": 4}, "parameter 'frequency' is 4"),
        ({}, {"steps": 4}, "parameter 'steps' is unknown; this model knows horizon"),
    ],
)
def test_what_cannot_be_forecast_is_refused_by_name(refused, changes, parameters, message):
    settings = {"horizon": 3, "samples": 4, **parameters}
    assert re.search(message, refused("rides", tensors(**changes), parameters=settings))
