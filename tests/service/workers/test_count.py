"""How many workers a machine carries."""

from dataclasses import replace

import pytest

from service.config import Config, ConfigInvalid
from service.workers import count
from service.workers.count import count_for, envoy_count, share_of, worker_count

GIGABYTE = 1 << 30


@pytest.mark.parametrize(
    ("cores", "gigabytes", "workers"),
    [(1, 64, 1), (2, 64, 1), (3, 64, 2), (8, 64, 6), (32, 64, 24), (32, 4, 6), (8, 0.5, 1)],
)
def test_cores_and_memory_bound_it(cores, gigabytes, workers):
    """52 MB of bundles, about what the bundled models are."""
    assert count_for(cores, int(gigabytes * GIGABYTE), 50 << 20) == workers


def test_a_number_is_taken_as_it_is_and_auto_looks_at_the_machine(monkeypatch, tiny_models):
    monkeypatch.setattr(count, "usable_cores", lambda: 8)
    monkeypatch.setattr(count, "memory_limit", lambda: 64 * GIGABYTE)
    assert worker_count(Config()) == 1
    assert worker_count(Config(workers="5")) == 5
    assert worker_count(Config(workers="auto", models=tiny_models)) == 6


@pytest.mark.parametrize("workers", ["0", "-1", "many", "", "1.5"])
def test_what_is_no_number_stops_the_start(workers):
    with pytest.raises(ConfigInvalid, match=r"workers is .*; write a number above 0, or auto"):
        Config(workers=workers)


def test_limits_of_the_whole_service_are_divided(monkeypatch):
    monkeypatch.setattr(count, "usable_cores", lambda: 8)
    monkeypatch.setattr(count, "memory_limit", lambda: 16 * GIGABYTE)
    whole = Config()
    part = share_of(whole, 3)
    assert part.max_calls_per_caller == 1366
    assert part.max_sequences == 342
    assert part.max_queue == 1366
    assert part.memory_budget_bytes == 4 * GIGABYTE // 3
    assert part.threads == 2
    assert part.max_streams == whole.max_streams
    assert share_of(replace(whole, memory_budget_bytes=30), 3).memory_budget_bytes == 10
    assert share_of(whole, 8).threads == 1


def test_one_envoy_carries_three_workers():
    assert [envoy_count(workers) for workers in (1, 3, 4, 24)] == [1, 1, 2, 8]
