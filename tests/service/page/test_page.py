"""The page's files over HTTP; `make test-page` has it in a browser."""

import gzip
import http.client
import re
from pathlib import Path

import pytest

from service.page.assets import read_assets

STATIC = Path(__file__).parents[3] / "service" / "page" / "static"
INDEX = "index.html"


def get(service, path, method="GET", **headers):
    """Status, headers in lower case, body."""
    connection = http.client.HTTPConnection(service.target, timeout=10)
    try:
        connection.request(
            method, path, headers={k.replace("_", "-"): v for k, v in headers.items()}
        )
        answer = connection.getresponse()
        return answer.status, {k.lower(): v for k, v in answer.getheaders()}, answer.read()
    finally:
        connection.close()


def paths():
    return ["/" if name == INDEX else f"/page/{name}" for name in sorted(read_assets())]


@pytest.mark.parametrize("path", paths())
def test_each_file_is_answered_as_it_is_under_the_policy(standing_service, path):
    status, headers, body = get(standing_service, path)
    assert status == 200
    assert body == (STATIC / (path.removeprefix("/page/").strip("/") or INDEX)).read_bytes()
    policy = dict(part.split(" ", 1) for part in headers["content-security-policy"].split("; "))
    assert policy["default-src"] == "'none'"
    assert policy["script-src"] == policy["style-src"] == policy["connect-src"] == "'self'"
    assert policy["frame-ancestors"] == policy["base-uri"] == policy["form-action"] == "'none'"
    assert policy["require-trusted-types-for"] == "'script'"
    assert headers["x-content-type-options"] == "nosniff"
    assert headers["referrer-policy"] == "no-referrer"


def test_types_are_those_that_browsers_run(standing_service):
    kinds = {path: get(standing_service, path)[1]["content-type"] for path in paths()}
    assert kinds["/"] == "text/html; charset=utf-8"
    assert kinds["/page/main.js"] == "text/javascript; charset=utf-8"
    assert kinds["/page/style.css"] == "text/css; charset=utf-8"
    assert kinds["/page/icon.svg"] == "image/svg+xml"


def test_what_a_browser_holds_is_not_sent_again(standing_service):
    _, headers, _ = get(standing_service, "/page/main.js")
    assert headers["cache-control"] == "no-cache"
    status, again, body = get(
        standing_service, "/page/main.js", If_None_Match=f'"other", {headers["etag"]}'
    )
    assert (status, body, again["etag"]) == (304, b"", headers["etag"])
    assert get(standing_service, "/page/main.js", If_None_Match='"other"')[0] == 200


def test_it_is_compressed_for_those_who_take_it(standing_service):
    _, plain, body = get(standing_service, "/page/style.css")
    _, headers, compressed = get(standing_service, "/page/style.css", Accept_Encoding="br, gzip")
    assert headers["content-encoding"] == "gzip"
    assert "accept-encoding" in headers["vary"]
    assert gzip.decompress(compressed) == body
    assert len(compressed) < len(body) == int(plain["content-length"])


def test_head_has_no_body(standing_service):
    status, headers, body = get(standing_service, "/", method="HEAD")
    assert (status, body) == (200, b"")
    assert int(headers["content-length"]) == (STATIC / INDEX).stat().st_size


@pytest.mark.parametrize("path", ["/page/", "/page/none.js", "/page/../config.py", "/index.html"])
def test_there_is_nothing_else(standing_service, path):
    assert get(standing_service, path)[0] == 404


def test_it_takes_no_posts(standing_service):
    assert get(standing_service, "/", method="POST")[0] == 404


def test_it_can_be_left_out(start_service):
    service = start_service(front_end="envoy", page=False)
    assert {get(service, path)[0] for path in paths()} == {404}
    assert get(service, "/openapi.json")[0] == 200


def test_files_are_found_by_those_that_load_them():
    """Modules import each other by names that are there, and from nowhere else."""
    names = set(read_assets())
    assert names == {file.name for file in STATIC.iterdir()}
    for file in STATIC.glob("*.js"):
        imported = re.findall(r"^import .* from '([^']+)'", file.read_text(), re.MULTILINE)
        assert {name.removeprefix("./") for name in imported} <= names, file
    index = (STATIC / INDEX).read_text()
    assert set(re.findall(r"/page/([\w.]+)", index)) <= names
    assert "//" not in index


def test_nothing_parses_markup():
    """Trusted types refuse it in a browser; this says so where the line is written."""
    for file in STATIC.glob("*.js"):
        assert not re.search(
            r"innerHTML|outerHTML|insertAdjacentHTML|document\.write|eval\(", file.read_text()
        ), file
