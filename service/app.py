"""The composition root: from a configuration to a running service, and down again."""

from __future__ import annotations

import asyncio
import gc
import logging
import signal
import sys
import time
from collections.abc import Callable
from functools import partial

from prometheus_client import CollectorRegistry

from bundle.manifest import CLASSIFY, FILL, FP32, SEQ2SEQ, TAG, VEC2SEQ, Manifest
from bundle.store import Bundle
from service.config import Config, default_threads, read_keys, split_address, split_precision
from service.engine.arena import Rows, StateSpec
from service.engine.batching import BatchEngine, BatchRunner
from service.engine.cards import DataSource, Figure, ModelCard
from service.engine.catalogue import Catalogue, RefusedModel, ServedModel
from service.engine.filling import FillModel, Markers
from service.engine.generating import GenerateEngine, GenerationModel
from service.engine.models import ClassifierModel, GeneratorModel, Writer
from service.engine.pacing import Pace, clock_of_this_thread
from service.engine.priming import PrimeCredit
from service.engine.pushing import PushEngine
from service.engine.requests import SamplingShape
from service.engine.resuming import ResumeTokens
from service.engine.streams import Hand
from service.engine.tag_streams import TagStreams
from service.engine.tagging import TaggerModel
from service.engine.threads import Engine, EngineThread
from service.http import HttpServer
from service.metrics import BatchMetrics, GenerateMetrics, Metrics
from service.rpc.server import GrpcServer
from service.runtime.device_rows import DeviceRows
from service.runtime.device_runner import DeviceRunner
from service.runtime.devices import choose_provider
from service.runtime.probing import Probed, probe
from service.runtime.repository import LoadedModel, Precisions, RefusedBundle, load_models
from service.runtime.runners import (
    FillRunner,
    GenerateRunner,
    PredictRunner,
    ScoreRunner,
    TagRunner,
    generate_runner,
)
from service.runtime.sessions import SessionSettings

log = logging.getLogger(__name__)

# Decode batches that are run once before the service is ready: a first run allocates.
_WARM_ROWS = (1, 2, 4, 8, 16, 32, 64)
# Prompts that are read once when it is ready, so many together and of so many tokens: that
# takes longer, and teaches what priming costs.
_WARM_PROMPTS = (1, 4, 16)
_WARM_TOKENS = 16


class NothingToServe(Exception):
    """Every bundle was refused; the message holds each reason."""


