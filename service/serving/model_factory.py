"""From a loaded bundle to a model that can be served: its engines, their threads, its card."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from bundle.manifest import CLASSIFY, FILL, TAG, VEC2SEQ, Manifest
from service.access.memory_budget import MemoryBudget
from service.config import Config
from service.engine.decode import GenerateEngine, GenerationModel
from service.engine.dynamic_batcher import BatchEngine, BatchRunner
from service.engine.online_tagging import PushEngine
from service.engine.prefill import PrefillBudget
from service.engine.slots import StateStore
from service.observability.engine_metrics import BatchMetrics, GenerateMetrics
from service.observability.metrics import Metrics
from service.runtime.device_rows import DeviceRows
from service.runtime.device_runner import DeviceRunner
from service.runtime.probe import probe
from service.runtime.repository import LoadedModel
from service.runtime.runners import (
    FillRunner,
    GenerateRunner,
    PredictRunner,
    ScoreRunner,
    TagRunner,
    generate_runner,
)
from service.serving.classifier import ClassifierModel
from service.serving.coalescing import Clock, Coalescer
from service.serving.fill_mask import FillModel, Markers
from service.serving.generator import GeneratorModel, Writer
from service.serving.model_info import ModelCard
from service.serving.model_metadata import (
    card_of,
    generation_model,
    ids_for_all,
    reads_whole,
)
from service.serving.model_version import ServedModel
from service.serving.online_tagger import TagStreams
from service.serving.output_stream import Dispatcher
from service.serving.resume_token import ResumeTokens
from service.serving.statistics import ModelStatistics
from service.serving.tagger import TaggerModel
from service.serving.worker import Engine, EngineThread

# Rows and tokens of prompts that are read together.
Shapes = Sequence[tuple[int, int]]

log = logging.getLogger(__name__)

# Sizes of batches that are run once before a model is served: a first run allocates.
_WARM_ROWS = (1, 2, 4, 8, 16, 32, 64)
# Prompts that are read once, so many together and of so many tokens: that takes longer, and
# teaches what prefill costs.
_WARM_PROMPTS = (1, 4, 16)
_WARM_TOKENS = 16


@dataclass(frozen=True)
class ServerContext:
    """What the engines of all models share.

    on_failure: called on an engine's thread when that engine breaks, with its model's name.
    budget: of the bytes that callers' data takes.
    """

    config: Config
    metrics: Metrics
    dispatcher: Dispatcher
    loop_cpu: Clock
    resume_tokens: ResumeTokens
    on_failure: Callable[[str], None]
    budget: MemoryBudget


@dataclass(frozen=True)
class ReadyModel:
    """A model whose graphs have run and whose threads are not started yet.

    reading: warm-ups of its prefill, of these shapes each, on a thread or before it is started.
    seconds: from reading its bundle to its being ready.
    """

    model: ServedModel
    statistics: ModelStatistics
    threads: list[EngineThread]
    reading: list[tuple[EngineThread, Callable[[Shapes], None], Shapes]]
    seconds: float = 0.0

    @property
    def card(self) -> ModelCard:
        return self.model.card

    def warm_reading(self) -> None:
        """On the calling thread; the model's own must not have been started."""
        for _, warm, shapes in self.reading:
            warm(shapes)

    def start(self) -> None:
        for thread in self.threads:
            thread.start()

    def warm_reading_later(self) -> None:
        """On the model's own threads, before the first request that comes from now on."""
        for thread, warm, shapes in self.reading:
            thread.do(warm, shapes)


def assemble(loaded: LoadedModel, around: ServerContext) -> ReadyModel:
    """Raises whatever the graphs raise when they are run for the first time."""
    return _Assembly(loaded, around).assembled()


