"""The whole command, on tiny bundles and held-out splits written by hand."""

from dataclasses import replace

import pytest
import torch

from evaluation import __main__ as evaluation
from evaluation.alignment import alignment, draw_alignment
from evaluation.calls import in_calls, written
from evaluation.judged import ratio, share
from evaluation.judges import JUDGES, PRECISION_JUDGES
from export.bundles import export_bundle
from study.serving import serving
from tests import tiny
from training.beam import BeamSettings, beam_search
from training.checkpoint import Figure

TEXTS = ["good food", "bad food", "the food is great", "not good"]


def judge_mood(bench):
    said = [row.best[0] for row in bench.client.classify(bench.name, TEXTS)]
    return [share(bench.claims[0], [label == "glad" for label in said])]


def judge_letters(bench):
    (scored,) = bench.client.score(bench.name, ["abcabc"])
    nats = [-token.log_probability for token in scored.tokens[1:]]
    return [ratio(bench.claims[0], nats, [1] * len(nats), len(nats), "letters")]


@pytest.fixture
def models(tmp_path, monkeypatch):
    """Bundles that say of themselves what is so: mood, and letters but for its loss."""
    monkeypatch.setitem(JUDGES, "mood", judge_mood)
    monkeypatch.setitem(JUDGES, "letters", judge_letters)
    facts = {"seed": 1, "command": "none", "seconds": 90, "threads": 1, "parameters": 1_000}
    for model, figure in (
        (tiny.classifier("mood"), Figure("accuracy", GLAD, "%", "four texts", 4, "none")),
        (tiny.generator("letters"), Figure("loss", 1.0, "nats a letter", "a text", 5, "none")),
    ):
        trained = replace(model, figures=(figure,), training=facts, precisions={})
        export_bundle(trained, tmp_path / "models" / trained.name / "1")
    return tmp_path / "models"


# Of the four texts, what the tiny classifier finds glad.
GLAD = 100.0


def test_pages_are_written_and_what_does_not_reproduce_fails(models, tmp_path, capsys):
    docs = tmp_path / "docs"
    arguments = ["--models", str(models), "--output", str(docs)]
    assert evaluation.main([*arguments, "--only", "mood"]) == 0
    assert evaluation.main(arguments) == 1
    assert "these do not reproduce: letters: loss" in capsys.readouterr().err
    page = (docs / "models.md").read_text()
    assert "| [mood](models/mood.md) | accuracy (%) | 100.00 | 51.01 to 100.00, Wilson |" in page
    assert "does not reproduce**" in page
    assert "| mood | 1,000 |" in page
    card = (docs / "models" / "mood.md").read_text()
    assert card.startswith("# mood\n\na tiny mood\n\nArchitecture: classifier, 1 × 9 lstm")
    assert "- none 0 (sha256 0…): none" in card


def judge_precision(bench):
    """Whether what is served is what each claim is of."""
    (model,) = (m for m in bench.client.list_models().models if m.name == bench.name)
    return [share(claim, [claim.name.endswith(model.precision)]) for claim in bench.claims]


def test_a_precisions_figures_are_measured_where_it_is_served(tmp_path, monkeypatch, capsys):
    monkeypatch.setitem(JUDGES, "letters", judge_precision)
    monkeypatch.setitem(PRECISION_JUDGES, "letters", judge_precision)
    served, int8, fp32 = (
        Figure(name, 100.0, "%", "a text", 1, "none")
        for name in ("served in fp32", "served, int8", "served, fp32")
    )
    facts = {"seed": 1, "command": "none", "seconds": 90, "threads": 1, "parameters": 1_000}
    trained = replace(
        tiny.generator("letters"), figures=(served,), training=facts,
        precisions={"int8": (int8, fp32)},
    )  # fmt: skip
    export_bundle(trained, tmp_path / "models" / "letters" / "1")
    arguments = ["--models", str(tmp_path / "models"), "--output", str(tmp_path)]
    assert evaluation.main(arguments) == 0
    said = capsys.readouterr().out
    places = [said.index(f"  {figure.name}: 100.0000") for figure in (served, fp32, int8)]
    assert places == sorted(places)
    monkeypatch.delitem(PRECISION_JUDGES, "letters")
    assert evaluation.main(arguments) == 1
    assert "not reproduce: letters: served, fp32, letters: served, int8" in capsys.readouterr().err


@pytest.mark.parametrize("width", [1, 3])
def test_the_service_decodes_as_training_does(tmp_path, width):
    """The same answers, token by token and by beam search, so that figures can be compared."""
    trained = tiny.seq2seq("speller")
    export_bundle(trained, tmp_path / "speller" / "1")
    reader, writer = tiny.LETTER_READER, tiny.PHONE_WRITER
    words = ["abc", "fed", "gab gab", "jig", "lamed", "m"]
    most = trained.limits["output_tokens"]
    ours = []
    for word in words:
        source = torch.tensor([reader.encode(word).ids])
        (ids,) = beam_search(
            trained.build(), source, torch.tensor([source.shape[1]]), writer.vocabulary,
            BeamSettings(width, 1.0, most),
        )  # fmt: skip
        ours.append(writer.decode(ids))
    with serving(tmp_path) as client:
        assert written(client, "speller", [{"source": word} for word in words], width) == ours
    assert len(set(ours)) > 1


def test_an_alignment_has_a_row_for_each_token_and_the_end(tmp_path):
    bundle = export_bundle(tiny.seq2seq("speller"), tmp_path / "speller" / "1")
    source, said, weights = alignment(bundle, "fedgab")
    assert source == list("fedgab")
    assert said[-1] == "(end)"
    assert weights.shape == (len(said), len(source))
    torch.testing.assert_close(weights.sum(dim=1), torch.ones(len(said)))
    draw_alignment(bundle, "fedgab", tmp_path / "picture.png")
    assert (tmp_path / "picture.png").stat().st_size > 1000


def test_a_bundle_that_nobody_can_judge_is_named(models, tmp_path, capsys):
    assert evaluation.main(["--models", str(models), "--only", "stranger"]) == 1
    assert "stranger is no bundle that can be judged (sentiment," in capsys.readouterr().err


def test_a_call_holds_what_a_request_may():
    """64 texts, or 32,000 characters; a longer one goes by itself. Answers keep their order."""
    asked = []

    def ask(part):
        asked.append(list(part))
        return [item * 2 for item in part]

    items = [*range(70), 40_000, 31_000, 900, 200]
    assert in_calls(ask, items, lambda item: item) == [item * 2 for item in items]
    assert sorted(map(len, asked)) == [1, 1, 2, 6, 64]
    assert [40_000] in asked
    assert [31_000, 900] in asked
