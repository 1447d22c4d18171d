"""TLS=on: each server and client has its own certificate, and TLS=off changes nothing."""

from __future__ import annotations

import json
from urllib.parse import parse_qs, urlsplit

import pytest
import yaml

from ops import compose_model, external_data, inner_tls, private_authority, secrets_store, settings_file
from ops.errors import StackError
from ops.project import ROOT
from ops.services import POSTGRES_NODES

READERS = (*external_data.READERS, *inner_tls.READERS)
ON = {"TLS": "on", "COMPOSE_PROFILES": "data,flower,observability"}


def mounted(project, **settings: str) -> dict[str, str]:
    chosen = settings_file.read(project) | ON | settings
    secrets_store.generate(project)
    inner_tls.renew(project, chosen)
    return secrets_store.mounted_files(project, chosen)


def test_every_url_verifies_the_stacks_own_servers(project):
    files = mounted(project)
    for name in (
        *("sql_alchemy_conn", "sql_alchemy_conn_async", "celery_result_backend", "celery_results_owner"),
        "postgres_superuser_conn",
    ):
        url = files[f"airflow/{name}"]
        query = parse_qs(urlsplit(url).query)
        assert "@postgres:5432/" in url, name
        assert query["sslmode"] == ["verify-full"], name
        assert query["sslrootcert"] == ["/run/secrets/postgres_ca.pem"], name
        assert query["sslcert"] == query["sslkey"] == ["/run/secrets/postgres_client.pem"], name
    for name in ("celery", "scheduler", "flower"):
        url = urlsplit(files[f"airflow/{name}_broker_url"])
        query = parse_qs(url.query)
        assert (url.scheme, url.hostname, query["ssl_cert_reqs"]) == ("rediss", "redis", ["required"]), name
        assert query["ssl_ca_certs"] == ["/run/secrets/redis_ca.pem"], name
        assert query["ssl_certfile"] == ["/run/secrets/redis_client.pem"], name
    assert list(json.loads(files["redis-exporter/redis_exporter_passwords.json"])) == ["rediss://exporter@redis:6379"]


def test_each_reader_has_only_its_own_key(project):
    files = mounted(project)
    holders: dict[str, set[str]] = {}
    for path, text in files.items():
        for name in (certificate.name for certificate in inner_tls.CERTIFICATES):
            if text == private_authority.read(project, name):
                holders.setdefault(name, set()).add(path)
    assert holders == {
        "postgres": {"tls-data/postgres_server.pem"},
        "redis": {"tls-data/redis_server.pem"},
        "backup": {"tls-data/backup_client.pem"},
        "airflow": {"links/postgres_client.pem", "links/redis_client.pem"},
        "postgres-exporter": {"postgres-exporter-link/postgres_exporter_client.pem"},
        "redis-exporter": {"redis-exporter-link/redis_exporter_client.pem"},
    }
    key = (private_authority.folder(project) / "authority.key").read_text()
    assert not [path for path, text in files.items() if key in text]


def test_without_tls_no_certificate_is_signed_or_mounted(project):
    files = mounted(project, TLS="off")
    assert not private_authority.folder(project).exists()
    assert "ssl" not in files["airflow/sql_alchemy_conn"] + files["airflow/celery_broker_url"]
    assert {text for path, text in files.items() if path.partition("/")[0] in READERS} == {""}


def test_external_servers_keep_their_own_settings(project):
    settings = settings_file.read(project) | ON | {"COMPOSE_PROFILES": "flower"}
    assert inner_tls.renew(project, settings) == []
    assert inner_tls.derived(settings) == {"DATA_TLS": "off"}
    assert external_data.sslmode(settings | {"POSTGRES_SSLMODE": "require"}) == "require"


@pytest.mark.parametrize(
    ("settings", "running", "is_refused"),
    [
        ({"TLS": "on", "DATA_TLS": "on"}, ["postgres", "worker"], False),
        ({"TLS": "on"}, ["worker"], False),
        ({"TLS": "on"}, ["redis"], True),
        ({"DATA_TLS": "on"}, ["postgres"], True),
        ({"DATA_TLS": "on", "COMPOSE_PROFILES": "flower"}, ["postgres"], False),
        ({"TLS": "on", "DATA_TLS": "on", "COMPOSE_PROFILES": "data-ha"}, [], True),
        ({"COMPOSE_PROFILES": "data-ha"}, POSTGRES_NODES, False),
    ],
)
def test_tls_changes_only_while_no_server_runs(project, settings, running, is_refused):
    chosen = {"COMPOSE_PROFILES": "data"} | settings
    if not is_refused:
        inner_tls.check(project, chosen, running)
        return
    with pytest.raises(StackError, match="TLS"):
        inner_tls.check(project, chosen, running)


def test_no_compose_file_changes_without_tls():
    """Each file that is selected without TLS is empty, so the model is that of the other files alone."""
    entry = yaml.safe_load((ROOT / "compose/compose.yaml").read_text())
    selected = [file for file in compose_model.included(entry["include"]) if file.startswith("tls/")]
    assert selected
    for file in selected:
        name = compose_model.interpolated(file, {"DATA_TLS": "off"})
        assert name == compose_model.interpolated(file, {})
        assert yaml.safe_load((ROOT / "compose" / name).read_text()) == {"services": {}}, name
        assert (ROOT / "compose" / compose_model.interpolated(file, {"DATA_TLS": "on"})).exists()
