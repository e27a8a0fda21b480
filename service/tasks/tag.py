"""Tokens in, a label for each out: Tag, and StreamTag where no token waits for the next one."""

from __future__ import annotations

import time
from dataclasses import replace

from bundle.manifest import TAG
from bundle.tasks import spec_of
from service.engine.online_tagging import OnlineTagEngine
from service.engine.step_engine import GenerationModel
from service.oip.tensor_adapters import TagTensors
from service.oip.text_adapters import TagText
from service.runtime.runners import TagRunner
from service.serving.model_factory import WARM_ROWS, ModelBuilder
from service.serving.model_info import ModelCard
from service.serving.model_metadata import ids_for_all
from service.serving.online_tagger import TagStreams
from service.serving.state_access import watchable
from service.serving.tagger import TaggerModel
from service.tasks.task import Task


def build(builder: ModelBuilder) -> TaggerModel:
    # It may read its own labels, too.
    ids = min(ids_for_all(builder.bundle), len(builder.manifest.labels))
    card = replace(builder.probed_card(ids), streams_tags="step" in builder.manifest.graphs)
    card = replace(card, embeds=card.streams_tags and bool(watchable(card)))
    thread = builder.batch_thread("predict", TagRunner(builder.sessions["predict"]))
    stream = _streams(builder, card) if card.streams_tags else None
    embedder = builder.embedder(card)
    return TaggerModel(card, builder.tokenizers["input"], thread, stream, embedder)


def _streams(builder: ModelBuilder, card: ModelCard) -> TagStreams:
    """On a thread of their own: no stream waits for texts that are tagged whole."""
    config, context = builder.config, builder.context
    runner, rows = builder.step_runner()
    engine = OnlineTagEngine(
        GenerationModel(builder.manifest.state, None, None, (card.labels,) * 2),
        runner,
        config.max_streams,
        time.monotonic,
        builder.stream_observer(),
        rows,
    )
    engine.warm(WARM_ROWS)
    return TagStreams(
        card,
        builder.tokenizers["input"],
        engine,
        builder.stream_thread("stream", engine),
        context.resume_tokens,
        context.budget,
        config.tokens_per_message,
    )


TASK = Task(spec_of(TAG), build, TagText, TagTensors)
