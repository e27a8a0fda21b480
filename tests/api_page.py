"""Writes docs/api.md from the docstrings of what unroll exports, or finds where it differs.

python -m tests.api_page [--write]
"""

from __future__ import annotations

import argparse
import dataclasses
import inspect
import re
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any, is_typeddict

import unroll
from unroll.sampling import FLAGS

PAGE = Path("docs/api.md")
# Every public name has its place here.
GROUPS = {
    "Clients": ("Client", "AsyncClient"),
    "Options": (
        "GenerateOptions", "SamplingKeywords", "Sampling", "Beam", "Watch", "StateChange",
        "TagStreamOptions", "Series", "ForecastOptions", "StepOptions", "Frame",
    ),
    "Connections": ("Tls", "Retries", "RETRIES", "NO_RETRIES"),
    "Answers": (
        "Classification", "TaggedText", "TaggedToken", "FilledBlank", "ScoredText",
        "ScoredChoice", "NextToken", "Embedding",
    ),
    "Streams": (
        "Chunk", "Token", "Answer", "SampleEnd", "ResumePoint", "TagChunk", "TagStreamEnd",
        "ForecastChunk", "ForecastStep", "ForecastEnd", "StepChunk", "StepResult", "StepStreamEnd",
    ),
    "Models": ("ModelState",),
    "Named states": ("NamedState",),
    "Errors": ("RequestFailed", "OptionInvalid", "TargetInvalid"),
}  # fmt: skip
HEAD = """\
# Python API

What `from unroll import …` offers; [client.md](client.md) shows how it is used. Written from the
docstrings by `python -m tests.api_page --write`; `make check` finds drift.

Methods are written once for both clients: where this page says that one returns `X`, `Client`
returns it and `AsyncClient` is to be awaited; where it says that one yields `X`, `Client` gives a
generator and `AsyncClient` an asynchronous one. `pb` is `unroll.v1.unroll_pb2`.
"""


def page() -> str:
    """Raises SystemExit for a public name that has no place here, or a place without a name."""
    placed = [name for names in GROUPS.values() for name in names]
    if odd := set(placed) ^ set(unroll.__all__):
        sys.exit(f"{', '.join(sorted(odd))}: in GROUPS or in unroll.__all__ alone")
    sections = []
    for title, names in GROUPS.items():
        parts = (_entry(name, getattr(unroll, name)) for name in names)
        sections.append("\n\n".join((f"## {title}", *parts)))
    return "\n\n".join((HEAD.rstrip(), *sections)) + "\n"


def _entry(name: str, value: Any) -> str:
    if not inspect.isclass(value):
        return f"### `{name}`\n\n`{value!r}`"
    parts = [f"### `{name}`", _text(value)]
    if is_typeddict(value):
        parts.append(_keys(value))
    elif dataclasses.is_dataclass(value):
        parts.append(_fields(value))
    elif not issubclass(value, Exception):
        parts.insert(1, _code(f"{name}{_signature(value.__init__)}"))
    parts += _members(value, with_inherited=name == "Client")
    return "\n\n".join(filter(None, parts))


def _text(documented: Any) -> str:
    """Its docstring, a paragraph a line, in Markdown."""
    paragraphs = (inspect.getdoc(documented) or "").split("\n\n")
    return "\n\n".join(" ".join(p.split()) for p in paragraphs).replace("``", "`")


def _keys(options: Any) -> str:
    """Of a TypedDict; those of sampling have a table of their own."""
    is_sampling = options is unroll.SamplingKeywords
    keys = {k: v for k, v in options.__annotations__.items() if (k in FLAGS) == is_sampling}
    if is_sampling:
        rows = (f"| `{key}` | `{_type(hint)}` | {FLAGS[key].help} |" for key, hint in keys.items())
        return "\n".join(("| key | type | meaning |", "|---|---|---|", *rows))
    rows = (f"| `{key}` | `{_type(hint)}` |" for key, hint in keys.items())
    return "\n".join(("| key | type |", "|---|---|", *rows))


def _type(hint: Any) -> str:
    """As it is written in the source, without what the command line needs."""
    text = getattr(hint, "__forward_arg__", str(hint))
    return re.sub(r"Annotated\[\s*(.+?), Flag\(.*\Z", r"\1", text, flags=re.DOTALL).replace(
        "|", "\\|"
    )


def _fields(value: Any) -> str:
    rows = []
    for field in dataclasses.fields(value):
        has_default = field.default is not dataclasses.MISSING
        default = f" = `{field.default!r}`" if has_default else ""
        rows.append(f"| `{field.name}` | `{_type(field.type)}`{default} |")
    return "\n".join(("| field | type |", "|---|---|", *rows))


def _members(value: Any, with_inherited: bool) -> Iterator[str]:
    """Public methods and properties with a docstring, in the order of the source."""
    classes = [c for c in value.__mro__ if c.__module__.startswith("unroll")]
    for owner in reversed(classes if with_inherited else classes[:1]):
        for name, member in vars(owner).items():
            if name.startswith("_") or not inspect.getdoc(member):
                continue
            function = getattr(member, "__func__", member)
            if isinstance(member, property):
                yield f"#### `{value.__name__}.{name}`\n\n{_text(member)}"
            elif inspect.isfunction(function):
                head = _code(f"{name}{_signature(function)}")
                yield f"#### `{value.__name__}.{name}`\n\n{head}\n\n{_text(member)}"


class _Source(str):
    """An annotation, shown as it is written."""

    def __repr__(self) -> str:
        return str(self)


def _signature(function: Any) -> str:
    signature = inspect.signature(function)
    parameters = [
        p.replace(annotation=_Source(re.sub(r"Unpack\[(.*)\]", r"\1", p.annotation)))
        for p in list(signature.parameters.values())[1:]
    ]
    text = str(signature.replace(parameters=parameters, return_annotation=signature.empty))
    returned = str(function.__annotations__.get("return", "None"))
    if of_stream := re.fullmatch(r"Stream\[(.*)\]", returned):
        return f"{text}  # yields {of_stream[1]}"
    of_unary = re.fullmatch(r"Unary\[(.*)\]", returned)
    returned = of_unary[1] if of_unary else returned
    return text if returned == "None" else f"{text} -> {returned}"


def _code(text: str) -> str:
    return f"```python\n{text}\n```"


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m tests.api_page")
    parser.add_argument("--write", action="store_true", help=f"write {PAGE}")
    made = page()
    if parser.parse_args().write:
        PAGE.write_text(made)
    elif not PAGE.exists() or PAGE.read_text() != made:
        sys.exit(f"{PAGE} differs from the docstrings; run `python -m tests.api_page --write`")


if __name__ == "__main__":
    main()
