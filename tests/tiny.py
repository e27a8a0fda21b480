"""Tiny untrained models, exported for real: what most tests run on."""

from __future__ import annotations

import fcntl
import functools
import hashlib
import importlib.metadata
import json
import shutil
import tempfile
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from bundle.frames import FrameSpec
from bundle.manifest import UNKNOWN_VALUES
from bundle.series import STUDENT_T, SeriesSpec
from bundle.store import MANIFEST_FILE, Bundle, read_bundle
from bundle.tokenizer import Tokenizer
from bundle.vocabulary import Vocabulary
from export.bundles import export_bundle
from training.checkpoint import Figure, TrainedModel
from training.models import Config, build, config_to_json
from training.models.baselines import BAG, BaselineConfig
from training.models.classifier import ClassifierConfig
from training.models.fill import FillConfig
from training.models.forecaster import ForecasterConfig
from training.models.frame_classifier import FrameClassifierConfig
from training.models.generator import GeneratorConfig
from training.models.options import RecurrentOptions
from training.models.seq2seq import Seq2SeqConfig
from training.models.tagger import TaggerConfig
from training.models.vec2seq import VectorToSequenceConfig

CACHE = Path(__file__).parents[1] / ".pytest_cache"
_KEPT_SECONDS = 7 * 86_400
# Of models().
NAMES = (
    "bigrams", "blank", "foods", "letters", "mood", "rides", "speller", "strokes", "tags",
    "tags-online",
)  # fmt: skip
LETTERS = "abcdefghij klmn"
WORDS = ("good", "bad", "food", "the", "is", "not", "was", "great")
SOURCE_LIMIT = 10
TAGS = ("DET", "NOUN", "VERB", "ADJ", "NOT")
EXAMPLES = 20
CHANNELS = ("x (mm)", "y (mm)", "pressure")
SHAPES = ("line", "circle", "cross", "dot")
NUTRIENTS = ("Water (g)", "Energy (kcal)", "Protein (g)")

# Exported with an int8 step, as if its figures had been measured.
INT8 = {"int8": (Figure("loss, int8", 1.5, "nats", "nothing", 1, "none"),)}

LETTER_READER = Tokenizer("characters", Vocabulary(tuple(LETTERS)), lowercase=True)
WORD_READER = Tokenizer("words", Vocabulary(WORDS), lowercase=True)
MARKED_WORD_READER = Tokenizer("words", Vocabulary(WORDS, has_markers=True), lowercase=True)
PHONE_WRITER = Tokenizer("symbols", Vocabulary(tuple("PQRSTUV"), has_markers=True))


def trained(
    name: str,
    config: Config,
    tokenizers: dict[str, Tokenizer],
    labels: Sequence[str] = (),
    limits: dict[str, int] | None = None,
    seed: int = 0,
    precisions: dict[str, tuple[Figure, ...]] | None = None,
    vector: Sequence[str] = (),
    largest: float = 0.6,
) -> TrainedModel:
    """A model of ``config`` with random weights, larger than usual so that outputs differ.

    largest: of the weights.
    """
    torch.manual_seed(seed)
    model = build(config)
    for parameter in model.parameters():
        torch.nn.init.uniform_(parameter, -largest, largest)
    return TrainedModel(
        name=name,
        description=f"a tiny {name}",
        config=config_to_json(config),
        weights=model.state_dict(),
        tokenizers=tokenizers,
        labels=tuple(labels),
        vector=tuple(vector),
        limits=limits or {"input_tokens": 64, "output_tokens": 400},
        figures=(Figure("accuracy", 50.0, "%", "nothing", 1, "none"),),
        data=({"package": "none", "version": "0", "sha256": "0", "licence": "none"},),
        training={"seed": seed, "command": "none"},
        precisions=precisions or {},
    )


def generator(name: str = "letters", cell: str = "lstm", hidden_size: int = 13) -> TrainedModel:
    """Two layers, and a step in int8 as well."""
    config = GeneratorConfig(
        vocabulary_size=len(LETTER_READER.vocabulary),
        embedding_size=6,
        recurrent=RecurrentOptions(cell, hidden_size, layers=2),
    )
    tokenizers = {"input": LETTER_READER, "output": LETTER_READER}
    return trained(name, config, tokenizers, precisions=INT8)


def words(name: str = "words", size: int = 10_000) -> TrainedModel:
    """A large vocabulary of the letters and of words, and a step in int8 as well."""
    symbols = (*LETTERS, *(f"w{number}" for number in range(size - len(LETTERS) - 2)))
    reader = Tokenizer("characters", Vocabulary(symbols), lowercase=True)
    config = GeneratorConfig(size, 6, RecurrentOptions("lstm", 13))
    return trained(name, config, {"input": reader, "output": reader}, precisions=INT8, largest=2.5)


