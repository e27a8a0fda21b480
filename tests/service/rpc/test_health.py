"""Health that no watcher can hold up, over real channels."""

import asyncio

import grpc
import pytest
from grpc_health.v1 import health_pb2 as pb
from grpc_health.v1 import health_pb2_grpc

from service.rpc import health
from service.rpc.health import NOT_SERVING, SERVING, UNKNOWN, HealthServicer


class Watcher:
    """A watcher's context: writes wait while ``reads`` is not set."""

    def __init__(self):
        self.reads = asyncio.Event()
        self.statuses = []

    async def write(self, response):
        await self.reads.wait()
        self.statuses.append(response.status)


async def settle():
    for _ in range(5):
        await asyncio.sleep(0)


def test_a_watcher_that_reads_nothing_holds_up_nobody():
    async def run():
        servicer, stuck, other = HealthServicer(), [Watcher(), Watcher()], Watcher()
        servicer.set(["", "mood"], SERVING)
        other.reads.set()
        watching = [
            asyncio.ensure_future(servicer.Watch(pb.HealthCheckRequest(service=""), each))
            for each in (*stuck, other)
        ]
        await settle()
        servicer.set([""], NOT_SERVING)  # waits for nobody
        await settle()
        assert other.statuses == [SERVING, NOT_SERVING]
        for each in stuck:
            each.reads.set()
        await settle()
        assert [each.statuses for each in stuck] == [[SERVING, NOT_SERVING]] * 2
        for task in watching:
            task.cancel()
        await asyncio.gather(*watching, return_exceptions=True)
        assert servicer.watchers == 0

    asyncio.run(run())


def test_what_another_process_serves_counts_as_served():
    async def run():
        servicer, watcher = HealthServicer(), Watcher()
        servicer.set(["", "mood"], SERVING)
        servicer.set(["letters"], NOT_SERVING)
        watcher.reads.set()
        watching = asyncio.ensure_future(
            servicer.Watch(pb.HealthCheckRequest(service="letters"), watcher)
        )
        await settle()
        servicer.set_elsewhere(["letters", "tags"])
        await settle()
        listed = await servicer.List(pb.HealthListRequest(), None)
        assert {name: of.status for name, of in listed.statuses.items()} == dict.fromkeys(
            ("", "mood", "letters", "tags"), SERVING
        )
        assert sorted(servicer.served) == ["", "mood"], "of its own"
        servicer.set([""], NOT_SERVING)
        checked = await servicer.Check(pb.HealthCheckRequest(service=""), None)
        assert checked.status == NOT_SERVING
        servicer.set_elsewhere([])
        await settle()
        assert watcher.statuses == [NOT_SERVING, SERVING, NOT_SERVING]
        watching.cancel()
        await asyncio.gather(watching, return_exceptions=True)

    asyncio.run(run())


@pytest.fixture
def stub(service):
    with grpc.insecure_channel(service.target) as channel:
        yield health_pb2_grpc.HealthStub(channel)


def test_health_is_checked_listed_and_watched(stub, service):
    assert stub.Check(pb.HealthCheckRequest()).status == SERVING
    with pytest.raises(grpc.RpcError) as refused:
        stub.Check(pb.HealthCheckRequest(service="nobody"))
    assert refused.value.code() is grpc.StatusCode.NOT_FOUND
    assert stub.List(pb.HealthListRequest()).statuses["mood"].status == SERVING
    unknown = stub.Watch(pb.HealthCheckRequest(service="nobody"))
    watched = stub.Watch(pb.HealthCheckRequest(service=""))
    assert (next(unknown).status, next(watched).status) == (UNKNOWN, SERVING)
    service.run(service.app.announce())
    assert next(watched).status == NOT_SERVING
    for call in (unknown, watched):
        call.cancel()


def test_only_so_many_watch_at_once(stub, monkeypatch):
    monkeypatch.setattr(health, "MOST_WATCHERS", 1)
    first = stub.Watch(pb.HealthCheckRequest())
    next(first)
    with pytest.raises(grpc.RpcError) as refused:
        next(stub.Watch(pb.HealthCheckRequest()))
    assert refused.value.code() is grpc.StatusCode.RESOURCE_EXHAUSTED
    first.cancel()
