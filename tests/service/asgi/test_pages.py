"""Metrics and probes on the port of calls, where the operator wants one port."""

import urllib.error
import urllib.request


def get(service, path):
    try:
        with urllib.request.urlopen(f"http://{service.target}{path}", timeout=10) as answer:
            return answer.status, answer.headers["content-type"], answer.read().decode()
    except urllib.error.HTTPError as refused:
        with refused:
            return refused.code, refused.headers["content-type"], refused.read().decode()


def test_the_port_of_calls_has_metrics_and_probes_where_it_is_wanted(start_service):
    service = start_service(front_end="envoy", metrics_on_port=True)
    status, kind, page = get(service, "/metrics")
    assert (status, kind.partition(";")[0]) == (200, "text/plain")
    assert "unroll_overload_stage 0.0" in page
    assert get(service, "/livez")[::2] == (200, "alive\n")
    assert get(service, "/readyz")[::2] == (200, "ready\n")
    service.run(service.app.announce())
    assert get(service, "/readyz")[::2] == (503, "not ready: it starts or stops\n")


def test_otherwise_it_has_none(start_service):
    service = start_service(front_end="envoy")
    assert get(service, "/metrics")[0] == 404
