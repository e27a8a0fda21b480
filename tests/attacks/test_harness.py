"""What the attacks are seen by sees: a service that grows, ends or answers otherwise."""

import signal

import pytest

from tests.attacks.harness import MEBIBYTE, Seen, Service, Witness


def test_nothing_happens_beside_a_service_that_nobody_attacks(attacked):
    with attacked(callers=("ann",), caller="ann") as (service, witness):
        seen = witness.report()
        assert seen.calls.keys() == {"Classify", "Tag", "StreamTag", "Generate", "Score"}
        assert service.usage.samples[-1].files > 0


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
