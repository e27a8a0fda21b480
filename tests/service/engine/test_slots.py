import random

import numpy as np
import pytest

from bundle.manifest import RETRIES, StateTensor
from service.engine.rng import BLOCK, UniformBlocks
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


def adjusted(slots):
    """The rows that adjust their logits, with the first number of the bias of each."""
    count = slots.use.adjusted
    return dict(
        zip(
            slots.adjusted["adjusted"][:count].tolist(),
            slots.adjusted["bias"][:count, 0].tolist(),
            strict=True,
        )
    )


def test_only_rows_that_adjust_have_a_bias(slots):
    """Whichever of them are given back, each keeps its own."""
    for row in range(5):
        slots.control(row)
        if row != 2:
            bias, seen = slots.adjust(row)
            bias[:], seen[:] = row + 1, True
    assert adjusted(slots) == {0: 1, 1: 2, 3: 4, 4: 5}
    slots.give(1, last=4)
    assert adjusted(slots) == {0: 1, 1: 5, 3: 4}
    slots.give(2, last=3)
    assert adjusted(slots) == {0: 1, 1: 5, 2: 4}
    slots.give(2, last=2)
    assert adjusted(slots) == {0: 1, 1: 5}
    slots.adjust(1)[0][0] += 1
    assert adjusted(slots) == {0: 1, 1: 6}
    for row in (1, 0):
        slots.give(row, last=row)
    assert slots.use.adjusted == 0
    assert not any(rows.any() for rows in slots.adjusted.values())


def test_a_row_that_is_controlled_anew_adjusts_nothing(slots):
    slots.control(3)
    slots.adjust(3)[0][:] = 7
    slots.control(3)
    assert slots.use.adjusted == 0
    assert not slots.adjust(3)[0].any()


def test_all_log_probabilities_are_written_while_a_row_reports(slots):
    slots.control(0)
    slots.control(1, reports=True)
    slots.control(2, reports=True)
    assert slots.use.reports
    slots.log_probabilities[:3] = -1
    slots.give(1, last=2)
    assert slots.use.reports
    assert not slots.log_probabilities[2].any(), "nothing of a stream outlives its row"
    slots.give(1, last=1)
    assert not slots.use.reports
    slots.control(0, reports=True)
    slots.clear(3)
    assert not slots.use.reports
    assert not slots.log_probabilities.any()


def test_rows_that_no_step_has_run_are_not_zeroed(slots):
    """Zeros that are written take memory, which rows that nobody uses do not."""
    carried = [side.inputs["hidden"] for side in slots.sides()]
    for rows in carried:
        rows[:] = 7
    slots.clear(2)
    for rows in carried:
        assert (rows[:2] == 0).all()
        assert (rows[2:] == 7).all()


@pytest.mark.parametrize("seed", range(20))
def test_a_row_draws_the_numbers_of_its_stream_whoever_comes_and_goes(seed):
    """Those of the position it is at, in any row, however far ahead others' were gathered."""
    choose, slots, blocks = random.Random(seed), Slots(STATE, 5, 6), UniformBlocks(1 + RETRIES)
    streams = []  # of each row: key, and position
    for _ in range(400):
        if len(streams) < 5 and choose.random() < 0.1:
            streams.append([choose.randrange(2**32), choose.choice([0, 3, 62, 63, 64, 1000])])
            slots.seed(len(streams) - 1, streams[-1][0], 7, streams[-1][1])
        if streams and choose.random() < 0.05:
            row, last = choose.randrange(len(streams)), len(streams) - 1
            slots.give(row, last)
            streams[row] = streams[last]
            streams.pop()
        if not streams:
            continue
        used_up = slots.draw_uniforms(len(streams))
        uniforms, retries = slots.controls["uniform"], slots.controls["retries"]
        assert not uniforms[len(streams) :].any()
        for row, stream in enumerate(streams):
            expected = blocks.block(stream[0], 7, stream[1] // BLOCK)[stream[1] % BLOCK]
            assert [uniforms[row], *retries[row]] == expected.tolist()
            stream[1] += 1
            assert (row in used_up) == (stream[1] % BLOCK == 0)
        for row in used_up:
            slots.seed(row, streams[row][0], 7, streams[row][1])


def test_what_was_drawn_is_what_rows_read_next(slots):
    slots.next_token[:3], slots.log_probability[:3] = [4, 2, 5], [-1.0, -np.inf, -0.5]
    slots.controls["token"][:] = 1
    assert slots.drawn(3) == ([4, 2, 5], [-1.0, -np.inf, -0.5])
    assert slots.controls["token"].tolist() == [4, 2, 5, 1, 1]
