"""Every design of the lecture: trained, through the gate, and answering over gRPC."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bundle.manifest import CLASSIFY, FILL, GENERATE, SEQ2SEQ, TAG, VEC2SEQ, Manifest
from bundle.store import read_bundle
from evaluation.serving import serving
from evaluation.text import power, table
from export.bundles import export_bundle
from study import attention, layer_depth, teacher_forcing, word_order
from study.artifact_cache import ArtifactCache, Found
from study.recipes import Learner, Recipe, command_of
from study.sections import Section, Study
from study.spelling import WITHOUT
from training.checkpoint import MODEL_FILE
from unroll import Client

NAME = "designs"

_VERSION = "1"
_BUNDLED, _OWN = "models", "the study's own"


class BundlesMissing(Exception):
    """Bundles that a row of the table is about are not there."""


class NotServed(Exception):
    """The service has no such model, or gave an empty answer."""


@dataclass(frozen=True)
class Design:
    """title: what the lecture calls it. bundle: its name. learner: of the study's own model, of
    which the first seed's is taken."""

    title: str
    bundle: str
    learner: Learner | None = None


def designs() -> list[Design]:
    readers = {learner.design: learner for learner in word_order.LEARNERS}
    generators = {**teacher_forcing.LEARNERS, **layer_depth.LEARNERS}

    def own(title: str, learner: Learner) -> Design:
        return Design(title, learner.model, learner)

    return [
        Design("one-hot vocabulary and embedding", "sentiment"),
        own("recurrent hidden units: plain cell", generators["rnn"]),
        own("GRU cell", generators["gru"]),
        own("LSTM cell", generators["lstm"]),
        own("recurrence through the output only", generators["output"]),
        own("sequence input, single output", readers["lstm"]),
        Design("vector to sequence", "food"),
        Design("hidden and output recurrence", "pos-online"),
        Design("bidirectional: tagger", "pos"),
        Design("bidirectional: two-sided fill-in", "cloze"),
        own("sequence to sequence, one vector", attention.LEARNERS[WITHOUT]),
        Design("sequence to sequence, attention", "g2p"),
        own("deep (a): stacked layers", generators["stacked"]),
        own("deep (b): MLPs", generators["mlps"]),
        own("deep (c): MLPs with shortcuts", generators["mlps-skip"]),
        own("bag of words", readers["bag"]),
        own("moving window", readers["window"]),
        own("one-dimensional convolution", readers["convolution"]),
        Design("classifier of characters", "nationality"),
        Design("generator of characters", "prose"),
    ]


def missing_bundles(study: Study) -> list[str]:
    """Bundled models of the table that are not there.

    Raises BundlesMissing, but for a quick study, which leaves their rows out.
    """
    missing = [d.bundle for d in designs() if not d.learner and not _is_there(study, d.bundle)]
    if missing and not study.settings.quick:
        raise BundlesMissing(
            f"{', '.join(missing)} not in {study.models}; train and export them "
            f"(make train MODEL={missing[0]}, make export MODEL={missing[0]}) and run again"
        )
    return missing


def measure(study: Study) -> Found:
    """Raises BundlesMissing as missing_bundles does, ParityMissed, NotServed, RequestFailed."""
    missing = missing_bundles(study)
    table = designs()
    for design in table:
        if design.learner:
            export_own(study.cache, study.search.recipes(design.learner)[0])
    with serving(study.cache.bundles) as client:
        rows = _rows(client, study.cache.bundles, [d for d in table if d.learner])
    bundled = [d for d in table if not d.learner and d.bundle not in missing]
    if bundled:
        with serving(study.models) as client:
            rows |= _rows(client, study.models, bundled)
    return {
        "rows": [rows[d.title] for d in table if d.title in rows],
        "missing": missing,
        "command": command_of(NAME, study.settings.quick),
    }


def _is_there(study: Study, bundle: str) -> bool:
    return (study.models / bundle / _VERSION / "manifest.json").exists()


def export_own(cache: ArtifactCache, recipe: Recipe) -> Path:
    """The bundle of a trained model, through the gate unless it went through since."""
    target = cache.bundles / recipe.learner.model / _VERSION
    model, manifest = cache.folder_of(recipe) / MODEL_FILE, target / "manifest.json"
    if not manifest.exists() or manifest.stat().st_mtime < model.stat().st_mtime:
        export_bundle(cache.trained(recipe), target)
    return target


def _rows(client: Client, models: Path, designs: Sequence[Design]) -> dict[str, dict[str, Any]]:
    """By title. Raises NotServed, and RequestFailed for a call that is refused."""
    served = {model.name: model for model in client.list_models().models}
    rows = {}
    for design in designs:
        if design.bundle not in served:
            raise NotServed(f"{design.bundle} is not among what the service lists; see its log")
        manifest = read_bundle(models / design.bundle / _VERSION).manifest
        model = served[design.bundle]
        rows[design.title] = {
            "design": design.title,
            "bundle": design.bundle,
            "where": _OWN if design.learner else _BUNDLED,
            "data": [source.package for source in manifest.data],
            "seed": manifest.training.get("seed"),
            "command": manifest.training.get("command"),
            "parameters": manifest.training.get("parameters"),
            "figure": _figure(manifest),
            "parity": max(manifest.export.parity.values()),
            "tolerance": manifest.export.tolerance,
            "equal_bits": bool(model.batch_invariant),
            "served_by": call(client, manifest, model.streams_tags),
        }
    return rows


