import pytest

from tests.service.oip.calls import Inference
from tests.service.rest.exchanges import Rest


@pytest.fixture
def rest(standing_service):
    return Rest(standing_service.target)


@pytest.fixture
def inference(standing_service):
    with Inference(standing_service.target) as inference:
        yield inference
