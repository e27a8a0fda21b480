"""The soak's own parts: which attack comes when, and what it evaluates. It is run by hand."""

import dataclasses
from collections import Counter

import pytest

from tests.attacks.harness import Seen
from tests.attacks.soak.catalogue import ATTACKS
from tests.attacks.soak.report import GROWTH_BYTES, Result, Tally, WitnessTally
from tests.attacks.soak.sampling import Point
from tests.attacks.soak.schedule import Schedule

GROUPS = {"a": "", "b": "files", "c": "files", "d": "files"}


def drawn(schedule, count):
    """Names in turn, each over before the next begins."""
    names = []
    for _ in range(count):
        name, _ = schedule.begin()
        schedule.end(name)
        names.append(name)
    return names


def test_each_round_runs_every_attack_once():
    schedule = Schedule(GROUPS, 1)
    names = drawn(schedule, 3 * len(GROUPS))
    for begin in range(0, len(names), len(GROUPS)):
        assert sorted(names[begin : begin + len(GROUPS)]) == sorted(GROUPS)
    assert schedule.rounds == 3


def test_the_order_follows_from_the_seed():
    orders = [drawn(Schedule(GROUPS, seed), 40) for seed in (1, 1, 2)]
    assert orders[0] == orders[1] != orders[2]


def test_two_of_one_group_never_run_at_once():
    schedule = Schedule(GROUPS, 3)
    running = [name for name, _ in filter(None, (schedule.begin() for _ in range(4)))]
    assert sorted(GROUPS[name] for name in running) == ["", "files"]
    assert schedule.begin() is None
    schedule.end(next(name for name in running if GROUPS[name]))
    again, _ = schedule.begin()
    assert GROUPS[again] == "files"
    assert again not in running


POINT = Point(0.0, 400_000_000, 450_000_000, 50, 40, 1.0)
SEEN = Seen({"Tag": 5}, [], [], {"Tag": 0.2}, [0.01])


def passed():
    witness = WitnessTally()
    witness.add(SEEN)
    tallies = {"SIGHUP": Tally(runs=1, got=Counter(signals=10))}
    return Result(
        15, 1, 4, tallies=tallies, witness=witness, points=[POINT], end=POINT, exit_code=0,
        stop_seconds=2.0,
    )  # fmt: skip


def test_a_soak_that_held_has_no_failures():
    result = passed()
    assert result.failures() == []
    assert "RSS" in result.table()
    assert '"failures": []' in result.to_json()


def test_the_least_of_each_minute_is_reported():
    rss = [(0, 5), (30, 4), (61, 7), (100, 6)]
    points = [
        dataclasses.replace(POINT, seconds=float(seconds), resident_bytes=resident)
        for seconds, resident in rss
    ]
    assert dataclasses.replace(passed(), points=points).floors() == [4, 6]


GROWN = dataclasses.replace(POINT, resident_bytes=POINT.resident_bytes + GROWTH_BYTES + 1)


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"kills": 1}, "want of memory"),
        ({"ended_early": "Killed"}, "amid the attacks"),
        ({"end": GROWN}, "RSS grew by 210 MB"),
        ({"not_back": "not released: {'rows': 3}"}, "rows"),
        ({"exit_code": 1}, "exit code 1"),
        ({"stop_seconds": 60.0}, "killed"),
        ({"tallies": {"SIGHUP": Tally()}}, "never run"),
        ({"tallies": {"SIGHUP": Tally(1, got=Counter(UNKNOWN=1))}}, "got UNKNOWN"),
        ({"tallies": {"SIGHUP": Tally(1, trouble=["OSError: no"])}}, "OSError"),
        ({"witness": WitnessTally()}, "without an answer"),
    ],
)
def test_what_does_not_hold_fails(changed, message):
    result = dataclasses.replace(passed(), **changed)
    assert any(message in failure for failure in result.failures()), result.failures()


@pytest.mark.parametrize(
    ("seen", "message"),
    [({"failed": ["Tag: UNAVAILABLE"]}, "1 failed"), ({"differing": ["Tag"]}, "other bits of Tag")],
)
def test_what_the_witness_missed_fails(seen, message):
    result = passed()
    result.witness.add(dataclasses.replace(SEEN, **seen))
    assert any(message in failure for failure in result.failures())


def test_what_calls_may_end_with_is_known_for_each_attack():
    for attack in ATTACKS.values():
        assert attack.unexpected(["OK", "RESOURCE_EXHAUSTED"]) == []
        assert attack.unexpected(["UNKNOWN"]) == ["UNKNOWN"]
