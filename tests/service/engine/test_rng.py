import numpy as np
import pytest

from service.engine.rng import BLOCK, digest_of, key_of, uniform_block


def test_a_number_depends_on_key_sample_and_position_alone():
    """Blocks can be made in any order, again, and by anyone."""
    later_first = uniform_block(5, 0, 3), uniform_block(5, 0, 0)
    assert np.array_equal(later_first[0], uniform_block(5, 0, 3))
    assert np.array_equal(later_first[1], uniform_block(5, 0, 0))
    for other in (uniform_block(6, 0, 0), uniform_block(5, 1, 0), uniform_block(5, 0, 1)):
        assert not np.isin(other, later_first[1]).all()


def test_blocks_continue_one_sequence():
    """Block b is numbers b * BLOCK … of the generator's own sequence."""
    generator = np.random.Philox(key=np.array([9, 2], np.uint64))
    whole = (generator.random_raw(4 * BLOCK) >> np.uint64(40)).astype(np.float32) / np.float32(
        2**24
    )
    blocks = [uniform_block(9, 2, block)[:, 0] for block in range(4)]
    assert np.array_equal(np.concatenate(blocks), whole)


def test_several_numbers_a_position_continue_one_sequence():
    """Each position has a counter of its own, of four numbers."""
    generator = np.random.Philox(key=np.array([9, 2], np.uint64))
    words = generator.random_raw(4 * 2 * BLOCK).reshape(-1, 4) >> np.uint64(40)
    blocks = np.concatenate([uniform_block(9, 2, block, 3) for block in range(2)])
    assert np.array_equal(blocks, words[:, :3].astype(np.float32) / np.float32(2**24))


def test_an_input_changes_the_key_and_the_seed_does_too():
    """So equal seeds give other numbers after another prompt."""
    keys = {key_of(seed, digest_of(ids)) for seed in (0, 1) for ids in ((), (1,), (1, 2), (2, 1))}
    assert len(keys) == 8
    assert all(0 <= key < 2**64 for key in keys)
    assert digest_of((1, 2)) == digest_of([1, 2]) == digest_of(np.array([1, 2]))


@pytest.mark.parametrize("values", [(0.5, 1.0), np.array([[0.5], [1.0]], np.float32)])
def test_numbers_have_a_digest_as_float32(values):
    assert digest_of(values) == digest_of(np.array([0.5, 1.0], np.float32))


def test_numbers_are_uniform_below_one():
    numbers = np.concatenate([uniform_block(1, 0, block) for block in range(500)])
    assert numbers.dtype == np.float32
    assert numbers.min() >= 0
    assert numbers.max() < 1
    assert abs(numbers.mean() - 0.5) < 0.01
    assert np.bincount((numbers.ravel() * 10).astype(int)).min() > 2900


def test_the_largest_seed_is_accepted():
    assert uniform_block(2**64 - 1, 0, 0).shape == (BLOCK, 1)
