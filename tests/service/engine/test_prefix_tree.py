import random

import numpy as np
import pytest

from service.engine.prefix_tree import ID_BYTES, Place, PrefixTree, path_of


def state(number):
    return {"hidden": np.array([number], np.float32)}


def kept(tree, tokens, number=0):
    place = tree.place(path_of(tokens))
    place.state = state(number)
    return place


def found(tree, tokens):
    place, shared = tree.find(path_of(tokens))
    return (place.depth if place else 0), shared


def test_the_deepest_state_on_the_way_is_found():
    tree = PrefixTree()
    kept(tree, [1, 2])
    deeper = kept(tree, [1, 2, 3, 4])
    place, shared = tree.find(path_of([1, 2, 3, 4, 5]))
    assert (place, shared) == (deeper, 4)
    assert found(tree, [1, 2, 3, 9]) == (2, 3)
    assert found(tree, [1, 2]) == (2, 2)
    assert found(tree, [1]) == (0, 1)
    assert found(tree, [7]) == (0, 0)


def test_ids_are_compared_whole():
    """256 and 1 share bytes of their four; nothing of that is a beginning."""
    tree = PrefixTree()
    kept(tree, [1, 256])
    assert found(tree, [1, 257]) == (0, 1)
    assert found(tree, [256, 1]) == (0, 0)


def test_what_only_led_to_a_dropped_state_goes_with_it():
    tree = PrefixTree()
    first, second = kept(tree, [1, 2, 3]), kept(tree, [1, 2, 4])
    tree.drop(second)
    assert found(tree, [1, 2, 4]) == (0, 2)
    assert [place.label for place in tree.root.places.values()] == [path_of([1, 2, 3])]
    tree.drop(first)
    assert (tree.root.places, tree.size) == ({}, 0)


@pytest.mark.parametrize("seed", range(20))
def test_a_tree_finds_what_a_list_of_all_states_finds(seed):
    """Whatever was kept and dropped, and in which order; its size is that of its places."""
    choose = random.Random(seed)
    tree, known = PrefixTree(), {}

    def draw():
        return tuple(choose.choices((0, 1, 2), k=choose.randint(1, 12)))

    for number in range(300):
        if known and choose.random() < 0.4:
            tokens = choose.choice(list(known))
            tree.drop(known.pop(tokens))
        else:
            tokens = draw()
            known[tokens] = kept(tree, tokens, number)
        wanted = draw()
        best = max((len(k) for k in known if wanted[: len(k)] == k), default=0)
        shared = max((_common(k, wanted) for k in known), default=0)
        assert found(tree, wanted) == (best, shared)
        assert tree.size == _size(tree.root)


def _common(one, other):
    return next(
        (n for n, (a, b) in enumerate(zip(one, other, strict=False)) if a != b),
        min(map(len, (one, other))),
    )


def _size(place: Place) -> int:
    """As a walk over all places finds it; each but the root is needed."""
    total = 0
    for first, following in place.places.items():
        assert following.label[:ID_BYTES] == first
        assert following.parent is place
        assert following.depth == place.depth + len(following.label) // ID_BYTES
        assert following.state is not None or len(following.places) > 1
        total += 400 + len(following.label) + _size(following)
    return total
