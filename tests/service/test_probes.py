"""What probes say of a service whose event loop or engine stands still."""

import threading
import time
import urllib.error
import urllib.request

import pytest

from service.observability import pages


def ask(service, path):
    """Status and page."""
    url = f"http://127.0.0.1:{service.app.http.port}{path}"
    try:
        with urllib.request.urlopen(url, timeout=20) as answer:
            return answer.status, answer.read().decode()
    except urllib.error.HTTPError as error:
        with error:
            return error.code, error.read().decode()


def wait_for(service, path, status, says=""):
    """Until its page has ``status`` and these words.

    A probe names what it finds first: on a slow machine, for a moment, the event loop.
    """
    end = time.monotonic() + 20
    while (answer := ask(service, path))[0] != status or says not in answer[1]:
        assert time.monotonic() < end, answer


@pytest.fixture
def service(start_service, monkeypatch):
    monkeypatch.setattr(pages, "_SECOND_LOOK_SECONDS", 0.05)
    return start_service(liveness_seconds=3.0)


@pytest.fixture
def hold():
    """What waits until the test lets it go on, which it does at its end at the latest."""
    go_on = threading.Event()
    yield go_on
    go_on.set()


def test_a_loop_that_stands_fails_both_probes_until_it_goes_on(service, hold):
    wait_for(service, "/livez", 200)
    service.loop.call_soon_threadsafe(hold.wait)
    wait_for(service, "/readyz", 503, "not ready: the event loop has stood still")
    wait_for(service, "/livez", 503, "not alive: the event loop has stood still")
    hold.set()
    wait_for(service, "/livez", 200)
    wait_for(service, "/readyz", 200)


def test_an_engine_within_one_step_fails_both_probes_until_it_goes_on(service, hold):
    (thread,) = (t for t in service.app._engine_threads() if t.name == "mood")
    thread.do(lambda _: hold.wait(), None)
    wait_for(service, "/readyz", 503, "engine mood-predict has been within one step")
    wait_for(service, "/livez", 503, "engine mood-predict has been within one step")
    hold.set()
    wait_for(service, "/livez", 200)
    wait_for(service, "/readyz", 200)