def memoryless(name: str = "bigrams") -> TrainedModel:
    """Carries no state: what comes next depends on the token before it alone."""
    config = GeneratorConfig(
        vocabulary_size=len(LETTER_READER.vocabulary),
        embedding_size=6,
        recurrent=RecurrentOptions("rnn", 9, recurrence="output"),
    )
    return trained(name, config, {"input": LETTER_READER, "output": LETTER_READER})


def seq2seq(
    name: str = "speller", cell: str = "lstm", scaled: bool = False, attention: bool = True
) -> TrainedModel:
    config = Seq2SeqConfig(
        source_vocabulary_size=len(LETTER_READER.vocabulary),
        target_vocabulary_size=len(PHONE_WRITER.vocabulary),
        embedding_size=6,
        recurrent=RecurrentOptions(cell, 11),
        source_limit=SOURCE_LIMIT,
        scaled=scaled,
        attention=attention,
    )
    limits = {"input_tokens": SOURCE_LIMIT, "output_tokens": 60}
    return trained(name, config, {"input": LETTER_READER, "output": PHONE_WRITER}, limits=limits)


def classifier(name: str = "mood", cell: str = "lstm") -> TrainedModel:
    config = ClassifierConfig(
        vocabulary_size=len(WORD_READER.vocabulary),
        labels=2,
        embedding_size=6,
        recurrent=RecurrentOptions(cell, 9, bidirectional=True),
    )
    return trained(name, config, {"input": WORD_READER}, labels=("sad", "glad"))


def frame_classifier(
    name: str = "strokes", cell: str = "gru", bidirectional: bool = False
) -> TrainedModel:
    """Answers after each frame, too, unless it is bidirectional."""
    config = FrameClassifierConfig(
        channels=len(CHANNELS),
        labels=len(SHAPES),
        recurrent=RecurrentOptions(cell, 9, bidirectional=bidirectional),
    )
    limits = {"input_frames": 40} | ({} if bidirectional else {"message_steps": 16})
    model = trained(name, config, {}, labels=SHAPES, limits=limits)
    model.weights["mean"] = torch.tensor([0.5, -1.0, 2.0])
    model.weights["spread"] = torch.tensor([1.5, 0.7, 3.0])
    return replace(model, frames=FrameSpec(CHANNELS, 0.01))


def baseline(reader: str, width: int, name: str = "mood") -> TrainedModel:
    """width: left out for a bag of words."""
    config = BaselineConfig(
        reader=reader,
        vocabulary_size=len(WORD_READER.vocabulary),
        labels=2,
        embedding_size=6,
        width=0 if reader == BAG else width,
    )
    return trained(name, config, {"input": WORD_READER}, labels=("sad", "glad"))


def tagger(
    name: str = "tags", recurrent: RecurrentOptions | None = None, seed: int = 0
) -> TrainedModel:
    """Reads both sides; ``online_tagger`` reads the left one and its own last label."""
    recurrent = recurrent or RecurrentOptions("lstm", 9, bidirectional=True)
    config = TaggerConfig(
        vocabulary_size=len(WORD_READER.vocabulary),
        labels=len(TAGS),
        embedding_size=6,
        recurrent=recurrent,
        label_embedding_size=4 if recurrent.reads_output else 0,
    )
    return trained(name, config, {"input": WORD_READER}, labels=TAGS, seed=seed)


def online_tagger(name: str = "tags-online", cell: str = "lstm") -> TrainedModel:
    return tagger(name, RecurrentOptions(cell, 9, recurrence="hidden_and_output"))


def fill(name: str = "blank", cell: str = "lstm") -> TrainedModel:
    config = FillConfig(
        vocabulary_size=len(MARKED_WORD_READER.vocabulary),
        candidates=4,
        embedding_size=6,
        recurrent=RecurrentOptions(cell, 9),
    )
    return trained(name, config, {"input": MARKED_WORD_READER}, labels=WORDS[:4])


def vec2seq(
    name: str = "foods", recurrent: RecurrentOptions | None = None, candidates: int = 0
) -> TrainedModel:
    """Copies from two of EXAMPLES examples.

    candidates: examples that it ranks for that, and reads unknown values; 0: it does neither.
    """
    config = VectorToSequenceConfig(
        vector_size=len(NUTRIENTS),
        vocabulary_size=len(PHONE_WRITER.vocabulary),
        embedding_size=6,
        condition_size=5,
        recurrent=recurrent or RecurrentOptions("lstm", 11),
        examples=EXAMPLES,
        example_tokens=4,
        nearest=2,
        key_size=7,
        unknown=bool(candidates),
        candidates=candidates,
        ranker_size=5 if candidates else 0,
    )
    limits = {"output_tokens": 60}
    if candidates:
        limits[UNKNOWN_VALUES] = len(NUTRIENTS) - 1
    model = trained(name, config, {"output": PHONE_WRITER}, limits=limits, vector=NUTRIENTS)
    tokens = torch.randint(1, PHONE_WRITER.vocabulary.end_id + 1, (EXAMPLES, 5))
    model.weights["examples.vectors"] = torch.randn(len(NUTRIENTS), EXAMPLES)
    model.weights["examples.tokens"] = tokens.to(model.weights["examples.tokens"].dtype)
    if candidates:
        model.weights["examples.known"] = torch.rand(len(NUTRIENTS), EXAMPLES) > 0.2
    return model


