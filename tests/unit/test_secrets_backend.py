"""Airflow's own backends with the arguments that `up` writes: AWS simulated by moto, Vault by a server of the test."""

from __future__ import annotations

import json
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import TYPE_CHECKING, Any

import boto3
import pytest
from airflow.configuration import conf
from moto import mock_aws

from ops import secrets_backend, secrets_store, settings_file
from ops.errors import StackError
from ops.project import ROOT, Project
from tests.unit.compose.model import compose_model

if TYPE_CHECKING:
    from collections.abc import Iterator

SERVICES = compose_model()["services"]
URI = "postgresql://user:hidden@warehouse:5432/facts"
AWS = {"SECRETS_AWS_REGION": "eu-central-1"}
ROLE, SECRET = "role-of-airflow", "secret-of-airflow"


@pytest.fixture
def project(tmp_path) -> Project:
    made = Project(ROOT, tmp_path / "state")
    secrets_store.generate(made)
    return made


def write(project: Project, **texts: str) -> None:
    for name, text in texts.items():
        path = project.secrets / name
        path.touch(mode=0o600)
        path.write_text(text + "\n")


def check(project: Project, settings: dict[str, str]) -> None:
    secrets_backend.check(project, settings, lambda name: secrets_store.check_file(project, project.secrets / name))


@pytest.fixture
def backend(project, tmp_path, monkeypatch):
    """Return a function that makes the backend as the Execution API makes it, from its settings and its file."""

    def made(**settings: str) -> Any:
        check(project, settings)
        files = secrets_store.mounted_files(project, settings_file.read(project) | settings)
        file = tmp_path / "secrets_backend.json"
        file.write_text(files[f"{secrets_backend.READER}/{file.name}"])
        environment = SERVICES["execution-api"]["environment"]
        command = environment["AIRFLOW__SECRETS__BACKEND_KWARGS_CMD"].replace("/run/secrets", str(tmp_path))
        monkeypatch.setenv("AIRFLOW__SECRETS__BACKEND", secrets_backend.CLASSES[settings["SECRETS_BACKEND"]])
        monkeypatch.setenv("AIRFLOW__SECRETS__BACKEND_KWARGS_CMD", command)
        return conf._get_custom_secret_backend()

    return made


@pytest.fixture
def aws(monkeypatch) -> Iterator[None]:
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.setenv(name, "of-the-machine")
    with mock_aws():
        yield


@pytest.mark.usefixtures("aws")
def test_secrets_manager_has_a_connection_and_a_variable(backend):
    client = boto3.client("secretsmanager", region_name=AWS["SECRETS_AWS_REGION"])
    client.create_secret(Name="airflow/connections/warehouse", SecretString=URI)
    client.create_secret(Name="airflow/variables/limit", SecretString="seven")
    found = backend(SECRETS_BACKEND="aws-secrets-manager", **AWS)
    assert (found.get_conn_value("warehouse"), found.get_variable("limit")) == (URI, "seven")
    assert (found.get_conn_value("other"), found.get_config("sql_alchemy_conn")) == (None, None)


@pytest.mark.usefixtures("aws")
def test_parameter_store_has_a_connection_under_the_prefix(backend):
    client = boto3.client("ssm", region_name=AWS["SECRETS_AWS_REGION"])
    client.put_parameter(Name="/team/connections/warehouse", Value=URI, Type="SecureString")
    found = backend(SECRETS_BACKEND="aws-parameter-store", SECRETS_PREFIX="team", **AWS)
    assert (found.get_conn_value("warehouse"), found.get_conn_value("other")) == (URI, None)


class Vault(BaseHTTPRequestHandler):
    """A Vault with one connection, for one AppRole."""

    def reply(self, status: int, content: dict[str, Any]) -> None:
        body = json.dumps(content).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def do_POST(self) -> None:
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        is_known = body == {"role_id": ROLE, "secret_id": SECRET} and self.path == "/v1/auth/approle/login"
        self.reply(200, {"auth": {"client_token": "t"}}) if is_known else self.reply(400, {"errors": ["invalid"]})

    def do_GET(self) -> None:
        if self.headers.get("X-Vault-Token") != "t":
            self.reply(403, {"errors": ["permission denied"]})
        elif self.path == "/v1/auth/token/lookup-self":
            self.reply(200, {"data": {}})
        elif self.path == "/v1/airflow/data/connections/warehouse":
            self.reply(200, {"data": {"data": {"conn_uri": URI}, "metadata": {}}})
        else:
            self.reply(404, {"errors": []})

    def log_message(self, *_: Any) -> None:
        pass


@pytest.fixture
def vault() -> Iterator[str]:
    with ThreadingHTTPServer(("127.0.0.1", 0), Vault) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()


def test_vault_has_a_connection_for_the_app_role(project, backend, vault):
    write(project, vault_role_id=ROLE, vault_secret_id=SECRET)
    found = backend(SECRETS_BACKEND="vault", VAULT_ADDR=vault)
    connection = found.get_connection("warehouse")
    assert (connection.host, connection.password) == ("warehouse", "hidden")
    assert found.get_connection("other") is None
    assert found.get_config("sql_alchemy_conn") is None


def test_only_the_execution_api_and_the_triggerer_have_the_log_in():
    holders = {name for name, service in SERVICES.items() if "secrets_backend.json" in service.get("secrets", [])}
    readers = {name for name, each in SERVICES.items() if "AIRFLOW__SECRETS__BACKEND" in each.get("environment", {})}
    assert holders == readers == {"execution-api", "triggerer"}


def test_without_a_backend_the_file_has_no_argument(project):
    write(project, vault_role_id=ROLE, vault_secret_id=SECRET)
    files = secrets_store.mounted_files(project, settings_file.read(project))
    assert json.loads(files[f"{secrets_backend.READER}/secrets_backend.json"]) == {}
    check(project, {})


@pytest.mark.parametrize(
    ("settings", "missing"),
    [
        ({"SECRETS_BACKEND": "vault"}, "VAULT_ADDR"),
        ({"SECRETS_BACKEND": "vault", "VAULT_ADDR": "https://vault.example"}, "vault_secret_id"),
        ({"SECRETS_BACKEND": "aws-secrets-manager"}, "SECRETS_AWS_REGION"),
        ({"SECRETS_BACKEND": "aws-parameter-store", **AWS}, "secrets_aws_key_secret"),
    ],
)
def test_a_backend_without_its_log_in_is_refused(project, settings, missing):
    write(project, vault_role_id=ROLE, secrets_aws_key="key")
    with pytest.raises(StackError, match=missing):
        check(project, settings)
