from functools import partial

import pytest

from service.engine.errors import ModelNotFound, ModelRefused, WrongInput
from service.refused_model import RefusedModel
from service.serving.classifier import ClassifierModel, TextClassifierModel
from service.serving.fill_mask import FillModel
from service.serving.generator import GeneratorModel
from service.serving.model_version import ServedVersion
from service.serving.registry import ModelRegistry
from service.serving.tagger import TaggerModel
from tests.service.engine.fakes import FakeThread, card


def make_version(name="mood", version="1"):
    model = TextClassifierModel(card(name, "classify", version=version), None, FakeThread(None))
    return ServedVersion(model)


@pytest.fixture
def registry():
    return ModelRegistry()


def test_the_highest_version_is_found_by_number(registry):
    versions = [make_version(version=version) for version in ("10", "9", "2")]
    registry.replace("mood", versions)
    assert registry.find("mood") is versions[0]
    assert registry.find("mood", "9") is versions[1]
    assert registry.get("mood", "2") is versions[2].model
    assert registry.versions("mood") == ["2", "9", "10"]
    assert registry.versions("nothing") == []


def test_what_is_replaced_is_retired_and_what_stays_is_not(registry):
    old, kept, new = (make_version(version=version) for version in ("1", "2", "3"))
    registry.replace("mood", [old, kept])
    registry.replace("mood", [kept, new])
    assert [old.is_retired, kept.is_retired, new.is_retired] == [True, False, False]
    with pytest.raises(ModelNotFound, match="served in version '2' and '3', not '1'"):
        registry.find("mood", "1")


def test_a_version_is_replaced_by_another_of_the_same_number(registry):
    old, new = make_version(), make_version()
    registry.replace("mood", [old])
    registry.replace("mood", [new])
    assert (old.is_retired, registry.find("mood", "1") is new) == (True, True)


def test_everything_served_is_reported_by_name_and_version(registry):
    registry.replace("b", [make_version("b", "2"), make_version("b", "1")])
    registry.replace("a", [make_version("a", "1")])
    reported = [(served.name, served.version) for served in registry.served]
    assert reported == [("a", "1"), ("b", "1"), ("b", "2")]
    assert [model.card.name for model in registry.models] == ["a", "b", "b"]


def test_what_was_unloaded_says_so_until_it_is_served_again(registry):
    version = make_version()
    registry.replace("mood", [version])
    registry.withdraw("mood")
    assert (version.is_retired, registry.knows("mood")) == (True, True)
    assert registry.was_unloaded("mood")
    with pytest.raises(ModelNotFound, match="was unloaded; load it"):
        registry.find("mood")
    registry.replace("mood", [make_version()])
    assert registry.find("mood").version == "1"
    assert not registry.was_unloaded("mood")


def test_a_refused_bundle_is_reported_with_its_reason(registry):
    registry.refuse("mood", [RefusedModel("mood", "2", "it is spoiled")])
    for version in ("", "2", "7"):
        with pytest.raises(ModelRefused, match="'mood' was not loaded: it is spoiled"):
            registry.find("mood", version)
    registry.replace("mood", [make_version()])
    assert registry.find("mood").version == "1"
    with pytest.raises(ModelRefused, match="version 2 of model 'mood' was not loaded"):
        registry.find("mood", "2")
    with pytest.raises(ModelNotFound, match="served in version '1', not '3'"):
        registry.find("mood", "3")
    registry.refuse("mood", [])
    assert registry.refused == ()


def test_an_unload_is_reported_before_an_older_refusal_and_a_newer_one_before_it(registry):
    registry.replace("mood", [make_version()])
    registry.refuse("mood", [RefusedModel("mood", "2", "it is spoiled")])
    registry.withdraw("mood")
    with pytest.raises(ModelNotFound, match="was unloaded"):
        registry.find("mood")
    registry.refuse("mood", [RefusedModel("mood", "2", "it is still spoiled")])
    with pytest.raises(ModelRefused, match="still spoiled"):
        registry.find("mood")


def test_only_names_that_are_or_were_served_are_known(registry):
    registry.refuse("mood", [RefusedModel("mood", "1", "it is spoiled")])
    assert not registry.knows("mood")
    registry.replace("mood", [make_version()])
    assert registry.knows("mood")


def test_a_call_is_counted_on_the_version_that_answers_it(registry):
    versions = [make_version(version=version) for version in ("1", "2")]
    registry.replace("mood", versions)
    with registry.call(ClassifierModel, "mood", "1") as call:
        assert call.model is versions[0].model
    with registry.call(ClassifierModel, "mood"):
        pass
    assert [v.statistics.snapshot().success.count for v in versions] == [1, 1]


def test_another_kind_of_call_is_refused_and_not_counted(registry):
    version = make_version()
    registry.replace("mood", [version])
    for ask, does in (
        (partial(registry.call, TaggerModel), "tag"),
        (partial(registry.call_of_part, TaggerModel, lambda tagger: tagger.streams), "tag"),
        (partial(registry.call, FillModel), "fill blanks"),
        (partial(registry.call, GeneratorModel), "generate"),
    ):
        with pytest.raises(WrongInput, match=f"'mood' does not {does}; call Classify"):
            ask("mood")
    assert (version.users, version.statistics.snapshot().fail.count) == (0, 0)
