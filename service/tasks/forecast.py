"""Series in, how they may go on out: Forecast."""

from __future__ import annotations

import time

from bundle.manifest import FORECAST
from bundle.tasks import spec_of
from service.engine.forecasting import ForecastEngine
from service.engine.prefill import PrefillBudget
from service.oip.forecast_adapter import ForecastAdapter
from service.serving.forecaster import ForecasterModel
from service.serving.model_factory import WARM_ROWS, ModelBuilder
from service.tasks.task import Task

# Series that are read once, so many together and of so many values: that teaches what it costs.
_WARM_SERIES = (1, 4, 16)
_WARM_VALUES = 16


def build(builder: ModelBuilder) -> ForecasterModel:
    card, config, manifest = builder.probed_card(), builder.config, builder.manifest
    spec = manifest.series
    assert spec is not None, "a bundle of this task has it: its check says so"
    runner, rows = builder.step_runner()
    engine = ForecastEngine(
        manifest.state,
        spec.features_size,
        runner,
        config.max_streams,
        time.monotonic,
        builder.stream_observer(),
        PrefillBudget(config.prime_share),
        rows,
    )
    engine.warm(WARM_ROWS)
    thread = builder.stream_thread("forecast", engine)
    length = min(_WARM_VALUES, manifest.limits["context"])
    builder.warm_later(thread, engine.warm_prefill, [(rows, length) for rows in _WARM_SERIES])
    return ForecasterModel(card, spec, thread, builder.context.resume_tokens)


TASK = Task(spec_of(FORECAST), build, ForecastAdapter)
