"""Classifiers of frames as graphs: the same bits in any batch, and step by step."""

import numpy as np
import pytest

from bundle.store import read_bundle
from export.bundles import export_bundle, trained_from_bundle
from service.runtime.sessions import SessionSettings, open_session
from tests import tiny
from tests.export.test_bundles import bytes_of

CPU = SessionSettings("cpu", "CPUExecutionProvider", 1)
LENGTHS = [1 + 7 * row % 40 for row in range(17)]


@pytest.fixture(scope="module")
def both_ends(tmp_path_factory):
    folder = tmp_path_factory.mktemp("frames") / "strokes" / "1"
    return tiny.export(tiny.frame_classifier(bidirectional=True), folder)


CHANNELS = len(tiny.CHANNELS)


def sequences(channels=CHANNELS):
    random = np.random.default_rng(4)
    return [random.normal(0, 3, (n, channels)).astype(np.float32) for n in LENGTHS]


def padded(rows):
    frames = np.zeros((len(rows), max(map(len, rows)), rows[0].shape[1]), np.float32)
    for row, own in zip(frames, rows, strict=True):
        row[: len(own)] = own
    return {"frames": frames, "lengths": np.array([len(row) for row in rows])}


def check_alone_and_together(bundle):
    session = open_session(bundle, "predict", CPU)
    rows = sequences(len(bundle.manifest.frames.channels))
    (together,) = session.run(None, padded(rows))
    assert len({row.tobytes() for row in together}) == len(rows)
    for number, own in enumerate(rows):
        (alone,) = session.run(None, padded([own]))
        assert alone[0].tobytes() == together[number].tobytes()
    return together


def test_a_sequence_has_the_same_bits_in_any_batch(both_ends):
    check_alone_and_together(both_ends)


def test_the_last_step_says_what_the_whole_sequence_says(tiny_models):
    bundle = read_bundle(tiny_models / "strokes" / "1")
    whole = check_alone_and_together(bundle)
    step = open_session(bundle, "step", CPU)
    for number, frames in enumerate(sequences()):
        state = {
            tensor.name: np.zeros((1, *tensor.shape), np.float32)
            for tensor in bundle.manifest.state
        }
        for frame in frames:
            said, *after = step.run(None, {"frame": frame[None], **state})
            state = dict(zip(state, after, strict=True))
        assert said[0].tobytes() == whole[number].tobytes()


def test_what_reads_from_both_ends_has_no_step(both_ends):
    manifest = both_ends.manifest
    assert set(manifest.graphs) == {"predict"}
    assert (manifest.stepping, manifest.state) == (None, ())
    assert manifest.frames.channels == tiny.CHANNELS


def test_a_step_answers_what_predict_answers(tiny_models):
    manifest = read_bundle(tiny_models / "strokes" / "1").manifest
    assert [tensor.name for tensor in manifest.state] == ["peak", "hidden_0"]
    spec = manifest.stepping
    assert (spec.frames, spec.answers, spec.batching) == (("frame",), ("probabilities",), "exact")
    assert spec.frame_seconds == manifest.frames.frame_seconds


def test_a_bundle_is_rebuilt_from_itself_alone(tiny_models, tmp_path):
    bundle = read_bundle(tiny_models / "strokes" / "1")
    again = export_bundle(trained_from_bundle(bundle), tmp_path / "strokes" / "1")
    assert bytes_of(again.folder) == bytes_of(bundle.folder)


@pytest.mark.slow
@pytest.mark.parametrize("cell", ["rnn", "lstm"])
@pytest.mark.parametrize("bidirectional", [False, True])
def test_every_cell_is_exported(cell, bidirectional, tmp_path):
    trained = tiny.frame_classifier(cell=cell, bidirectional=bidirectional)
    check_alone_and_together(export_bundle(trained, tmp_path / "strokes" / "1"))
