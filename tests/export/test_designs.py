"""Designs by their options: every pair of values, or with `make test-all` every design."""

import shutil
from itertools import product

import numpy as np
import pytest

from bundle.manifest import ROWS
from bundle.store import read_bundle
from export.bundles import export_bundle
from service.runtime.probe import probe
from service.runtime.sessions import SessionSettings, open_session
from tests import tiny
from tests.designs import (
    covering,
    every_pair,
    name_of,
    pairs_of,
    trained_of,
    valid_designs,
)
from training.models.fill import FillConfig
from training.models.options import RecurrentOptions

CPU = SessionSettings("cpu", "CPUExecutionProvider", 1)
LENGTHS = np.array([7, 1, 4, 6, 2])
IDS = 5  # below every vocabulary and number of labels


def pytest_generate_tests(metafunc):
    if "design" in metafunc.fixturenames:
        every = metafunc.config.getoption("--all-designs")
        designs = valid_designs() if every else covering(valid_designs())
        metafunc.parametrize("design", designs, ids=name_of)


@pytest.mark.slow
def test_a_design_is_exported_and_keeps_its_rows_apart(design, tmp_path):
    """It passes the gate (parity over carried steps, ragged, on sizes the tracer never saw), and
    a row's bits are the same alone and in any batch, ragged or not, whole or cut in two."""
    folder = tmp_path / name_of(design) / "1"
    bundle = export_bundle(trained_of(design), folder)
    graphs = bundle.manifest.graphs.keys() - {ROWS}
    assert bundle.manifest.export.parity.keys() == graphs
    sessions = {name: open_session(bundle, name, CPU) for name in graphs}
    assert probe(sessions, IDS).batch_invariant
    for session in sessions.values():
        assert_ragged_rows_are_independent(session)
    shutil.rmtree(tmp_path)


def test_a_bag_keeps_its_rows_apart(tmp_path):
    """At sizes of a real model, whose sums over time have more than one way to be taken."""
    config = FillConfig(
        len(tiny.MARKED_WORD_READER.vocabulary), 4, 100, RecurrentOptions("lstm", 64),
        combined_size=32, bag=True,
    )  # fmt: skip
    readers = {"input": tiny.MARKED_WORD_READER}
    trained = tiny.trained("bag", config, readers, labels=tiny.WORDS[:4])
    export_bundle(trained, tmp_path / "1")
    session = open_session(read_bundle(tmp_path / "1"), "predict", CPU)
    assert probe({"predict": session}, IDS).batch_invariant
    assert_ragged_rows_are_independent(session)


def assert_ragged_rows_are_independent(session):
    """Each row gives the same bits alone, at its own length, as beside longer ones.

    A score of one token is padded to two, as the service does.
    """
    random = np.random.default_rng(3)
    names = [port.name for port in session.get_outputs()]
    if not any(port.name == "lengths" for port in session.get_inputs()):
        return
    feed = {port.name: made_up(port, random) for port in session.get_inputs()}
    together = session.run(None, feed)
    for row, length in enumerate(LENGTHS):
        alone = {name: array[row : row + 1] for name, array in feed.items()}
        width = max(length, 2) if "targets" in feed else length
        for name in ("tokens", "targets", "right"):
            if name in alone:
                alone[name] = alone[name][:, :width]
        for name, whole, own in zip(names, together, session.run(None, alone), strict=True):
            is_cut = whole.shape[1:] != own.shape[1:]
            parts = (whole[row, :length], own[0, :length]) if is_cut else (whole[row], own[0])
            assert parts[0].tobytes() == parts[1].tobytes(), name


def made_up(port, random):
    shape = [len(LENGTHS), *(LENGTHS.max() if isinstance(a, str) else a for a in port.shape[1:])]
    if port.name.endswith("lengths"):
        return LENGTHS.astype(np.int64)
    if port.type == "tensor(int64)":
        return random.integers(1, IDS, shape)
    if port.name == "memory_mask":
        return np.ones(shape, np.float32)
    return random.uniform(-1, 1, shape).astype(np.float32)


def test_designs_cover_every_pair_that_makes_sense():
    chosen = covering(valid_designs())
    covered = set().union(*map(pairs_of, chosen))
    assert covered == set().union(*map(pairs_of, valid_designs()))
    assert len(chosen) < 30


def test_pairs_that_make_no_sense_are_these():
    """Each is refused with a reason when the configuration is made, whatever the other options."""
    possible = set().union(*map(pairs_of, valid_designs()))
    one_output = product(["classifier", "fill"], ["output", "hidden_and_output"])
    handed_over = product(["seq2seq", "seq2seq-attention"], ["output", "hidden_and_output"])
    own_input = product(["generator", "vec2seq"], ["hidden_and_output"])
    one_way = ["fill", "generator", "vec2seq", "seq2seq", "seq2seq-attention"]
    expected = [
        *({"model": m, "recurrence": r} for m, r in (*one_output, *handed_over, *own_input)),
        *({"model": m, "bidirectional": True} for m in one_way),
        *({"recurrence": r, "bidirectional": True} for r in ("output", "hidden_and_output")),
        *({"recurrence": "output", "cell": cell} for cell in ("gru", "lstm")),
        {"recurrence": "output", "transition_mlp": 1},
    ]
    assert set(every_pair()) - possible == {frozenset(pair.items()) for pair in expected}
