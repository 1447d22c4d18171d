"""Alertmanager with the stack's configuration: routes, inhibition, messages, and one sender of two."""

from __future__ import annotations

import base64
import contextlib
import datetime
import email.message
import email.policy
import http.server
import json
import os
import shlex
import socket
import socketserver
import subprocess
import threading
import time
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, ClassVar

import httpx
import pytest
import yaml

import slack_stub
from ops import settings_file
from ops.notification_secrets import (
    DEAD_MANS_SWITCH,
    OPTIONAL_SECRETS,
    PAGERDUTY,
    SLACK,
    SLACK_DATA,
    SMTP,
    mounted_secrets,
)
from ops.observability import alertmanager_config, generated_config
from ops.project import ROOT, Project
from tests.images.conftest import docker
from tests.images.doors import WITHOUT_AUTHORITIES
from tests.unit.alerting.alert_rules import depends_on
from tests.unit.compose.model import compose_model

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping
    from pathlib import Path

FOLDER = ROOT / alertmanager_config.FOLDER
EMAIL = {"ALERT_EMAIL_SMARTHOST": "mail.test:587", "ALERT_EMAIL_FROM": "a@b.test", "ALERT_EMAIL_TO": "c@d.test"}
VARIANTS: dict[str, tuple[str, ...]] = {
    "stub": (),
    "slack": (SLACK,),
    "slack and its data channel": (SLACK, SLACK_DATA),
    "switch": (SLACK, DEAD_MANS_SWITCH),
    "pagerduty": (SLACK, PAGERDUTY),
    "email": (SLACK, SMTP),
    "everything": tuple(OPTIONAL_SECRETS),
}
PLATFORM = {"team": "platform"}
ROUTES = [
    ("dead-mans-switch", {"alertname": "Watchdog", "severity": "none", **PLATFORM}),
    ("slack-test", {"alertname": "SlackTest", "severity": "ticket", **PLATFORM}),
    ("nobody", {"alertname": "Aftermath", "severity": "none", **PLATFORM}),
    ("every-way", {"alertname": "NotificationsFail", "severity": "ticket", **PLATFORM}),
    ("platform-page", {"alertname": "PostgresDown", "severity": "page", **PLATFORM}),
    ("data-page", {"alertname": "AirflowErrorBudgetBurn", "severity": "page", "team": "data"}),
    ("platform", {"alertname": "DiskFilling", "severity": "ticket", **PLATFORM}),
    ("data", {"alertname": "AirflowDagRunsFailing", "severity": "ticket", "team": "data", "dag_id": "d"}),
    ("platform", {"alertname": "AirflowTasksRetried", "severity": "info", **PLATFORM}),
    ("data", {"alertname": "AirflowTasksRetried", "severity": "info", "team": "data"}),
    ("platform", {"alertname": "Foreign"}),
]


def settings(tmp_path: Path, **more: str) -> dict[str, str]:
    """Return the default settings with every profile on."""
    project = Project(root=ROOT, state=tmp_path)
    profiles = {"COMPOSE_PROFILES": "data,flower,observability,grafana,slack-stub"}
    return settings_file.read(project) | EMAIL | profiles | more


@pytest.fixture(scope="module")
def amtool(program):
    return program("ALERTMANAGER_IMAGE", "/bin/amtool")


@pytest.fixture
def written(tmp_path) -> Callable[..., Path]:
    """Write a configuration that reads its files from the test's folder."""

    def write(secrets: tuple[str, ...], **mounted: str) -> Path:
        files = generated_config.texts(FOLDER, settings(tmp_path), secrets)
        for name, text in files.items():
            text = text.replace("/etc/alertmanager/generated", str(tmp_path / "alertmanager"))
            text = text.replace("/etc/alertmanager/templates", str(FOLDER / "templates"))
            text = text.replace("/run/secrets", str(tmp_path / "secrets"))
            (tmp_path / name).parent.mkdir(exist_ok=True)
            (tmp_path / name).write_text(text)
        (tmp_path / "secrets").mkdir(exist_ok=True)
        for name, text in (mounted_secrets({}) | mounted).items():
            (tmp_path / "secrets" / name).write_text(text)
        return tmp_path / "alertmanager/alertmanager.yaml"

    return write


