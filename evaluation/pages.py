"""docs/models.md and a card for each bundle, from what was measured."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from bundle.manifest import Manifest
from bundle.store import Bundle
from evaluation.everyday_page import everyday_section, everyday_table
from evaluation.everyday_sets import EverydayAnswers
from evaluation.goals import goals_table
from evaluation.losses import CURVES, EARLIER
from evaluation.plots import Plot, draw_plots
from evaluation.results import Floor, Found, Result, digits_of
from evaluation.text import plural, table
from training.config import CardSettings, Goal, Published
from training.held_out import Confusion, HeldOut

PAGE, CARDS = "models.md", "models"
# Of a manifest's training facts.
FLOORS, OTHER = "floors", "answered_as_other"


@dataclass
class Evaluated:
    """A bundle, what its recipe says of it, and what was measured.

    confusion: which labels it took for which; empty for a model that gives none.
    published: what others report. floors: measured beside the model, empty where training's stand.
    everyday: its answers to everyday questions, None where it has none.
    """

    bundle: Bundle
    held_out: HeldOut[Any, Any]
    goals: Sequence[Goal]
    card: CardSettings
    results: list[Result] = field(default_factory=list)
    confusion: Confusion = field(default_factory=Confusion)
    published: Sequence[Published] = ()
    floors: list[Floor] = field(default_factory=list)
    everyday: EverydayAnswers | None = None

    @property
    def found(self) -> list[Found]:
        """All figures that were measured of it, the everyday questions' too."""
        everyday = self.everyday.figures() if self.everyday else []
        return [*(result.found for result in self.results), *(Found(*one) for one in everyday)]


SEARCH = """\
`training/recipes/NAME.toml` holds a model's settings; with a seed they fix the run, whose folder \
under `runs/` keeps settings, figures and curve. Each model is the weights of the epoch with the \
lowest loss on its validation split, which is apart from what is held out, or of the last epoch \
where its recipe has `keep_last`. Settings were chosen by the validation losses of a few short \
runs, one seed each: what was tried, kept and rejected stands in [notebook.md](notebook.md). There \
was no automatic search. Held-out figures were looked at when a training had ended; where one led \
to another training of the same model, that page says so."""


def page_of(evaluated: Mapping[str, Evaluated]) -> str:
    """The whole of models.md."""
    results = {name: model.results for name, model in evaluated.items()}
    goals = {name: model.goals for name, model in evaluated.items()}
    found = {name: model.found for name, model in evaluated.items()}
    rows = [
        (f"[{name}]({CARDS}/{name}.md)", *_row(result))
        for name, figures in results.items()
        for result in figures
    ]
    figures = table(("model", "figure", "served", "95 %", "manifest", "examples, split"), rows)
    models = table(
        ("model", "parameters", "MB", "minutes to train", "seed", "command"),
        [(name, *_facts(model.bundle.manifest)) for name, model in evaluated.items()],
    )
    weaknesses = "\n".join(
        f"- {name}: {model.card.weaknesses}"
        for name, model in evaluated.items()
        if model.card.weaknesses
    )
    return f"""# Models

`make evaluate` measures every figure below on its whole split through the served bundle, over \
gRPC, and writes this page and the cards. A figure further from its manifest's than 0.2 points, \
or 0.002 of another unit, fails it. A generator's figures "step by step" are of its step graphs \
themselves, run beside the service: no call reads a given text with them.

## Goals

{goals_table(found, goals)}

## Figures

{figures}

## Everyday questions

Forty of each model, of the kinds that a visitor types, by the rule that the file of each states \
(`evaluation/everyday/`). Nothing was trained on them or chosen by them. In brackets the 95 % \
interval (Wilson). A model's card has the first ten of its set, with what it answers.

{everyday_table({n: m.everyday for n, m in evaluated.items() if m.everyday}, CARDS)}

## Training

{models}

{SEARCH}

## Known weaknesses

{weaknesses}
"""


def _row(result: Result) -> tuple[str, str, str, str, str]:
    claim, measured = result.claimed, result.measured
    digits = digits_of(claim.unit)
    what = f"{claim.name}{_unit(claim.unit)}"
    asked = f"{claim.examples:,} · {claim.split}"
    manifest = f"{claim.value:.{digits}f}"
    if measured is None:
        return what, "**not measured**", "", manifest, asked
    served = f"{measured.value:.{digits}f}"
    if not result.reproduces:
        served = f"**{served}, does not reproduce**"
    interval = f"{measured.low:.{digits}f} to {measured.high:.{digits}f}, {measured.method}"
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


