"""The service as a process of its own."""

import re
import subprocess
import sys


class Process:
    def __init__(self, *arguments):
        self.process = subprocess.Popen(
            [sys.executable, "-m", "service", *arguments],
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        self.output = ""

    def read_until(self, text):
        for line in self.process.stdout:
            self.output += line
            if text in line:
                return line
        raise AssertionError(f"{text!r} is not in: {self.output}")

    def end(self):
        self.output += self.process.communicate(timeout=30)[0]
        return self.process.returncode


def ports_of(process):
    """Of gRPC and of HTTP."""
    line = process.read_until("ready: gRPC on port")
    return re.findall(r"on port (\d+)", line)


def port_of(process):
    return ports_of(process)[0]


def serve(run, models, *arguments):
    free_ports = ("--address", "127.0.0.1:0", "--http-address", "127.0.0.1:0")
    at_once = ("--propagation-seconds", "0")
    return run("serve", "--models", models, *free_ports, *at_once, *arguments)
