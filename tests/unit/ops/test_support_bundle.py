"""The support bundle has what helps, and no secret: markers are planted wherever one may be."""

from __future__ import annotations

import base64
import json
import stat
import tarfile
from pathlib import Path
from urllib.parse import quote

import pytest

from ops import preflight, secrets_store, settings_file
from ops.errors import StackError
from ops.notification_secrets import OPTIONAL_SECRETS
from ops.support import bundle, known_secrets
from ops.support.redaction import REMOVED, Redactor
from tests.unit.stack_fakes import container, run

SECRET = 'p@ss/w0rd "+\\ é%'


@pytest.mark.parametrize(
    "text",
    [
        f"connected with {SECRET}.",
        f"GET /?x={quote(SECRET, safe='')}&y",
        json.dumps({"a": SECRET}),
        json.dumps({"a": SECRET}, ensure_ascii=False),
        json.dumps(json.dumps({"a": SECRET})),
        repr({"a": SECRET}),
        *(base64.b64encode(user.encode() + SECRET.encode()).decode() for user in ("", "a:", "ab:", "abc:")),
    ],
)
def test_known_secret_is_removed_in_every_form(text):
    redacted = Redactor([SECRET]).redact(text)
    assert redacted != text
    assert SECRET not in redacted
    assert quote(SECRET, safe="") not in redacted
    assert "w0rd" not in redacted
    assert base64.b64encode(SECRET.encode()).decode()[4:-4] not in redacted


@pytest.mark.parametrize(
    "text",
    [
        "postgresql://airflow:MARKER@db:5432/airflow",
        "redis://:MAR/KER@x@redis:6379/0",
        "https://MARKER@example.com/",
        "https://hooks.slack.com/services/T1/B1/MARKER",
        "Authorization: Bearer MARKER",
        '{"headers": {"authorization": "Basic MARKER=="}}',
        "sent bearer MARKERMARKER to",
        "password=MARKER user=x",
        '{"db_password" : "two MARKER words"}',
        "X-Amz-Signature=MARKER&x=1",
        "api_key: 'MARKER'",
        "-----BEGIN RSA PRIVATE KEY-----\nMARKER\n-----END RSA PRIVATE KEY-----",
        "-----BEGIN PRIVATE KEY-----\nMARKER",
        "token eyJhbGciOiJIUzI1NiJ9.MARKER.c2ln",
    ],
)
def test_text_that_resembles_a_secret_is_removed(text):
    redacted = Redactor([]).redact(text)
    assert "MARKER" not in redacted
    assert "KER@x" not in redacted
    assert REMOVED in redacted


def test_ordinary_lines_stay():
    lines = (
        "2026-01-01T00:00:00Z [info] task sales.load http://gateway:8081/execution/health queued 3\nmail a@b.example"
    )
    assert Redactor(["longer-secret"]).redact(lines) == lines


def test_short_secret_is_removed_as_a_word_only():
    assert Redactor(["abc"]).redact("abc abcd x=abc") == f"{REMOVED} abcd x={REMOVED}"


def test_long_base64_text_is_redacted_in_time():
    text = "A" * 3_000_000
    assert Redactor(["B" * 20]).redact(text) == text


# ---- the whole bundle --------------------------------------------------------------------------------------

OTHERS = (
    "MARK-unknown-setting",
    "MARK-endpoint-pass",
    "MARK-query",
    "MARK-environment",
    "MARK-connection",
    "MARK-variable",
    "MARK-in-url",
)
FILES = {name: f"MARK-{number}-{name}" for number, name in enumerate([*secrets_store.GENERATORS, *OPTIONAL_SECRETS])}
MARKERS = [*FILES.values(), *OTHERS]


