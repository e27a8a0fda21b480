"""From the start of the process to ready, and what is resident then."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from tqdm import tqdm

from bench.medians import median_round
from bench.servers import start_service


@dataclass(frozen=True)
class Start:
    """Medians of several starts with every bundle of the folder."""

    seconds: float
    resident_bytes: float


def measure_start(models: Path, starts: int, device: str) -> Start:
    found = []
    for _ in tqdm(range(starts), desc="start", unit="start"):
        with start_service(models, device=device) as server:
            found.append(Start(server.start_seconds, float(server.ready_rss_bytes)))
    return median_round(found)
