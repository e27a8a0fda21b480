"""The limit of open files, in processes of their own: it could not be raised again here."""

import os
import subprocess
import sys

import pytest

SCRIPT = """
import logging, resource, sys
from service.process.file_limit import raise_file_limit
logging.basicConfig(level="INFO", format="%(levelname)s %(message)s", stream=sys.stdout)
soft, hard, most = map(int, sys.argv[1:])
resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
assert raise_file_limit(most) == resource.getrlimit(resource.RLIMIT_NOFILE)[0]
print(resource.getrlimit(resource.RLIMIT_NOFILE))
"""


@pytest.mark.parametrize(
    ("soft", "hard", "most", "now", "said"),
    [
        (256, 1024, 65536, 1024, ["INFO this process may open 1024", "WARNING this process"]),
        (256, 8192, 5000, 5000, ["INFO this process may open 5000"]),
        (8192, 8192, 5000, 8192, []),
    ],
)
def test_the_soft_limit_follows_the_hard_one_within_reason(soft, hard, most, now, said):
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT, *map(str, (soft, hard, most))],
        capture_output=True,
        text=True,
        timeout=60,
        env=os.environ | {"PYTHONPATH": "."},
    )
    *lines, last = done.stdout.splitlines()
    assert last == str((now, hard)), done.stderr
    assert [line[: len(begin)] for line, begin in zip(lines, said, strict=True)] == said