def card_of(model: Evaluated, plots: Sequence[Plot] = ()) -> str:
    """A model card (Mitchell et al. 2019, arXiv:1810.03993), in brief."""
    manifest, card = model.bundle.manifest, model.card
    data = "\n".join(
        f"- {source.package} {source.version} (sha256 {source.sha256[:12]}…): {source.licence}"
        for source in manifest.data
    )
    measured = table(
        ("figure", "served", "95 %", "manifest", "examples, split"),
        [_row(result) for result in model.results],
    )
    floors = _measured_floors(model.floors) or _floors(manifest)
    drawn = [f"![{p.title}]({p.file})\n\n{p.caption}" for p in plots]
    parts = [
        f"# {manifest.name}",
        manifest.description,
        f"Architecture: {_architecture(manifest.model)}. {training_minutes(manifest)}",
        f"## Figures\n\n{measured}",
        *([f"## Without a network\n\n{floors}"] if floors else []),
        *(
            [f"## Everyday questions\n\n{everyday_section(model.everyday)}"]
            if model.everyday
            else []
        ),
        *([f"## Answered as Other\n\n{_other(manifest)}"] if manifest.training.get(OTHER) else []),
        *([f"## Published\n\n{_published(model)}"] if model.published else []),
        *(["## Pictures", *drawn] if drawn else []),
        *([f"## Known weaknesses\n\n{card.weaknesses}"] if card.weaknesses else []),
        f"## Data\n\n{data}",
        f"## Training\n\n{_settings(manifest.training)}",
    ]
    return "\n\n".join(parts) + "\n"


def _floors(manifest: Manifest) -> str:
    """What the figures are by other means, as training measured them; empty where it did not."""
    units = {figure.name: figure.unit for figure in manifest.figures}
    rows = []
    for floor in manifest.training.get(FLOORS, ()):
        unit = units[floor["figure"]]
        value = f"{floor['value']:.{digits_of(unit)}f}"
        rows.append((f"{floor['figure']}{_unit(unit)}", value, floor["floor"], floor["split"]))
    return table(("figure", "value", "by", "split"), rows) if rows else ""


def _other(manifest: Manifest) -> str:
    counts = sorted(manifest.training[OTHER].items(), key=lambda item: (-item[1], item[0]))
    listed = ", ".join(f"{name} {count:,}" for name, count in counts)
    return f"Too few examples to learn, with how many train: {listed}."


def _measured_floors(floors: Sequence[Floor]) -> str:
    rows = []
    for floor in floors:
        (name, unit, split), measured = floor.figure, floor.measured
        digits = digits_of(unit)
        interval = f"{measured.low:.{digits}f} to {measured.high:.{digits}f}"
        rows.append(
            (f"{name}{_unit(unit)}", f"{measured.value:.{digits}f}", interval, floor.by, split)
        )
    return table(("figure", "value", "95 %", "by", "split"), rows) if rows else ""


def _published(model: Evaluated) -> str:
    """Beside what was served of the same figure."""
    rows = []
    for one in model.published:
        own = next(
            (
                result
                for result in model.results
                if result.claimed.name == one.figure and result.claimed.split.startswith(one.split)
            ),
            None,
        )
        unit, split = (own.claimed.unit, own.claimed.split) if own else ("", one.split)
        served = "not measured"
        if own and own.measured:
            served = f"{own.measured.value:.{digits_of(unit)}f}"
        rows.append(
            (f"{one.figure}{_unit(unit)}", f"{one.value:g}", one.by, served, split, one.source)
        )
    return table(("figure", "published", "by", "served here", "split", "source"), rows)


def _settings(training: Mapping[str, Any]) -> str:
    """A paragraph; one more for each earlier stage, of what it did otherwise."""
    settings = {k: v for k, v in training.items() if k not in (*CURVES, EARLIER, FLOORS, OTHER)}
    paragraphs = [_listed(settings)]
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


def write_pages(output: Path, evaluated: Mapping[str, Evaluated]) -> list[Path]:
    cards = output / CARDS
    cards.mkdir(parents=True, exist_ok=True)
    written = [output / PAGE]
    written[0].write_text(page_of(evaluated), encoding="utf8")
    for name, model in evaluated.items():
        plots = draw_plots(model.bundle, model.card, model.confusion, model.held_out, cards)
        written += [cards / plot.file for plot in plots]
        written.append(cards / f"{name}.md")
        written[-1].write_text(card_of(model, plots), encoding="utf8")
    return written
