"""alerts, silence, slack and restart: refusals, requests and their order."""

from __future__ import annotations

import base64
import json
import stat
import threading
from datetime import timedelta
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from ops import rolling, secrets_store, settings_file
from ops.commands import slack
from ops.commands.silence import known_alerts, parse_duration, parse_label
from ops.errors import StackError
from ops.project import ROOT
from tests.unit.stack_fakes import container, run

WEBHOOK = "https://hooks.slack.com/services/T012/B345/aBcDeF"
ID = "6f1c0b5e-1f0a-4c53-8a50-5a8f6f4a8c11"


@pytest.fixture
def running(project, docker):
    """A running stack with two Alertmanagers and the Slack stub."""
    project.env_file.write_text(
        f"AIRFLOW_IMAGE=a\nCOMPOSE_PROFILES=data,observability,slack-stub\nSECRETS_DIR={project.secrets}\n"
    )
    secrets_store.generate(project)
    names = ("alertmanager-1", "alertmanager-2", "slack-stub")
    containers = [container(name, 1, health="healthy") for name in names]
    docker.answer("ps --all", out="\n".join(each["Id"] for each in containers))
    docker.answer("inspect", out=json.dumps(containers))
    return project


@pytest.fixture
def server(running):
    """Alertmanager and Slack stub on one port: their responses by path, and the requests."""
    answers: dict[str, object] = {"GET /-/healthy": "ok", "GET /api/v2/silences": [], "GET /api/v2/alerts": []}
    requests: list[tuple[str, str, object]] = []
    log_in = f"admin:{secrets_store.read(running, 'observability_password')}"
    expected = f"Basic {base64.b64encode(log_in.encode()).decode()}"

    class Handler(BaseHTTPRequestHandler):
        def handle_any(self) -> None:
            body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
            if self.headers["Authorization"] != expected:
                self.send_error(401)
                return
            requests.append((self.command, self.path, json.loads(body) if body else None))
            answer = answers.get(f"{self.command} {self.path}")
            content = json.dumps(answer).encode()
            self.send_response(404 if answer is None else 200)
            self.send_header("Content-Length", str(len(content)))
            self.end_headers()
            self.wfile.write(content)

        do_GET = do_POST = do_DELETE = handle_any  # noqa: N815

        def log_message(self, format: str, *args: object) -> None:  # noqa: A002
            """Log nothing."""

    serving = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=serving.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True).start()
    port = serving.server_address[1]
    with running.env_file.open("a") as file:
        # The first Alertmanager does not answer.
        file.write(f"ALERTMANAGER_PORT=1\nALERTMANAGER_2_PORT={port}\nSLACK_STUB_PORT={port}\n")
    yield answers, requests
    serving.shutdown()
    serving.server_close()


# ---- silence


@pytest.mark.parametrize(
    ("text", "minutes"), [("30m", 30), ("2h", 120), ("1d", 1440), ("1h30m", 90), ("30d", 30 * 1440)]
)
def test_a_duration_is_minutes_hours_or_days(text, minutes):
    assert parse_duration(text) == timedelta(minutes=minutes)


@pytest.mark.parametrize("text", ["", "2", "h", "-1h", "2 h", "1.5h", "0m", "31d", "2h x", "9999999d", "2s", "٢h"])
def test_an_invalid_duration_is_refused(text):
    with pytest.raises(StackError, match="--for"):
        parse_duration(text)


@pytest.mark.parametrize("text", ["component", "=x", "component=", "alertname=x", "a-b=c", "1a=b"])
def test_an_invalid_label_is_refused(text):
    with pytest.raises(StackError, match="--label"):
        parse_label(text)


def test_known_alerts_are_those_of_rules_and_runbooks():
    known = known_alerts(ROOT)
    assert "Aftermath" in known
    assert known == sorted(set(known))


@pytest.mark.parametrize(
    ("arguments", "error"),
    [
        ([], "Aftermath"),
        (["PostgressDown", "--why", "x"], "'PostgressDown'"),
        (["Aftermath"], "--why"),
        (["Aftermath", "--why", " "], "--why"),
        (["Aftermath", "--for", "5x"], "'5x': it is not a duration"),
        (["Aftermath", "--why", "x", "--for", "soon"], "'soon'"),
        (["Aftermath", "--why", "x", "--label", "worker"], "'worker'"),
        (["--end", "x"], "'x'"),
        (["Aftermath", "--end", ID], "--end"),
        (["--end", ID], ID),
    ],
)
def test_invalid_arguments_create_no_silence(server, arguments, error):
    _, requests = server
    result = run("silence", *arguments)
    assert result.returncode == 2, result.stdout
    assert error in result.stderr
    assert "Traceback" not in result.stderr
    assert {method for method, _, _ in requests} <= {"GET"}


