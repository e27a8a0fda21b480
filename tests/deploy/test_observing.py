"""What Prometheus and Grafana query exists, and what fires has a page."""

import itertools
import json
import re
from pathlib import Path

import pytest

from deploy.grafana.dashboard import COLUMNS, dashboard
from tests.metrics_page import unknown

PROMETHEUS = Path("deploy/prometheus")
DASHBOARD = Path("deploy/grafana/dashboard.json")
# A series of the service or of its process; a recorded one has colons around.
_SERIES = re.compile(r"(?<![\w:])(?:unroll|process|python)_\w+(?![\w:])")
_RECORDED = re.compile(r"\b[a-z_]+:unroll_\w+:\w+")


def recorded():
    return set(re.findall(r"record: (\S+)", (PROMETHEUS / "recording.yml").read_text()))


def alerts():
    return re.findall(r"alert: (\w+)", (PROMETHEUS / "alerts.yml").read_text())


@pytest.mark.parametrize(
    "path", [PROMETHEUS / "recording.yml", PROMETHEUS / "alerts.yml", DASHBOARD], ids=str
)
def test_every_queried_series_exists(path):
    text = re.sub(r"record: \S+", "", path.read_text())
    queried, derived = set(_SERIES.findall(text)), set(_RECORDED.findall(text))
    assert queried
    assert unknown(queried) == []
    assert derived <= recorded()


def test_every_alert_has_its_place_in_the_runbook_and_in_the_unit_tests():
    text, tested = (
        (PROMETHEUS / "alerts.yml").read_text(),
        (PROMETHEUS / "tests/rules.yml").read_text(),
    )
    names, sections = alerts(), re.findall(r"^### (\w+)$", Path("RUNBOOK.md").read_text(), re.M)
    assert len(names) > 20
    assert [name for name in names if f"### {name}" not in Path("RUNBOOK.md").read_text()] == []
    assert [s for s in sections if s.startswith("Unroll") and s not in names] == []
    assert re.findall(r"runbook_url: RUNBOOK\.md#(\w+)", text) == [n.lower() for n in names]
    assert [name for name in names if name not in tested] == []


def test_the_dashboard_is_what_its_script_makes():
    assert json.loads(DASHBOARD.read_text()) == dashboard()


def test_no_two_panels_share_a_place_or_a_number():
    panels = dashboard()["panels"]
    places = [panel["gridPos"] for panel in panels]
    assert len({panel["id"] for panel in panels}) == len(panels) > 50
    assert max(place["x"] + place["w"] for place in places) <= COLUMNS
    for a, b in itertools.combinations(places, 2):
        beside = a["x"] + a["w"] <= b["x"] or b["x"] + b["w"] <= a["x"]
        above = a["y"] + a["h"] <= b["y"] or b["y"] + b["h"] <= a["y"]
        assert beside or above
