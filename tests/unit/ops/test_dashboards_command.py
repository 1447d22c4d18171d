"""`ops/stack dashboards`: links where Grafana runs, a plain word where it does not, and no nonsense range."""

from __future__ import annotations

import pytest
from typer.testing import CliRunner

from ops.__main__ import app
from ops.commands.dashboards import parse_range
from ops.errors import StackError


@pytest.mark.parametrize(("text", "seconds"), [("30m", 1800), ("6h", 21600), ("2d", 172800)])
def test_a_range_is_a_number_and_a_unit(text, seconds):
    assert parse_range(text) == seconds


@pytest.mark.parametrize("text", ["", "h", "0h", "-1h", "1w", "1.5h"])
def test_anything_else_is_refused_with_examples(text):
    with pytest.raises(StackError, match="is not a range") as refused:
        parse_range(text)
    assert "6h" in refused.value.hint


def test_each_dashboard_is_listed_with_its_link_where_grafana_runs(project):
    project.env_file.write_text("COMPOSE_PROFILES=observability,grafana\nGRAFANA_PORT=3001\n")
    listed = CliRunner().invoke(app, ["dashboards"]).output
    assert "Overview" in listed
    assert "http://localhost:3001/d/" in listed


def test_without_grafana_the_way_to_pictures_is_told(project):
    assert "use --render" in CliRunner().invoke(app, ["dashboards"]).output


def test_drawing_without_prometheus_is_refused(project, tmp_path):
    project.env_file.write_text("COMPOSE_PROFILES=data\n")
    result = CliRunner().invoke(app, ["dashboards", "--render", str(tmp_path)])
    assert isinstance(result.exception, StackError)
    assert "no Prometheus to ask" in str(result.exception)
