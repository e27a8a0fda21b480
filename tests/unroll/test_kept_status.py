"""A server's status that grpcio replaces by an error of its own."""

import asyncio

import grpc
import pytest

from unroll import kept_status
from unroll.kept_status import KeptStatus
from unroll.types import RequestFailed

LOST = (grpc.StatusCode.INTERNAL, "Internal error from Core (it cannot be sent)")
REFUSED = (grpc.StatusCode.INVALID_ARGUMENT, "send numbers")
WELL = (grpc.StatusCode.OK, "")


class Call:
    """What grpcio does: each status takes the place of the one before, and is called back."""

    def __init__(self):
        self._callbacks = []

    def add_done_callback(self, callback):
        self._callbacks.append(callback)

    def set(self, status):
        self._status = status
        for callback in self._callbacks:
            callback(self)

    async def code(self):
        return self._status[0]

    async def details(self):
        return self._status[1]

    async def trailing_metadata(self):
        return grpc.aio.Metadata()


def kept(*statuses, failure=LOST):
    """What stands in the place of ``failure`` once these were set, one a turn of the loop."""

    async def run():
        call = Call()
        status = KeptStatus(call)
        for number, one in enumerate(statuses):
            asyncio.get_running_loop().call_later(0.005 * number, call.set, one)
        await asyncio.sleep(0.001)
        return await status.in_place_of(RequestFailed(failure[0].name, failure[1]))

    return asyncio.run(run())


@pytest.mark.parametrize("order", [(REFUSED, LOST), (LOST, REFUSED)])
def test_the_servers_status_is_found_whichever_came_first(order):
    found = kept(*order)
    assert (found.code, found.message) == ("INVALID_ARGUMENT", "send numbers")


@pytest.mark.parametrize("order", [(WELL, LOST), (LOST, WELL)])
def test_a_call_that_its_server_ended_well_has_not_failed(order):
    assert kept(*order) is None


def test_another_failure_is_what_it_is():
    found = kept(WELL, failure=REFUSED)
    assert (found.code, found.message) == ("INVALID_ARGUMENT", "send numbers")


def test_without_a_status_of_the_server_the_error_stands(monkeypatch):
    monkeypatch.setattr(kept_status, "_WAIT_SECONDS", 0.02)
    assert kept(LOST).code == "INTERNAL"
