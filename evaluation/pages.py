"""docs/models.md and a card for each bundle, from what was measured."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from bundle.manifest import Manifest
from bundle.store import Bundle
from evaluation.confusion import Confusion
from evaluation.goals import goals_table
from evaluation.illustrations import Picture, illustrate
from evaluation.judged import Checked, digits_of
from evaluation.losses import CURVES, EARLIER
from study.text import plural, table

PAGE, CARDS = "models.md", "models"

# What each model is known to do badly; a card without an entry says nothing of it.
WEAKNESSES: dict[str, str] = {
    "sentiment": "It knows sentences of films. Irony, comparisons and negations further apart "
    "than in its generated contrasts mislead it.",
    "g2p": "Names and loan words; it was taught no stress. It hears one pronunciation where the "
    "dictionary lists several.",
    "translate": "It knows verses and nothing else: other sentences come out as verses. Names that "
    "it has not read are spelled by guess, and some chapters' verses are numbered otherwise in the "
    "two Bibles, so that a few pairs are no translations of each other.",
    "prose": "It writes words and lines, and no plot.",
    "pos": "Words that it has not read, which it tags by their neighbours and endings.",
    "pos-online": "As pos; what only the words to the right could tell, it cannot know.",
    "cloze": "It chooses among 1,000 words of one book's English.",
    "food": "Near twins: foods of like nutrients and other names. It copies: where no "
    "training food is near, the name is of what is least far.",
    "nationality": "A name does not tell a nation: use it for nothing that matters to anyone. "
    "It knows the nations of Wikipedia's people, of whom every fourth is American.",
}


SEARCH = """\
`training/recipes/NAME.toml` holds a model's settings; with a seed they fix the run, whose folder \
under `runs/` keeps settings, figures and curve. Each model is the weights of the epoch with the \
lowest loss on its validation split, which is apart from what is held out. Settings were chosen \
by the validation losses of a few short runs, one seed each: what was tried, kept and rejected \
stands in [notebook.md](notebook.md). There was no automatic search. Held-out figures were \
looked at when a training had ended; where one led to another training of the same model, \
that page says so."""


def page_of(evaluated: Mapping[str, Sequence[Checked]], manifests: Mapping[str, Manifest]) -> str:
    """The whole of models.md."""
    rows = [
        (f"[{name}]({CARDS}/{name}.md)", *_row(checked))
        for name, figures in evaluated.items()
        for checked in figures
    ]
    figures = table(("model", "figure", "served", "95 %", "manifest", "examples, split"), rows)
    models = table(
        ("model", "parameters", "MB", "minutes to train", "seed", "command"),
        [(name, *_facts(manifest)) for name, manifest in manifests.items()],
    )
    weaknesses = "\n".join(
        f"- {name}: {WEAKNESSES[name]}" for name in manifests if name in WEAKNESSES
    )
    return f"""# Models

`make evaluate` measures every figure below on its whole split through the served bundle, over \
gRPC, and writes this page and the cards. A figure further from its manifest's than 0.2 points, \
or 0.002 of another unit, fails it. Figures of prose "step by step" are of its step graphs \
themselves, run beside the service: no call reads a given text with them.

## Goals

{goals_table(evaluated)}

## Figures

{figures}

## Training

{models}

{SEARCH}

## Known weaknesses

{weaknesses}
"""


def _row(checked: Checked) -> tuple[str, str, str, str, str]:
    claim, judged = checked.claimed, checked.judged
    digits = digits_of(claim.unit)
    what = f"{claim.name}{_unit(claim.unit)}"
    asked = f"{claim.examples:,} · {claim.split}"
    manifest = f"{claim.value:.{digits}f}"
    if judged is None:
        return what, "**not measured**", "", manifest, asked
    served = f"{judged.value:.{digits}f}"
    if not checked.reproduces:
        served = f"**{served}, does not reproduce**"
    interval = f"{judged.low:.{digits}f} to {judged.high:.{digits}f}, {judged.method}"
    return what, served, interval, manifest, asked


