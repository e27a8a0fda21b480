"""What trains, validates and is held out of a user's rows."""

from collections import Counter

import pytest

from training.readers import DataInvalid
from training.splits import Shares, epochs_of, hidden_size, place_of, split_rows

ROWS = [f"row {number}" for number in range(1_000)]


def split(rows, **apart):
    return split_rows(rows, str, Shares(), **apart)


def test_a_tenth_each_validates_and_is_held_out():
    found = split(ROWS)
    assert 70 < len(found.validation) < 130
    assert 70 < len(found.held_out) < 130
    assert sorted(found.every) == sorted(ROWS)


def test_a_row_stays_in_its_part_whatever_the_order_and_the_others():
    whole, part = split(ROWS), split(ROWS[::-3])
    for name in ("train", "validation", "held_out"):
        assert set(getattr(part, name)) <= set(getattr(whole, name))


def test_rows_that_say_the_same_are_in_one_part():
    """Whatever their case and their spaces; and they are counted."""
    found = split([*ROWS, *(f"  ROW   {number}" for number in range(1_000))])
    parts = [found.train, found.validation, found.held_out]
    keys = [{place_of(row) for row in part} for part in parts]
    assert len(set.union(*keys)) == sum(map(len, keys))
    assert "1,000 rows say what others say" in found.notes[1]


def test_few_rows_leave_one_to_each_part():
    for count in range(10, 40):
        found = split(ROWS[500 : 500 + count])
        assert min(map(len, (found.train, found.validation, found.held_out))) >= 1


def test_files_of_their_own_take_their_rows_out_of_training():
    found = split(ROWS, held_out=ROWS[:50], validation=["other", "row 60"])
    assert found.held_out == ROWS[:50]
    assert set(found.train) == set(ROWS[50:]) - {"row 60"}
    assert "51 rows that validate or are held out are left out of training" in found.notes


def test_too_few_different_rows_are_refused():
    with pytest.raises(DataInvalid, match="9 different rows to train on; give at least 10"):
        split(ROWS[:9] * 5)


def test_places_are_spread_evenly():
    tenths = Counter(int(10 * place_of(row)) for row in ROWS)
    assert len(tenths) == 10
    assert max(tenths.values()) < 150


def test_sizes_grow_with_the_data_and_epochs_shrink():
    sizes = [hidden_size(tokens) for tokens in (10**3, 10**4, 10**5, 10**6, 10**7)]
    assert sizes == sorted(sizes)
    assert [epochs_of(batches) for batches in (1, 100, 300, 10_000)] == [60, 30, 10, 5]
