"""TLS, users and certificates of the operator's own Postgres and Redis."""

from __future__ import annotations

import json
from urllib.parse import parse_qs, urlsplit

import pytest

from ops import external_data, secrets_store, settings_file
from ops.errors import StackError
from tests.certificates import Authority
from tests.link_problems import link_problems

EXTERNAL = {"COMPOSE_PROFILES": "flower,observability", "POSTGRES_HOST": "db.example", "REDIS_HOST": "cache.example"}
TLS = {**EXTERNAL, "POSTGRES_SSLMODE": "verify-full", "REDIS_TLS": "true"}


@pytest.fixture(scope="module")
def authority() -> Authority:
    return Authority("test")


@pytest.fixture
def made(project, authority):
    """A project with certificates for both links."""
    secrets_store.generate(project)
    for link in external_data.LINKS:
        write(project, external_data.CA_FILES[link], authority.pem)
        write(project, external_data.CLIENT_FILES[link], authority.issue("airflow"))
    return project


def write(project, name: str, text: str) -> None:
    path = project.secrets / name
    path.touch(mode=0o600)
    path.write_text(text)


def mounted(project, **settings: str) -> dict[str, str]:
    return secrets_store.mounted_files(project, settings_file.read(project) | TLS | settings)


def test_each_url_verifies_its_server_and_shows_its_certificate(made):
    files = mounted(made)
    for name in ("sql_alchemy_conn", "sql_alchemy_conn_async", "celery_result_backend", "celery_results_owner"):
        query = parse_qs(urlsplit(files[f"airflow/{name}"]).query)
        assert query["sslmode"] == ["verify-full"], name
        assert query["sslrootcert"] == ["/run/secrets/postgres_ca.pem"], name
        assert query["sslcert"] == query["sslkey"] == ["/run/secrets/postgres_client.pem"], name
    for name in ("celery", "scheduler", "flower"):
        url = urlsplit(files[f"airflow/{name}_broker_url"])
        query = parse_qs(url.query)
        assert (url.scheme, url.hostname, query["ssl_cert_reqs"]) == ("rediss", "cache.example", ["required"])
        assert query["ssl_ca_certs"] == ["/run/secrets/redis_ca.pem"], name
        assert query["ssl_certfile"] == query["ssl_keyfile"] == ["/run/secrets/redis_client.pem"], name


def test_without_tls_no_file_is_mounted(made):
    files = mounted(made, POSTGRES_SSLMODE="", REDIS_TLS="")
    assert "ssl" not in files["airflow/sql_alchemy_conn"]
    assert files["airflow/celery_broker_url"].startswith("redis://:")
    folders = external_data.READERS.keys()
    assert {text for name, text in files.items() if name.partition("/")[0] in folders} == {""}


def test_each_client_of_redis_may_have_its_own_user(made):
    users = {"REDIS_USER": "worker", "REDIS_SCHEDULER_USER": "planner", "REDIS_MONITORING_USER": "exporter"}
    files = mounted(made, **users)
    log_ins = {name: urlsplit(files[f"airflow/{name}_broker_url"]) for name in ("celery", "scheduler", "flower")}
    assert {name: url.username for name, url in log_ins.items()} == {
        "celery": "worker",
        "scheduler": "planner",
        "flower": "worker",
    }
    assert log_ins["scheduler"].password == secrets_store.read(made, "redis_scheduler_password")
    assert log_ins["flower"].password == secrets_store.read(made, "redis_password")
    passwords = json.loads(files["redis-exporter/redis_exporter_passwords.json"])
    assert passwords == {"rediss://exporter@cache.example:6379": secrets_store.read(made, "redis_exporter_password")}


@pytest.mark.parametrize(
    ("settings", "setting"),
    [({"POSTGRES_SSLMODE": "verify-full"}, "POSTGRES_SSLMODE"), ({"REDIS_TLS": "true"}, "REDIS_TLS")],
)
def test_the_stacks_own_servers_have_no_tls(made, settings, setting):
    with pytest.raises(StackError, match=setting):
        external_data.check(made, {"COMPOSE_PROFILES": "data", **settings})


def refusal(project, settings=TLS) -> str:
    with pytest.raises(StackError) as refused:
        external_data.check(project, settings)
    return refused.value.what


@pytest.mark.parametrize(("link", "title"), external_data.LINKS.items())
def test_a_certificate_that_no_server_would_accept_is_refused(made, authority, link, title):
    external_data.check(made, TLS)
    client, own = external_data.CLIENT_FILES[link], external_data.CA_FILES[link]
    valid = authority.issue("airflow")
    for text, reason in (
        (authority.issue("airflow", days=-1), "expired"),
        ("no certificate", "no certificate"),
        (valid.partition("-----BEGIN PRIVATE")[0], "private key"),
        (
            valid.partition("-----BEGIN PRIVATE")[0]
            + "".join(authority.issue("b").partition("-----BEGIN PRIVATE")[1:]),
            "private key",
        ),
    ):
        write(made, client, text)
        assert title in refusal(made)
        assert reason in refusal(made)
    write(made, client, valid)
    (made.secrets / client).chmod(0o644)
    assert "mode 0644" in refusal(made)
    (made.secrets / client).chmod(0o600)
    write(made, own, "")
    assert title in refusal(made)
    (made.secrets / own).unlink()
    assert title in refusal(made)
    external_data.check(made, EXTERNAL)


def test_a_user_of_redis_needs_its_password(project):
    assert "redis_scheduler_password" in refusal(project, {**EXTERNAL, "REDIS_SCHEDULER_USER": "planner"})


def test_each_url_is_tried_in_a_process_with_the_drivers(made):
    """A server that does not answer is another error than one that refuses a link."""
    files = mounted(made, POSTGRES_HOST="127.0.0.1", POSTGRES_PORT="1", REDIS_HOST="nowhere.invalid")
    names = {"sql_alchemy_conn", "celery_broker_url"}
    problems = link_problems(files, names)
    assert problems.keys() == names
    assert all(external_data.UNREACHABLE.search(text) for text in problems.values()), problems


def test_a_refused_link_is_an_error_and_an_unreachable_one_a_warning(made, docker):
    settings = settings_file.read(made) | TLS
    files = mounted(made)
    docker.answer("airflow_ha.external_data", out=json.dumps({"Flower's broker": "Connection refused."}))
    (warning,) = external_data.verify_links(settings, files, "image")
    assert "Flower's broker" in warning
    problem = {"the workers' broker": "certificate verify failed: certificate has expired"}
    docker.answer("airflow_ha.external_data", out=json.dumps(problem))
    with pytest.raises(StackError, match=r"the workers' broker: certificate verify failed"):
        external_data.verify_links(settings, files, "image")
