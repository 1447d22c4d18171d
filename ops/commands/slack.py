"""`slack`: messages go to your Slack, or back to the stack's own."""

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

TEST_SECONDS = 60.0
POLL_SECONDS = 0.5


def slack(
    stub: Annotated[bool, typer.Option("--stub", help="Back to the stack's own Slack.")] = False,
    data: Annotated[bool, typer.Option("--data", help="The webhook of the team data; else it has the same.")] = False,
    test: Annotated[bool, typer.Option("--test", help="Send one message, by the way that alerts take.")] = False,
) -> None:
    """Set the webhook that alerts go to: asked for without showing it, or read from standard input.

    Make one at https://api.slack.com/messaging/webhooks. It is kept in compose/secrets/, mode 600. The Alertmanagers
    are made anew with it, one after the other. With --test alone nothing is set, and one message is sent.
    """
    project = current_project()
    name = SLACK_DATA if data else SLACK
    hint = "./ops/stack slack again, or ./ops/stack up, finishes it"
    with when_interrupted(hint), stack_lock(project, "slack", report):
        settings = settings_file.read(project)
        if stub or data or not test:
            webhook = None if stub else ask(project, name)
            if "AIRFLOW_IMAGE" not in settings:
                raise StackError("there is no stack yet", hint="./ops/stack up starts one")
            changed = [SLACK, SLACK_DATA] if stub and not data else [name]
            secrets_store.check_optional(project, besides=changed)
            for one in changed:
                store(project, one, webhook)
            apply(project, settings)
        if test:
            send(settings)


def ask(project: Project, name: str) -> str:
    """The webhook, from a prompt that does not show it, or from standard input.

    Raises:
        StackError: It is none.
    """
    given = getpass.getpass("Webhook (not shown): ") if sys.stdin.isatty() else sys.stdin.read()
    given = given.strip()
    if not given or len(given.splitlines()) != 1:
        raise StackError(
            "a webhook is one line, and this is " + ("several" if given else "none"),
            where="standard input",
            hint="./ops/stack slack asks for it; or: ./ops/stack slack < file",
        )
    secrets_store.check_form(project, name, given)
    return given


def store(project: Project, name: str, webhook: str | None) -> None:
    """Keeps the webhook as a secret; None removes it."""
    path = project.secrets / name
    if webhook is None:
        path.unlink(missing_ok=True)
        report(f"{project.shown(path)} is gone")
        return
    write_atomically(path, webhook + "\n", secrets_store.OWNER_ONLY)
    report(f"kept in {project.shown(path)}")


def apply(project: Project, settings: dict[str, str]) -> None:
    """Makes the running stack follow; one that does not run follows at its next `up`."""
    images = {published.image for published in OPTIONAL if settings.get(published.image)}
    derive_settings(settings, images, secrets_store.optional(project))
    secrets_store.mount(project, settings, settings["AIRFLOW_IMAGE"])
    settings_file.write(project, settings)
    generated_config.write(project, settings)
    name = settings["COMPOSE_PROJECT_NAME"]
    running = compose.instances(name)
    if not set(ALERTMANAGERS) & running.keys():
        report("the Alertmanagers do not run: the next ./ops/stack up starts them with it")
        return
    wants_stub = SLACK_STUB_PROFILE in settings["COMPOSE_PROFILES"].split(",")
    if wants_stub:
        recreate(project, report, ["slack-stub"])
    recreate(project, report, list(ALERTMANAGERS))
    generated_config.load(project, name)
    if not wants_stub and "slack-stub" in running:
        compose.run(project, report, "--profile=*", "rm", "--stop", "--force", "slack-stub")
    report(f"alerts go to {'the Slack of this stack' if wants_stub else 'your Slack'}")


def send(settings: Mapping[str, str]) -> None:
    """Sends one message through the Alertmanagers, and sees whether it gets out.

    Raises:
        StackError: It does not.
    """
    pair = alertmanager.both(running_settings(current_project()))
    alertmanager.any_that_answers(pair)
    before = {one.url: counted(one) for one in pair}
    now = datetime.now(tz=UTC)
    alert = {
        "labels": {"alertname": "SlackTest", "severity": "info", "team": "platform", "sent": f"{now:%H:%M:%S}"},
        "annotations": {
            "summary": "A test of the way that alerts take",
            "description": "Somebody ran ./ops/stack slack --test. Nothing is wrong.",
        },
        "startsAt": now.isoformat(),
        "endsAt": (now + timedelta(minutes=5)).isoformat(),
    }
    for one in pair:
        if before[one.url] is not None:
            one.post([alert])
    report("sent to the Alertmanagers; waiting for Slack to take it")
    deadline = time.monotonic() + TEST_SECONDS
    while time.monotonic() < deadline:
        for one in pair:
            then, after = before[one.url], counted(one)
            if then and after and after[1] > then[1]:
                raise StackError(
                    "Slack does not take the message",
                    where=one.url,
                    hint="./ops/stack logs alertmanager-1 says why; set another webhook: ./ops/stack slack",
                    code=FAILURE,
                )
            if then and after and after[0] > then[0]:
                where = page_urls(settings).get("slack_stub", "Slack")
                report(f"a message is out: look for “A test of the way that alerts take” in {where}")
                return
        time.sleep(POLL_SECONDS)
    raise StackError(
        f"no message got out in {TEST_SECONDS:.0f} s", hint="./ops/stack logs alertmanager-1 says why", code=FAILURE
    )


def counted(one: alertmanager.Alertmanager) -> tuple[int, int] | None:
    """How many messages to Slack it has tried, and how many in vain; None while it does not answer."""
    try:
        return one.notifications("slack")
    except StackError:
        return None
