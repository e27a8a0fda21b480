"""What a precision costs is measured on the exported graphs, by the measures of training."""

from dataclasses import replace

import pytest
import torch

from bundle.store import read_bundle
from export import __main__ as command
from export import quality
from export.bundles import trained_from_bundle
from export.onnx_files import ExportRefused
from export.quality import SteppedModel, int8_figures, measured_anew, step_speedups
from tests import tiny
from training.held_out import FigureName, HeldOut
from training.measurements import ratio
from training.splits import Splits
from training.task_run import HeldOutExamples
from training.tasks.generate import Document, Generate, nats_per_token

TEXT = torch.arange(300) % 13 + 1


@pytest.fixture
def letters(tiny_models):
    return read_bundle(tiny_models / "letters" / "1")


class LettersHeldOut(Generate):
    """One text, of which every token but the first is scored."""

    def held_out(self, examples, trained):
        def measure(answers):
            (nats,) = answers
            return [ratio(nats, [1] * len(nats), len(nats), "letters")]

        text = trained.tokenizers["input"].decode(TEXT.tolist())
        return HeldOut([(text, 1)], measure, figures=[FigureName("loss", "nats")])


@pytest.fixture
def _letters_have_held_out_data(monkeypatch):
    kept = HeldOutExamples(LettersHeldOut(), "a text", ())
    monkeypatch.setattr(quality, "held_out_examples", lambda trained, data, run: kept)
    monkeypatch.setattr(quality, "_ROUND_SECONDS", 0.001)


def test_a_stepped_graph_reads_as_its_model_does(letters):
    """Token by token, from no state and from a carried one."""
    model, stepped = tiny.generator().build(), SteppedModel(letters.folder, "step")
    tokens, state, ours = TEXT[:60].view(3, 20), None, None
    for window in tokens.split(10, dim=1):
        with torch.no_grad():
            expected, state = model(window, state)
        logits, ours = stepped(window, ours)
        torch.testing.assert_close(logits, expected, atol=1e-5, rtol=1e-5)
        for part, other in zip(ours, state, strict=True):
            torch.testing.assert_close(part, other, atol=1e-5, rtol=1e-5)


def test_a_stepped_graph_encodes_as_its_model_does(tiny_models):
    model = tiny.seq2seq().build()
    stepped = SteppedModel(tiny_models / "speller" / "1", "step")
    source, lengths, token = TEXT[:12].view(3, 4), torch.tensor([4, 4, 4]), TEXT[:3].view(3, 1)
    with torch.no_grad():
        expected, _ = model(token, model.encode(source, lengths))
    logits, state = stepped(token, stepped.encode(source, lengths))
    torch.testing.assert_close(logits, expected, atol=1e-5, rtol=1e-5)
    assert len(state) == 4


@pytest.mark.usefixtures("_letters_have_held_out_data")
def test_figures_report_int8_and_fp32_by_one_procedure(letters):
    trained = trained_from_bundle(letters)
    int8, fp32 = int8_figures(trained, letters.folder)
    assert (int8.name, fp32.name) == ("loss, int8", "loss, fp32")
    assert int8.split == fp32.split == "a text, step by step"
    assert int8.command == "python -m export letters --int8"
    assert fp32.value == pytest.approx(nats_per_token(trained.build(), TEXT), abs=1e-5)
    assert int8.value == pytest.approx(fp32.value, abs=0.05)
    assert int8.value != fp32.value


@pytest.mark.usefixtures("_letters_have_held_out_data")
def test_own_figures_are_measured_anew_and_nothing_else_changes(letters, tmp_path, monkeypatch):
    source = ("--bundle", str(letters.folder), "--models", str(tmp_path))
    monkeypatch.setattr("sys.argv", ["export", "letters", *source, "--figures"])
    assert command.main() == 0
    again = read_bundle(tmp_path / "letters" / "1")
    (figure,) = again.manifest.figures
    trained = trained_from_bundle(letters)
    assert figure.value == pytest.approx(nats_per_token(trained.build(), TEXT), abs=1e-5)
    assert (figure.split, figure.precision) == ("a text", "fp32")
    assert figure.command == "python -m export letters --figures"
    assert again.manifest.files == letters.manifest.files
    assert replace(again.manifest, figures=letters.manifest.figures) == letters.manifest


def test_floors_are_measured_anew_where_the_rows_that_train_are_at_hand(letters, monkeypatch):
    trained = trained_from_bundle(letters).with_facts({"floors": ["of its training"]})
    task, text = LettersHeldOut(), trained.tokenizers["input"].decode(TEXT.tolist())
    for splits in (None, Splits([Document(text)], [], [], name="a text")):
        kept = HeldOutExamples(task, "a text", (), splits)
        monkeypatch.setattr(quality, "held_out_examples", lambda trained, data, run, k=kept: k)
        floors = measured_anew(trained).training["floors"]
        if splits is None:
            assert floors == ["of its training"], "of files, whose run keeps no row that trained"
    frequency, counted = floors
    assert frequency["floor"] == "how frequent each character is"
    assert counted["floor"] == "the 4 characters before, counted"
    assert {(f["figure"], f["split"]) for f in floors} == {("loss", "a text")}
    # What comes is what was counted.
    assert counted["value"] < frequency["value"]


def test_a_model_without_known_held_out_data_is_refused(letters):
    with pytest.raises(ExportRefused, match="no held-out data is known for 'letters'"):
        int8_figures(trained_from_bundle(letters), letters.folder)
    with pytest.raises(ExportRefused, match="no held-out data is known for 'letters'"):
        measured_anew(trained_from_bundle(letters))


@pytest.mark.usefixtures("_letters_have_held_out_data")
def test_speed_is_measured_at_one_row_and_many(letters):
    assert list(step_speedups(letters)) == [1, 64]
    assert min(step_speedups(letters).values()) > 0


@pytest.mark.usefixtures("_letters_have_held_out_data")
def test_the_option_measures_quality_and_speed(letters, tmp_path, monkeypatch, capsys):
    """Without it, figures of a bundle stay; tests of whole bundles show that."""
    source = ("--bundle", str(letters.folder), "--models", str(tmp_path))
    monkeypatch.setattr("sys.argv", ["export", "letters", *source, "--int8"])
    assert command.main() == 0
    figures = read_bundle(tmp_path / "letters" / "1").manifest.precisions["int8"].figures
    assert [figure.name for figure in figures] == ["loss, int8", "loss, fp32"]
    printed = capsys.readouterr().out
    assert f"loss, int8: {figures[0].value:.4f} nats (a text, step by step)" in printed
    assert "times as fast as fp32 at batch 64" in printed
