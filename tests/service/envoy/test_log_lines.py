"""What Envoy writes comes into the log at its level, and not without end."""

import logging

import pytest

from service.envoy.log_lines import EnvoyLog


class Clock:
    now = 0.0

    def __call__(self):
        return self.now


@pytest.mark.parametrize(
    ("line", "level", "message"),
    [
        (b"[critical] cannot bind\n", logging.CRITICAL, "cannot bind"),
        (b"[error] a [warning] in it\n", logging.ERROR, "a [warning] in it"),
        (b"[warning] resetting 3 streams\n", logging.WARNING, "resetting 3 streams"),
        (b"[info] x\n", logging.INFO, "x"),
        (b"[trace] x\n", logging.DEBUG, "x"),
        (b"[warning] caught ENVOY_SIGTERM\n", logging.DEBUG, "caught ENVOY_SIGTERM"),
        (b"Traceback (most recent call last):\n", logging.WARNING,
         "Traceback (most recent call last):"),
        (b"[other] \xff\n", logging.WARNING, "[other] \ufffd"),
    ],
)  # fmt: skip
def test_a_line_has_the_level_that_envoy_gave_it(caplog, line, level, message):
    caplog.set_level(logging.DEBUG)
    EnvoyLog(Clock()).read([line])
    (record,) = caplog.records
    assert (record.name, record.levelno, record.getMessage()) == ("envoy", level, message)


def test_lines_beyond_a_burst_are_left_out_and_counted(caplog):
    clock = Clock()
    lines = EnvoyLog(clock)
    lines.read([b"[warning] again\n"] * 150)
    assert len(caplog.records) == 100
    clock.now = 60.0
    lines.read([b"[error] later\n"])
    assert [record.getMessage() for record in caplog.records[100:]] == [
        "50 lines of Envoy's are left out: it wrote too many",
        "later",
    ]