def _unit(unit: str) -> str:
    return f" ({unit})" if unit else ""


def _facts(manifest: Manifest) -> tuple[str, str, str, str, str]:
    training = manifest.training
    return (
        f"{training['parameters']:,}",
        f"{size_of(manifest) / 1e6:.1f}",
        f"{training['seconds'] / 60:.0f} on {plural(training['threads'], 'thread')}",
        str(training["seed"]),
        f"`{training['command']}`",
    )


def size_of(manifest: Manifest) -> int:
    return sum(file.bytes for file in manifest.files.values())


def card_of(
    manifest: Manifest, figures: Sequence[Checked], pictures: Sequence[Picture] = ()
) -> str:
    """A model card (Mitchell et al. 2019, arXiv:1810.03993), in brief."""
    data = "\n".join(
        f"- {source.package} {source.version} (sha256 {source.sha256[:12]}…): {source.licence}"
        for source in manifest.data
    )
    measured = table(
        ("figure", "served", "95 %", "manifest", "examples, split"), [_row(f) for f in figures]
    )
    drawn = [f"![{p.title}]({p.file})\n\n{p.caption}" for p in pictures]
    weakness = WEAKNESSES.get(manifest.name, "")
    parts = [
        f"# {manifest.name}",
        manifest.description,
        f"Architecture: {_architecture(manifest.model)}. {training_minutes(manifest)}",
        f"## Figures\n\n{measured}",
        *(["## Pictures", *drawn] if drawn else []),
        *([f"## Known weaknesses\n\n{weakness}"] if weakness else []),
        f"## Data\n\n{data}",
        f"## Training\n\n{_settings(manifest.training)}",
    ]
    return "\n\n".join(parts) + "\n"


def _settings(training: Mapping[str, Any]) -> str:
    """A paragraph; one more for each earlier stage, of what it did otherwise."""
    told = {k: v for k, v in training.items() if k not in (*CURVES, EARLIER)}
    paragraphs = [_listed(told)]
    for stage, facts in training.get(EARLIER, {}).items():
        otherwise = {k: v for k, v in facts.items() if k not in CURVES and v != training.get(k)}
        if otherwise:
            paragraphs.append(f"Stage {stage}, before that: {_listed(otherwise)}")
    return "\n\n".join(paragraphs)


def _listed(facts: Mapping[str, Any]) -> str:
    return ", ".join(f"{key} {value}" for key, value in facts.items())


def _architecture(model: Mapping[str, Any]) -> str:
    recurrent = model.get("recurrent", {})
    if not recurrent:
        return str(model["architecture"])
    shape = f"{recurrent['layers']} × {recurrent['hidden_size']} {recurrent['cell']}"
    both = ", in both directions" if recurrent["bidirectional"] else ""
    return f"{model['architecture']}, {shape}{both}"


def training_minutes(manifest: Manifest) -> str:
    training = manifest.training
    return (
        f"{training['parameters']:,} parameters, trained in {training['seconds'] / 60:.0f} minutes "
        f"on {plural(training['threads'], 'thread')}."
    )


def write_pages(
    output: Path,
    evaluated: Mapping[str, Sequence[Checked]],
    bundles: Mapping[str, Bundle],
    confusions: Mapping[str, Confusion],
    data: Path,
) -> list[Path]:
    """confusions: of each model, empty for one that gives no labels."""
    cards = output / CARDS
    cards.mkdir(parents=True, exist_ok=True)
    manifests = {name: bundle.manifest for name, bundle in bundles.items()}
    written = [output / PAGE]
    written[0].write_text(page_of(evaluated, manifests), encoding="utf8")
    for name, figures in evaluated.items():
        pictures = illustrate(bundles[name], confusions[name], data, cards)
        written += [cards / picture.file for picture in pictures]
        written.append(cards / f"{name}.md")
        written[-1].write_text(card_of(manifests[name], figures, pictures), encoding="utf8")
    return written
