"""`ops/stack dashboards`: links to Grafana if it runs, otherwise a hint, and valid ranges only."""

from __future__ import annotations

import pytest
from typer.testing import CliRunner

from ops.__main__ import app
from ops.commands.dashboards import parse_range
from ops.errors import StackError


@pytest.mark.parametrize(("text", "seconds"), [("30m", 1800), ("6h", 21600), ("2d", 172800)])
def test_range_is_a_number_and_a_unit(text, seconds):
    assert parse_range(text) == seconds


@pytest.mark.parametrize("text", ["", "h", "0h", "-1h", "1w", "1.5h"])
def test_invalid_range_is_refused_with_examples(text):
    with pytest.raises(StackError, match="range") as refused:
        parse_range(text)
    assert "6h" in refused.value.hint


def test_dashboards_are_listed_with_links_to_grafana(project):
    project.env_file.write_text("COMPOSE_PROFILES=observability,grafana\nGRAFANA_PORT=3001\n")
    listed = CliRunner().invoke(app, ["dashboards"]).output
    assert "Overview" in listed
    assert "http://localhost:3001/d/" in listed


def test_list_without_grafana_names_the_render_option(project):
    assert "--render" in CliRunner().invoke(app, ["dashboards"]).output


def test_render_without_prometheus_is_refused(project, tmp_path):
    project.env_file.write_text("COMPOSE_PROFILES=data\n")
    result = CliRunner().invoke(app, ["dashboards", "--render", str(tmp_path)])
    assert isinstance(result.exception, StackError)
    assert "Prometheus does not run" in str(result.exception)


@pytest.mark.parametrize("folder", ["file", "file/below", "/proc/nowhere"])
def test_render_into_no_folder_is_refused_before_any_query(project, tmp_path, monkeypatch, folder):
    project.env_file.write_text("COMPOSE_PROFILES=observability\n")
    project.secrets.mkdir()
    (project.secrets / "observability_password").write_text("x")
    (tmp_path / "file").touch()
    monkeypatch.setattr("ops.dashboards.render.read_boards", lambda *_: pytest.fail("queried"))
    result = CliRunner().invoke(app, ["dashboards", "--render", str(tmp_path / folder)])
    assert isinstance(result.exception, StackError)
    assert "cannot write" in result.exception.what
    assert folder in result.exception.what
    assert result.exception.code == 2


def test_picture_that_cannot_be_written_is_reported(project, tmp_path, monkeypatch):
    project.env_file.write_text("COMPOSE_PROFILES=observability\n")
    project.secrets.mkdir()
    (project.secrets / "observability_password").write_text("x")
    (tmp_path / "out/index.html").mkdir(parents=True)
    monkeypatch.setattr("ops.dashboards.render.read_boards", lambda *_: ())
    result = CliRunner().invoke(app, ["dashboards", "--render", str(tmp_path / "out")])
    assert isinstance(result.exception, StackError)
    assert "index.html: Is a directory" in result.exception.what
