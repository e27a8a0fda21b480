"""The whole command, on tiny bundles and held-out splits written by hand."""

from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from bundle.series import STUDENT_T, SeriesSpec
from bundle.store import read_bundle
from evaluation import __main__ as evaluation
from evaluation import evaluators, everyday_sets
from evaluation.calls import in_calls, written
from evaluation.evaluators import Evaluator, evaluate, evaluate_graphs, measure_floors
from evaluation.serving import serving
from export.bundles import trained_from_bundle
from tests import tiny
from training import config
from training.alignment import alignment, draw_alignment
from training.beam import BeamSettings, beam_search
from training.bundled import bundled_task
from training.checkpoint import Figure
from training.data.series import Series, Window
from training.held_out import HeldOut
from training.measurements import ratio, share
from training.tasks.forecast import held_out_forecasts

FACTS = {"seed": 1, "command": "none", "seconds": 90, "threads": 1, "parameters": 1_000}
TEXTS = ["good food", "bad food", "the food is great", "not good"]


def mood_held_out(context):
    return HeldOut(TEXTS, lambda answers: [share([best == "glad" for best, *_ in answers])])


def letters_held_out(context):
    def measure(answers):
        (nats,) = answers
        return [ratio(nats, [1] * len(nats), len(nats), "letters")]

    return HeldOut([("abcabc", 1)], measure)


@pytest.fixture
def declare(monkeypatch, tmp_path):
    """Lets a model of a test have a recipe, and a held-out split."""
    recipes = tmp_path / "recipes"
    recipes.mkdir()
    monkeypatch.setattr(config, "RECIPES", recipes)
    declared = {}

    def declare(model, held_out):
        (recipes / f"{model}.toml").write_text("")
        declared[model] = held_out

    def examples(trained, data):
        found = declared.get(trained.name)
        return found and SimpleNamespace(questions=found)

    monkeypatch.setattr(evaluators, "held_out_examples", examples)
    return declare


@pytest.fixture
def models(tmp_path, declare):
    """Bundles that say of themselves what is so: mood, and letters but for its loss."""
    declare("mood", mood_held_out)
    declare("letters", letters_held_out)
    for model, figure in (
        (tiny.classifier("mood"), Figure("accuracy", GLAD, "%", "four texts", 4, "none")),
        (tiny.generator("letters"), Figure("loss", 1.0, "nats a letter", "a text", 5, "none")),
    ):
        trained = replace(model, figures=(figure,), training=FACTS, precisions={})
        tiny.export(trained, tmp_path / "models" / trained.name / "1")
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


def test_everyday_questions_are_asked_and_a_goal_may_be_of_them(
    models, tmp_path, capsys, monkeypatch
):
    """The tiny classifier finds whatever it reads glad."""
    folder = tmp_path / "everyday"
    folder.mkdir()
    monkeypatch.setattr(everyday_sets, "FOLDER", folder)
    (folder / "mood.toml").write_text("""
        models = ["mood"]
        rule = "good and bad"
        questions = [
            { kind = "good", given = "great food", accepted = ["glad"] },
            { kind = "bad", given = "bad food", accepted = ["sad"] },
        ]
    """)
    (config.RECIPES / "mood.toml").write_text("""
        [[goals]]
        figure = "right at first"
        split = "everyday"
        bar = 80
    """)
    arguments = ["--models", str(models), "--output", str(tmp_path), "--only", "mood"]
    assert evaluation.main(arguments) == 0
    printed = capsys.readouterr().out
    assert "mood, everyday questions: right at first 50.0 % of 2 (9.5 to 90.5)" in printed
    assert "goal missed: mood: right at first is 50.00, the goal is ≥ 80" in printed
    assert (
        "| right at first: 1 of 2 (9 to 91 %) | good 1 of 1, bad 0 of 1 |"
        in (tmp_path / "models.md").read_text()
    )
    assert "| bad food | sad | glad" in (tmp_path / "models" / "mood.md").read_text()
    nowhere = tmp_path / "nowhere"
    assert evaluation.main(["--models", str(models), "--output", str(nowhere), "--everyday"]) == 0
    (line,) = capsys.readouterr().out.splitlines()
    assert line.startswith("mood, everyday questions: right at first 50.0 % of 2")
    assert not nowhere.exists()


def ask_for_precision(client, model, questions, beam):
    """What is served, instead of what it says."""
    (served,) = (m for m in client.list_models().models if m.name == model)
    return [served.precision] * len(questions)


def precisions_held_out(context):
    """One measurement, 100 where the service is in int8; there are two claims of each precision."""
    return HeldOut([""], lambda answers: [share([each == "int8" for each in answers])] * 2)


def figures_of(where, value, **fields):
    return tuple(
        Figure(f"{name} in {where}", value, "%", "a text", 1, "none", **fields)
        for name in ("served", "is served")
    )


def test_a_precisions_figures_are_measured_where_it_is_served(
    tmp_path, declare, monkeypatch, capsys
):
    """Whatever a figure's name says: the manifest has its precision in a field."""
    declare("speller", precisions_held_out)
    monkeypatch.setitem(evaluators.EVALUATORS, "seq2seq", Evaluator(ask_for_precision))
    small = figures_of("small", 100.0, precision="int8")
    large = figures_of("large", 0.0, precision="fp32")
    trained = replace(
        tiny.seq2seq("speller"), figures=figures_of("training", 0.0), training=FACTS,
        precisions={"int8": (*small, *large)},
    )  # fmt: skip
    tiny.export(trained, tmp_path / "models" / "speller" / "1")
    arguments = ["--models", str(tmp_path / "models"), "--output", str(tmp_path)]
    assert evaluation.main(arguments) == 0
    said = capsys.readouterr().out
    places = [said.index(f"served in {name}:") for name in ("training", "large", "small")]
    assert places == sorted(places)


