"""Lines that an export prints of the bundle it wrote."""

from __future__ import annotations

from bundle.store import Bundle


def headline_of(bundle: Bundle) -> str:
    size = sum(file.bytes for file in bundle.manifest.files.values())
    return f"{bundle.folder}: {size / 1e6:.1f} MB, digest {bundle.digest[:12]}"


def parity_lines(bundle: Bundle) -> list[str]:
    return [
        f"  {graph}: deviates from PyTorch by at most {deviation:.1e}"
        for graph, deviation in bundle.manifest.export.parity.items()
    ]
