"""What engines and budgets know of a caller, by what its call brings."""

import contextvars
import time

import pytest

from service.access.admission import AdmissionControl
from service.access.identity import Caller
from service.access.inflight import InflightTracker
from service.access.memory_budget import MemoryBudget
from service.engine.errors import Overloaded
from service.engine.shares import SHARE, Share
from service.oip.infer import _share as share_of_parameters


class Guard:
    def caller(self, method, metadata):
        return dict(metadata).get("caller", Caller())


class Call:
    def __init__(self, peer="ipv4:127.0.0.1:5", left=None):
        self.peer, self._left = peer, left

    def seconds_left(self):
        return self._left


ADMISSION = AdmissionControl(InflightTracker(2), lambda *_: None, str, MemoryBudget(1000), Guard())


def share(metadata, call, priority=0, seconds=None):
    def run():
        ADMISSION.identify("Generate", metadata)
        ADMISSION.share(call)
        share_of_parameters(priority, seconds)
        return SHARE.get()

    return contextvars.copy_context().run(run)


def test_a_caller_counts_by_its_name_and_one_without_by_its_connection():
    ann = (("caller", Caller("ann", 2.5)),)
    assert share(ann, Call()) == Share("ann", 2.5)
    assert share((), Call("ipv4:127.0.0.1:7")) == Share("ipv4:127.0.0.1:7")


@pytest.mark.parametrize(
    ("value", "priority"),
    [("u=0", 3), ("u=3", 0), ("u=7", -4), ("i, u=1", 2), ("u=8", 0), ("nonsense", 0), (b"u=1", 0)],
)
def test_urgency_is_read_as_rfc_9218_has_it(value, priority):
    assert share((("priority", value),), Call()).priority == priority


@pytest.mark.parametrize(("level", "priority"), [(0, 2), (1, 3), (4, 0), (8, -4), (900, -4)])
def test_a_level_of_the_inference_protocol_goes_before_the_header(level, priority):
    assert share((("priority", "u=1"),), Call(), level).priority == priority


def test_the_deadline_is_the_nearer_of_the_calls_and_the_requests_own():
    now = time.monotonic()
    assert share((), Call()).deadline is None
    assert share((), Call(left=60)).deadline - now == pytest.approx(60, abs=5)
    assert share((), Call(left=60), seconds=20).deadline - now == pytest.approx(20, abs=5)
    assert share((), Call(left=20), seconds=60).deadline - now == pytest.approx(20, abs=5)
    assert share((), Call(), seconds=20).deadline - now == pytest.approx(20, abs=5)


def test_one_caller_has_only_so_many_requests_under_way():
    inflight = InflightTracker(2)
    inflight.enter("ann")
    inflight.enter("ann")
    with pytest.raises(Overloaded, match="2 requests under way"):
        inflight.enter("ann")
    inflight.enter("ben")
    inflight.leave("ann")
    inflight.enter("ann")
    assert inflight.calls == 3
