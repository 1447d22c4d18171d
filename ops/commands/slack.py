"""`slack`: send alerts to your Slack, or to the Slack stub again."""

from __future__ import annotations

import getpass
import sys
import time
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Annotated

import typer

from ops import (
    compose,
    secrets_store,
    settings_file,
)
from ops.atomic_file import write_atomically
from ops.clients import alertmanager
from ops.compose import running_settings
from ops.errors import FAILURE, StackError, when_interrupted
from ops.lock import stack_lock
from ops.notification_secrets import SLACK, SLACK_DATA
from ops.observability import generated_config
from ops.observability.derived_settings import derive_settings
from ops.project import current_project
from ops.rollout import recreate
from ops.screen import report
from ops.services import ALERTMANAGERS, OPTIONAL, SLACK_STUB_PROFILE, page_urls

if TYPE_CHECKING:
    from collections.abc import Mapping

    from ops.project import Project

TEST_SUMMARY = "Test of the path that alerts take"
TEST_SECONDS = 60.0
POLL_SECONDS = 0.5


def slack(
    stub: Annotated[bool, typer.Option("--stub", help="Use the Slack stub again.")] = False,
    data: Annotated[
        bool, typer.Option("--data", help="Set the webhook of the team data; by default it is the same.")
    ] = False,
    test: Annotated[bool, typer.Option("--test", help="Send one test message through the Alertmanagers.")] = False,
) -> None:
    """Set the webhook for alerts, from a hidden prompt or from standard input.

    Create a webhook at https://api.slack.com/messaging/webhooks. It is stored in compose/secrets/ (mode 600), and the
    Alertmanagers are recreated one after the other. --test alone sets nothing and sends one message.

    Example: ./ops/stack slack < webhook.txt
    """
    project = current_project()
    name = SLACK_DATA if data else SLACK
    hint = "run ./ops/stack slack or ./ops/stack up to finish it"
    with when_interrupted(hint), stack_lock(project, "slack", report):
        settings = settings_file.read(project)
        if stub or data or not test:
            webhook = None if stub else read_webhook(project, name)
            if "AIRFLOW_IMAGE" not in settings:
                raise StackError("cannot set a webhook: no stack exists yet", hint="start it with ./ops/stack up")
            changed = [SLACK, SLACK_DATA] if stub and not data else [name]
            secrets_store.check_optional(project, besides=changed)
            for secret in changed:
                store(project, secret, webhook)
            apply(project, settings)
        if test:
            send(settings)


def read_webhook(project: Project, name: str) -> str:
    """Return the webhook, from a hidden prompt or from standard input.

    Raises:
        StackError: It is not one line, or malformed.
    """
    text = getpass.getpass("Webhook (not shown): ") if sys.stdin.isatty() else sys.stdin.read()
    webhook = text.strip()
    if not webhook or len(webhook.splitlines()) != 1:
        raise StackError(
            f"cannot read a webhook: {len(webhook.splitlines())} lines instead of one",
            where="standard input",
            hint="run ./ops/stack slack for a prompt, or ./ops/stack slack < file",
        )
    secrets_store.check_form(project, name, webhook)
    return webhook


def store(project: Project, name: str, webhook: str | None) -> None:
    """Store the webhook as a secret; None removes it."""
    path = project.secrets / name
    if webhook is None:
        path.unlink(missing_ok=True)
        report(f"removed {project.shown(path)}")
        return
    write_atomically(path, webhook + "\n", secrets_store.OWNER_ONLY)
    report(f"stored in {project.shown(path)}")


def apply(project: Project, settings: dict[str, str]) -> None:
    """Apply the secrets to the running stack; a stopped one applies them at its next `up`."""
    images = {published.image for published in OPTIONAL if settings.get(published.image)}
    derive_settings(settings, images, secrets_store.optional(project))
    secrets_store.mount(project, settings, settings["AIRFLOW_IMAGE"])
    settings_file.write(project, settings)
    generated_config.write(project, settings)
    name = settings["COMPOSE_PROJECT_NAME"]
    running = compose.instances(name)
    if not set(ALERTMANAGERS) & running.keys():
        report("the Alertmanagers do not run: the next ./ops/stack up starts them with this webhook")
        return
    uses_stub = SLACK_STUB_PROFILE in settings["COMPOSE_PROFILES"].split(",")
    if uses_stub:
        recreate(project, report, ["slack-stub"])
    recreate(project, report, list(ALERTMANAGERS))
    generated_config.load(project, name)
    if not uses_stub and "slack-stub" in running:
        compose.run(project, report, "--profile=*", "rm", "--stop", "--force", "slack-stub")
    report(f"alerts go to {'the Slack stub' if uses_stub else 'your Slack'}")


def send(settings: Mapping[str, str]) -> None:
    """Send one message through the Alertmanagers, and wait until Slack accepts it.

    Raises:
        StackError: Slack does not accept it in time.
    """
    pair = alertmanager.both(running_settings(current_project()))
    alertmanager.any_that_answers(pair)
    before = {api.url: message_counts(api) for api in pair}
    now = datetime.now(tz=UTC)
    alert = {
        "labels": {"alertname": "SlackTest", "severity": "info", "team": "platform", "sent": f"{now:%H:%M:%S}"},
        "annotations": {
            "summary": TEST_SUMMARY,
            "description": "Test message of ./ops/stack slack --test. No alert fires.",
        },
        "startsAt": now.isoformat(),
        "endsAt": (now + timedelta(minutes=5)).isoformat(),
    }
    for api in pair:
        if before[api.url] is not None:
            api.post([alert])
    report("sent to the Alertmanagers; waiting for Slack to accept it")
    deadline = time.monotonic() + TEST_SECONDS
    while time.monotonic() < deadline:
        for api in pair:
            earlier, later = before[api.url], message_counts(api)
            if earlier and later and later[1] > earlier[1]:
                raise StackError(
                    "cannot send the message: Slack refuses it",
                    where=api.url,
                    hint="read ./ops/stack logs alertmanager-1, or set another webhook with ./ops/stack slack",
                    code=FAILURE,
                )
            if earlier and later and later[0] > earlier[0]:
                report(f"sent: “{TEST_SUMMARY}” is in {page_urls(settings).get('slack_stub', 'Slack')}")
                return
        time.sleep(POLL_SECONDS)
    raise StackError(
        f"cannot send the message: Slack accepted none in {TEST_SECONDS:.0f} s",
        hint="read ./ops/stack logs alertmanager-1",
        code=FAILURE,
    )


def message_counts(api: alertmanager.Alertmanager) -> tuple[int, int] | None:
    """Return how many messages to Slack it has sent or failed to send, and how many failed; None without an answer."""
    try:
        return api.notifications("slack")
    except StackError:
        return None
