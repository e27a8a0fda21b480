import os

import pytest

from service.access.file_reload import LOOK_SECONDS, FileUnusable
from service.engine.errors import WrongInput
from service.serving.presets import Presets
from tests.service.engine.fakes import card

LETTERS, OTHER = card("letters", "generate"), card("other", "generate")
CONTENT = """
[careful]
temperature = 0.5
top_k = 3

[default]
top_p = 0.5

[model.letters.careful]
temperature = 0.25

[model.letters.wild]
temperature = 2

[model.letters.default]
temperature = 0.75
"""


def written(tmp_path, content=CONTENT):
    path = tmp_path / "presets.toml"
    path.write_text(content)
    return path


def test_a_models_own_preset_comes_before_that_of_all(tmp_path):
    presets = Presets(written(tmp_path))
    assert presets.chosen(LETTERS, "careful") == {"temperature": 0.25}
    assert presets.chosen(OTHER, "careful") == {"temperature": 0.5, "top_k": 3}
    assert presets.of(LETTERS).keys() == {"careful", "wild"}


def test_defaults_of_the_bundle_can_be_changed(tmp_path):
    presets = Presets(written(tmp_path))
    assert presets.defaults(LETTERS) == {"temperature": 0.75, "top_k": 0, "top_p": 0.5}
    assert presets.defaults(OTHER) == {"temperature": 1.0, "top_k": 0, "top_p": 0.5}


def test_an_unknown_preset_names_those_that_there_are(tmp_path):
    with pytest.raises(WrongInput, match="no preset 'tame'; it has careful, wild"):
        Presets(written(tmp_path)).chosen(LETTERS, "tame")
    with pytest.raises(WrongInput, match="no preset 'default'; it has careful"):
        Presets(written(tmp_path)).chosen(OTHER, "default")
    with pytest.raises(WrongInput, match="it has none"):
        Presets().chosen(LETTERS, "careful")


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("[careful", "is no TOML"),
        ("careful = 1", "careful is no table; write \\[careful\\]"),
        ("[model]\nletters = 1", "model.letters is no table"),
        ("[a]\nwarmth = 1", "a.warmth is none of temperature, "),
        ("[a]\ntemperature = 'hot'", "a.temperature is 'hot'; write a number"),
        ("[a]\ntop_p = 2", "a: top_p is 2; choose one above 0"),
        ("[a]\ntop_k = 1.5", "a.top_k is 1.5; write a whole number"),
    ],
)
def test_a_file_that_cannot_be_used_says_where(tmp_path, content, message):
    with pytest.raises(FileUnusable, match=message):
        Presets(written(tmp_path, content))
    with pytest.raises(FileUnusable, match="cannot be read"):
        Presets(tmp_path / "none.toml")


def test_a_changed_file_is_read_again_and_a_broken_one_is_not_used(tmp_path, monkeypatch):
    monkeypatch.setattr("service.access.file_reload.LOOK_SECONDS", 0.0)
    assert LOOK_SECONDS > 0
    failures = []
    path = written(tmp_path)
    presets = Presets(path, lambda: failures.append(1))
    for number, (content, temperature) in enumerate(
        [("[careful]\ntemperature = 0.125", 0.125), ("[careful", 0.125)]
    ):
        path.write_text(content)
        os.utime(path, (number + 1, number + 1))
        assert presets.chosen(LETTERS, "careful") == {"temperature": temperature}
    assert failures == [1]
