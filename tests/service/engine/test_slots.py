import numpy as np
import pytest

from bundle.manifest import StateTensor
from service.engine.slots import Slots

STATE = (
    StateTensor("memory", "float32", (3, 2), carried=False),
    StateTensor("hidden", "float32", (4,), carried=True),
)


@pytest.fixture
def slots():
    return Slots(STATE, capacity=5, vocabulary=6)


def state(value):
    return {spec.name: np.full(spec.shape, value, np.float32) for spec in STATE}


def test_a_step_reads_one_set_and_writes_the_other(slots):
    """What is written is what the next step reads; nothing is copied."""
    first, second = slots.sides()
    assert first.outputs["next_hidden"] is second.inputs["hidden"]
    assert second.outputs["next_hidden"] is first.inputs["hidden"]
    assert first.inputs["memory"] is second.inputs["memory"]
    assert not np.shares_memory(first.inputs["hidden"], first.outputs["next_hidden"])
    first.outputs["next_hidden"][0] = 7
    slots.swap()
    assert (slots.current()["hidden"][0] == 7).all()


def test_rows_are_dense_blocks(slots):
    """The first n rows of every array are one block of memory that a graph can be bound to."""
    for side in slots.sides():
        for array in (*side.inputs.values(), *side.outputs.values()):
            assert array[:3].flags.c_contiguous


def test_the_last_row_moves_into_the_freed_one(slots):
    for row in range(3):
        slots.take(row, state(row + 1))
        slots.controls["temperature"][row] = slots.controls["token"][row] = row + 1
    slots.give(0, last=2)
    for rows in slots.current().values():
        assert (rows[0] == 3).all()
        assert (rows[1] == 2).all()
    assert (slots.controls["temperature"][0], slots.controls["token"][0]) == (3, 3)


def test_nothing_of_a_stream_outlives_its_row(slots):
    """A row full of NaN, given back on either side of the swap, leaves only zeros."""
    for swaps in (0, 1):
        slots.take(0, state(np.nan))
        for side in slots.sides():
            side.outputs["next_hidden"][0] = np.nan
        for _ in range(swaps):
            slots.swap()
        slots.give(0, last=0)
        for side in slots.sides():
            for name, rows in side.inputs.items():
                assert not rows.any(), name
            assert not side.outputs["next_hidden"].any()


def test_a_row_without_a_state_starts_from_zeros(slots):
    slots.current()["hidden"][1] = np.nan
    slots.take(1, None)
    assert not slots.current()["hidden"].any()
