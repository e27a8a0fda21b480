from tests.service import over_http

front_end, standing_service = over_http.front_end, over_http.standing_service
