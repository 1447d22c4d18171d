"""The stub of Slack accepts and refuses the same messages as Slack, stores and shows them, and injects faults."""

from __future__ import annotations

import json
import threading
import time

import httpx
import pytest

import slack_stub

HOOK = "/services/T/B/x"
MESSAGE = {"attachments": [{"title": "[FIRING] Page: Postgres is down", "text": "since now", "color": "danger"}]}


@pytest.fixture
def serve(tmp_path):
    """Start a stub on the test's folder; a later one loads the messages of an earlier one."""
    running = []

    def start() -> httpx.Client:
        server = slack_stub.server(tmp_path, ("127.0.0.1", 0))
        threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True).start()
        client = httpx.Client(base_url=f"http://127.0.0.1:{server.server_address[1]}", timeout=5, trust_env=False)
        running.append((server, client))
        return client

    yield start
    for server, client in running:
        client.close()
        server.shutdown()
        server.server_close()


@pytest.fixture
def stub(serve):
    return serve()


def test_message_gets_slacks_response_and_is_stored(stub):
    before = time.time()
    answer = stub.post(HOOK, json=MESSAGE)
    assert (answer.status_code, answer.text) == (200, "ok")
    (kept,) = stub.get("/messages").json()
    assert (kept["path"], kept["payload"]) == (HOOK, MESSAGE)
    assert before <= kept["received"] <= time.time()


@pytest.mark.parametrize(
    ("body", "code"),
    [
        ("no json", "invalid_payload"),
        ("[]", "invalid_payload"),
        ('{"attachments": "a"}', "invalid_payload"),
        ('{"attachments": [1]}', "invalid_payload"),
        ("[" * 100_000, "invalid_payload"),
        ("{}", "no_text"),
        ('{"attachments": []}', "no_text"),
    ],
)
def test_message_that_slack_refuses_gets_slacks_error(stub, body, code):
    response = stub.post(HOOK, content=body)
    assert (response.status_code, response.text) == (400, code)
    assert stub.get("/messages").json() == []


def test_message_that_is_too_large_is_refused(stub):
    assert stub.post(HOOK, content=b"x" * (slack_stub.MAX_BODY + 1)).status_code == 413


def test_restart_keeps_messages_and_skips_a_partial_line(serve, tmp_path):
    serve().post(HOOK, json=MESSAGE)
    with (tmp_path / "messages.jsonl").open("a") as file:
        file.write('{"received": 1, "path": "/serv')
    again = serve()
    assert [kept["payload"] for kept in again.get("/messages").json()] == [MESSAGE]
    again.post(HOOK, json=MESSAGE)
    assert len(serve().get("/messages").json()) == 2


def test_oldest_messages_are_dropped_and_the_file_is_bounded(tmp_path, monkeypatch):
    monkeypatch.setattr(slack_stub, "MAX_MESSAGES", 3)
    store = slack_stub.Store(tmp_path / "messages.jsonl")
    for number in range(20):
        store.add(HOOK, {"text": str(number)})
    assert [kept["payload"]["text"] for kept in store.messages()] == ["17", "18", "19"]
    assert len(store.file.read_text().splitlines()) <= 6


def test_total_size_of_messages_is_bounded(tmp_path, monkeypatch):
    monkeypatch.setattr(slack_stub, "MAX_KEPT", 1000)
    store = slack_stub.Store(tmp_path / "messages.jsonl")
    for number in range(10):
        store.add(HOOK, {"text": f"{number}" + "x" * 400})
    assert [kept["payload"]["text"][0] for kept in store.messages()] == ["8", "9"]


def test_delete_removes_all_messages(stub):
    stub.post(HOOK, json=MESSAGE)
    assert stub.delete("/messages").status_code == 200
    assert stub.get("/messages").json() == []


def test_watchdog_reports_its_last_ping(stub):
    assert stub.get("/watchdog").json() == {"last": None, "count": 0}
    stub.post("/watchdog/x", json={"status": "firing"})
    watchdog = stub.get("/watchdog").json()
    assert watchdog["count"] == 1
    assert time.time() - watchdog["last"] < 60
    assert stub.get("/messages").json() == []


