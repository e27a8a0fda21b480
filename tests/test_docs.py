"""What the documentation names exists: linked files and headings, targets, modules."""

from __future__ import annotations

import re
from collections.abc import Iterator
from functools import cache
from importlib.util import find_spec
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PAGES = sorted(page for tree in ("", "docs/**/", "deploy/**/") for page in ROOT.glob(f"{tree}*.md"))

FENCED = re.compile(r"^```.*?^```$", re.MULTILINE | re.DOTALL)
INLINE = re.compile(r"`[^`\n]+`")
LINK = re.compile(r"\[[^\]]*\]\(([^)\s]+)\)")
HEADING = re.compile(r"^#+ (.+)$", re.MULTILINE)
# A word in capitals stands for whatever the reader puts there.
MAKE = re.compile(r"\bmake ([a-z][a-z-]*)\b")
MODULE = re.compile(r"\bpython3? -m (\w+(?:\.\w+)*)")
TARGETS = frozenset(re.findall(r"^([a-z][a-z-]*):", (ROOT / "Makefile").read_text(), re.MULTILINE))


def recorded_modules() -> frozenset[str]:
    """What the bundled models were trained with: a bundle keeps its command, whatever it is now."""
    manifests = ROOT.glob("models/*/*/manifest.json")
    return frozenset(name for path in manifests for name in MODULE.findall(path.read_text()))


def code_of(text: str) -> str:
    """All that is set as code."""
    blocks = FENCED.findall(text)
    return "\n".join([*blocks, *INLINE.findall(FENCED.sub("", text))])


@cache
def anchors_of(page: Path) -> frozenset[str]:
    """The anchors of a page's headings, as GitHub makes them."""
    headings = HEADING.findall(FENCED.sub("", page.read_text()))
    plain = (LINK.sub(lambda link: link[0].split("]")[0][1:], heading) for heading in headings)
    return frozenset(re.sub(r"[^\w\- ]", "", name.lower()).replace(" ", "-") for name in plain)


def broken_links(page: Path) -> Iterator[str]:
    for link in LINK.findall(FENCED.sub("", page.read_text())):
        address, _, anchor = link.partition("#")
        if "://" in address or address.startswith("mailto:"):
            continue
        target = (page.parent / address).resolve() if address else page
        if not target.exists():
            yield link
        elif anchor and target.suffix == ".md" and anchor not in anchors_of(target):
            yield f"{link} (no such heading)"


def test_the_map_names_every_folder_and_every_layer_of_the_service() -> None:
    """And what it names as a folder or a module of the service is there."""
    named = set(INLINE.findall((ROOT / "ARCHITECTURE.md").read_text()))
    words = {name.strip("`").rstrip("/") for name in named}
    folders = {path.parent.name for path in ROOT.glob("*/*") if is_ours(path.parent)}
    service = {
        path.name for path in (ROOT / "service").iterdir() if not path.name.startswith(("_", "."))
    }
    assert sorted((folders | service) - words) == []
    modules = {word for word in words if word.endswith(".py")}
    places = ("", "service/", "service/*/")
    assert sorted(m for m in modules if not any(any(ROOT.glob(p + m)) for p in places)) == []


def is_ours(folder: Path) -> bool:
    """Neither hidden nor made here."""
    return not folder.name.startswith((".", "__")) and folder.name not in ("docs", "runs")


def is_there(module: str) -> bool:
    """A module of ours that runs, or a package that is installed."""
    top, *_ = module.split(".")
    if not (ROOT / top).is_dir():
        return find_spec(top) is not None
    path = ROOT / module.replace(".", "/")
    return path.with_suffix(".py").exists() or (path / "__main__.py").exists()


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_what_a_page_names_exists(page):
    """Relative links with their headings, ``make`` targets, ``python -m`` modules."""
    code = code_of(page.read_text())
    assert list(broken_links(page)) == []
    assert set(MAKE.findall(code)) <= TARGETS
    modules = {name for name in MODULE.findall(code) if name == name.lower()}
    missing = {name for name in modules if not is_there(name)}
    assert missing <= recorded_modules()


def test_the_index_links_every_page():
    """Of docs/ and the pages beside README.md; a decision is found through its own index."""
    index = (ROOT / "docs/README.md").read_text()
    linked = {(ROOT / "docs" / link).resolve() for link in LINK.findall(index)}
    pages = {*ROOT.glob("docs/*.md"), *ROOT.glob("*.md")} - {ROOT / "docs/README.md"}
    assert {page.name for page in pages - linked} == {"README.md"}
    decisions = LINK.findall((ROOT / "docs/decisions/README.md").read_text())
    entries = {page.name for page in ROOT.glob("docs/decisions/[0-9]*.md")}
    assert entries <= set(decisions)
