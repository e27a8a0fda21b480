import numpy as np
import pytest

from service.engine.topk import largest, largest_of_each


@pytest.mark.parametrize("count", [1, 2, 3, 4, 6, 9])
def test_ties_go_to_the_lower_place_at_the_edge_too(count):
    values = np.array([0.1, 0.4, 0.2, 0.4, 0.2, 0.2], np.float32)
    assert largest(values, count).tolist() == [1, 3, 2, 4, 5, 0][:count]
    assert largest_of_each(values[None], count).tolist() == [[1, 3, 2, 4, 5, 0][:count]]


def test_rows_are_ranked_each_by_itself():
    rows = np.array([[0.2, 0.5, 0.3], [0.6, 0.1, 0.3]], np.float32)
    assert largest_of_each(rows, 1).tolist() == [[1], [0]]
    assert largest_of_each(rows, 2).tolist() == [[1, 2], [0, 2]]
