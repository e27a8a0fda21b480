import pytest

from tests.service import over_http
from tests.service.openai.api import Api

front_end, standing_service = over_http.front_end, over_http.standing_service


@pytest.fixture
def api(standing_service):
    return Api(standing_service.target)
