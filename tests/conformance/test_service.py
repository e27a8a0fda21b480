"""This project's own service passes every case of the suite, on a tiny model of each task."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from conformance import report
from conformance.endpoint import Endpoint
from conformance.runner import PASSED, run, select
from conformance.selection import Selection, choose
from tests.tiny import NAMES

SHORT = {"parameters": {"max_tokens": 4, "seed": 1}}
# A source or a vector begins a sequence, tokens go on with it.
TOKENS = [{"token": [[1]]}, {"token": [[2]]}]
SERIES = {
    "values": [[1.0, 2.0, 3.0, 4.0]],
    "start": [["2024-03-01"]],
    "past_covariates": [[[0.5], [0.5], [0.5], [0.5]]],
    "future_covariates": [[[0.5], [0.5]]],
    "parameters": {"horizon": 2, "samples": 3, "seed": 1},
}
INPUTS: dict[str, Any] = {
    "blank": {"text": [["the ___ food"]]},
    **dict.fromkeys(("letters", "bigrams", "speller", "foods"), SHORT),
    **dict.fromkeys(("rides", "rides.tensors"), SERIES),
    "speller.tensors": {"steps": [{"source": [[1, 2, 3]], "source_lengths": [[3]]}, *TOKENS]},
    "foods.tensors": {"steps": [{"vector": [[1.0, 1.0, 1.0]]}, *TOKENS]},
}


def test_service_conforms(start_service: Callable[..., Any]):
    """Both names of every model are tested; no case fails, and none goes without a model."""
    service = start_service(front_end="envoy")
    with Endpoint(service.target, timeout=30) as endpoint:
        chosen = choose(endpoint, Selection(inputs=INPUTS, stable=True))
        results = list(run(endpoint, chosen, select()))
        unhelped = choose(endpoint, Selection())
    # A text with a blank, a series, and what follows a source or a vector, cannot be guessed.
    assert unhelped.left_out.keys() == {
        "blank", "foods.tensors", "speller.tensors", "rides", "rides.tensors",
    }  # fmt: skip
    assert chosen.left_out == {}
    assert {f"{name}{form}" for name in NAMES for form in ("", ".tensors")} == set(
        chosen.names("any model")
    )
    assert [report.line_of(one) for one in results if one.status != PASSED] == []
    assert len(results) == len(select())
