from dataclasses import dataclass

import pytest

from training.bundled import bundled_task
from training.bundled.cloze import ClozeSettings
from training.bundled.food import FoodSettings
from training.bundled.nationality import NationalitySettings
from training.bundled.pos import TaggingSettings
from training.bundled.sentiment import SentimentSettings
from training.config import (
    RECIPES,
    CardSettings,
    Published,
    RecipeInvalid,
    load_recipe,
    models,
)
from training.forecasting import ForecastSettings
from training.loop import FitSettings
from training.models.classifier import ClassifierConfig
from training.models.fill import FillConfig
from training.models.forecaster import ForecasterConfig
from training.models.frame_classifier import FrameClassifierConfig
from training.models.generator import GeneratorConfig
from training.models.seq2seq import Seq2SeqConfig
from training.models.tagger import TaggerConfig
from training.models.vec2seq import VectorToSequenceConfig
from training.tasks import TASKS, default_recipe
from training.tasks.frames import FramesSettings
from training.tasks.generate import GenerateSettings
from training.tasks.seq2seq import Seq2SeqSettings

TEXT = """
[task]
batch = 8
smoothing = 1

[model]
embedding_size = 6
[model.recurrent]
cell = "gru"
hidden_size = 12

[fit]
epochs = 4
learning_rate = 0.01

[quick.task]
batch = 2
[quick.model.recurrent]
hidden_size = 3
[quick.fit]
epochs = 1
"""


@dataclass(frozen=True)
class TaskSettings:
    batch: int
    smoothing: float


@pytest.fixture
def written(tmp_path):
    def write(text):
        path = tmp_path / "mood.toml"
        path.write_text(text)
        return path

    return write


def config_of(recipe):
    return recipe.config(ClassifierConfig, vocabulary_size=5, labels=2)


def read_all(path):
    recipe = load_recipe(path)
    return recipe.task_settings(TaskSettings), recipe.fit_settings(seed=1), config_of(recipe)


def test_a_recipe_becomes_the_frozen_settings(written):
    recipe = load_recipe(written(TEXT))
    assert recipe.task_settings(TaskSettings) == TaskSettings(batch=8, smoothing=1.0)
    assert recipe.fit_settings(seed=3) == FitSettings(3, 4, 0.01)
    config = config_of(recipe)
    assert (config.vocabulary_size, config.embedding_size) == (5, 6)
    assert (config.recurrent.cell, config.recurrent.hidden_size) == ("gru", 12)


def test_the_quick_profile_replaces_what_it_names(written):
    recipe = load_recipe(written(TEXT), quick=True)
    assert recipe.task_settings(TaskSettings) == TaskSettings(batch=2, smoothing=1.0)
    assert recipe.fit_settings(seed=3).epochs == 1
    assert (config_of(recipe).recurrent.cell, config_of(recipe).recurrent.hidden_size) == ("gru", 3)


@pytest.mark.parametrize(
    ("before", "after", "message"),
    [
        ("batch = 8", "batch = 8\nbaches = 9", "'baches' is not one of batch, smoothing"),
        ("batch = 8", "", "'batch' is missing"),
        ("batch = 8", 'batch = "many"', "batch is 'many', not of type int"),
        ("epochs = 4", "epochs = 4\nmomentum = 1", "'momentum' is not one of seed, epochs"),
        ("epochs = 4", 'epochs = 4\naverage = "all"', "average is not one of none, uniform"),
        ("embedding_size = 6", "embedding_size = 6\ncolour = 1", "colour"),
        ("embedding_size = 6", "labels = 6", "the data decide labels"),
        ('cell = "gru"', 'cell = "qrnn"', "'qrnn' is not one of rnn, gru, lstm"),
        ("[task]", "[tasks]", r"\[tasks\] is not one of \[data\], \[task\], \[model\], \[fit\]"),
        ("[quick.fit]", "[quick.fits]", r"\[quick.fits\] is not one of"),
        ("[task]", "[task", "cannot be read"),
    ],
)
def test_what_nobody_reads_is_refused(written, before, after, message):
    path = written(TEXT.replace(before, after, 1))
    with pytest.raises(RecipeInvalid, match=message):
        read_all(path)


OF_THE_MODEL = """
[sampling]
temperature = 1
top_k = 40
top_p = 0.9
[export]
int8 = true
[[goals]]
figure = "accuracy"
bar = 90
[[goals]]
figure = "loss"
split = "the last"
bar = 1.5
is_error = true
[[published]]
figure = "loss"
split = "the last"
value = 1.47
by = "another"
source = "a paper"
[card]
weaknesses = "Irony."
"""


def test_a_recipe_says_what_the_model_is_exported_and_measured_as(written):
    recipe = load_recipe(written(TEXT + OF_THE_MODEL), quick=True)
    assert recipe.sampling == {"temperature": 1, "top_k": 40, "top_p": 0.9}
    assert recipe.export.int8
    assert recipe.card == CardSettings(weaknesses="Irony.")
    assert recipe.published == (Published("loss", "the last", 1.47, "another", "a paper"),)
    accuracy, loss = recipe.goals
    assert [accuracy.is_met(90.0), accuracy.is_met(89.9)] == [True, False]
    assert [loss.is_met(1.5), loss.is_met(1.6)] == [True, False]


def test_what_a_recipe_does_not_say_of_the_model_is_left_to_its_task(written):
    recipe = load_recipe(written(TEXT))
    assert (recipe.sampling, recipe.goals, recipe.published) == (None, (), ())
    assert not recipe.export.int8
    assert recipe.card == CardSettings()