def _figure(manifest: Manifest) -> dict[str, Any] | None:
    """The first figure is a model's main one."""
    if not manifest.figures:
        return None
    figure = manifest.figures[0]
    return {
        "name": figure.name,
        "value": figure.value,
        "unit": figure.unit,
        "split": figure.split,
        "examples": figure.examples,
    }


def call(client: Client, manifest: Manifest, streams_tags: bool) -> str:
    """The calls that ``manifest``'s task has, made and answered. Raises NotServed otherwise."""
    calls = [*_CALLS[manifest.task], *([("StreamTag", _stream_tag)] if streams_tags else [])]
    for name, is_answered in calls:
        if not is_answered(client, manifest):
            raise NotServed(f"{manifest.name}: {name} gave an empty answer")
    return ", ".join(name for name, _ in calls)


_SENTENCE = "The man went to the bank"
_BLANK = "The man went to the ___ to withdraw money"
_TOKENS = 20


def _classify(client: Client, manifest: Manifest) -> bool:
    return bool(client.classify(manifest.name, [_SENTENCE])[0].labels)


def _tag(client: Client, manifest: Manifest) -> bool:
    return bool(client.tag(manifest.name, [_SENTENCE])[0].tokens)


def _stream_tag(client: Client, manifest: Manifest) -> bool:
    """A word at a time."""
    pieces = list(client.stream_tag(manifest.name, ([word] for word in _SENTENCE.split())))
    labelled = sum(len(piece.tokens) for piece in pieces)
    return labelled == len(_SENTENCE.split()) and pieces[-1].end is not None


def _fill(client: Client, manifest: Manifest) -> bool:
    return bool(client.fill(manifest.name, [_BLANK])[0].words)


def _generate(client: Client, manifest: Manifest) -> bool:
    return _any_token(client, manifest, prompt="ROMEO:\n")


def _generate_from_source(client: Client, manifest: Manifest) -> bool:
    return _any_token(client, manifest, source="unroll")


def _generate_from_vector(client: Client, manifest: Manifest) -> bool:
    return _any_token(client, manifest, vector=[1.0] * len(manifest.vector))


def _any_token(client: Client, manifest: Manifest, **options: Any) -> bool:
    pieces = list(client.generate(manifest.name, max_tokens=_TOKENS, **options))
    return any(piece.tokens for piece in pieces) and pieces[-1].answer is not None


IsAnswered = Callable[[Client, Manifest], bool]

_CALLS: dict[str, tuple[tuple[str, IsAnswered], ...]] = {
    CLASSIFY: (("Classify", _classify),),
    TAG: (("Tag", _tag),),
    FILL: (("Fill", _fill),),
    GENERATE: (("Generate", _generate),),
    SEQ2SEQ: (("Generate with a source", _generate_from_source),),
    VEC2SEQ: (("Generate with a vector", _generate_from_vector),),
}


def render(found: Found) -> str:
    rows = (
        (
            row["design"],
            f"`{row['bundle']}`{'' if row['where'] == _BUNDLED else '*'}",
            f"{', '.join(row['data'])}; `{row['command']}`, seed {row['seed']}",
            _figure_text(row["figure"]),
            power(row["parity"]),
            "yes" if row["equal_bits"] else "no",
            row["served_by"],
        )
        for row in found["rows"]
    )
    header = (
        "design", "bundle", "trained on", "held-out figure", "parity error", "equal bits",
        "served by",
    )  # fmt: skip
    tolerance = power(found["rows"][0]["tolerance"])
    return f"""\
{table(header, rows)}

Bundles with a star are the study's own, small ones that are trained to be compared \
([study.md](study.md)); the others are those of `models/`. Parity error: the largest deviation \
that the export's gate found between any graph of the bundle and the PyTorch model, allowed is \
{tolerance} + {tolerance}·|x|. Equal bits: what the running service found of its rows alone and \
in a batch (`batch_invariant` of ListModels). Served by: the call that this table's command made \
and got an answer from. `{found["command"]}`{_missing(found["missing"])}"""


def _missing(names: list[str]) -> str:
    return f"\n\n**Not there: {', '.join(names)}.**" if names else ""


def _figure_text(figure: dict[str, Any] | None) -> str:
    if figure is None:
        return "–"
    unit = " %" if figure["unit"] == "%" else f" {figure['unit']}"
    return (
        f"{figure['name']} {figure['value']:.4g}{unit} on {figure['examples']:,} of "
        f"{figure['split']}"
    )


SECTION = Section(
    NAME, "Designs", measure, render, tuple(d.learner for d in designs() if d.learner)
)