def forecaster(
    name: str = "rides", distribution: str = STUDENT_T, spec: SeriesSpec | None = None
) -> TrainedModel:
    """Hourly, with a covariate, the calendar, and values of a day before."""
    spec = spec or SeriesSpec("h", distribution, ("temperature (°C)",), True, 4)
    config = ForecasterConfig(
        features=spec.features_size,
        distribution=distribution,
        recurrent=RecurrentOptions("lstm", 9),
        lags=(2, 24),
    )
    limits = {"context": 48, "horizon": 30}
    return replace(trained(name, config, {}, limits=limits, largest=0.3), series=spec)


def models() -> tuple[TrainedModel, ...]:
    """One of each task: those of NAMES."""
    return (
        generator(), memoryless(), seq2seq(), classifier(), tagger(), online_tagger(), fill(),
        vec2seq(), forecaster(), frame_classifier(),
    )  # fmt: skip


def export(model: TrainedModel, folder: Path) -> Bundle:
    """As export_bundle(): a copy of what any test of this or an earlier run exported of ``model``.

    Tests that change anything of the export, or export twice, call export_bundle().
    """
    kept = _cached(model, version=folder.name)
    shutil.rmtree(folder, ignore_errors=True)  # an export takes the place of what was there, too
    shutil.copytree(kept, folder)
    return read_bundle(folder)


def export_once(cache: Path = CACHE) -> Path:
    """A folder of ``cache`` with a bundle of each task; anew where what makes them has changed.

    Processes that run tests side by side share the work: each exports what none has begun.
    """
    root = cache / f"tiny-{_digest_of_sources()[:16]}"
    if not root.exists():
        _forget_old(cache)
        for model in models():
            _cached(model, cache, waits=False)
        made = Path(tempfile.mkdtemp(dir=cache))
        for model in models():
            shutil.copytree(_cached(model, cache), made / model.name / "1")
        with suppress(OSError):  # another process was first
            made.rename(root)
        shutil.rmtree(made, ignore_errors=True)
    return root


def _forget_old(cache: Path) -> None:
    """Remove what sources of a week ago or earlier made."""
    for folder in (*cache.glob("tiny-*"), *cache.glob("bundles-*")):
        with suppress(OSError):  # another process removes it
            is_old = time.time() - folder.stat().st_mtime > _KEPT_SECONDS
            if is_old and not folder.name.endswith(_digest_of_sources()[:16]):
                shutil.rmtree(folder)


def _cached(
    model: TrainedModel, cache: Path = CACHE, waits: bool = True, version: str = "1"
) -> Path:
    """The folder of ``cache`` with the bundle; not waits: while another process exports it, it is
    not there yet.
    """
    folder = cache / f"bundles-{_digest_of_sources()[:16]}" / _digest_of(model)[:16] / version
    folder.parent.mkdir(parents=True, exist_ok=True)
    with (folder.parent / "lock").open("w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | (0 if waits else fcntl.LOCK_NB))
        except BlockingIOError:
            return folder
        if not folder.exists():
            export_bundle(model, folder)  # which writes it as a whole
    return folder


def _digest_of(model: TrainedModel) -> str:
    digest = hashlib.sha256(repr(replace(model, weights={})).encode())
    for name, tensor in model.weights.items():
        digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}".encode())
        digest.update(tensor.contiguous().numpy().tobytes())
    return digest.hexdigest()


@functools.cache
def _digest_of_sources() -> str:
    project = Path(__file__).parents[1]
    folders = ("bundle", "export", "training")
    sources = sorted(path for name in folders for path in (project / name).rglob("*.py"))
    versions = [
        importlib.metadata.version(name) for name in ("numpy", "onnx", "onnxscript", "torch")
    ]
    digest = hashlib.sha256(repr(versions).encode())
    for path in (Path(__file__), *sources):
        digest.update(path.read_bytes())
    return digest.hexdigest()


def names_without(*left_out: str) -> list[str]:
    return [name for name in NAMES if name not in left_out]


def edit_manifest(folder: Path, change: Callable[[dict[str, Any]], object]) -> None:
    """Apply ``change`` to the manifest's JSON; the files and their hashes stay as they are."""
    path = folder / MANIFEST_FILE
    content = json.loads(path.read_text())
    change(content)
    path.write_text(json.dumps(content))
