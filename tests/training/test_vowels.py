"""The data of the model of speakers: how its format is read, and how it is split."""

from collections import Counter

import numpy as np
import pytest

from training.bundled.vowels import TASK, parts_of
from training.config import recipe_of
from training.data.japanese_vowels import TEST, TRAIN, load_vowels, parse_ts

TEXT = """#about
@problemName Toy
@data
1.5,2,3:-1,0,1:2
0.25:9:1
"""


def test_a_line_is_a_sequence_of_channels_and_its_label():
    first, second = parse_ts(TEXT, ("a", "b"))
    assert first.frames.tolist() == [[1.5, -1], [2, 0], [3, 1]]
    assert (first.label, first.channels) == ("speaker 2", ("a", "b"))
    assert (second.frames.shape, second.label) == ((1, 2), "speaker 1")


def test_every_tenth_utterance_of_a_speaker_validates():
    given = parse_ts(TEXT, ("a", "b")) * 30
    train, validation = parts_of(given)
    assert Counter(e.label for e in train) == {"speaker 1": 27, "speaker 2": 27}
    assert Counter(e.label for e in validation) == {"speaker 1": 3, "speaker 2": 3}


@pytest.mark.real_data
def test_the_archives_parts_are_whole():
    train, test = load_vowels(TRAIN), load_vowels(TEST)
    assert (len(train), len(test)) == (270, 370)
    assert set(Counter(e.label for e in train).values()) == {30}
    lengths = [len(e.frames) for e in (*train, *test)]
    assert (min(lengths), max(lengths)) == (7, 29)
    assert all(e.frames.shape[1] == 12 and np.isfinite(e.frames).all() for e in (*train, *test))
    splits, _ = TASK.read(recipe_of("vowels"))
    assert [len(part) for part in (splits.train, splits.validation, splits.held_out)] == [
        243, 27, 370,
    ]  # fmt: skip
