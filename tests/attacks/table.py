"""Writes the table of threats into docs/security.md, or finds where it differs from the attacks.

Each class of attacks in tests/attacks/test_*.py has its row, as its ``threat``:
python -m tests.attacks.table [--write]
"""

from __future__ import annotations

import argparse
import importlib
import inspect
import sys
from collections.abc import Iterator
from pathlib import Path

from service.config import Config
from tests.attacks.harness import Threat

PAGE = Path("docs/security.md")
BEGIN, END = "<!-- threats: begin -->", "<!-- threats: end -->"
HEAD = """\
| threat | bound | setting | test |
|---|---|---|---|
"""


def threats() -> Iterator[tuple[Threat, str]]:
    """Each threat, and where its attack is. Raises SystemExit for a setting that is none."""
    for path in sorted(Path("tests/attacks").glob("test_*.py")):
        module = importlib.import_module(f"tests.attacks.{path.stem}")
        classes = [
            c for _, c in inspect.getmembers(module, inspect.isclass) if hasattr(c, "threat")
        ]
        for attack in sorted(classes, key=lambda c: inspect.getsourcelines(c)[1]):
            if unknown := set(attack.threat.settings) - set(Config.__dataclass_fields__):
                sys.exit(f"{attack.__name__}: no setting {', '.join(sorted(unknown))}")
            yield attack.threat, f"[{attack.__name__}](../{path})"


def table() -> str:
    return HEAD + "".join(
        f"| {threat.attack} | {threat.bound} | "
        f"{', '.join(f'`{name}`' for name in threat.settings) or '–'} | {place} |\n"
        for threat, place in threats()
    )


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m tests.attacks.table")
    parser.add_argument("--write", action="store_true", help=f"write it into {PAGE}")
    page = PAGE.read_text()
    before, begin, rest = page.partition(BEGIN)
    _, end, after = rest.partition(END)
    if not (begin and end):
        sys.exit(f"{PAGE} has no place for the table, between {BEGIN} and {END}")
    made = f"{before}{BEGIN}\n{table()}{END}{after}"
    if parser.parse_args().write:
        PAGE.write_text(made)
    elif made != page:
        sys.exit(f"{PAGE} differs from the attacks; run `python -m tests.attacks.table --write`")


if __name__ == "__main__":
    main()