class App:
    """One service: its models' engines, the gRPC server and the HTTP server.

    start() raises NoModels, NothingToServe, DeviceUnavailable, AddressInUse or
    HttpAddressInUse, and then leaves nothing behind.
    """

    def __init__(self, config: Config, registry: CollectorRegistry | None = None) -> None:
        self.config = config
        self.metrics = Metrics(registry or CollectorRegistry())
        self.is_ready = False
        self._threads: list[EngineThread] = []
        self._when_ready: list[Callable[[], None]] = []

    async def start(self) -> None:
        config = self.config
        self._loop = asyncio.get_running_loop()
        self._deliver = Hand(self._loop).deliver
        self._loop_cpu = clock_of_this_thread()
        self._resume_tokens = ResumeTokens(
            read_keys(config.resume_keys), config.resume_seconds, config.max_message_bytes
        )
        provider = choose_provider(config.device)
        settings = SessionSettings(config.device, provider, config.threads or default_threads())
        precisions = Precisions(*split_precision(config.precision))
        loaded, refused = load_models(config.models, settings, precisions)
        served = self._serve_what_runs(loaded, refused)
        self._report(loaded, refused)
        self.catalogue = Catalogue(
            served, [RefusedModel(r.name, r.version, r.reason) for r in refused]
        )
        self.grpc = GrpcServer(
            self.catalogue,
            config.address,
            config.max_message_bytes,
            config.stall_seconds,
            self._count_request,
        )
        host, port = split_address(config.http_address, "http_address")
        self.http = HttpServer(host, port, self.metrics.registry, self._answers_ready)
        for thread in self._threads:
            thread.start()
        self.http.start()
        await self.grpc.start()
        self.is_ready = True
        for work in self._when_ready:
            work()
        log.info("ready: gRPC on port %d, HTTP on port %d", self.grpc.port, self.http.port)

    async def stop(self) -> bool:
        """Stop taking requests, let streams finish within the grace, end everything.

        Returns whether every stream finished.
        """
        self.is_ready = False
        finished = await self.grpc.stop(self.config.grace_seconds)
        for thread in self._threads:
            await asyncio.to_thread(thread.stop)
        self.http.stop()
        return finished

    def _answers_ready(self) -> bool:
        return self.is_ready and not any(thread.failure for thread in self._threads)

    def _count_request(self, model: str, method: str, code: str) -> None:
        self.metrics.requests.labels(model, method, code).inc()

    def _report(self, loaded: list[LoadedModel], refused: list[RefusedBundle]) -> None:
        for bundle in refused:
            log.error("model %s version %s refused: %s", bundle.name, bundle.version, bundle.reason)
            self.metrics.refused.labels(bundle.name, bundle.version).set(1)
        for model in loaded:
            manifest = model.bundle.manifest
            log.info(
                "model %s version %d loaded in %s on %s",
                manifest.name,
                manifest.version,
                model.precision,
                model.provider,
            )
            version = str(manifest.version)
            self.metrics.models.labels(manifest.name, version, model.precision, model.provider).set(
                1
            )
        if not loaded:
            reasons = "; ".join(bundle.reason for bundle in refused)
            raise NothingToServe(f"no bundle under {self.config.models} can be served: {reasons}")

    def _serve_what_runs(
        self, loaded: list[LoadedModel], refused: list[RefusedBundle]
    ) -> list[ServedModel]:
        """The models whose graphs run; one whose first steps fail moves to ``refused``."""
        served = []
        for model in list(loaded):
            try:
                served.append(self._served(model))
            except Exception as error:  # whatever it is, it is this bundle's own
                loaded.remove(model)
                refused.append(
                    RefusedBundle(
                        model.bundle.manifest.name,
                        str(model.bundle.manifest.version),
                        f"{model.bundle.folder}: its graphs do not run ({error}); "
                        "export the bundle again",
                    )
                )
        return served

    def _served(self, loaded: LoadedModel) -> ServedModel:
        task = loaded.bundle.manifest.task
        if task == CLASSIFY:
            return self._classifier(loaded)
        if task == TAG:
            return self._tagger(loaded)
        return self._filler(loaded) if task == FILL else self._generator(loaded)

    def _classifier(self, loaded: LoadedModel) -> ClassifierModel:
        card = self._card(loaded)
        thread = self._batch_thread(card, "predict", PredictRunner(loaded.sessions["predict"]))
        return ClassifierModel(card, loaded.bundle.tokenizers["input"], thread)

    def _tagger(self, loaded: LoadedModel) -> TaggerModel:
        card = self._card(loaded)
        thread = self._batch_thread(card, "predict", TagRunner(loaded.sessions["predict"]))
        stream = self._tag_streams(card, loaded) if card.streams_tags else None
        return TaggerModel(card, loaded.bundle.tokenizers["input"], thread, stream)

    def _tag_streams(self, card: ModelCard, loaded: LoadedModel) -> TagStreams:
        """On a thread of their own: no stream waits for texts that are tagged whole."""
        config = self.config
        runner, rows = _runner(loaded, config.max_streams)
        engine = PushEngine(
            GenerationModel(_state(loaded.bundle.manifest), None, None, (card.labels,) * 2),
            runner,
            config.max_streams,
            time.monotonic,
            GenerateMetrics(self.metrics, card.name),
            rows,
        )
        engine.warm(_WARM_ROWS)
        return TagStreams(
            card,
            loaded.bundle.tokenizers["input"],
            engine,
            self._thread(card.name, "stream", engine, config.max_streams + config.max_queue),
            self._resume_tokens,
            config.tokens_per_message,
        )

    def _filler(self, loaded: LoadedModel) -> FillModel:
        card, reader = self._card(loaded), loaded.bundle.tokenizers["input"]
        markers = Markers(reader.vocabulary.begin_id, reader.vocabulary.end_id)
        thread = self._batch_thread(card, "predict", FillRunner(loaded.sessions["predict"]))
        return FillModel(card, reader, markers, thread)

    def _generator(self, loaded: LoadedModel) -> GeneratorModel:
        """Two engines: scores run on a thread of their own, so no stream waits for one."""
        card, manifest = self._card(loaded), loaded.bundle.manifest
        config = self.config
        runner, rows = _runner(loaded, config.max_streams)
        engine = GenerateEngine(
            model := _generation_model(loaded.bundle),
            runner,
            config.max_streams,
            time.monotonic,
            GenerateMetrics(self.metrics, card.name),
            PrimeCredit(config.prime_share),
            rows,
        )
        engine.warm(_WARM_ROWS)
        score = ScoreRunner(
            loaded.sessions["score"],
            manifest.state,
            runner.primer if _reads_whole(manifest) else None,
        )
        tokenizers = loaded.bundle.tokenizers
        thread = self._thread(card.name, "generate", engine, config.max_streams + config.max_queue)
        length = _warm_length(manifest)
        self._when_ready.extend(
            partial(thread.do, engine.warm_priming, [(rows, length)]) for rows in _WARM_PROMPTS
        )
        return GeneratorModel(
            card,
            tokenizers.get("input"),
            Writer(
                tokenizers["output"],
                model.begin_id,
                model.end_id,
                model.silent_ids,
                model.vocabulary,
                config.max_streams,
            ),
            thread,
            self._batch_thread(card, "score", score),
            self._resume_tokens,
            config.tokens_per_message,
        )

    def _batch_thread(self, card: ModelCard, graph: str, runner: BatchRunner) -> EngineThread:
        config = self.config
        engine = BatchEngine(
            runner,
            config.max_batch,
            time.monotonic,
            BatchMetrics(self.metrics, card.name, graph),
            config.batch_delay_share,
        )
        return self._thread(card.name, graph, engine, config.max_batch + config.max_queue)

    def _card(self, loaded: LoadedModel) -> ModelCard:
        """The model's card, once its graphs have been probed."""
        probed = probe(loaded.sessions, _ids_for_all(loaded.bundle), loaded.wide)
        manifest = loaded.bundle.manifest
        self.metrics.batch_invariant.labels(manifest.name, probed.fingerprint[:12]).set(
            probed.batch_invariant
        )
        if not probed.batch_invariant:
            log.warning("model %s: rows depend on their batch on this machine", manifest.name)
        return _card(loaded, probed)

    def _thread(self, model: str, purpose: str, engine: Engine, limit: int) -> EngineThread:
        thread = EngineThread(
            model,
            purpose,
            engine,
            limit,
            self._deliver,
            lambda: self._failed(model),
            Pace(self.config.engine_share, loop_cpu=self._loop_cpu),
        )
        self._threads.append(thread)
        return thread

    def _failed(self, model: str) -> None:
        """An engine broke; called on its thread."""
        asyncio.run_coroutine_threadsafe(self.grpc.fail_model(model), self._loop)


