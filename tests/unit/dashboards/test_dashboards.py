"""The dashboards' JSON is what the code makes, is Grafana's own schema, and every panel answers a question."""

from __future__ import annotations

import json

import pytest
from grafana_foundation_sdk.cog.encoder import JSONEncoder
from grafana_foundation_sdk.cog.plugins import register_default_plugins
from grafana_foundation_sdk.models.dashboard import Dashboard

from ops.dashboards.__main__ import generate
from ops.dashboards.all_boards import DASHBOARDS
from ops.dashboards.expected_empty import RIGHTLY_EMPTY
from ops.dashboards.grafana_json import to_json
from ops.observability import metric_contract as contract
from ops.project import ROOT

PANELS = [
    pytest.param(dashboard, panel, id=f"{name}: {panel.title}")
    for name, dashboard in DASHBOARDS.items()
    for row in dashboard.rows
    for panel in row
]


def test_the_committed_json_is_what_the_code_makes():
    committed = {path.name: path.read_text() for path in (ROOT / contract.DASHBOARDS).glob("*.json")}
    made = {f"{name}.json": to_json(dashboard) for name, dashboard in DASHBOARDS.items()}
    assert committed == made, "run `python -m ops.dashboards`"


def test_a_dashboard_that_is_no_more_is_taken_away(tmp_path):
    (tmp_path / "gone.json").write_text("{}")
    generate(tmp_path)
    assert {path.stem for path in tmp_path.iterdir()} == set(DASHBOARDS)


@pytest.mark.parametrize("name", DASHBOARDS)
def test_grafanas_own_schema_reads_the_json_and_loses_nothing_of_the_panels(name):
    register_default_plugins()
    document = json.loads(to_json(DASHBOARDS[name]))
    again = json.loads(json.dumps(Dashboard.from_json(document), cls=JSONEncoder))
    assert [panel["targets"] for panel in again["panels"]] == [panel["targets"] for panel in document["panels"]]
    assert [panel["options"] for panel in again["panels"]] == [panel["options"] for panel in document["panels"]]


@pytest.mark.parametrize("name", DASHBOARDS)
def test_every_row_is_as_wide_as_the_page(name):
    assert {sum(panel.width for panel in row) for row in DASHBOARDS[name].rows} == {24}


def test_no_two_dashboards_share_an_address():
    assert len({dashboard.uid for dashboard in DASHBOARDS.values()}) == len(DASHBOARDS)


@pytest.mark.parametrize(("dashboard", "panel"), PANELS)
def test_every_panel_says_which_question_it_answers(dashboard, panel):
    assert "?" in panel.question
    titles = [other.title for row in dashboard.rows for other in row]
    assert titles.count(panel.title) == 1


def test_a_panel_that_may_be_empty_exists():
    assert set(RIGHTLY_EMPTY) <= {(param.values[0].uid, param.values[1].title) for param in PANELS}