@pytest.mark.parametrize("secrets", VARIANTS.values(), ids=VARIANTS)
def test_alertmanager_accepts_every_configuration(amtool, written, secrets):
    done = subprocess.run([amtool, "check-config", written(secrets)], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "2 templates" in done.stdout


@pytest.mark.parametrize(("receiver", "labels"), ROUTES, ids=[f"{r}-{labels['alertname']}" for r, labels in ROUTES])
def test_every_alert_has_its_receiver(amtool, written, receiver, labels):
    pairs = [f"{key}={value}" for key, value in labels.items()]
    command = [amtool, "config", "routes", "test", f"--config.file={written(())}", f"--verify.receivers={receiver}"]
    done = subprocess.run([*command, *pairs], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


def test_every_receiver_has_a_tested_route(written):
    names = {receiver["name"] for receiver in yaml.safe_load(written(()).read_text())["receivers"]}
    assert names == {receiver for receiver, _ in ROUTES}


# ---- live


@pytest.fixture
def slack(tmp_path) -> Iterator[httpx.Client]:
    """The Slack stub."""
    messages = tmp_path / "messages"
    messages.mkdir()
    server = slack_stub.server(messages, ("127.0.0.1", 0))
    threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True).start()
    with httpx.Client(base_url=f"http://127.0.0.1:{server.server_address[1]}", trust_env=False) as client:
        yield client
    server.RequestHandlerClass.stopping.set()  # type: ignore[attr-defined]
    server.shutdown()
    server.server_close()


class PagerDuty(http.server.BaseHTTPRequestHandler):
    """Accept events as PagerDuty's Events API v2 does."""

    events: ClassVar[list[dict[str, Any]]]

    def do_POST(self) -> None:
        self.events.append(json.loads(self.rfile.read(int(self.headers["Content-Length"]))))
        self.send_response(202)
        self.end_headers()
        self.wfile.write(b'{"status": "success"}')


class Mail(socketserver.StreamRequestHandler):
    """Accept mails as a mail server with a password does."""

    password: ClassVar[str]
    mails: ClassVar[list[email.message.EmailMessage]]

    def handle(self) -> None:
        self.reply("220 mail.test")
        while line := self.rfile.readline().decode().strip():
            match line.split(" "):
                case ["EHLO", *_]:
                    self.reply("250-mail.test")
                    self.reply("250 AUTH PLAIN")
                case ["AUTH", "PLAIN", login]:
                    is_right = base64.b64decode(login).decode().split("\0")[1:] == ["a@b.test", self.password]
                    self.reply("235 welcome" if is_right else "535 wrong password")
                case ["DATA"]:
                    self.reply("354 continue")
                    text = b"".join(iter(self.rfile.readline, b".\r\n"))
                    self.mails.append(email.message_from_bytes(text, policy=email.policy.default))
                    self.reply("250 accepted")
                case ["QUIT"]:
                    self.reply("221 bye")
                    return
                case _:
                    self.reply("250 ok")

    def reply(self, line: str) -> None:
        self.wfile.write(f"{line}\r\n".encode())


@contextlib.contextmanager
def serving(handler: type[socketserver.BaseRequestHandler]) -> Iterator[str]:
    """Yield the host and port of a server on loopback."""
    with socketserver.ThreadingTCPServer(("127.0.0.1", 0), handler) as server:
        threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True).start()
        yield f"127.0.0.1:{server.server_address[1]}"
        server.shutdown()


def quicken(content: dict[str, Any]) -> None:
    """Shorten the times: an interval is two seconds, not 30."""
    routes = [content["route"], *content["route"]["routes"]]
    children = [child for route in routes[1:] for child in route.get("routes", [])]
    for route in [*routes, *children]:
        for key, value in {"group_wait": "1s", "group_interval": "2s"}.items():
            if key in route:
                route[key] = value


def free_port() -> int:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return int(listener.getsockname()[1])


