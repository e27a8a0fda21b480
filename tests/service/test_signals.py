"""Signals that end the process."""

import os
import signal
import subprocess
import sys

import pytest

SCRIPT = """
import os, signal, sys
from service.signals import end_on
if sys.argv[1] == "first":
    os.getpid = lambda: 1
end_on(signal.SIGTERM)
print(signal.getsignal(signal.SIGTERM) is signal.SIG_DFL, flush=True)
signal.raise_signal(signal.SIGTERM)
print("it goes on")
"""


@pytest.mark.parametrize(
    ("process", "has_default", "code"),
    [("first", "False", 128 + signal.SIGTERM), ("other", "True", -signal.SIGTERM)],
)
def test_the_first_process_of_a_container_ends_as_any_other(process, has_default, code):
    """Process 1 has no default actions, so a signal ends it by a handler."""
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT, process],
        capture_output=True,
        text=True,
        timeout=30,
        env=os.environ | {"PYTHONPATH": "."},
    )
    assert done.stdout.split() == [has_default]
    assert done.returncode == code
