"""How the pieces of work of one request make up its times."""

import pytest

from service.engine.dynamic_batcher import Job
from service.engine.step_engine import RequestState
from service.serving.request_timing import EngineTimes


def job(arrived, queued, computed, finished):
    made = Job((), None, arrived, [], 0)
    made.queue_seconds, made.compute_seconds, made.finished = queued, computed, finished
    return made


def stream(arrived, queued, computed, finished):
    made = RequestState(None, None, arrived)
    made.queue_seconds, made.compute_seconds, made.finished = queued, computed, finished
    return made


def times_of(*pieces):
    times = EngineTimes()
    for piece in pieces:
        (times.add_batch if isinstance(piece, Job) else times.add_stream)(piece)
    return times.queue_seconds, times.compute_seconds


@pytest.mark.parametrize("piece", [job, stream])
def test_one_piece_of_work_is_all_of_it(piece):
    assert times_of(piece(1.0, 0.5, 2.0, 4.0)) == (0.5, 2.0)


def test_pieces_that_follow_each_other_add_up():
    assert times_of(job(1.0, 0.5, 2.0, 4.0), stream(4.0, 0.25, 1.0, 8.0)) == (0.75, 3.0)


def test_of_pieces_side_by_side_the_longest_counts():
    rows = [stream(1.0, 0.5, 2.0, 4.0), stream(1.5, 0.0, 2.5, 5.0), stream(2.0, 0.25, 1.0, 4.0)]
    assert times_of(*rows) == times_of(*reversed(rows)) == (0.5, 2.5)
    assert times_of(*rows, job(5.0, 1.0, 1.0, 9.0)) == (1.5, 3.5)


def test_work_that_no_engine_needed_takes_no_time():
    assert times_of(job(1.0, None, 0.0, None)) == (0.0, 0.0)
