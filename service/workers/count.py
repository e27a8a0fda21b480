"""How many workers a machine carries, and what each of them may use."""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path

from service.config import Config, usable_cores
from service.process.memory import memory_limit

AUTO = "auto"

# Of a core, what Envoy and its relay take for a worker that uses one, as `make bench` measures it:
# 0.25 for streams of one token a message, 0.4 for small calls.
FRONT_END_CORES = 0.3
# Beside its models: Python, onnxruntime and the libraries of the service; and resident bytes of a
# model for each of its bundle's, each of whose graphs packs the weights for itself: 3.5 were
# measured with the bundled models.
_WORKER_BYTES, _MODEL_FACTOR = 96 << 20, 4
# Of the memory limit, what all workers may take when they have just started.
_MEMORY_SHARE = 0.5
# Workers that one Envoy hands calls to before its relay, one interpreter, is what all wait for.
WORKERS_OF_ENVOY = 3


def worker_count(config: Config) -> int:
    """As the settings have it; ``auto`` by cores and memory, of the cgroup where it has limits."""
    if config.workers != AUTO:
        return int(config.workers)
    size = sum(file.stat().st_size for file in _newest_files(config.models))
    return count_for(usable_cores(), memory_limit(), size)


def count_for(cores: int, memory: int, bundle_bytes: int) -> int:
    """bundle_bytes: of all models that each worker serves."""
    by_cores = int(cores / (1 + FRONT_END_CORES))
    by_memory = int(_MEMORY_SHARE * memory / (_WORKER_BYTES + _MODEL_FACTOR * bundle_bytes))
    return max(1, min(by_cores, by_memory))


def envoy_count(workers: int) -> int:
    """Envoys that share the port."""
    return math.ceil(workers / WORKERS_OF_ENVOY)


def share_of(config: Config, workers: int) -> Config:
    """The configuration of each of so many workers: limits of the whole service divided."""
    budget = config.memory_budget_bytes or memory_limit() // 4
    threads = config.threads or max(1, min(2, usable_cores() // workers))
    return replace(
        config,
        threads=threads,
        memory_budget_bytes=max(1, budget // workers),
        prefix_cache_bytes=-(-config.prefix_cache_bytes // workers),
        max_calls_per_caller=math.ceil(config.max_calls_per_caller / workers),
        max_connections=math.ceil(config.max_connections / workers),
        max_sequences=math.ceil(config.max_sequences / workers),
        max_queue=math.ceil(config.max_queue / workers),
    )


def _newest_files(models: Path) -> list[Path]:
    """Of the version of each model that is served at the start; none where there is no folder."""
    found: list[Path] = []
    for folder in models.glob("*/"):
        versions = [v for v in folder.glob("*/manifest.json") if v.parent.name.isdecimal()]
        if versions:
            newest = max(versions, key=lambda manifest: int(manifest.parent.name))
            found += (file for file in newest.parent.iterdir() if file.is_file())
    return found
