"""Failpoints: nothing outside a test build, and every name of theirs is a point in the code."""

import re
import subprocess
import sys
from pathlib import Path

import pytest

from service import failpoints
from service.config import ConfigInvalid
from service.settings import read_settings

SERVICE = Path(failpoints.__file__).parent


def test_they_are_off_and_cannot_be_armed_outside_a_test_build():
    assert not failpoints.IS_TEST_BUILD
    with pytest.raises(RuntimeError, match="UNROLL_FAILPOINTS=1"):
        failpoints.arm("engine.decode", lambda: None)
    failpoints.failpoint("engine.decode")


def test_a_test_build_calls_what_is_armed_until_it_is_disarmed():
    script = (
        "from service.failpoints import arm, disarm, failpoint\n"
        "arm('engine.decode', lambda: print('decode'))\n"
        "failpoint('engine.decode'); failpoint('engine.prefill')\n"
        "disarm(); failpoint('engine.decode')\n"
        "try: arm('engine.nowhere', print)\n"
        "except KeyError as error: print(error)\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", script],
        cwd=SERVICE.parent,
        env={"UNROLL_FAILPOINTS": "1"},
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout.split() == ["decode", "'engine.nowhere'"]


def test_the_services_own_command_refuses_to_be_a_test_build():
    with pytest.raises(ConfigInvalid, match="UNROLL_FAILPOINTS in the environment is no setting"):
        read_settings({}, {"UNROLL_FAILPOINTS": "1"})


def test_each_point_is_reached_from_one_place():
    sources = [path.read_text() for path in sorted(SERVICE.rglob("*.py"))]
    called = [name for text in sources for name in re.findall(r'failpoint\("(.+?)"\)', text)]
    assert sorted(called) == sorted(failpoints.POINTS)
