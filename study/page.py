"""The study's page and the designs table, from what the sections found."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from study import rate_search
from study.artifact_cache import Found
from study.sections import CHOICES, CHOICES_TITLE, Section

PAGE, DESIGNS_PAGE, FOLDER, RESULTS = "study.md", "designs.md", "study", "results.json"


def read_results(output: Path) -> dict[str, Any]:
    """What an earlier run left in ``output``; nothing where there was none."""
    path = output / FOLDER / RESULTS
    content: dict[str, Any] = json.loads(path.read_text()) if path.exists() else {}
    return content


def write_results(output: Path, results: Mapping[str, Any]) -> None:
    (output / FOLDER).mkdir(parents=True, exist_ok=True)
    text = json.dumps(results, ensure_ascii=False, indent=1)
    (output / FOLDER / RESULTS).write_text(text + "\n", encoding="utf8")


def write_pages(
    output: Path, results: Mapping[str, Any], sections: Sequence[Section], designs: Section
) -> list[Path]:
    """study.md with its figures, and designs.md where the table was made."""
    found: Mapping[str, Found] = results["sections"]
    written = [output / PAGE]
    for section in sections:
        if section.draw and section.name in found:
            written.append(output / FOLDER / f"{section.name}.png")
            section.draw(found[section.name], written[-1])
    (output / PAGE).write_text(page_of(results, sections), encoding="utf8")
    if designs.name in found:
        head = (
            "# Designs\n\nEvery design of the lecture, as it is trained, exported and served.\n\n"
        )
        text = head + designs.render(found[designs.name]) + "\n"
        written.append(output / DESIGNS_PAGE)
        written[-1].write_text(text, encoding="utf8")
    return written


def page_of(results: Mapping[str, Any], sections: Sequence[Section]) -> str:
    parts = [_head(results, sections)]
    parts += [
        _section(number, section, results["sections"][section.name])
        for number, section in enumerate(sections, start=1)
        if section.name in results["sections"]
    ]
    if results["choices"]:
        parts.append(f"## {CHOICES_TITLE}\n\n{rate_search.render(results['choices'])}")
    return "\n\n".join(parts) + "\n"


def _head(results: Mapping[str, Any], sections: Sequence[Section]) -> str:
    training = results["training"]
    absent = [s.name for s in sections if s.name not in results["sections"]]
    text = f"""\
`make study` trains the models below, measures them and writes this page. Its figures are in \
[{FOLDER}/{RESULTS}]({FOLDER}/{RESULTS}); `python -m study --page` writes the page anew from \
them. Every model is small and has had as many steps as those it is compared with; where a \
section does not say otherwise, [validation chose its learning rate]({CHOICES}). The figures tell \
designs apart, they are not the best that a design can do. {results["machine"]}. \
{training["models"]} models, those of the search among them, took \
{training["seconds"] / 60:.1f} minutes of CPU time, each on one thread. The table of all designs \
is [designs.md](designs.md)."""
    lines = ["# The lecture's arguments, rerun", text]
    if results["quick"]:
        lines.append("**A quick run on a tenth of everything: do not quote these figures.**")
    if absent:
        lines.append(f"**Not measured: {', '.join(absent)}.**")
    return "\n\n".join(lines)


def _section(number: int, section: Section, found: Found) -> str:
    text = f"## {number}. {section.title}\n\n{section.render(found)}"
    if section.draw:
        text += f"\n\n![{section.title}]({FOLDER}/{section.name}.png)"
    return text
