"""generated/: the links in messages, and the reload of changed files."""

from __future__ import annotations

import json

import pytest

from ops import settings_file
from ops.errors import StackError
from ops.observability import generated_config
from tests.unit.stack_fakes import container


def test_links_lead_to_the_settings_urls_or_this_machine(project):
    settings = settings_file.read(project)
    text = generated_config.links(settings | {"COMPOSE_PROFILES": "observability,grafana"})
    assert '"base.airflow" }}http://localhost:8080{{' in text
    assert "<http://localhost:3000{{ . }}|Dashboard>" in text
    own = {
        "AIRFLOW_URL": "https://airflow.test/",
        "GRAFANA_URL": "https://g.test",
        "RUNBOOK_BASE_URL": "https://r.test",
    }
    text = generated_config.links(settings | own)
    assert '"base.airflow" }}https://airflow.test{{' in text
    assert "<https://g.test{{ . }}|Dashboard>" in text
    assert '"base.runbooks" }}https://r.test{{' in text


def test_without_grafana_messages_name_the_render_command(project):
    assert "`./ops/stack dashboards --render DIR`" in generated_config.links(settings_file.read(project))


@pytest.mark.parametrize(("origin", "has_page"), [("official", True), ("airgap", False)])
def test_only_the_official_alertmanager_has_a_silence_link(project, origin, has_page):
    settings = settings_file.read(project) | {
        "COMPOSE_PROFILES": "observability",
        "ALERTMANAGER_IMAGE": "x",
        "STACK_IMAGES_ORIGIN": f"ALERTMANAGER_IMAGE={origin}",
    }
    text = generated_config.links(settings)
    assert ("http://localhost:9093/#/silences/new" in text) is has_page
    assert "./ops/stack silence {{ .alertname }}" in text


def test_generated_files_are_readable_and_rewritten_on_change(project):
    settings = settings_file.read(project)
    assert generated_config.write(project, settings) is True
    assert generated_config.write(project, settings) is False
    files = [path for path in project.generated.rglob("*") if path.is_file() and path.name != generated_config.TO_LOAD]
    assert sorted(str(path.relative_to(project.generated)) for path in files) == [
        "alertmanager/alertmanager.yaml",
        "alertmanager/links.tmpl",
        "rules/backup.json",
        "rules/certificates.yaml",
        "rules/wanted.yaml",
    ]
    assert {path.stat().st_mode & 0o777 for path in files} == {0o644}
    assert {path.parent.stat().st_mode & 0o777 for path in files} == {0o755}


def test_a_changed_file_is_reloaded_once_by_its_readers(project, docker):
    containers = [container(name, 1, health="healthy") for name in ("prometheus", "alertmanager-1", "worker")]
    docker.answer("ps --all", out="\n".join(each["Id"] for each in containers))
    docker.answer("inspect", out=json.dumps(containers))
    settings = settings_file.read(project)
    generated_config.write(project, settings)
    generated_config.load(project, "airflow-ha")
    generated_config.write(project, settings | {"WORKER_REPLICAS": "5"})
    generated_config.load(project, "airflow-ha")
    generated_config.load(project, "airflow-ha")
    reloaded = [call[2:] for call in docker.calls() if call[0] == "kill"]
    prometheus, alertmanager = (each["Id"][:12] for each in containers[:2])
    assert reloaded == [[prometheus, alertmanager], [prometheus]]
    # The service of each container by its id, because the kernel reports only the id.
    names = (project.generated / "rules/containers.yaml").read_text()
    for each in containers:
        service = each["Config"]["Labels"]["com.docker.compose.service"]
        assert f"labels: {{ service: {service}, airflow_instance: '{each['Id'][:12]}' }}" in names


@pytest.mark.parametrize("value", ["airflow.test", "ftp://x", "https://a|b", "https://{{ . }}", "https://"])
def test_an_invalid_url_in_the_settings_is_refused(project, value):
    project.env_file.write_text(f"AIRFLOW_URL='{value}'\n")
    with pytest.raises(StackError, match="AIRFLOW_URL="):
        settings_file.read(project)