class Running:
    """One Alertmanager, started as in compose/observability.yaml but with other addresses."""

    def __init__(self, start: Callable[..., str], image: str, config: Path, listen: str, peers: list[str]) -> None:
        port = free_port()
        # Loads no authorities, which takes longer than a request, and the tests ask 20 times a second.
        self.http = httpx.Client(base_url=f"http://127.0.0.1:{port}", trust_env=False, verify=WITHOUT_AUTHORITIES)
        folder = config.parents[1]
        command = compose_model()["services"]["alertmanager-1"]["command"]
        own = ("--config.file", "--web.config.file", "--storage.path", "--cluster.listen-address", "--cluster.peer=")
        self.container = start(
            # The stub is a thread of this test, so the network is the host's; the user is the one who wrote the files.
            *("--network", "host", "--user", f"{os.getuid()}:{os.getgid()}", "--tmpfs", "/alertmanager:mode=1777"),
            *("--volume", f"{folder}:{folder}:ro", "--volume", f"{FOLDER}:{FOLDER}:ro"),
            *("--entrypoint", "/bin/alertmanager", image),
            *(option for option in command if not option.startswith(own)),
            f"--config.file={config}",
            "--storage.path=/alertmanager",
            f"--web.listen-address=127.0.0.1:{port}",
            f"--cluster.listen-address={listen}",
            *(f"--cluster.peer={peer}" for peer in peers),
        )

    def log(self) -> str:
        return docker("logs", self.container).output

    def kill(self) -> None:
        docker("kill", self.container)

    def post(self, *alerts: dict) -> None:
        self.http.post("/api/v2/alerts", json=alerts).raise_for_status()

    def is_ready(self) -> bool:
        """Whether it answers, and its cluster is ready if it has one."""
        with contextlib.suppress(httpx.HTTPError):
            return self.http.get("/api/v2/status").json()["cluster"]["status"] in ("ready", "disabled")
        return False


@pytest.fixture
def start_alertmanagers(images, start, written, slack):
    """Start one or two Alertmanagers that send to the stub, and wait until they are ready."""

    def run(
        number: int,
        *,
        short: bool = True,
        more: Mapping[str, str] = MappingProxyType({}),
        edit: Callable[[dict[str, Any]], None] = lambda _: None,
    ) -> list[Running]:
        base = str(slack.base_url).rstrip("/")
        hooks = {SLACK: f"{base}/services/T/B/platform", SLACK_DATA: f"{base}/services/T/B/data"}
        secrets = {**hooks, DEAD_MANS_SWITCH: f"{base}/watchdog", **more}
        config = written(tuple(secrets), **secrets)
        content = yaml.safe_load(config.read_text())
        if short:
            quicken(content)
        edit(content)
        config.write_text(yaml.safe_dump(content, sort_keys=False))
        # A single one has no cluster, for whose members it would wait some seconds.
        peers = [f"127.0.0.1:{free_port()}" for _ in range(number)] if number > 1 else []
        image = images["ALERTMANAGER_IMAGE"].reference
        running = [Running(start, image, config, listen, peers) for listen in peers or [""]]
        until(lambda: all(server.is_ready() for server in running), 30, running[0].log)
        return running

    return run


def until(is_true: Callable[[], object], seconds: float, log: Callable[[], object] = lambda: "") -> float:
    """Wait until a condition is true; return the seconds that it took."""
    started = time.monotonic()
    while not is_true():
        assert time.monotonic() - started < seconds, log()
        time.sleep(0.05)
    return time.monotonic() - started


def titles(slack: httpx.Client) -> list[str]:
    return [message["payload"]["attachments"][0]["title"] for message in slack.get("/messages").json()]


def attachments(slack: httpx.Client) -> list[dict]:
    return [message["payload"]["attachments"][0] for message in slack.get("/messages").json()]


NOW = datetime.datetime.now(tz=datetime.UTC)


def alert(name: str, *, severity: str = "page", team: str = "platform", ended: bool = False, **labels: str) -> dict:
    """Return an alert of a rule that started 754 s ago."""
    started = NOW - datetime.timedelta(seconds=754)
    ends = NOW if ended else NOW + datetime.timedelta(hours=1)
    which = " ".join(labels.values())
    return {
        "labels": {"alertname": name, "severity": severity, "team": team, "depends_on": depends_on(name), **labels},
        "annotations": {
            "summary": f"{name} {which}".strip(),
            "description": f"All 2 of <{name}> & more are down.",
            "runbook_url": f"alerting/runbooks/{name}.md",
            "dashboard_url": "/d/overview",
        },
        "startsAt": started.isoformat(),
        "endsAt": ends.isoformat(),
    }


