"""From a loaded bundle to a model that can be served: its card, its engines and their threads.

What a model of each task consists of, its task says (``service/tasks``).
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import cached_property

from service.access.memory_budget import MemoryBudget
from service.config import Config
from service.engine.dynamic_batcher import BatchEngine, BatchRunner
from service.engine.slots import StateStore
from service.observability.engine_metrics import BatchMetrics, GenerateMetrics
from service.observability.metrics import Metrics
from service.runtime.device_rows import DeviceRows
from service.runtime.device_runner import DeviceRunner
from service.runtime.probe import computes_alike, probe
from service.runtime.repository import LoadedModel
from service.runtime.runners import GenerateRunner, generate_runner, prompt_reader
from service.runtime.session_pair import FindSession, OnDemand, Session
from service.runtime.state_runner import StateRunner
from service.serving.coalescing import Clock, Coalescer
from service.serving.constraints import Constraints
from service.serving.embedder import Embedder
from service.serving.model_info import ModelCard
from service.serving.model_metadata import card_of, ids_for_all, text_input
from service.serving.output_stream import Dispatcher
from service.serving.prefix_cache import ModelPrefixes, PrefixCache
from service.serving.presets import Presets
from service.serving.resume_token import ResumeTokens
from service.serving.served_model import ServedModel
from service.serving.state_access import watchable
from service.serving.statistics import ModelStatistics
from service.serving.worker import Engine, EngineThread

# Rows and tokens of prompts that are read together.
Shapes = Sequence[tuple[int, int]]

log = logging.getLogger(__name__)

# Sizes of batches that are run once before a model is served: a first run allocates.
WARM_ROWS = (1, 2, 4, 8, 16, 32, 64)


@dataclass(frozen=True)
class ServerContext:
    """What the engines of all models share.

    on_failure: called on an engine's thread when that engine breaks, with its model's name.
    budget: of the bytes that callers' data takes.
    build: the model of a bundle, as its task says. prefixes: of the prompts of all models.
    constraints: of texts that are made. presets: of sampling parameters.
    """

    config: Config
    metrics: Metrics
    dispatcher: Dispatcher
    loop_cpu: Clock
    resume_tokens: ResumeTokens
    on_failure: Callable[[str], None]
    budget: MemoryBudget
    build: Callable[[ModelBuilder], ServedModel]
    prefixes: PrefixCache
    constraints: Constraints
    presets: Presets


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


def assemble(loaded: LoadedModel, context: ServerContext) -> ReadyModel:
    """Raises whatever the graphs raise when they are run for the first time."""
    builder = ModelBuilder(loaded, context)
    return ReadyModel(context.build(builder), builder.statistics, builder.threads, builder.reading)


@dataclass
class ModelBuilder:
    """What a task makes a model of: a bundle whose graphs are open, and engines on threads.

    threads: made so far; they start once the model is served. reading: warm-ups that run then.
    """

    loaded: LoadedModel
    context: ServerContext
    statistics: ModelStatistics = field(default_factory=ModelStatistics)
    threads: list[EngineThread] = field(default_factory=list)
    reading: list[tuple[EngineThread, Callable[[Shapes], None], Shapes]] = field(
        default_factory=list
    )

    def __post_init__(self) -> None:
        self.bundle = self.loaded.bundle
        self.manifest = self.bundle.manifest
        self.sessions = self.loaded.sessions
        self.tokenizers = self.bundle.tokenizers
        self.config = self.context.config

    def probed_card(self, ids: int | None = None) -> ModelCard:
        """Run every graph on made-up rows, and say what the model is.

        ids: those below it are good for each integer input; None for those that all of the
        bundle's tokenizers know. Raises OutputNotFinite.
        """
        ids = ids_for_all(self.bundle) if ids is None else ids
        probed = probe(self.sessions, ids)
        if not probed.batch_invariant:
            log.warning("model %s: rows depend on their batch on this machine", self.manifest.name)
        return card_of(self.loaded, probed)

    def batch_thread(self, graph: str, runner: BatchRunner) -> EngineThread:
        """Of an engine that runs whole inputs through ``runner``, many side by side.

        graph: as metrics name it.
        """
        config = self.config
        engine = BatchEngine(
            runner,
            config.max_batch,
            time.monotonic,
            BatchMetrics(
                self.context.metrics, self.manifest.name, graph, self.statistics, config.max_batch
            ),
            config.batch_delay_share,
        )
        return self.thread(graph, engine, config.max_batch + config.max_queue)

    def stream_thread(self, purpose: str, engine: Engine) -> EngineThread:
        """Of an engine that decodes streams."""
        return self.thread(purpose, engine, self.config.max_streams + self.config.max_queue)

    def thread(self, purpose: str, engine: Engine, limit: int) -> EngineThread:
        """purpose: which of the model's engines this is. limit: as EngineThread has it."""
        context, name = self.context, self.manifest.name
        thread = EngineThread(
            name,
            purpose,
            engine,
            limit,
            context.dispatcher.deliver,
            lambda: context.on_failure(name),
            Coalescer(
                self.config.engine_share,
                self.config.message_wait_seconds,
                loop_cpu=context.loop_cpu,
            ),
            call_soon=context.dispatcher.loop.call_soon,
        )
        self.threads.append(thread)
        return thread

    def warm_later(
        self, thread: EngineThread, warm: Callable[[Shapes], None], shapes: Shapes
    ) -> None:
        """Have ``warm`` called with each shape by itself: before the model is served where one is
        replaced, else on ``thread`` before its first request."""
        self.reading.extend((thread, warm, [shape]) for shape in shapes)

    def stream_observer(self) -> GenerateMetrics:
        """Of an engine that decodes streams."""
        context, capacity = self.context, self.config.max_streams
        return GenerateMetrics(context.metrics, self.manifest.name, self.statistics, capacity)

    def prefixes_of(self, card: ModelCard) -> ModelPrefixes | None:
        """Of the model's prompts or sources. None where none are kept, where there is no state, and
        where its bits depend on how a prompt is cut or on what is read beside it."""
        cache, scope = self.context.prefixes, self.config.prefix_cache_scope
        if not (cache.limit and card.state and card.batch_invariant):
            return None
        per_caller = self.config.knows_callers if scope == "auto" else scope == "caller"
        return ModelPrefixes(cache, card, per_caller)

    def embedder(self, card: ModelCard, whole: bool = False) -> Embedder | None:
        """On a thread of its own; None for a model that does not embed. whole: as StateRunner."""
        if not card.embeds:
            return None
        path = self.loaded.state_path if self._reads_by_state_path else ()
        reader = prompt_reader(self.sessions, self.manifest.state, path)
        runner = StateRunner(reader, tuple(watchable(card)), whole)
        return Embedder(card, text_input(self.bundle, "text"), self.batch_thread("embed", runner))

    @cached_property
    def _reads_by_state_path(self) -> bool:
        """Whether there is a state path of the step, and its bits are those of the step here."""
        path = self.loaded.state_path
        if not path:
            return False
        if computes_alike(path, self.sessions["step"], ids_for_all(self.bundle)):
            return True
        log.warning("model %s: prompts are read by whole steps", self.manifest.name)
        return False

    def on_demand(self, role: str, is_alike: Callable[[Session], bool]) -> FindSession:
        """What finds the session of a graph on several threads. is_alike: whether one gives the
        bits of the session on one thread, here."""
        open_wide, what = self.loaded.open_wide[role], f"model {self.manifest.name}: {role!r}"

        def open_alike() -> Session | None:
            session = open_wide()
            if is_alike(session):
                return session
            log.warning("%s stays on one thread: several give other bits on this machine", what)
            return None

        return OnDemand(what, open_alike).find

    def _is_alike(self, role: str) -> Callable[[Session], bool]:
        narrow, ids = self.sessions[role], ids_for_all(self.bundle)
        return lambda wide: computes_alike([wide], narrow, ids)

    def step_runner(self) -> tuple[GenerateRunner | DeviceRunner, StateStore | None]:
        """What steps the model, and where its streams' state lies; None for host memory."""
        loaded, state = self.loaded, self.manifest.state
        path = loaded.state_path if self._reads_by_state_path else ()
        wide = {role: self.on_demand(role, self._is_alike(role)) for role in loaded.open_wide}
        runner = generate_runner(self.sessions, state, wide, path)
        if loaded.rows is None:
            return runner, None
        rows = DeviceRows(loaded.rows, state, self.config.max_streams, loaded.device)
        return DeviceRunner(runner.prefiller, self.sessions["step"], rows), rows
