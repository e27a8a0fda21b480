"""How sessions are opened; what a wrong bundle does to them is in test_repository.py."""

import pytest

from bundle.store import read_bundle
from service.runtime.devices import CPU_PROVIDER, CUDA_PROVIDER, provider_options
from service.runtime.sessions import SessionSettings, open_session

CPU = SessionSettings("cpu", CPU_PROVIDER, 1)


@pytest.mark.parametrize(
    ("model", "graph", "plans"),
    [("letters", "step", True), ("letters", "prime", False), ("letters", "score", False),
     ("mood", "predict", False)],
)  # fmt: skip
def test_memory_is_planned_for_few_shapes_only(tiny_models, model, graph, plans):
    """A plan is kept for each shape ever seen: where texts vary, memory would grow with them."""
    session = open_session(read_bundle(tiny_models / model / "1"), graph, CPU)
    assert session.get_session_options().enable_mem_pattern is plans


def test_kernels_that_may_differ_from_run_to_run_are_off(tiny_models):
    session = open_session(read_bundle(tiny_models / "letters" / "1"), "step", CPU)
    entry = session.get_session_options().get_session_config_entry("mlas.disable_kleidiai")
    assert entry == "1"


def test_cuda_computes_in_fp32():
    assert provider_options(CUDA_PROVIDER)["use_tf32"] == "0"
    assert provider_options(CPU_PROVIDER) == {}