def test_fault_applies_the_requested_number_of_times(stub):
    stub.put("/fault", json={"status": 429, "times": 2})
    answers = [stub.post(HOOK, json=MESSAGE) for _ in range(3)]
    assert [answer.status_code for answer in answers] == [429, 429, 200]
    assert answers[0].headers["Retry-After"] == "1"
    assert len(stub.get("/messages").json()) == 1


def test_fault_of_one_path_does_not_affect_others(stub):
    stub.put("/fault", json={"status": 500, "path": "/services/platform"})
    assert stub.post("/services/data", json=MESSAGE).status_code == 200
    assert stub.post("/services/platform", json=MESSAGE).status_code == 500


def test_fault_can_hang_until_it_is_deleted(stub):
    stub.put("/fault", json={"hang_seconds": 0.3, "times": 100})
    started = time.monotonic()
    assert stub.post(HOOK, json=MESSAGE).status_code == 200
    assert time.monotonic() - started >= 0.3
    stub.put("/fault", json={"hang_seconds": 600, "times": 100})
    stub.delete("/fault")
    assert stub.post(HOOK, json=MESSAGE).status_code == 200


@pytest.mark.parametrize(
    "body",
    ['{"status": 99}', '{"times": 0}', '{"hang_seconds": -1}', '{"hang_seconds": 1e9}', '{"staus": 500}', "[]", "x"],
)
def test_invalid_fault_is_refused_and_changes_nothing(stub, body):
    assert stub.put("/fault", content=body).status_code == 400
    assert stub.post(HOOK, json=MESSAGE).status_code == 200


def test_page_escapes_html_in_messages(stub):
    stub.post(HOOK, json={"attachments": [{"title": "<script>x</script>", "text": "<b>", "color": '"><i>'}]})
    stub.post(HOOK, json={"text": "plain"})
    shown = stub.get("/").text
    assert "<script>x" not in shown
    assert "&lt;script&gt;x" in shown
    assert "&lt;b&gt;" in shown
    assert "<i>" not in shown
    assert shown.index("plain") < shown.index("&lt;script&gt;"), "the newest is first"


def test_page_counts_messages(stub):
    assert "0 messages stored" in stub.get("/").text
    stub.post(HOOK, json=MESSAGE)
    assert "1 message stored" in stub.get("/").text
    stub.post(HOOK, json=MESSAGE)
    assert "2 messages stored" in stub.get("/").text


@pytest.mark.parametrize(("method", "path"), [("GET", "/x"), ("POST", "/x"), ("PUT", "/x"), ("DELETE", "/x")])
def test_unknown_path_is_404(stub, method, path):
    assert stub.request(method, path, json={}).status_code == 404


def test_health_is_ok(stub):
    assert json.dumps(stub.get("/health").text) == '"ok"'


@pytest.mark.parametrize(
    ("sent", "shown"),
    [
        ("<https://a.example/x?b=1&amp;c=2|Runbook> · ", '<a href="https://a.example/x?b=1&amp;c=2">Runbook</a> · '),
        ('`silence X --why "…"`', "<code>silence X --why &quot;…&quot;</code>"),
        ("*3 of 10 runs*\nof sales", "<b>3 of 10 runs</b>\nof sales"),
        ("2 * 3 * 4, a*b*c", "2 * 3 * 4, a*b*c"),
        ("1 &lt; 2 &amp; <script>alert(1)</script>", "1 &lt; 2 &amp; &lt;script&gt;alert(1)&lt;/script&gt;"),
        ("<javascript:alert(1)|click>", "&lt;javascript:alert(1)|click&gt;"),
        ("a ` and a < alone", "a ` and a &lt; alone"),
    ],
)
def test_page_renders_links_code_and_bold_and_escapes_the_rest(sent, shown):
    assert slack_stub.marked_up(sent) == shown