@dataclass
class _Assembly:
    """One model while it is put together."""

    loaded: LoadedModel
    around: ServerContext
    statistics: ModelStatistics = field(default_factory=ModelStatistics)
    threads: list[EngineThread] = field(default_factory=list)
    reading: list[tuple[EngineThread, Callable[[Shapes], None], Shapes]] = field(
        default_factory=list
    )

    def __post_init__(self) -> None:
        self.bundle = self.loaded.bundle
        self.manifest = self.bundle.manifest
        self.config = self.around.config

    def assembled(self) -> ReadyModel:
        return ReadyModel(self._model(), self.statistics, self.threads, self.reading)

    def _model(self) -> ServedModel:
        card, task = self._probed_card(), self.manifest.task
        if task == CLASSIFY:
            return self._classifier(card)
        if task == TAG:
            return self._tagger(card)
        return self._filler(card) if task == FILL else self._generator(card)

    def _classifier(self, card: ModelCard) -> ClassifierModel:
        runner = PredictRunner(self.loaded.sessions["predict"])
        return ClassifierModel(
            card, self.bundle.tokenizers["input"], self._batch_thread("predict", runner)
        )

    def _tagger(self, card: ModelCard) -> TaggerModel:
        thread = self._batch_thread("predict", TagRunner(self.loaded.sessions["predict"]))
        stream = self._tag_streams(card) if card.streams_tags else None
        return TaggerModel(card, self.bundle.tokenizers["input"], thread, stream)

    def _tag_streams(self, card: ModelCard) -> TagStreams:
        """On a thread of their own: no stream waits for texts that are tagged whole."""
        runner, rows = _runner(self.loaded, self.config.max_streams)
        engine = PushEngine(
            GenerationModel(self.manifest.state, None, None, (card.labels,) * 2),
            runner,
            self.config.max_streams,
            time.monotonic,
            self._observer(self.config.max_streams),
            rows,
        )
        engine.warm(_WARM_ROWS)
        return TagStreams(
            card,
            self.bundle.tokenizers["input"],
            engine,
            self._thread("stream", engine, self.config.max_streams + self.config.max_queue),
            self.around.resume_tokens,
            self.around.budget,
            self.config.tokens_per_message,
        )

    def _filler(self, card: ModelCard) -> FillModel:
        reader = self.bundle.tokenizers["input"]
        markers = Markers(reader.vocabulary.begin_id, reader.vocabulary.end_id)
        thread = self._batch_thread("predict", FillRunner(self.loaded.sessions["predict"]))
        return FillModel(card, reader, markers, thread)

    def _generator(self, card: ModelCard) -> GeneratorModel:
        """Two engines: scores run on a thread of their own, so no stream waits for one."""
        config, tokenizers = self.config, self.bundle.tokenizers
        model = generation_model(self.bundle)
        runner, rows = _runner(self.loaded, config.max_streams)
        engine = self._generate_engine(model, runner, rows)
        score = ScoreRunner(
            self.loaded.sessions["score"],
            self.manifest.state,
            runner.prefiller if reads_whole(self.manifest) else None,
        )
        writer = Writer(
            tokenizers["output"],
            model.begin_id,
            model.end_id,
            model.never_sampled_ids,
            model.vocabulary,
            config.max_streams,
        )
        thread = self._thread("generate", engine, config.max_streams + config.max_queue)
        length = _warm_length(self.manifest)
        self.reading.extend(
            (thread, engine.warm_prefill, [(rows, length)]) for rows in _WARM_PROMPTS
        )
        return GeneratorModel(
            card,
            tokenizers.get("input"),
            writer,
            thread,
            self._batch_thread("score", score),
            self.around.resume_tokens,
            config.tokens_per_message,
        )

    def _generate_engine(
        self, model: GenerationModel, runner: GenerateRunner | DeviceRunner, rows: StateStore | None
    ) -> GenerateEngine:
        engine = GenerateEngine(
            model,
            runner,
            self.config.max_streams,
            time.monotonic,
            self._observer(self.config.max_streams),
            PrefillBudget(self.config.prime_share),
            rows,
        )
        engine.warm(_WARM_ROWS)
        return engine

    def _observer(self, capacity: int) -> GenerateMetrics:
        around = self.around
        return GenerateMetrics(around.metrics, self.manifest.name, self.statistics, capacity)

    def _batch_thread(self, graph: str, runner: BatchRunner) -> EngineThread:
        config = self.config
        engine = BatchEngine(
            runner,
            config.max_batch,
            time.monotonic,
            BatchMetrics(
                self.around.metrics, self.manifest.name, graph, self.statistics, config.max_batch
            ),
            config.batch_delay_share,
        )
        return self._thread(graph, engine, config.max_batch + config.max_queue)

    def _thread(self, purpose: str, engine: Engine, limit: int) -> EngineThread:
        around, name = self.around, self.manifest.name
        thread = EngineThread(
            name,
            purpose,
            engine,
            limit,
            around.dispatcher.deliver,
            lambda: around.on_failure(name),
            Coalescer(self.config.engine_share, loop_cpu=around.loop_cpu),
        )
        self.threads.append(thread)
        return thread

    def _probed_card(self) -> ModelCard:
        probed = probe(self.loaded.sessions, ids_for_all(self.bundle), self.loaded.wide)
        if not probed.batch_invariant:
            log.warning("model %s: rows depend on their batch on this machine", self.manifest.name)
        return card_of(self.loaded, probed)


def _warm_length(manifest: Manifest) -> int:
    if manifest.task == VEC2SEQ:
        return len(manifest.vector)
    return min(_WARM_TOKENS, manifest.limits["input_tokens"])


def _runner(
    loaded: LoadedModel, capacity: int
) -> tuple[GenerateRunner | DeviceRunner, StateStore | None]:
    """What steps the model, and where its streams' state lies; None for host memory."""
    state = loaded.bundle.manifest.state
    runner = generate_runner(loaded.sessions, state, loaded.wide)
    if loaded.rows is None:
        return runner, None
    rows = DeviceRows(loaded.rows, state, capacity, loaded.device)
    return DeviceRunner(runner.prefiller, loaded.sessions["step"], rows), rows
