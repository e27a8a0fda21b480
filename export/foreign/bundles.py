"""From a mapping to a bundle on disk, written as a whole or not at all."""

from __future__ import annotations

from pathlib import Path

from bundle.store import MOST_BUNDLE_BYTES, Bundle, read_bundle, staged
from export.foreign.mapping import ModelMapping, check_mapping
from export.foreign.source import MOST_BYTES
from export.foreign.worker import SECONDS, run_apart


def import_model(
    mapping: ModelMapping, models: Path, seconds: float = SECONDS
) -> tuple[Bundle, list[str]]:
    """``models/NAME/VERSION`` of ``mapping``, and what was found, a sentence each.

    seconds: the import may take. Raises ImportRefused, and then leaves what was there.
    """
    check_mapping(mapping)
    target = models / mapping.name / str(mapping.version)
    files = [graph.file for graph in mapping.graphs]
    size = sum(file.stat().st_size for file in files if file.is_file())
    with staged(target) as folder:
        found = run_apart("import", (mapping, folder), min(size, MOST_BYTES), seconds)
    bundle = read_bundle(target, 2 * MOST_BYTES)
    return bundle, [*found["lines"], *_limit_lines(bundle)]


def _limit_lines(bundle: Bundle) -> list[str]:
    """What to say of a bundle that the service does not read unless it is set to."""
    size = sum(file.bytes for file in bundle.manifest.files.values())
    if size <= MOST_BUNDLE_BYTES:
        return []
    return [
        f"larger than the {MOST_BUNDLE_BYTES} bytes that the service reads: serve it with "
        f"--max-bundle-bytes {size}"
    ]
