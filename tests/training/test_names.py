import pickle
import random
from collections import Counter

import pytest

from tests.training.real import real
from training.data.names import load_names, parse_names, sample_nations, split_by_name
from training.data.packages import DataUnavailable


def test_names_of_several_nations_are_left_out():
    content = pickle.dumps({"Ayn Rand": ["American"], "Nikola Tesla": ["Serb", "American"]})
    assert parse_names(content) == {"Ayn Rand": "American"}


def test_a_pickle_that_names_a_class_is_refused():
    """Nothing of a package runs because its data is read."""
    with pytest.raises(DataUnavailable, match="only plain values are read"):
        parse_names(pickle.dumps({"name": Counter("a")}))


def test_names_are_split_by_themselves_alone():
    """Where a name falls depends on nothing but the name, whatever its case."""
    names = {f"Name {number}": "French" for number in range(2000)}
    splits = split_by_name(names)
    assert sum(len(part) for part in splits.values()) == 2000
    assert 150 < len(splits["held-out"]) < 250
    assert 150 < len(splits["validation"]) < 250
    upper = split_by_name({name.upper(): nation for name, nation in names.items()})
    for name, part in splits.items():
        assert {member.upper() for member in part} == set(upper[name])


def test_a_sample_holds_every_nation_and_no_more_than_the_cap():
    names = {f"A {n}": "American" for n in range(50)} | {f"B {n}": "Basque" for n in range(3)}
    sampled = sample_nations(names, 10, random.Random(1))
    assert Counter(sampled.values()) == {"American": 10, "Basque": 3}
    assert sampled.items() <= names.items()
    assert sampled != sample_nations(names, 10, random.Random(2))


@pytest.mark.real_data
def test_the_real_names_have_the_known_size():
    names = real(load_names)
    assert (len(names), len(set(names.values()))) == (1_046_317, 176)
    assert len(split_by_name(names)["held-out"]) == 104_379