def fresh(*alerts: dict) -> list[dict]:
    """Return the alerts with their start now: older than group_wait they are sent at once, before their cause."""
    return [{key: value for key, value in each.items() if key != "startsAt"} for each in alerts]


def test_a_message_has_title_time_severity_and_links(start_alertmanagers, slack):
    (server,) = start_alertmanagers(1)
    server.post(alert("AirflowComponentGone", component="worker"))
    until(lambda: titles(slack), 60, server.log)
    (message,) = slack.get("/messages").json()
    assert message["path"] == "/services/T/B/platform"
    (sent,) = message["payload"]["attachments"]
    assert sent["title"] == "[FIRING] Page: AirflowComponentGone worker"
    assert sent["fallback"] == sent["title"]
    assert sent["color"] == "danger"
    assert sent["title_link"].endswith("/blob/main/alerting/runbooks/AirflowComponentGone.md")
    started = (NOW - datetime.timedelta(seconds=754)).strftime("%Y-%m-%d %H:%M:%S")
    assert sent["text"].split("\n") == [
        "All 2 of &lt;AirflowComponentGone&gt; &amp; more are down.",
        f"Since {started} UTC",
        f"<{sent['title_link']}|Runbook> · <http://localhost:3000/d/overview|Dashboard> · "
        'Silence: `./ops/stack silence AirflowComponentGone --label component=worker --for 2h --why "…"`',
    ]
    assert {field["title"]: field["value"] for field in sent["fields"]} == {
        "Alert": "AirflowComponentGone",
        "Severity": "page",
        "Team": "platform",
        "Labels": "component=worker",
    }


def test_pagerduty_gets_pages_only_and_their_resolution(start_alertmanagers, slack):
    PagerDuty.events = []
    with serving(PagerDuty) as address:
        (server,) = start_alertmanagers(
            1,
            more={PAGERDUTY: "0123456789abcdef0123456789abcdef"},
            edit=lambda config: config.setdefault("global", {}).update(pagerduty_url=f"http://{address}/v2/enqueue"),
        )
        server.post(alert("DiskFilling", severity="ticket"), alert("AirflowComponentGone", component="worker"))
        until(lambda: PagerDuty.events and len(titles(slack)) == 2, 60, server.log)
        server.post(alert("AirflowComponentGone", component="worker", ended=True))
        until(lambda: len(PagerDuty.events) == 2, 60, server.log)
    fired, ended = PagerDuty.events
    assert (fired["event_action"], ended["event_action"]) == ("trigger", "resolve")
    assert fired["dedup_key"] == ended["dedup_key"]
    assert fired["routing_key"] == "0123456789abcdef0123456789abcdef"
    payload = fired["payload"]
    assert payload["summary"] == "[FIRING] Page: AirflowComponentGone worker"
    assert (payload["severity"], payload["class"], payload["component"]) == (
        "critical",
        "AirflowComponentGone",
        "worker",
    )
    assert "alerting/runbooks/AirflowComponentGone.md" in payload["custom_details"]["alerts"]


def test_a_mail_has_the_text_of_a_message(start_alertmanagers, slack):
    Mail.password, Mail.mails = "correct horse", []

    def to(address: str) -> Callable[[dict[str, Any]], None]:
        def edit(config: dict[str, Any]) -> None:
            for receiver in config["receivers"]:
                for email_config in receiver.get("email_configs", []):
                    # This server has no certificate; a real one without it gets no password.
                    email_config.update(smarthost=address, require_tls=False)

        return edit

    with serving(Mail) as address:
        (server,) = start_alertmanagers(1, more={SMTP: Mail.password}, edit=to(address))
        server.post(alert("AirflowCanaryStale"))
        until(lambda: Mail.mails, 60, server.log)
    (mail,) = Mail.mails
    assert (mail["From"], mail["To"]) == ("a@b.test", "c@d.test")
    assert mail["Subject"] == "[FIRING] Page: AirflowCanaryStale"
    text = mail.get_body(("plain",)).get_content()
    assert "All 2 of <AirflowCanaryStale> & more are down." in text
    assert "alerting/runbooks/AirflowCanaryStale.md" in text
    assert "./ops/stack silence AirflowCanaryStale" in text
    assert "depends_on" not in text


