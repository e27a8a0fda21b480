import pytest

from tests.service.openai.api import Api


@pytest.fixture
def api(standing_service):
    return Api(standing_service.target)
