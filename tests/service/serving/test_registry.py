from functools import partial

import pytest

from service.engine.errors import ModelNotFound, ModelRefused, WrongInput
from service.serving.classifier import ClassifierModel
from service.serving.fill_mask import FillModel
from service.serving.generator import GeneratorModel
from service.serving.model_version import ServedVersion
from service.serving.registry import ModelRegistry, RefusedModel
from service.serving.tagger import TaggerModel
from tests.service.engine.fakes import FakeThread, card


def make_version(name="mood", version="1"):
    model = ClassifierModel(card(name, "classify", version=version), None, FakeThread(None))
    return ServedVersion(model)


@pytest.fixture
def catalogue():
    return ModelRegistry()


def test_the_highest_version_is_found_by_number(catalogue):
    versions = [make_version(version=version) for version in ("10", "9", "2")]
    catalogue.replace("mood", versions)
    assert catalogue.find("mood") is versions[0]
    assert catalogue.find("mood", "9") is versions[1]
    assert catalogue.get("mood", "2") is versions[2].model
    assert catalogue.versions("mood") == ["2", "9", "10"]
    assert catalogue.versions("nothing") == []


def test_what_is_replaced_is_retired_and_what_stays_is_not(catalogue):
    old, kept, new = (make_version(version=version) for version in ("1", "2", "3"))
    catalogue.replace("mood", [old, kept])
    catalogue.replace("mood", [kept, new])
    assert [old.is_retired, kept.is_retired, new.is_retired] == [True, False, False]
    with pytest.raises(ModelNotFound, match="served in version '2' and '3', not '1'"):
        catalogue.find("mood", "1")


def test_a_version_is_replaced_by_another_of_the_same_number(catalogue):
    old, new = make_version(), make_version()
    catalogue.replace("mood", [old])
    catalogue.replace("mood", [new])
    assert (old.is_retired, catalogue.find("mood", "1") is new) == (True, True)


def test_everything_served_is_told_by_name_and_version(catalogue):
    catalogue.replace("b", [make_version("b", "2"), make_version("b", "1")])
    catalogue.replace("a", [make_version("a", "1")])
    told = [(served.name, served.version) for served in catalogue.served]
    assert told == [("a", "1"), ("b", "1"), ("b", "2")]
    assert [model.card.name for model in catalogue.models] == ["a", "b", "b"]


def test_what_was_unloaded_says_so_until_it_is_served_again(catalogue):
    version = make_version()
    catalogue.replace("mood", [version])
    catalogue.withdraw("mood")
    assert (version.is_retired, catalogue.knows("mood")) == (True, True)
    assert catalogue.was_unloaded("mood")
    with pytest.raises(ModelNotFound, match="was unloaded; load it"):
        catalogue.find("mood")
    catalogue.replace("mood", [make_version()])
    assert catalogue.find("mood").version == "1"
    assert not catalogue.was_unloaded("mood")


def test_a_refused_bundle_is_told_with_its_reason(catalogue):
    catalogue.refuse("mood", [RefusedModel("mood", "2", "it is spoiled")])
    for version in ("", "2", "7"):
        with pytest.raises(ModelRefused, match="'mood' was not loaded: it is spoiled"):
            catalogue.find("mood", version)
    catalogue.replace("mood", [make_version()])
    assert catalogue.find("mood").version == "1"
    with pytest.raises(ModelRefused, match="version 2 of model 'mood' was not loaded"):
        catalogue.find("mood", "2")
    with pytest.raises(ModelNotFound, match="served in version '1', not '3'"):
        catalogue.find("mood", "3")
    catalogue.refuse("mood", [])
    assert catalogue.refused == ()


def test_an_unload_is_told_before_an_older_refusal_and_a_newer_one_before_it(catalogue):
    catalogue.replace("mood", [make_version()])
    catalogue.refuse("mood", [RefusedModel("mood", "2", "it is spoiled")])
    catalogue.withdraw("mood")
    with pytest.raises(ModelNotFound, match="was unloaded"):
        catalogue.find("mood")
    catalogue.refuse("mood", [RefusedModel("mood", "2", "it is still spoiled")])
    with pytest.raises(ModelRefused, match="still spoiled"):
        catalogue.find("mood")


def test_only_names_that_are_or_were_served_are_known(catalogue):
    catalogue.refuse("mood", [RefusedModel("mood", "1", "it is spoiled")])
    assert not catalogue.knows("mood")
    catalogue.replace("mood", [make_version()])
    assert catalogue.knows("mood")


def test_a_call_is_counted_on_the_version_that_answers_it(catalogue):
    versions = [make_version(version=version) for version in ("1", "2")]
    catalogue.replace("mood", versions)
    with catalogue.call(ClassifierModel, "mood", "1") as call:
        assert call.model is versions[0].model
    with catalogue.call(ClassifierModel, "mood"):
        pass
    assert [v.statistics.snapshot().success.count for v in versions] == [1, 1]


def test_another_kind_of_call_is_refused_and_not_counted(catalogue):
    version = make_version()
    catalogue.replace("mood", [version])
    for ask, does in (
        (partial(catalogue.call, TaggerModel), "tag"),
        (partial(catalogue.call_of_part, TaggerModel, lambda tagger: tagger.streams), "tag"),
        (partial(catalogue.call, FillModel), "fill blanks"),
        (partial(catalogue.call, GeneratorModel), "generate"),
    ):
        with pytest.raises(WrongInput, match=f"'mood' does not {does}; call Classify"):
            ask("mood")
    assert (version.users, version.statistics.snapshot().fail.count) == (0, 0)
