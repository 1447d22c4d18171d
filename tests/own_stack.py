"""A real stack for a folder of tests, on the compose files that users run, beside any live one.

`./ops/stack up` starts it and sees the pipeline succeed. Or testcontainers starts it from what `up` decides (images,
secrets, .env), as `docker compose up` by hand would; then `up` must find nothing to change.
"""

from __future__ import annotations

import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from types import MappingProxyType

import pytest
from testcontainers.compose import DockerCompose

from ops import backup_config, secrets_store, settings_file
from ops.deployment import configure
from ops.images.resolve import resolve_images
from ops.project import ROOT, Project
from ops.services import BACKUP, DEFAULT_PROFILES, PUBLISHED
from tests.docker_session import remove_session, session_name
from tests.failure_report import explanation
from tests.stack import Stack


@contextmanager
def stack_for(
    request: pytest.FixtureRequest,
    tmp_path_factory: pytest.TempPathFactory,
    *,
    dags: Path | None = None,
    profiles: Sequence[str] = DEFAULT_PROFILES,
    settings: Mapping[str, object] | None = None,
    secrets: Mapping[str, str] = MappingProxyType({}),
    by_hand: bool = False,
) -> Iterator[Stack]:
    """Provide the stack that `--stack` names: one of the tests' own, or the running one, which is not changed.

    When a test fails on the tests' own stack, the log and state of every container are kept.

    Args:
        request: The request of the fixture.
        tmp_path_factory: Creates the stack's state folder.
        dags: A folder of DAGs beside those of dags/.
        profiles: The profiles of the tests' own stack.
        settings: Further settings in its .env.
        secrets: The text of files in its secrets/ that an operator writes.
        by_hand: Whether `docker compose up` starts it.
    """
    reports = ROOT / "reports" / request.node.path.relative_to(ROOT / "tests").parts[0]
    if request.config.getoption("--stack") == "running":
        with running_stack(dags, reports=reports) as stack:
            yield stack
        return
    state = tmp_path_factory.mktemp("stack")
    failed_before = request.session.testsfailed
    shown = request.config.pluginmanager.getplugin("capturemanager").global_and_fixture_disabled
    settings = {"PATCHES": request.config.getoption("--patches"), **(settings or {})}
    with ExitStack() as until_done:
        with shown():
            print(f"\nbringing up a stack of the tests' own ({state})", flush=True)
            own = own_stack(
                state, reports, dags, profiles=profiles, settings=settings, secrets=secrets, by_hand=by_hand
            )
            stack = until_done.enter_context(own)
        yield stack
        if request.session.testsfailed > failed_before:
            with shown():
                keep_logs(stack)


@contextmanager
def own_stack(
    state: Path,
    reports: Path,
    dags: Path | None = None,
    *,
    profiles: Sequence[str],
    settings: Mapping[str, object],
    secrets: Mapping[str, str] = MappingProxyType({}),
    by_hand: bool = False,
) -> Iterator[Stack]:
    """Run a separate stack with its own name, ports, secrets and DAG folder, for the duration of the block.

    Args:
        state: An empty folder, for its .env, its secrets and its DAGs.
        reports: The folder for logs of a failure.
        dags: A folder of DAGs beside those of dags/.
        profiles: The profiles to run.
        settings: Further settings in its .env.
        secrets: The text of files in its secrets/ that an operator writes.
        by_hand: Whether `docker compose up` starts it.
    """
    copied = copy_dags(state / "dags", dags)
    chosen = {
        "COMPOSE_PROJECT_NAME": session_name(),
        "COMPOSE_PROFILES": ",".join(profiles),
        **{published.port: free_port() for published in PUBLISHED},
        "DAGS_DIR": copied,
        "PLUGINS_DIR": copied / "plugins",
        "WORKER_STOP_GRACE": "1m",
        **settings,
    }
    if BACKUP in profiles:
        project = Project(ROOT, state)
        secrets_store.generate(project)
        chosen[backup_config.STORED] = backup_config.digest(project)
    for name, text in secrets.items():
        (state / "secrets" / name).write_text(f"{text}\n")
        (state / "secrets" / name).chmod(0o600)
    (state / ".env").write_text("".join(f"{key}={value}\n" for key, value in chosen.items()))
    state.chmod(0o755)  # pytest's folders are private, and containers read the DAGs as another user
    stack = Stack(state=state, dags=copied, reports=reports)
    started = time.time()
    try:
        try:
            if by_hand:
                start_by_hand(stack.project)
            stack.command("up", stdout=sys.stdout)
        except Exception as error:
            error.add_note(explanation(stack, "bring-up", started))
            keep_logs(stack)
            raise
        yield stack
    finally:
        # At once: nothing of it is kept, and a stop of every service in its order takes half a minute.
        remove_session()


def start_by_hand(project: Project) -> None:
    """Start a stack with `docker compose up`, after `./ops/stack up` has decided its images, secrets and .env."""
    decided = settings_file.read(project)
    images = resolve_images(ROOT, print, settings_file.profiles(decided))
    configure(project, decided, images)
    DockerCompose(project.compose_directory, env_file=str(project.env_file), wait=False).start()


def copy_dags(target: Path, more: Path | None) -> Path:
    """Copy dags/, and more files if given, into a folder that containers can read; return it."""
    shutil.copytree(ROOT / "dags", target)
    if more:
        shutil.copytree(more, target, dirs_exist_ok=True)
    for path in [target, *target.rglob("*")]:
        path.chmod(0o755 if path.is_dir() else 0o644)
    return target


def free_port() -> int:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return int(listener.getsockname()[1])


@contextmanager
def running_stack(dags: Path | None = None, *, reports: Path) -> Iterator[Stack]:
    """Provide the running stack, with these DAGs too for the duration of the block."""
    running = Stack(state=ROOT / "compose", dags=ROOT / "dags", reports=reports)
    files = [file.relative_to(dags) for file in dags.rglob("*.py")] if dags else []
    copied = [Path(shutil.copy(dags / file, running.dags / file)) for file in files if dags]
    try:
        yield running
    finally:
        for file in copied:
            file.unlink(missing_ok=True)


def keep_logs(stack: Stack) -> None:
    """Write the log and state of every container into the stack's folder of reports."""
    stack.reports.mkdir(parents=True, exist_ok=True)
    for container in stack.containers(include_exited=True):
        name = f"{container.service}-{container.id[:12]}"
        for suffix, command in [(".log", ["logs", "--timestamps"]), (".json", ["inspect"])]:
            with (stack.reports / f"{name}{suffix}").open("w") as file:
                subprocess.run(["docker", *command, container.id], stdout=file, stderr=subprocess.STDOUT, check=False)
    print(f"\nevery container's log and state: {stack.reports.relative_to(ROOT)}/", flush=True)
