"""The dashboards' JSON matches the code and Grafana's schema, and every panel answers a question."""

from __future__ import annotations

import json

import pytest
from grafana_foundation_sdk.cog.encoder import JSONEncoder
from grafana_foundation_sdk.cog.plugins import register_default_plugins
from grafana_foundation_sdk.models.dashboard import Dashboard

from ops.dashboards.__main__ import generate
from ops.dashboards.all_boards import DASHBOARDS
from ops.dashboards.expected_empty import EXPECTED_EMPTY
from ops.dashboards.grafana_json import to_json
from ops.observability import metric_contract as contract
from ops.project import ROOT

PANELS = [
    pytest.param(dashboard, panel, id=f"{name}: {panel.title}")
    for name, dashboard in DASHBOARDS.items()
    for row in dashboard.rows
    for panel in row
]


def test_committed_json_matches_the_code():
    committed = {path.name: path.read_text() for path in (ROOT / contract.DASHBOARDS).glob("*.json")}
    generated = {f"{name}.json": to_json(dashboard) for name, dashboard in DASHBOARDS.items()}
    assert committed == generated, "run `python -m ops.dashboards`"


def test_json_of_a_removed_dashboard_is_deleted(tmp_path):
    (tmp_path / "gone.json").write_text("{}")
    generate(tmp_path)
    assert {path.stem for path in tmp_path.iterdir()} == set(DASHBOARDS)


@pytest.mark.parametrize("name", DASHBOARDS)
def test_grafanas_schema_keeps_queries_and_options(name):
    register_default_plugins()
    document = json.loads(to_json(DASHBOARDS[name]))
    decoded = json.loads(json.dumps(Dashboard.from_json(document), cls=JSONEncoder))
    assert [panel["targets"] for panel in decoded["panels"]] == [panel["targets"] for panel in document["panels"]]
    assert [panel["options"] for panel in decoded["panels"]] == [panel["options"] for panel in document["panels"]]


@pytest.mark.parametrize("name", DASHBOARDS)
def test_row_widths_add_up_to_24_columns(name):
    assert {sum(panel.width for panel in row) for row in DASHBOARDS[name].rows} == {24}


def test_dashboard_uids_are_unique():
    assert len({dashboard.uid for dashboard in DASHBOARDS.values()}) == len(DASHBOARDS)


@pytest.mark.parametrize(("dashboard", "panel"), PANELS)
def test_panel_has_a_question_and_a_unique_title(dashboard, panel):
    assert "?" in panel.question
    titles = [other.title for row in dashboard.rows for other in row]
    assert titles.count(panel.title) == 1


def test_panels_that_may_be_empty_exist():
    assert set(EXPECTED_EMPTY) <= {(param.values[0].uid, param.values[1].title) for param in PANELS}
