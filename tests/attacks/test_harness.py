"""What the attacks are seen by sees: a service that grows, ends or answers otherwise."""

import signal
import subprocess
import sys

import pytest

from tests.attacks.harness import MEBIBYTE, Seen, Service, Witness, _sample

# Holds 64 MiB; its child has the same ones until, at a line, it runs a program that holds 32 MiB.
_PARENT = """
import os, sys
own = b"a" * (64 << 20)
if os.fork() == 0:
    print("begun", flush=True)
    sys.stdin.readline()
    os.execl(sys.executable, "another", "-c", "import sys; own = b'a' * (32 << 20); "
             "print('holds', flush=True); sys.stdin.readline()")
os.wait()
"""


def test_a_service_that_outgrows_its_memory_is_killed(tmp_path):
    with Service(tmp_path, ("nationality",), memory_bytes=MEBIBYTE) as service:
        assert service.process.wait(10) == -signal.SIGKILL
        with pytest.raises(AssertionError, match="out of memory"):
            service.check_answers()


def test_the_witness_misses_a_service_that_is_gone(tmp_path):
    with Service(tmp_path, ("nationality",)) as service, Witness(service) as witness:
        witness.report().check(30)
        service.process.kill()
        with pytest.raises(AssertionError, match="UNAVAILABLE"):
            witness.report().check(30)


def test_a_childs_memory_counts_once_it_runs_a_program_of_its_own():
    """Before that it is its parent's, which would count twice."""
    pipe = subprocess.PIPE
    command = [sys.executable, "-c", _PARENT]
    with subprocess.Popen(command, stdin=pipe, stdout=pipe, bufsize=0) as parent:
        assert parent.stdout.readline() == b"begun\n"
        before = _sample(parent.pid).resident_bytes
        assert 64 * MEBIBYTE < before < 110 * MEBIBYTE
        parent.stdin.write(b"\n")
        assert parent.stdout.readline() == b"holds\n"
        assert _sample(parent.pid).resident_bytes > before + 32 * MEBIBYTE
        parent.stdin.write(b"\n")
        assert parent.wait(10) == 0


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"differing": ["Tag"]}, "other bits"),
        ({"failed": ["Tag: no"]}, "failed"),
        ({"calls": {"Tag": 0}}, "never answered"),
        ({"slowest": {"Tag": 3.0}}, "slower than"),
    ],
)
def test_what_a_witness_saw_amiss_fails(changed, message):
    well = {"calls": {"Tag": 1}, "failed": [], "differing": [], "slowest": {"Tag": 1.0}, "lags": []}
    Seen(**well).check(2)
    with pytest.raises(AssertionError, match=message):
        Seen(**{**well, **changed}).check(2)