def test_without_a_reason_the_hint_repeats_the_arguments(server):
    result = run("silence", "Aftermath", "--label", "cause=RedisDown", "--label", "file=a b.py", "--for", "3h")
    assert "silence Aftermath --label cause=RedisDown --label 'file=a b.py' --for 3h --why TEXT" in result.stderr


def test_an_unknown_alert_is_refused_with_the_existing_ones(server):
    assert "Aftermath" in run("silence", "X", "--why", "y").stderr


def test_a_silence_prints_its_end_and_id(server):
    answers, requests = server
    answers["POST /api/v2/silences"] = {"silenceID": ID}
    result = run("silence", "Aftermath", "--for", "1h30m", "--why", "upgrade", "--label", "cause=RedisDown")
    assert result.returncode == 0, result.stderr
    assert f"silence {ID}: alertname=Aftermath cause=RedisDown until 20" in result.stdout
    assert f"./ops/stack silence --end {ID}" in result.stdout
    (body,) = [body for method, _, body in requests if method == "POST"]
    assert isinstance(body, dict)
    assert body["comment"] == "upgrade"


@pytest.mark.parametrize(("label", "matches"), [("depends_on=redis", True), ("depends_on=x", False), ("no=x", False)])
def test_a_silence_that_matches_no_alert_reports_it(server, label, matches):
    answers, _ = server
    answers["POST /api/v2/silences"] = {"silenceID": ID}
    answers["GET /api/v2/alerts"] = [alert_entry("Aftermath", silencedBy=[])]
    result = run("silence", "Aftermath", "--why", "upgrade", "--label", label)
    assert result.returncode == 0, result.stderr
    assert ("no alert has these labels now" in result.stdout) is not matches


def test_a_silence_expires_by_its_id(server):
    answers, requests = server
    active = {"id": ID, "matchers": [], "endsAt": "", "createdBy": "", "comment": "", "status": {"state": "active"}}
    answers["GET /api/v2/silences"] = [active]
    answers[f"DELETE /api/v2/silence/{ID}"] = {}
    result = run("silence", "--end", ID)
    assert result.returncode == 0, result.stderr
    assert any(method == "DELETE" for method, _, _ in requests)


# ---- alerts


def alert_entry(name: str, severity: str = "page", **state: list[str]) -> dict:
    return {
        "labels": {"alertname": name, "severity": severity, "team": "platform", "depends_on": "redis"},
        "annotations": {"summary": f"{name} [in] brackets"},
        "startsAt": "2026-01-01T00:00:00.000Z",
        "fingerprint": f"fingerprint of {name}",
        "status": {"silencedBy": [], "inhibitedBy": [], **state},
    }


def test_alerts_are_grouped_by_state(server):
    answers, _ = server
    answers["GET /api/v2/alerts"] = [
        alert_entry("PostgresDown"),
        alert_entry("ApiSlow", silencedBy=["s"]),
        alert_entry("ApiErrors", inhibitedBy=["i"]),
        alert_entry("Watchdog", "none"),
    ]
    answers["GET /messages"] = [
        {"received": 1.0, "path": "/services/x", "payload": {"attachments": [{"title": f"[FIRING] {number}"}]}}
        for number in range(12)
    ]
    report = json.loads(run("alerts", "--json").stdout)
    names = {key: [one["labels"]["alertname"] for one in report[key]] for key in ("firing", "silenced", "inhibited")}
    assert names == {"firing": ["PostgresDown"], "silenced": ["ApiSlow"], "inhibited": ["ApiErrors"]}
    assert [one["labels"]["alertname"] for one in report["muting"]] == ["Watchdog"]
    assert [one["title"] for one in report["sent"]] == [f"[FIRING] {n}" for n in range(11, 1, -1)]
    shown = run("alerts").stdout
    assert "PostgresDown [in] brackets" in shown
    assert "Watchdog" not in shown
    assert "[FIRING] 11" in shown
    assert "depends_on" not in shown


def test_an_inhibited_alert_names_what_inhibits_it(server):
    answers, _ = server
    answers["GET /api/v2/alerts"] = [
        alert_entry("ApiErrors", inhibitedBy=["fingerprint of Aftermath"]),
        alert_entry("ApiSlow", inhibitedBy=["fingerprint of an alert that has ended"]),
        alert_entry("Aftermath", "none"),
    ]
    report = json.loads(run("alerts", "--json").stdout)
    assert {alert["labels"]["alertname"]: alert["inhibited_by"] for alert in report["inhibited"]} == {
        "ApiErrors": ["Aftermath"],
        "ApiSlow": [],
    }
    assert "Aftermath" in run("alerts").stdout