def _card(loaded: LoadedModel, probed: Probed) -> ModelCard:
    manifest = loaded.bundle.manifest
    sampling = manifest.sampling
    return ModelCard(
        name=manifest.name,
        version=str(manifest.version),
        task=manifest.task,
        description=manifest.description,
        labels=manifest.labels,
        vector_fields=manifest.vector,
        streams_tags=manifest.task == TAG and "step" in manifest.graphs,
        limits=manifest.limits,
        sampling=SamplingShape(sampling.temperature, sampling.top_k, sampling.top_p),
        figures=tuple(
            Figure(f.name, f.value, f.unit, f.split, f.examples) for f in manifest.figures
        ),
        data=tuple(DataSource(d.package, d.version, d.licence) for d in manifest.data),
        digest=loaded.bundle.digest,
        provider=loaded.provider,
        precision=loaded.precision,
        precisions=(FP32, *manifest.precisions),
        vocabulary=_symbols(loaded.bundle),
        input_ids=_input_ids(loaded.bundle),
        state=_state(manifest),
        batch_invariant=probed.batch_invariant,
        fingerprint=probed.fingerprint,
    )


def _input_ids(bundle: Bundle) -> int:
    reader = bundle.tokenizers.get("input")
    return len(reader.vocabulary) if reader else 0


