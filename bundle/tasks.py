"""The tasks that bundles may have: which graphs and tokenizers each needs, and what it checks.

``manifest.py`` registers the eight that this project serves; whoever serves another one registers
it before such a bundle is read.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

from bundle.errors import ManifestInvalid

if TYPE_CHECKING:
    from bundle.manifest import Manifest


def _accept(manifest: Manifest) -> None:
    """Nothing beyond what every bundle must hold."""


@dataclass(frozen=True)
class TaskSpec:
    """What a bundle of one task holds.

    name: the manifest's ``task``. graphs: the roles that each of its models needs, each a file of
    its own beside the manifest. optional_graphs: that some of them have and others do without.
    tokenizers: roles, each with a limit ``ROLE_tokens``. check: what else its manifest must say;
    raises ManifestInvalid.
    """

    name: str
    graphs: tuple[str, ...]
    optional_graphs: tuple[str, ...] = ()
    tokenizers: tuple[str, ...] = ()
    check: Callable[[Manifest], None] = _accept


_SPECS: dict[str, TaskSpec] = {}


def register_spec(spec: TaskSpec) -> None:
    """From now on bundles of this task are read. Raises ValueError for a name that is taken."""
    if _SPECS.get(spec.name, spec) != spec:
        raise ValueError(f"there is a task {spec.name!r} already; choose another name")
    _SPECS[spec.name] = spec


def spec_of(task: str) -> TaskSpec:
    """Raises ManifestInvalid for a task that nobody registered."""
    if task not in _SPECS:
        raise ManifestInvalid(f"task {task!r} is not one of {', '.join(_SPECS)}")
    return _SPECS[task]