def test_a_resolved_message_has_the_duration(start_alertmanagers, slack):
    (server,) = start_alertmanagers(1)
    server.post(alert("PostgresDown"))
    until(lambda: titles(slack), 60, server.log)
    server.post(alert("PostgresDown", ended=True))
    until(lambda: len(titles(slack)) == 2, 60, server.log)
    sent = attachments(slack)[1]
    assert sent["title"] == "[RESOLVED] Page: PostgresDown"
    assert sent["color"] == "good"
    assert "Lasted 12m34s, from 20" in sent["text"]
    assert "Silence" not in sent["text"]


def test_several_alerts_of_a_group_are_one_message(start_alertmanagers, slack):
    (server,) = start_alertmanagers(1)
    same = {"severity": "ticket", "team": "data", "dag_id": "sales"}
    server.post(*fresh(*(alert("AirflowTasksFailing", task_id=f"t{number}", **same) for number in range(12))))
    until(lambda: titles(slack), 60, server.log)
    (message,) = slack.get("/messages").json()
    assert message["path"] == "/services/T/B/data"
    (sent,) = message["payload"]["attachments"]
    assert sent["title"] == "[FIRING] Ticket: AirflowTasksFailing (12 firing)"
    assert sent["color"] == "warning"
    assert [number for number in range(12) if f" t{number}" not in sent["text"]] == []
    assert sent["text"].count("|Runbook>") == 1
    assert "`./ops/stack silence AirflowTasksFailing --label dag_id=sales --for 2h" in sent["text"]


SLACK_TEXT = 40_000
"""Characters of a message's text, after which Slack truncates: https://docs.slack.dev/reference/methods/chat.postMessage"""


def failing(dag_id: str, *, ended: bool = False, **labels: str) -> dict:
    """Return a finding about one DAG with a long description."""
    finding = alert("AirflowDagRunsFailing", severity="ticket", team="data", ended=ended, dag_id=dag_id, **labels)
    finding["annotations"] |= {
        "summary": f"{dag_id}: 5 of 5 runs failed in 24 h (100%)",
        "description": "ConnectionError: warehouse is down: " + "x" * 3000,
        "run_url": f"/dags/{dag_id}/runs/manual__2026-11-28T23%3A10%3A00.123456%2B00%3A00_abcdefgh",
    }
    return finding


def test_25_dags_of_one_cause_are_one_message(start_alertmanagers, slack):
    (server,) = start_alertmanagers(1)
    dags = [f"t21_{number:02d}" for number in range(25)]
    server.post(*fresh(*(failing(dag_id) for dag_id in dags)))
    until(lambda: titles(slack), 60, server.log)
    (first,) = attachments(slack)
    assert first["title"] == "[FIRING] Ticket: AirflowDagRunsFailing (25 firing)"
    assert [dag_id for dag_id in dags if dag_id not in first["text"]] == []
    assert first["text"].count("/runs/manual__") == 15
    assert len(first["text"]) < 3000
    print(f"{len(first['text'])} characters:\n{first['title']}\n{first['text']}")

    # One more fires, one resolves: one message has both.
    server.post(*fresh(failing("late")), failing(dags[0], ended=True))
    until(lambda: len(titles(slack)) == 2, 60, server.log)
    second = attachments(slack)[1]
    assert second["title"] == "[FIRING] Ticket: AirflowDagRunsFailing (25 firing, 1 resolved)"
    assert "late: 5 of 5" in second["text"]
    server.post(*(failing(dag_id, ended=True) for dag_id in [*dags[1:], "late"]))
    until(lambda: len(titles(slack)) == 3, 60, server.log)
    assert titles(slack)[2] == "[RESOLVED] Ticket: AirflowDagRunsFailing (25 resolved)"


