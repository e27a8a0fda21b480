"""Signals that end the process."""

import os
import signal
import subprocess
import sys

import pytest

SCRIPT = """
import os, signal, sys
from service.process.signals import end_on
if sys.argv[1] == "first":
    os.getpid = lambda: 1
end_on(signal.SIGTERM)
print(signal.getsignal(signal.SIGTERM) is signal.SIG_DFL, flush=True)
signal.raise_signal(signal.SIGTERM)
print("it goes on")
"""


HANGING = """
import signal, threading
from service.process.signals import end_after
end_after(lambda: print("last words", flush=True), (signal.SIGTERM, signal.SIGINT))
print("ready", flush=True)
held = threading.Lock()
held.acquire()
held.acquire()
"""


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_last_signal_ends_a_process_whose_main_thread_hangs(number):
    command = [sys.executable, "-c", HANGING]
    environment = os.environ | {"PYTHONPATH": "."}
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=environment) as process:
        assert process.stdout.readline() == "ready\n"
        process.send_signal(number)
        assert process.wait(30) == 128 + number
        assert process.stdout.read() == "last words\n"


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
