import numpy as np
import pytest

from bundle.manifest import StateTensor
from service.engine.slots import Slots

STATE = (
    StateTensor("memory", "float32", (3, 2), carried=False),
    StateTensor("hidden", "float32", (4,), carried=True),
)


@pytest.fixture
def arena():
    return Slots(STATE, capacity=5, vocabulary=6)


def state(value):
    return {spec.name: np.full(spec.shape, value, np.float32) for spec in STATE}


def test_a_step_reads_one_set_and_writes_the_other(arena):
    """What is written is what the next step reads; nothing is copied."""
    first, second = arena.sides()
    assert first.outputs["next_hidden"] is second.inputs["hidden"]
    assert second.outputs["next_hidden"] is first.inputs["hidden"]
    assert first.inputs["memory"] is second.inputs["memory"]
    assert not np.shares_memory(first.inputs["hidden"], first.outputs["next_hidden"])
    first.outputs["next_hidden"][0] = 7
    arena.swap()
    assert (arena.current()["hidden"][0] == 7).all()


def test_rows_are_dense_blocks(arena):
    """The first n rows of every array are one block of memory that a graph can be bound to."""
    for side in arena.sides():
        for array in (*side.inputs.values(), *side.outputs.values()):
            assert array[:3].flags.c_contiguous


def test_the_last_row_moves_into_the_freed_one(arena):
    for row in range(3):
        arena.take(row, state(row + 1))
        arena.controls["temperature"][row] = arena.controls["token"][row] = row + 1
    arena.give(0, last=2)
    for rows in arena.current().values():
        assert (rows[0] == 3).all()
        assert (rows[1] == 2).all()
    assert (arena.controls["temperature"][0], arena.controls["token"][0]) == (3, 3)


def test_nothing_of_a_stream_outlives_its_row(arena):
    """A row full of NaN, given back on either side of the swap, leaves only zeros."""
    for swaps in (0, 1):
        arena.take(0, state(np.nan))
        for side in arena.sides():
            side.outputs["next_hidden"][0] = np.nan
        for _ in range(swaps):
            arena.swap()
        arena.give(0, last=0)
        for side in arena.sides():
            for name, rows in side.inputs.items():
                assert not rows.any(), name
            assert not side.outputs["next_hidden"].any()


def test_a_row_without_a_state_starts_from_zeros(arena):
    arena.current()["hidden"][1] = np.nan
    arena.take(1, None)
    assert not arena.current()["hidden"].any()