def _ids_for_all(bundle: Bundle) -> int:
    """Ids below it are good for each graph of the bundle: a tagger may read its labels."""
    sizes = [len(tokenizer.vocabulary) for tokenizer in bundle.tokenizers.values()]
    if bundle.manifest.task == TAG:
        sizes.append(len(bundle.manifest.labels))
    return min(sizes)


def _reads_whole(manifest: Manifest) -> bool:
    """Whether what primes it comes before all that it makes: a source or a vector."""
    return manifest.task in (SEQ2SEQ, VEC2SEQ)


def _warm_length(manifest: Manifest) -> int:
    if manifest.task == VEC2SEQ:
        return len(manifest.vector)
    return min(_WARM_TOKENS, manifest.limits["input_tokens"])


def _runner(
    loaded: LoadedModel, capacity: int
) -> tuple[GenerateRunner | DeviceRunner, Rows | None]:
    """What steps the model, and where its streams' state lies; None for host memory."""
    state = loaded.bundle.manifest.state
    runner = generate_runner(loaded.sessions, state, loaded.wide)
    if loaded.rows is None:
        return runner, None
    rows = DeviceRows(loaded.rows, state, capacity, loaded.device)
    return DeviceRunner(runner.primer, loaded.sessions["step"], rows), rows


def _symbols(bundle: Bundle) -> tuple[str, ...]:
    """Of the output tokens by id; a classifier's are its labels."""
    output = bundle.tokenizers.get("output")
    if output is None:
        return ()
    vocabulary = output.vocabulary
    return tuple(vocabulary.symbol_of(token) for token in range(len(vocabulary)))


def _generation_model(bundle: Bundle) -> GenerationModel:
    output = bundle.tokenizers["output"]
    vocabulary = output.vocabulary
    ids = range(len(vocabulary))
    return GenerationModel(
        state=_state(bundle.manifest),
        begin_id=vocabulary.begin_id if _reads_whole(bundle.manifest) else None,
        end_id=vocabulary.end_id if vocabulary.has_markers else None,
        pieces=(
            [output.piece(token, first=True) for token in ids],
            [output.piece(token, first=False) for token in ids],
        ),
        silent_ids=vocabulary.silent_ids,
    )


def _state(manifest: Manifest) -> tuple[StateSpec, ...]:
    return tuple(StateSpec(t.name, t.dtype, t.shape, t.carried) for t in manifest.state)


def _settle_interpreter() -> None:
    """What was made until now stays: collections need not look at it again.

    A thread that comes back from a kernel gets the interpreter within half a millisecond, not
    five: a step takes less than that.
    """
    gc.collect()
    gc.freeze()
    gc.set_threshold(50_000, 20, 20)
    sys.setswitchinterval(0.0005)


async def serve(config: Config) -> int:
    """Run until SIGTERM or SIGINT; a second one ends at once. Returns the exit code."""
    loop = asyncio.get_running_loop()
    asked = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, asked.set)
    app = App(config)
    await app.start()
    _settle_interpreter()
    await asked.wait()
    log.info(
        "stopping: %d calls under way, grace %.0f s", app.grpc.gate.calls, config.grace_seconds
    )
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.remove_signal_handler(number)
        signal.signal(number, signal.SIG_DFL)
    finished = await app.stop()
    log.info("stopped, %s", "every call finished" if finished else "some calls were ended")
    return 0