def test_step_graphs_are_measured_in_this_process_where_no_call_reads_with_them(
    tmp_path, declare, capsys
):
    """A generator's text is scored in fp32 by the service, and step by step by each graph."""
    declare("letters", letters_held_out)
    figures = [
        Figure(f"loss, {precision}", 1.0, "nats a letter", "a text", 5, "none", precision=precision)
        for precision in ("int8", "fp32")
    ]
    trained = replace(
        tiny.generator("letters"), figures=(figures[1],), training=FACTS,
        precisions={"int8": tuple(figures)},
    )  # fmt: skip
    bundle = tiny.export(trained, tmp_path / "models" / "letters" / "1")
    held_out = letters_held_out(None)
    int8, fp32 = evaluate_graphs(bundle, held_out, figures)
    tokens = torch.tensor([tiny.LETTER_READER.encode("abcabc").ids])
    with torch.no_grad():
        logits, _ = trained.build()(tokens[:, :-1])
    nats = torch.nn.functional.cross_entropy(logits[0], tokens[0, 1:]).item()
    assert fp32.measured.value == pytest.approx(nats, abs=1e-5)
    assert int8.measured.value == pytest.approx(nats, abs=0.05)
    assert int8.measured.value != fp32.measured.value
    arguments = ["--models", str(tmp_path / "models"), "--output", str(tmp_path)]
    assert evaluation.main(arguments) == 1
    said = capsys.readouterr().out
    assert said.count(f"  loss, fp32: {nats:.4f}") == 2
    assert said.count("  loss, int8: ") == 1


def test_figures_of_several_beams_are_measured_with_each(declare, tmp_path):
    """Figures of one beam are asked for together, in the manifest's order."""
    asked = []

    class Client:
        def generate(self, model, source, beam=None):
            asked.append(beam.width if beam else 1)
            return iter([SimpleNamespace(text=f"{source}{asked[-1]}")])

    held_out = HeldOut(
        ["a"], lambda answers: [share([answers == ["a1"]]), share([answers == ["a5"]])]
    )
    claims = [
        Figure(name, 0.0, "%", "a text", 1, "none", beam)
        for beam in (1, 5)
        for name in ("greedy", "searched")
    ]
    bundle = tiny.export(tiny.seq2seq("speller"), tmp_path / "speller" / "1")
    results, _ = evaluate(Client(), bundle, held_out, claims)
    assert asked == [1, 5]
    assert [result.claimed for result in results] == claims
    assert [result.measured.value for result in results] == [100.0, 0.0, 0.0, 100.0]


@pytest.mark.parametrize("width", [1, 3])
def test_the_service_decodes_as_training_does(tmp_path, width):
    """The same answers, token by token and by beam search, so that figures can be compared."""
    trained = tiny.seq2seq("speller")
    tiny.export(trained, tmp_path / "speller" / "1")
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
    bundle = tiny.export(tiny.seq2seq("speller"), tmp_path / "speller" / "1")
    source, said, weights = alignment(trained_from_bundle(bundle), "fedgab")
    assert source == list("fedgab")
    assert said[-1] == "(end)"
    assert weights.shape == (len(said), len(source))
    torch.testing.assert_close(weights.sum(dim=1), torch.ones(len(said)))
    draw_alignment(trained_from_bundle(bundle), "fedgab", tmp_path / "picture.png")
    assert (tmp_path / "picture.png").stat().st_size > 1000


def test_a_bundle_without_a_held_out_split_is_named(models, tmp_path, capsys):
    tiny.export(tiny.classifier("stranger"), models / "stranger" / "1")
    for name in ("stranger", "nobody"):
        assert evaluation.main(["--models", str(models), "--only", name]) == 1
        said = f"{name} is no bundle with a known held-out split (of: letters, mood)"
        assert said in capsys.readouterr().err


@pytest.mark.parametrize("model", config.models())
def test_every_model_with_a_recipe_can_be_evaluated(model):
    """Its recipe names what reads its packages, and has goals."""
    assert bundled_task(model) is not None
    assert config.recipe_of(model).goals


@pytest.mark.parametrize("model", config.models())
def test_what_others_report_is_of_a_figure_that_the_bundle_claims(model):
    (folder,) = (Path(__file__).parents[2] / "models" / model).iterdir()
    claims = read_bundle(folder).manifest.figures
    for one in config.recipe_of(model).published:
        assert any(c.name == one.figure and c.split.startswith(one.split) for c in claims)


def test_a_forecasters_floors_are_measured_beside_it(tmp_path, declare, capsys):
    """Of other tasks those stand that the training measured with what it was trained on."""
    season = np.tile(10.0 + np.arange(12), 4)
    windows = [Window(Series("a year again", season), 36)]

    def held_out(trained):
        return held_out_forecasts([("one year", windows, 6)], trained)

    declare("rises", held_out)
    model = tiny.forecaster("rises", spec=SeriesSpec("M", STUDENT_T, (), False, 4))
    trained = replace(model, training=FACTS, figures=())
    tiny.export(trained, tmp_path / "models" / "rises" / "1")
    arguments = ["--models", str(tmp_path / "models"), "--output", str(tmp_path)]
    assert evaluation.main(arguments) == 0
    assert (
        "rises, floor: sMAPE 0.0000 % by the last season again, one year" in capsys.readouterr().out
    )
    card = (tmp_path / "models" / "rises.md").read_text()
    assert "| MASE | 0.0000 | 0.0000 to 0.0000 | the last season again | one year |" in card
    bundle = tiny.export(tiny.classifier("mood"), tmp_path / "mood" / "1")
    assert measure_floors(bundle, mood_held_out(None)) == []


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