@pytest.mark.parametrize("number", [1, 3, 4, 500])
def test_a_message_of_long_texts_fits_slack(start_alertmanagers, slack, number):
    (server,) = start_alertmanagers(1)
    server.post(*fresh(*(failing(f"{place:03d}<&>" + "d" * 240) for place in range(number))))
    until(lambda: titles(slack), 60, server.log)
    (sent,) = attachments(slack)
    assert len(json.dumps(sent)) < SLACK_TEXT / 4
    assert len(sent["title"]) <= 1024
    assert "x" * 1600 not in sent["text"]


def test_a_single_failing_dag_has_its_full_text(start_alertmanagers, slack):
    (server,) = start_alertmanagers(1)
    server.post(*fresh(failing("etl")))
    until(lambda: titles(slack), 60, server.log)
    (sent,) = attachments(slack)
    assert sent["title"] == "[FIRING] Ticket: etl: 5 of 5 runs failed in 24 h (100%)"
    assert "warehouse is down" in sent["text"]
    assert {"title": "Labels", "value": "dag_id=etl", "short": False} in sent["fields"]


@pytest.mark.parametrize("name", ["AirflowImportErrors", "AirflowDagOverdue", "AirflowTasksUnschedulable"])
def test_many_alerts_of_team_data_are_one_message(start_alertmanagers, slack, name):
    (server,) = start_alertmanagers(1)
    data = {"severity": "ticket", "team": "data"}
    label = "file" if name == "AirflowImportErrors" else "dag_id"
    server.post(*fresh(*(alert(name, **data, **{label: f"n{number}"}) for number in range(30))))
    until(lambda: titles(slack), 60, server.log)
    assert titles(slack) == [f"[FIRING] Ticket: {name} (30 firing)"]


def test_a_finding_links_its_run_in_airflow(start_alertmanagers, slack):
    (server,) = start_alertmanagers(1)
    finding = alert("AirflowDagRunsFailing", severity="ticket", team="data", dag_id="sales", source="monitoring_dag")
    finding["annotations"]["run_url"] = "/dags/sales/runs/manual__2026-01-01T00:00:00+00:00"
    server.post(finding)
    until(lambda: titles(slack), 60, server.log)
    (sent,) = attachments(slack)
    assert "<http://localhost:8080/dags/sales/runs/manual__2026-01-01T00:00:00+00:00|Run>" in sent["text"]
    assert {"title": "Labels", "value": "dag_id=sales source=monitoring_dag", "short": False} in sent["fields"]
    assert "`./ops/stack silence AirflowDagRunsFailing --label dag_id=sales --for 2h" in sent["text"]


def test_a_silence_command_quotes_labels_for_a_shell(start_alertmanagers, slack):
    (server,) = start_alertmanagers(1)
    server.post(alert("AirflowImportErrors", severity="ticket", team="data", file="it's <$(id)>.py"))
    until(lambda: titles(slack), 60, server.log)
    (sent,) = attachments(slack)
    text = sent["text"].replace("&lt;", "<").replace("&gt;", ">").replace("&amp;", "&")
    command = text.rpartition("`./ops/stack ")[2].partition("`")[0]
    assert shlex.split(command)[:4] == ["silence", "AirflowImportErrors", "--label", "file=it's <$(id)>.py"]


def test_one_cause_sends_one_message(start_alertmanagers, slack):
    (server,) = start_alertmanagers(1)
    effects = [
        *(alert("AirflowComponentGone", component=component) for component in ("scheduler", "api-server")),
        alert("AirflowComponentDown", severity="ticket", component="scheduler"),
        alert("AirflowCanaryStale"),
        alert("ApiErrors", severity="ticket"),
        alert("TargetDown", severity="ticket", job="postgres"),
    ]
    server.post(*fresh(alert("PostgresDown"), *effects))
    # An alert with another cause is sent, after all that would have been sent with the first.
    until(lambda: titles(slack), 60, server.log)
    server.post(alert("DiskFilling", severity="ticket"))
    until(lambda: len(titles(slack)) == 2, 60, server.log)
    assert titles(slack) == ["[FIRING] Page: PostgresDown", "[FIRING] Ticket: DiskFilling"]


