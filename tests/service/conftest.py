"""One service for all tests of calls that leave nothing behind."""

import grpc
import pytest

from tests.conftest import running
from tests.service.processes import Process
from unroll import Client
from unroll.v1 import unroll_pb2_grpc


@pytest.fixture(scope="session")
def standing_service(tiny_models):
    with running(tiny_models) as service:
        yield service


@pytest.fixture
def caller(standing_service):
    with Client(standing_service.target, timeout=30) as client:
        yield client


@pytest.fixture
def refusal(standing_service):
    """The message of a call that is refused with INVALID_ARGUMENT."""

    def answer(method, request):
        with grpc.insecure_channel(standing_service.target) as channel:
            stub = unroll_pb2_grpc.UnrollServiceStub(channel)
            response = getattr(stub, method)(request, timeout=20)
            return list(response) if method in ("Generate", "Forecast") else response

    def call(method, request):
        with pytest.raises(grpc.RpcError) as caught:
            answer(method, request)
        assert caught.value.code() is grpc.StatusCode.INVALID_ARGUMENT
        return caught.value.details()

    return call


@pytest.fixture
def run():
    started = []

    def start(*arguments):
        process = Process(*map(str, arguments))
        started.append(process.process)
        return process

    yield start
    for process in started:
        if process.poll() is None:
            process.kill()
        process.wait()
        process.stdout.close()