def test_without_an_alert_alerts_succeeds(server):
    result = run("alerts")
    assert result.returncode == 0
    assert "No alert" in result.stdout


def test_without_an_answering_alertmanager_alerts_fails(running):
    with running.env_file.open("a") as file:
        file.write("ALERTMANAGER_PORT=1\nALERTMANAGER_2_PORT=2\n")
    result = run("alerts")
    assert result.returncode == 1
    assert "Alertmanager" in result.stderr


@pytest.mark.parametrize("command", [["alerts"], ["silence", "Aftermath", "--why", "x"], ["restart"]])
def test_without_a_stack_the_commands_are_refused(project, docker, command):
    result = run(*command)
    assert result.returncode == 2
    assert "the stack does not run" in result.stderr


# ---- slack


@pytest.mark.parametrize(
    ("given", "error"),
    [
        ("", "0 lines"),
        ("\n \n", "0 lines"),
        (f"{WEBHOOK}\n{WEBHOOK}\n", "2 lines"),
        ("hooks.slack.com/services/T/B/x", "malformed"),
        ("http://hooks.slack.com/services/T012/B345/x", "malformed"),
        ("https://hooks.slack.com/services/T012", "malformed"),
    ],
)
def test_an_invalid_webhook_changes_nothing(running, docker, given, error):
    before = sorted(running.state.rglob("*"))
    result = run("slack", given=given)
    assert result.returncode == 2, result.stdout
    assert error in result.stderr
    assert not given.strip() or given.strip() not in result.stderr
    assert [path for path in sorted(running.state.rglob("*")) if path.name != ".lock"] == [
        path for path in before if path.name != ".lock"
    ]
    assert not any("up" in call for call in docker.calls())


def test_a_webhook_without_a_stack_is_refused(project, docker):
    result = run("slack", given=WEBHOOK)
    assert result.returncode == 2
    assert "no stack exists yet" in result.stderr


@pytest.fixture
def with_secrets(running, monkeypatch):
    """Existing secrets with a fake change of owner: tests need not be root."""
    secrets_store.generate(running)
    monkeypatch.setattr(secrets_store, "change_owners", lambda *_: None)
    monkeypatch.setattr(secrets_store, "all_owned", lambda *_: True)
    return running


def test_a_webhook_recreates_the_alertmanagers_in_turn(with_secrets, docker):
    slack.store(with_secrets, "slack_webhook_url", WEBHOOK)
    slack.apply(with_secrets, settings_file.read(with_secrets))
    kept = with_secrets.secrets / "slack_webhook_url"
    assert kept.read_text() == WEBHOOK + "\n"
    assert stat.S_IMODE(kept.stat().st_mode) == 0o600
    assert (with_secrets.secrets / "mounted/alertmanager/slack_webhook_url").read_text() == WEBHOOK
    assert settings_file.read(with_secrets)["COMPOSE_PROFILES"] == "data,observability"
    ups = [call for call in docker.calls() if "up" in call]
    assert [call[-1] for call in ups] == ["alertmanager-1", "alertmanager-2"]
    assert all("--wait" in call for call in ups)
    assert any(call[-4:] == ["rm", "--stop", "--force", "slack-stub"] for call in docker.calls())
    assert not any(WEBHOOK in " ".join(call) for call in docker.calls())


def test_the_stub_starts_before_the_alertmanagers(with_secrets, docker):
    slack.store(with_secrets, "slack_webhook_url", WEBHOOK)
    slack.store(with_secrets, "slack_webhook_url", None)
    slack.apply(with_secrets, settings_file.read(with_secrets))
    assert not (with_secrets.secrets / "slack_webhook_url").exists()
    assert "slack-stub" in settings_file.read(with_secrets)["COMPOSE_PROFILES"]
    assert [call[-1] for call in docker.calls() if "up" in call] == ["slack-stub", "alertmanager-1", "alertmanager-2"]


class Counting:
    """An Alertmanager with these counts of messages, in turn; None while it does not answer."""

    def __init__(self, url: str, *counts: tuple[int, int] | None) -> None:
        self.url = url
        self.counts = list(counts)
        self.posted: list[dict] = []

    def answer(self) -> None:
        if self.counts[0] is None:
            raise StackError("no answer")

    def notifications(self, integration: str) -> tuple[int, int]:
        counts = self.counts.pop(0) if len(self.counts) > 1 else self.counts[0]
        if counts is None:
            raise StackError("no answer")
        return counts

    def post(self, alerts: list[dict]) -> None:
        self.posted += alerts