@pytest.mark.parametrize(
    ("before", "after", "message"),
    [
        ("top_k = 40", "top_n = 40", r"\[sampling\]: 'top_n' is not one of temperature, top_k"),
        ("top_k = 40", "top_k = 0.5", r"\[sampling\]: top_k is 0.5, not a whole number"),
        (
            "top_p = 0.9",
            "top_p = 1.5",
            r"\[sampling\]: top_p is 1.5; choose one above 0",
        ),
        ("int8 = true", "int8 = 8", r"\[export\]: int8 is 8, not of type bool"),
        ("bar = 90", "", r"\[\[goals\]\]: 'bar' is missing"),
        ('source = "a paper"', "", r"\[\[published\]\]: 'source' is missing"),
        ("weaknesses", "weakness", r"\[card\]: 'weakness' is not one of weaknesses"),
        ("[card]", "[cards]", r"\[cards\] is not one of .*\[card\]"),
        ("[card]", "[quick.card]", r"\[quick.card\] is not one of"),
    ],
)
def test_what_is_said_wrongly_of_the_model_is_refused(written, before, after, message):
    with pytest.raises(RecipeInvalid, match=message):
        load_recipe(written(TEXT + OF_THE_MODEL.replace(before, after, 1)))


def test_a_file_that_is_not_there_is_refused(tmp_path):
    with pytest.raises(RecipeInvalid, match="cannot be read"):
        load_recipe(tmp_path / "none.toml")


# What each bundled model reads its recipe into, and what its data decide of the model.
SEQ2SEQ_DATA = ("source_vocabulary_size", "target_vocabulary_size", "source_limit")
VEC2SEQ_DATA = ("vector_size", "vocabulary_size", "examples", "unknown")
BUNDLED = {
    "cloze": (ClozeSettings, FillConfig, ("vocabulary_size", "candidates")),
    "g2p": (Seq2SeqSettings, Seq2SeqConfig, SEQ2SEQ_DATA),
    "food": (FoodSettings, VectorToSequenceConfig, VEC2SEQ_DATA),
    "monthly": (ForecastSettings, ForecasterConfig, ("features",)),
    "nationality": (NationalitySettings, ClassifierConfig, ("vocabulary_size", "labels")),
    "pos": (TaggingSettings, TaggerConfig, ("vocabulary_size", "labels")),
    "pos-online": (TaggingSettings, TaggerConfig, ("vocabulary_size", "labels")),
    "prose": (GenerateSettings, GeneratorConfig, ("vocabulary_size",)),
    "sentiment": (SentimentSettings, ClassifierConfig, ("vocabulary_size", "labels")),
    "translate": (Seq2SeqSettings, Seq2SeqConfig, SEQ2SEQ_DATA),
    "vowels": (FramesSettings, FrameClassifierConfig, ("channels", "labels")),
    "vowels-online": (FramesSettings, FrameClassifierConfig, ("channels", "labels")),
}


@pytest.mark.parametrize("quick", [False, True])
@pytest.mark.parametrize("model", models())
def test_every_recipe_says_what_its_model_reads(model, quick):
    """Its module is there, too, and is of a known task."""
    settings, config, of_data = BUNDLED[model]
    recipe = load_recipe(RECIPES / f"{model}.toml", quick)
    assert recipe.task_settings(settings)
    assert recipe.config(config, **dict.fromkeys(of_data, 19))
    assert recipe.fit_settings(seed=1).epochs > 0
    assert recipe.data["description"].endswith(".")
    task = bundled_task(model)
    assert isinstance(task, type(TASKS[task.command]))
    assert task.name == config.task
    assert task.packages


def test_a_key_that_is_chosen_by_the_data_is_filled_in(written):
    recipe = load_recipe(written(TEXT.replace("batch = 8", 'batch = "auto"', 1)))
    assert recipe.is_auto("task.batch")
    chosen = recipe.chosen({"task.batch": 5, "task.smoothing": 9, "model.recurrent.cell": "rnn"})
    assert (chosen.value("task.batch"), chosen.value("task.smoothing")) == (5, 1)
    assert chosen.value("model.recurrent.cell") == "gru"
    with pytest.raises(RecipeInvalid, match="batch is 'auto', which nothing here decides"):
        recipe.task_settings(TaskSettings)


def test_a_setting_of_the_command_replaces_that_of_the_file(written):
    recipe = load_recipe(written(TEXT))
    recipe = recipe.overridden(["task.batch=3", "model.recurrent.cell=rnn", "fit.epochs = 2"])
    assert recipe.task_settings(TaskSettings).batch == 3
    assert config_of(recipe).recurrent.cell == "rnn"
    assert recipe.fit_settings(1).epochs == 2
    deeper = recipe.overridden(["model.recurrent.transition_mlp=1"])
    assert config_of(deeper).recurrent.transition_mlp == 1
    with pytest.raises(RecipeInvalid, match=r"task\.bach is no key of mood\.toml; near it: task"):
        recipe.overridden(["task.bach=3"])


def test_a_recipe_of_a_few_keys_is_laid_over_the_default(tmp_path):
    (tmp_path / "own.toml").write_text("[task]\nwindow = 7\n[sampling]\ntop_k = 3\n")
    recipe = default_recipe("generate").under(load_recipe(tmp_path / "own.toml"))
    assert (recipe.value("task.window"), recipe.value("fit.learning_rate")) == (7, 0.004)
    assert recipe.sampling == {"top_k": 3}
    (tmp_path / "own.toml").write_text("[task]\nwindows = 7\n")
    with pytest.raises(RecipeInvalid, match=r"near it: task\.window"):
        default_recipe("generate").under(load_recipe(tmp_path / "own.toml"))
