"""FAB's settings for an OpenID Connect provider, from .env and one secret."""

from __future__ import annotations

import json
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import parse_qs, urlsplit

import pytest
from authlib.integrations.flask_client import OAuth
from flask import Flask
from flask_appbuilder.const import AUTH_OAUTH

from airflow_ha import single_sign_on as in_airflow
from ops import secrets_store, settings_file, single_sign_on
from ops.errors import StackError
from ops.project import ROOT, Project

CHOSEN = {
    "OIDC_ISSUER": "https://sso.example/realms/one/",
    "OIDC_CLIENT_ID": "airflow",
    "OIDC_ROLES": "platform=Admin, data=Op,data=User",
}


@pytest.fixture
def project(tmp_path) -> Project:
    made = Project(ROOT, tmp_path / "state")
    secrets_store.generate(made)
    (made.secrets / single_sign_on.SECRET).touch(mode=0o600)
    (made.secrets / single_sign_on.SECRET).write_text("of-the-client\n")
    return made


def check(project: Project, settings: dict[str, str]) -> None:
    single_sign_on.check(project, settings, lambda name: secrets_store.check_file(project, project.secrets / name))


@pytest.fixture
def configuration(project, tmp_path, monkeypatch):
    """Return a function that gives Flask's configuration as an API server reads it."""

    def read(**settings: str) -> dict:
        files = secrets_store.mounted_files(project, settings_file.read(project) | settings)
        file = tmp_path / "oidc.json"
        file.write_text(files[f"{single_sign_on.READER}/oidc.json"])
        code = (ROOT / "compose/api-server/webserver_config.py").read_text()
        (tmp_path / "webserver_config.py").write_text(code.replace("/run/secrets", str(tmp_path)))
        app = Flask("tests", root_path=str(tmp_path))
        assert app.config.from_pyfile(str(tmp_path / "webserver_config.py"))
        return app.config

    return read


def test_users_log_in_at_the_provider_with_pkce(project, configuration):
    check(project, CHOSEN)
    config = configuration(**CHOSEN)
    assert config["AUTH_TYPE"] == AUTH_OAUTH
    (provider,) = config["OAUTH_PROVIDERS"]
    remote = provider["remote_app"]
    assert (remote["client_id"], remote["client_secret"]) == ("airflow", "of-the-client")
    assert remote["server_metadata_url"] == "https://sso.example/realms/one/.well-known/openid-configuration"
    assert remote["client_kwargs"]["code_challenge_method"] == "S256"
    assert "verify" not in remote["client_kwargs"], "the system's authorities"
    assert config["AUTH_ROLES_MAPPING"] == {"platform": ["Admin"], "data": ["Op", "User"]}
    assert config["AUTH_ROLES_SYNC_AT_LOGIN"] is config["FAB_PASSWORD_COMPLEXITY_ENABLED"] is True


class Discovery(BaseHTTPRequestHandler):
    """A provider's description of itself."""

    def do_GET(self) -> None:
        assert self.path == "/.well-known/openid-configuration"
        body = json.dumps({"authorization_endpoint": "https://sso.example/authorize"}).encode()
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_) -> None:
        pass


def test_authlib_sends_users_to_the_provider_with_a_challenge(configuration, tmp_path):
    with ThreadingHTTPServer(("127.0.0.1", 0), Discovery) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        config = configuration(**CHOSEN | {"OIDC_ISSUER": f"http://127.0.0.1:{server.server_port}"})
        app = Flask("tests", root_path=str(tmp_path))
        app.secret_key = "tests"
        (provider,) = config["OAUTH_PROVIDERS"]
        remote = OAuth(app).register(provider["name"], **provider["remote_app"])
        with app.test_request_context():
            location = urlsplit(remote.authorize_redirect("https://airflow.example/back").location)
        server.shutdown()
    query = {name: values[0] for name, values in parse_qs(location.query).items()}
    assert (location.hostname, location.path) == ("sso.example", "/authorize")
    assert query["client_id"] == "airflow"
    assert query["code_challenge_method"] == "S256"
    assert {"code_challenge", "state", "nonce"} <= query.keys()
    assert "groups" in query["scope"].split()


def test_a_private_authority_verifies_the_provider(project, configuration):
    (project.secrets / single_sign_on.CA).write_text("certificate")
    (provider,) = configuration(**CHOSEN)["OAUTH_PROVIDERS"]
    assert provider["remote_app"]["client_kwargs"]["verify"].endswith(f"/{single_sign_on.CA}")


def test_without_a_provider_users_have_local_passwords(configuration):
    config = configuration()
    assert "AUTH_TYPE" not in config
    assert config["FAB_PASSWORD_COMPLEXITY_ENABLED"] is True


@pytest.mark.parametrize(
    ("name", "groups", "is_admitted"),
    [
        ("ann", ["data", "other"], True),
        ("ann", ["other"], False),
        ("ann", [], False),
        ("ann", None, False),
        ("admin", ["platform"], False),
        ("monitoring", ["platform"], False),
    ],
)
def test_only_users_of_a_mapped_group_are_admitted(name, groups, is_admitted):
    user = {"username": name, "email": "ann@example", "role_keys": groups}
    roles = single_sign_on.roles(CHOSEN["OIDC_ROLES"])
    assert in_airflow.admitted(user, roles)["username"] == (name if is_admitted else "")


@pytest.mark.parametrize("missing", single_sign_on.REQUIRED)
def test_a_provider_without_its_client_is_refused(project, missing):
    with pytest.raises(StackError, match=missing):
        check(project, CHOSEN | {missing: ""})


def test_a_provider_without_its_secret_is_refused(project):
    (project.secrets / single_sign_on.SECRET).unlink()
    with pytest.raises(StackError, match=single_sign_on.SECRET):
        check(project, CHOSEN)
    check(project, {})


def test_the_client_secret_is_in_the_api_servers_file_only(project):
    files = secrets_store.mounted_files(project, settings_file.read(project) | CHOSEN)
    assert [name for name, text in files.items() if "of-the-client" in text] == [f"{single_sign_on.READER}/oidc.json"]
    assert json.loads(files[f"{single_sign_on.READER}/oidc.json"])["client_secret"] == "of-the-client"
