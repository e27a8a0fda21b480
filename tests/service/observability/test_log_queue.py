"""Lines on their way out: in order, bounded, and nobody who logs waits for a reader."""

import os
import threading

import pytest

from service.observability.log_queue import LogQueue, writer_to

LIMIT = 10_000
LINE = b"x" * 899 + b"\n"  # ten of them, with what each costs beside its bytes, fill the queue


class Reader:
    """Takes lines while it is let; a line that it has begun to take is ``begun``."""

    def __init__(self):
        self.lines, self.begun = [], threading.Semaphore(0)
        self._may_take = threading.Semaphore(0)

    def write(self, line):
        self.begun.release()
        self._may_take.acquire()
        self.lines.append(line)

    def take(self, lines):
        self._may_take.release(lines)


@pytest.fixture
def reader():
    made = Reader()
    yield made
    made.take(10_000)  # its thread goes on to wait for lines, and holds nothing up


@pytest.fixture
def queue(reader):
    return LogQueue(reader.write, LIMIT, lambda lines: b"%d were dropped\n" % lines)


def put(queue, *lines, level="info"):
    for line in lines:
        queue.put(line, level)


def test_lines_come_out_whole_and_in_order(queue, reader):
    lines = [b"%d\n" % number for number in range(50)]
    put(queue, *lines)
    reader.take(50)
    assert queue.flush(10)
    assert reader.lines == lines


def test_lines_of_many_threads_are_each_written_once(queue, reader):
    reader.take(10_000)
    sent = [[b"%d %d\n" % (thread, n) for n in range(20)] for thread in range(4)]
    threads = [threading.Thread(target=put, args=(queue, *lines)) for lines in sent]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert queue.flush(10)
    for lines in sent:
        assert [line for line in reader.lines if line in lines] == lines
    assert len(reader.lines) == 80


def test_a_full_queue_drops_lines_and_says_so_where_they_were(queue, reader):
    put(queue, *[LINE] * 10)
    put(queue, *[b"lost\n"] * 6)
    put(queue, b"lost too\n", level="error")
    assert queue.dropped == {"info": 6, "error": 1}
    reader.take(11)
    assert queue.flush(10)
    put(queue, b"after\n")
    reader.take(1)
    assert queue.flush(10)
    assert reader.lines == [*[LINE] * 10, b"7 were dropped\n", b"after\n"]


def test_after_a_loss_half_of_the_room_is_freed_before_a_line_is_taken(queue, reader):
    """Else a slow reader would read of a loss at every other line."""
    put(queue, *[LINE] * 12)
    for _ in range(5):
        reader.begun.acquire()
        reader.take(1)
    reader.begun.acquire()  # it is within the sixth, which counts until it is written
    put(queue, LINE)
    assert queue.dropped["info"] == 3
    reader.take(1)
    reader.begun.acquire()
    put(queue, LINE, LINE)
    reader.take(100)
    assert queue.flush(10)
    assert reader.lines == [*[LINE] * 10, b"3 were dropped\n", LINE, LINE]


def test_a_line_that_alone_is_too_long_is_dropped(queue, reader):
    put(queue, b"x" * LIMIT, b"short\n")
    reader.take(10)
    assert queue.flush(10)
    assert reader.lines == [b"1 were dropped\n", b"short\n"]


def test_a_flush_does_not_wait_for_a_reader_that_has_stopped(queue):
    put(queue, LINE)
    assert not queue.flush(0.01)


def test_lines_that_can_never_be_written_are_counted():
    """As of a pipe whose reader has gone."""
    reading, writing = os.pipe()
    os.close(reading)
    queue = LogQueue(writer_to(writing), LIMIT, lambda _: b"")
    put(queue, LINE, LINE)
    assert queue.flush(10)
    assert queue.dropped == {"info": 2}
    os.close(writing)


@pytest.mark.parametrize("blocks", [True, False])
def test_a_write_ends_once_all_is_read(blocks):
    """Also where whoever shares the pipe has made it return at once."""
    reading, writing = os.pipe()
    os.set_blocking(writing, blocks)
    sent, got = b"line\n" * 40_000, b""
    thread = threading.Thread(target=writer_to(writing), args=(sent,))
    thread.start()
    while len(got) < len(sent):
        got += os.read(reading, 65_536)
    thread.join()
    assert got == sent
    os.close(reading)
    os.close(writing)