def test_an_aftermath_inhibits_the_effects_of_its_cause(start_alertmanagers, slack):
    (server,) = start_alertmanagers(1)
    aftermath = alert("Aftermath", severity="none", cause="PostgresDown")
    server.post(*fresh(alert("PostgresDown"), aftermath, alert("AirflowCanaryStale")))
    until(lambda: titles(slack), 60, server.log)
    server.post(alert("PostgresDown", ended=True))
    until(lambda: len(titles(slack)) == 2, 60, server.log)
    server.post(alert("DiskFilling", severity="ticket"))
    until(lambda: len(titles(slack)) == 3, 60, server.log)
    assert not [title for title in titles(slack) if "Canary" in title]


def test_the_dead_mans_switch_stops_when_messages_fail(start_alertmanagers, slack, tmp_path):
    (server,) = start_alertmanagers(1)
    config = tmp_path / "alertmanager/alertmanager.yaml"
    config.write_text(config.read_text().replace("repeat_interval: 50s", "repeat_interval: 1s"))
    server.http.post("/-/reload").raise_for_status()
    server.post(alert("Watchdog", severity="none"))
    until(lambda: slack.get("/watchdog").json()["count"] >= 3, 60, server.log)
    server.post(alert("NotificationsFail", severity="ticket", integration="slack"))
    until(lambda: len(titles(slack)) == 2, 60, server.log)
    paths = [message["path"] for message in slack.get("/messages").json()]
    assert sorted(paths) == ["/services/T/B/data", "/services/T/B/platform"]
    count = slack.get("/watchdog").json()["count"]
    server.post(alert("DiskFilling", severity="ticket"))
    until(lambda: len(titles(slack)) == 3, 60, server.log)
    assert slack.get("/watchdog").json()["count"] <= count + 1


@pytest.mark.parametrize("fault", [{"status": 429}, {"status": 500}, {"hang_seconds": 3, "status": 500}], ids=str)
def test_a_message_is_retried_until_slack_accepts_it(start_alertmanagers, slack, fault):
    (server,) = start_alertmanagers(1)
    slack.put("/fault", json={**fault, "times": 3}).raise_for_status()
    server.post(alert("PostgresDown"))
    until(lambda: titles(slack), 60, server.log)
    assert titles(slack) == ["[FIRING] Page: PostgresDown"]
    metrics = server.http.get("/metrics").text
    failed = [line for line in metrics.splitlines() if line.startswith("alertmanager_notification_requests_failed")]
    assert sum(float(line.rpartition(" ")[2]) for line in failed if 'integration="slack"' in line) == 3


def test_one_alertmanager_of_two_sends_and_the_other_takes_over(start_alertmanagers, slack):
    """The times are the real ones: a page is sent after 5 s; the second waits 5 s more while the first answers."""
    pair = start_alertmanagers(2, short=False)
    for server in pair:
        server.post(alert("PostgresDown"))
    until(lambda: titles(slack), 60, pair[0].log)
    # Once the second has received the other's message by gossip, it skips its own.
    until(lambda: all(knows_of_the_message(server) for server in pair), 60)
    assert titles(slack) == ["[FIRING] Page: PostgresDown"]

    first = next(server for server in pair if has_sent(server))
    first.kill()
    (other,) = (server for server in pair if server is not first)
    other.post(alert("RedisDown"))
    until(lambda: len(titles(slack)) == 2, 60, other.log)
    assert titles(slack)[1] == "[FIRING] Page: RedisDown"


def metric(server: Running, name: str) -> float:
    lines = server.http.get("/metrics").text.splitlines()
    return sum(float(line.rpartition(" ")[2]) for line in lines if line.startswith(name))


def has_sent(server: Running) -> bool:
    return metric(server, 'alertmanager_notifications_total{integration="slack"') > 0


def knows_of_the_message(server: Running) -> bool:
    """Whether it sent the group itself, or received by gossip that the other did."""
    return metric(server, "alertmanager_nflog_gossip_messages_propagated_total") > 0 or has_sent(server)
