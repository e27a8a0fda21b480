"""Adapter of forecasters: series in, the samples or the quantiles of each step out."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

import numpy as np

from service.engine.errors import WrongInput
from service.oip.adapters import InferResult, ModelAdapter, about
from service.oip.parameters import InferParameters
from service.oip.tensors import Array, TensorMetadata, texts_of
from service.serving.forecaster import (
    CovariateParams,
    ForecasterModel,
    ForecastParams,
    SeriesParams,
)

_KNOWN = ("horizon", "samples", "quantiles", "seed", "frequency")


class ForecastAdapter(ModelAdapter):
    """Series of one request are of one length, as tensors are; NaN fills a shorter one up in front.

    ``forecast`` holds the quantiles that the request has, or else the samples.
    """

    settings_help = f"this model knows {', '.join(_KNOWN)}"

    def __init__(self, model: ForecasterModel) -> None:
        super().__init__(model.card)
        self.model = model
        covariates = len(model.spec.covariates)
        beside = (
            TensorMetadata("past_covariates", "FP32", (-1, -1, covariates)),
            TensorMetadata("future_covariates", "FP32", (-1, -1, covariates)),
        )
        self.inputs = (
            TensorMetadata("values", "FP32", (-1, -1)),
            TensorMetadata("start", "BYTES", (-1, 1), optional=not model.spec.calendar),
            *(beside if covariates else ()),
        )
        self.outputs = (
            TensorMetadata("forecast", "FP32", (-1, -1, -1)),
            TensorMetadata("mean", "FP32", (-1, -1)),
        )

    def settings(self, parameters: InferParameters) -> ForecastParams:
        frequency = parameters.take("frequency")
        if not (frequency is None or isinstance(frequency, str)):
            raise WrongInput(f"parameter 'frequency' is {frequency!r}; send a text")
        return ForecastParams(
            (),
            parameters.whole("horizon") or 0,
            parameters.whole("samples") or 0,
            _quantiles(parameters),
            parameters.whole("seed", 2**64 - 1),
            frequency or "",
        )

    def answer_bytes(self, inputs: Mapping[str, Array]) -> int:
        # Before the settings are known; as Forecast would take at most of the usual samples.
        series = [SeriesParams(())] * len(inputs["values"])
        return self.model.answer_bytes(ForecastParams(series))

    async def infer(self, inputs: Mapping[str, Array], settings: ForecastParams) -> InferResult:
        self.batch(inputs)
        params = ForecastParams(
            self._series(inputs),
            settings.horizon,
            settings.samples,
            settings.quantiles,
            settings.seed,
            settings.frequency,
        )
        with about("values"):
            forecast = await self.model.forecast(params)
        try:
            steps = [step async for message in forecast for step in message.steps]
        finally:
            forecast.close()
        steps.sort(key=lambda step: (step.series, step.position))
        shape = (len(params.series), len(steps) // len(params.series))
        wanted = params.quantiles
        found = [step.quantiles(wanted) if wanted else step.samples for step in steps]
        # (series, steps, numbers of each) → (series, numbers of each, steps)
        numbers = np.array(found, np.float64).reshape(*shape, -1).transpose(0, 2, 1)
        return InferResult(
            {
                "forecast": np.ascontiguousarray(numbers, np.float32),
                "mean": np.array([step.mean for step in steps], np.float32).reshape(shape),
            },
            {"seed": str(forecast.seed)},
        )

    def _series(self, inputs: Mapping[str, Array]) -> list[SeriesParams]:
        values = inputs["values"]
        starts = texts_of(inputs["start"], "start") if "start" in inputs else [""] * len(values)
        return [
            SeriesParams(row, start, self._covariates(inputs, number))
            for number, (row, start) in enumerate(zip(values.tolist(), starts, strict=True))
        ]

    def _covariates(self, inputs: Mapping[str, Array], row: int) -> dict[str, CovariateParams]:
        return {
            name: CovariateParams(
                inputs["past_covariates"][row, :, number].tolist(),
                inputs["future_covariates"][row, :, number].tolist(),
            )
            for number, name in enumerate(self.model.spec.covariates)
        }


def _quantiles(parameters: InferParameters) -> tuple[float, ...]:
    """A JSON list of numbers, or one number."""
    value: Any = parameters.take("quantiles")
    if value is None:
        return ()
    try:
        found = json.loads(value) if isinstance(value, str) else value
        return tuple(float(one) for one in (found if isinstance(found, list) else [found]))
    except (TypeError, ValueError, RecursionError) as error:
        raise WrongInput(
            f"parameter 'quantiles' is {value!r}; send a JSON list of numbers"
        ) from error