def log_text() -> str:
    """Return a log with each marker in several forms, and one at the place where the log is cut."""
    lines = [
        f"{value} {quote(value)} {base64.b64encode(b'admin:' + value.encode()).decode()} {json.dumps({'x': value})}"
        for value in MARKERS
        if value != "MARK-in-url"
    ]
    filler = "harmless line\n" * (bundle.LOG_BYTES // 14)
    return "\n".join([*lines, "postgresql://x:MARK-in-url@h/db", "last line"]) + "\n" + filler[: bundle.LOG_BYTES - 60]


@pytest.fixture
def running(project, docker, monkeypatch):
    """A stack with a marker in each secret file, in .env, in a container's environment, in Airflow and in its log."""
    project.secrets.mkdir()
    for name, value in FILES.items():
        (project.secrets / name).write_text(value + "\n")
    project.env_file.write_text(
        "AIRFLOW_IMAGE=a\nCOMPOSE_PROFILES=data\nMY_SETTING=MARK-unknown-setting\n"
        "OTLP_BACKEND_ENDPOINT=https://user:MARK-endpoint-pass@otlp.example/?key=MARK-query\n"
    )
    monkeypatch.setattr(preflight, "problems", lambda *_: [])
    scheduler = container("scheduler", 1, health="healthy")
    scheduler["Name"] = "/airflow-ha-scheduler-1"
    scheduler["Config"]["Env"] = ["MY_TOKEN=MARK-environment", "AIRFLOW__CORE__EXECUTOR=CeleryExecutor"]
    scheduler["State"]["Health"]["Log"] = [{"ExitCode": 1, "Output": "refused MARK-connection"}]
    docker.answer("config --format json", out=json.dumps({"name": "airflow-ha", "services": {"scheduler": {}}}))
    docker.answer("airflow_ha.stored_secrets", out='a warning\n["MARK-connection", "MARK-variable"]\n')
    docker.answer("logs --timestamps", out=log_text())
    docker.answer_containers(scheduler)
    return docker


def unpacked(path: Path) -> dict[str, str]:
    """Return the text of each file of an archive, without its folder."""
    with tarfile.open(path) as archive:
        return {
            member.name.partition("/")[2]: archive.extractfile(member).read().decode()
            for member in archive.getmembers()
        }


def test_no_marker_is_in_any_file(project, running, tmp_path):
    result = run("support-bundle", "--output", str(tmp_path / "b.tar.gz"))
    assert result.returncode == 0, result.stderr
    files = unpacked(tmp_path / "b.tar.gz")
    assert set(files) == {
        "settings.json", "versions.json", "containers.json", "doctor.json", "status.json", "README.txt",
        "logs/airflow-ha-scheduler-1.log",
    }  # fmt: skip
    assert [name for name, text in files.items() if "MARK" in text] == []
    assert stat.S_IMODE((tmp_path / "b.tar.gz").stat().st_mode) == 0o600


def test_bundle_has_what_helps(project, running, tmp_path):
    run("support-bundle", "--output", str(tmp_path / "b.tar.gz"))
    files = unpacked(tmp_path / "b.tar.gz")
    assert len(files["logs/airflow-ha-scheduler-1.log"]) <= bundle.LOG_BYTES
    assert "harmless line" in files["logs/airflow-ha-scheduler-1.log"]
    (scheduler,) = json.loads(files["containers.json"])
    assert scheduler["variables"] == ["AIRFLOW__CORE__EXECUTOR", "MY_TOKEN"]
    assert scheduler["health"]["last"][0]["output"] == f"refused {REMOVED}"
    settings = json.loads(files["settings.json"])
    assert settings["COMPOSE_PROFILES"] == "data"
    assert settings["MY_SETTING"] == REMOVED
    versions = json.loads(files["versions.json"])
    assert versions["packages"]["apache-airflow"]
    assert versions["airflow-ha"].count(".") == 2


def test_logs_are_left_out_while_connections_are_unknown(project, running, tmp_path):
    running.answers = {"airflow_ha.stored_secrets": {}, **running.answers}
    running.answer("airflow_ha.stored_secrets", out="MARK-connection", code=1)
    result = run("support-bundle", "--output", str(tmp_path / "b.tar.gz"))
    files = unpacked(tmp_path / "b.tar.gz")
    assert not any(name.startswith("logs/") for name in files)
    assert "left out: logs" in result.stdout
    assert "logs/" not in files["README.txt"]
    assert "MARK" not in result.stdout + result.stderr


def test_bundle_without_docker_has_the_findings(project, docker, tmp_path):
    docker.answer("version", err="Cannot connect to the Docker daemon", code=1)
    assert run("support-bundle", "--output", str(tmp_path / "b.tar.gz")).returncode == 0
    files = unpacked(tmp_path / "b.tar.gz")
    assert json.loads(files["doctor.json"])["findings"][0]["object"] == "Docker"
    assert "containers and logs: cannot use Docker" in files["README.txt"]


def test_unreadable_secret_refuses_the_bundle(project, running, tmp_path):
    (project.secrets / "fernet_key").write_bytes(b"\xff\xfe")
    result = run("support-bundle", "--output", str(tmp_path / "b.tar.gz"))
    assert result.returncode == 2
    assert "cannot read the secrets" in result.stderr
    assert not (tmp_path / "b.tar.gz").exists()


def test_secret_that_redaction_misses_refuses_the_bundle(project, running, monkeypatch):
    monkeypatch.setattr(Redactor, "redact", lambda _, text: text)
    with pytest.raises(StackError, match="a secret is still in"):
        bundle.collect(project, 10, print)


def test_existing_file_is_refused(project, running, tmp_path):
    (tmp_path / "b.tar.gz").write_text("mine")
    assert run("support-bundle", "--output", str(tmp_path / "b.tar.gz")).returncode == 2
    assert (tmp_path / "b.tar.gz").read_text() == "mine"


@pytest.mark.parametrize("profiles", ["data,backup", "data-ha,backup"])
def test_no_mounted_file_shows_a_secret(project, profiles):
    secrets_store.generate(project)
    keys = [secrets_store.read(project, "fernet_key"), secrets_store.fernet_key()]
    (project.secrets / "fernet_key").write_text(",".join(keys))  # as after a restore
    for name in OPTIONAL_SECRETS:
        (project.secrets / name).write_text(f"https://hooks.example/{secrets_store.password()}")
        (project.secrets / name).chmod(0o600)
    values = {secrets_store.read(project, name) for name in [*secrets_store.GENERATORS, *OPTIONAL_SECRETS]} | set(keys)
    redactor = Redactor(known_secrets.in_files(project))
    files = secrets_store.mounted_files(project, settings_file.read(project) | {"COMPOSE_PROFILES": profiles})
    assert sum(text != redactor.redact(text) for text in files.values()) > len(values) / 2
    for text in [*files.values(), *values]:
        redacted = redactor.redact(text)
        assert not [value for value in values if value in redacted or quote(value, safe="") in redacted]


def test_secret_of_the_override_file_is_known(project, docker, tmp_path):
    (tmp_path / "own").write_text("MARK-own\n")
    model = {
        "secrets": {"own": {"file": str(tmp_path / "own")}, "ours": {"file": str(project.secrets / "mounted/a/b")}}
    }
    docker.answer("config", out=json.dumps(model))
    assert known_secrets.in_compose(project) == {"MARK-own"}
