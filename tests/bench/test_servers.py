"""What a server uses is counted over all its processes."""

import sys
import time
from pathlib import Path

import pytest

from bench.servers import Server, free_port

# Each prints the line of a server that is ready, and then waits for its end.
READY = "print('gRPC on port 1', flush=True); import signal; signal.pause()"
BURN = "import time\nwhile time.process_time() < 0.3: pass"
MAPPED = 64 * 2**20


def server_of(code):
    return Server("a server", [code], program=[sys.executable, "-c"])


def test_processor_time_of_a_child_is_counted():
    code = f"""
import subprocess, sys
child = subprocess.Popen([sys.executable, "-c", {BURN!r} + chr(10) + "print(flush=True); input()"],
                         stdin=subprocess.PIPE, stdout=subprocess.PIPE)
child.stdout.readline()
{READY}
"""
    with server_of(code) as server:
        assert server.cpu_seconds() >= 0.25


def test_processor_time_of_a_child_that_has_ended_is_counted():
    code = f"import subprocess, sys; subprocess.run([sys.executable, '-c', {BURN!r}]); {READY}"
    with server_of(code) as server:
        assert server.cpu_seconds() >= 0.25


def test_pages_that_processes_share_are_counted_once(tmp_path):
    """A file that parent and child map is resident once, what the child has of its own too."""
    (tmp_path / "shared").write_bytes(b"x" * MAPPED)
    read = f"""
import mmap, subprocess, sys
file = open({str(tmp_path / "shared")!r}, "rb")
shared = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
shared.find(b"y")
"""
    own = f"own = b'z' * {MAPPED}; print(flush=True); input()"
    code = f"""{read}
child = subprocess.Popen([sys.executable, "-c", {read!r} + {own!r}],
                         stdin=subprocess.PIPE, stdout=subprocess.PIPE)
child.stdout.readline()
{READY}
"""
    with server_of(code) as server:
        summed, _ = server.memory_bytes()
        resident = server.resident_bytes()
    assert summed >= 3 * MAPPED
    assert 2 * MAPPED <= resident <= summed - MAPPED


def test_resident_of_one_process_is_its_resident_set():
    with server_of(READY) as server:
        summed, _ = server.memory_bytes()
        assert server.resident_bytes() == pytest.approx(summed, rel=0.02)


def test_what_a_server_leaves_behind_ends_with_it():
    stubborn = "import signal; signal.signal(signal.SIGTERM, signal.SIG_IGN); print(flush=True)"
    code = f"""
import subprocess, sys
child = subprocess.Popen([sys.executable, "-c", {stubborn!r} + "; signal.pause()"],
                         stdout=subprocess.PIPE)
child.stdout.readline()
print(child.pid, flush=True)
{READY}
"""
    with server_of(code) as server:
        child = int(server._said[0])
        assert _runs(child)
    until = time.monotonic() + 20
    while _runs(child) and time.monotonic() < until:
        time.sleep(0.01)
    assert not _runs(child)


def _runs(process):
    """What has ended may be in the table of processes for longer."""
    try:
        return "State:\tZ" not in Path(f"/proc/{process}/status").read_text()
    except OSError:
        return False


def test_a_server_that_prints_nothing_is_ready_when_its_port_is():
    port = free_port()
    code = f"import socket; s = socket.create_server(('127.0.0.1', {port}))\nwhile s.accept(): pass"
    with Server("silent", [code], program=[sys.executable, "-c"], port=port) as server:
        assert server.target == f"127.0.0.1:{port}"


def test_a_server_that_ends_before_its_port_is_open_is_named():
    code = "raise SystemExit('no such model')"
    with pytest.raises(RuntimeError, match=r"silent ended before it was ready:\nno such model"):
        Server("silent", [code], program=[sys.executable, "-c"], port=free_port())
