import grpc
import pytest

from tests.service.oip.calls import Inference, ask


@pytest.fixture
def inference(standing_service):
    with Inference(standing_service.target) as inference:
        yield inference


@pytest.fixture
def refused(inference):
    """The message of a request that is refused with INVALID_ARGUMENT."""

    def call(request, *args, **kwargs):
        request = ask(request, *args, **kwargs) if isinstance(request, str) else request
        with pytest.raises(grpc.RpcError) as caught:
            inference.stub.ModelInfer(request, timeout=20)
        assert caught.value.code() is grpc.StatusCode.INVALID_ARGUMENT, caught.value
        return caught.value.details()

    return call