@pytest.fixture
def pair(running, monkeypatch):
    def use(*both: Counting) -> None:
        monkeypatch.setattr(slack.alertmanager, "both", lambda _: list(both))
        monkeypatch.setattr(slack, "POLL_SECONDS", 0.01)
        monkeypatch.setattr(slack, "TEST_SECONDS", 0.1)

    return use


def test_a_test_message_needs_one_successful_alertmanager(running, pair, capsys):
    one, other = Counting("a", (3, 0)), Counting("b", (5, 1), (5, 1), (6, 1))
    pair(one, other)
    slack.send(settings_file.read(running))
    assert [alert["labels"]["alertname"] for alert in one.posted + other.posted] == ["SlackTest"] * 2
    assert slack.TEST_SUMMARY in capsys.readouterr().out


def test_a_test_message_is_sent_with_one_alertmanager_down(running, pair, capsys):
    pair(Counting("a", None), Counting("b", (0, 0), (1, 0)))
    slack.send(settings_file.read(running))
    assert slack.TEST_SUMMARY in capsys.readouterr().out


def test_a_test_message_that_slack_refuses_is_an_error(running, pair):
    pair(Counting("a", (0, 0), (1, 1)), Counting("b", (0, 0)))
    with pytest.raises(StackError, match="Slack refuses it"):
        slack.send(settings_file.read(running))


def test_a_test_message_that_is_not_sent_is_an_error(running, pair):
    pair(Counting("a", (0, 0)), Counting("b", (0, 0)))
    with pytest.raises(StackError, match="Slack accepted none"):
        slack.send(settings_file.read(running))


# ---- restart

MODEL = {
    "name": "airflow-ha",
    "services": {
        "worker": {"restart": "always", "depends_on": {"redis": {}, "gateway": {}}},
        "scheduler": {"restart": "always", "depends_on": {"migrate": {}, "redis": {}}},
        "gateway": {"restart": "always"},
        "migrate": {"restart": "on-failure:5", "depends_on": {"postgres": {}}},
        "postgres": {"restart": "always"},
        "redis": {"restart": "always"},
    },
}


def test_dependencies_are_restarted_first():
    names = ["gateway", "postgres", "redis", "scheduler", "worker"]
    assert rolling.in_order(MODEL, names) == ["postgres", "redis", "gateway", "scheduler", "worker"]


@pytest.fixture
def restartable(project, docker):
    project.env_file.write_text("AIRFLOW_IMAGE=a\n")
    docker.answer("config --format json", out=json.dumps(MODEL))

    def with_containers(*containers: dict) -> None:
        docker.answer("ps --all", out="\n".join(one["Id"] for one in containers))
        docker.answer("inspect", out=json.dumps(containers))

    return with_containers


def restarted(docker) -> list[str]:
    return [call[1] for call in docker.calls() if call[0] == "restart"]


def test_every_running_container_is_restarted_once(restartable, docker):
    restartable(
        container("worker", 1, health="healthy"),
        container("worker", 2, health="healthy"),
        container("redis", 1, health="healthy"),
        container("migrate", 1, state="exited", policy="on-failure"),
    )
    result = run("restart")
    assert result.returncode == 0, result.stderr
    assert restarted(docker) == ["redis1000000", "worker100000", "worker200000"]


def test_only_named_services_are_restarted(restartable, docker):
    restartable(container("worker", 1, health="healthy"), container("redis", 1, health="healthy"))
    assert run("restart", "redis").returncode == 0
    assert restarted(docker) == ["redis1000000"]


def test_an_unknown_service_restarts_nothing(restartable, docker):
    restartable(container("worker", 1, health="healthy"), container("redis", 1, health="healthy"))
    result = run("restart", "redis", "wroker")
    assert result.returncode == 2
    assert "'wroker'" in result.stderr
    assert "redis, worker" in result.stderr
    assert restarted(docker) == []


def test_a_service_with_an_unhealthy_peer_is_not_restarted(restartable, docker):
    restartable(container("worker", 1, health="healthy"), container("worker", 2, health="unhealthy"))
    result = run("restart", "worker")
    assert result.returncode == 2
    assert "cannot restart worker" in result.stderr
    assert restarted(docker) == []


def test_an_instance_that_stays_unhealthy_stops_the_restart(restartable, docker, monkeypatch):
    monkeypatch.setattr("ops.rolling.HEALTHY_SECONDS", 0.05)
    monkeypatch.setattr("ops.waiting.POLL_SECONDS", 0.01)
    restartable(container("redis", 1, health="unhealthy"), container("worker", 1, health="healthy"))
    result = run("restart", "redis", "worker")
    assert result.returncode == 1
    assert "redis is not healthy" in result.stderr
    assert "running, unhealthy" in result.stderr
    assert restarted(docker) == ["redis1000000"]
