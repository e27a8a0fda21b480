import pytest

from tests.service import over_http
from tests.service.oip.calls import Inference
from tests.service.rest.exchanges import Rest

front_end, standing_service = over_http.front_end, over_http.standing_service


@pytest.fixture
def rest(standing_service):
    return Rest(standing_service.target)


@pytest.fixture
def inference(standing_service):
    with Inference(standing_service.target) as inference:
        yield inference
