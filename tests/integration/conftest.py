"""One real stack for all integration tests, on the very compose files that users run, beside any live one.

testcontainers starts it from what `./ops/stack up` decides (images, secrets, .env), as `docker compose up` by hand
would; then `./ops/stack up` itself must find nothing to change, and sees the pipeline succeed. `--stack=running` uses
the stack that is already up instead, and leaves it up.
"""

from __future__ import annotations

import shutil
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from testcontainers.compose import DockerCompose

from ops import environment_file
from ops.commands.up import prepare
from ops.project import Project
from tests.docker_session import session_name
from tests.integration.stack import ROOT, Stack, wait_until

TEST_DAGS = Path(__file__).parent / "dags"
REPORTS = ROOT / "reports" / "integration"


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption(
        "--stack",
        choices=["own", "running"],
        default="own",
        help="own: bring up a stack for the tests and remove it; running: use the one that is up",
    )


def free_port() -> int:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return int(listener.getsockname()[1])


def own_stack(state: Path) -> Stack:
    """A stack with a name, ports, secrets and DAG folder of its own."""
    dags = state / "dags"
    shutil.copytree(ROOT / "dags", dags)
    shutil.copytree(TEST_DAGS, dags, dirs_exist_ok=True)
    settings = {
        "COMPOSE_PROJECT_NAME": session_name(),
        "AIRFLOW_PORT": free_port(),
        "FLOWER_PORT": free_port(),
        "PROMETHEUS_PORT": free_port(),
        "ALERTMANAGER_PORT": free_port(),
        "ALERTMANAGER_2_PORT": free_port(),
        "SLACK_STUB_PORT": free_port(),
        "GRAFANA_PORT": free_port(),
        "JAEGER_PORT": free_port(),
        "DAGS_DIR": dags,
        "WORKER_STOP_GRACE": "1m",
    }
    (state / ".env").write_text("".join(f"{key}={value}\n" for key, value in settings.items()))
    # Containers read the DAGs as another user, and pytest's folders are private.
    state.chmod(0o755)
    for path in [dags, *dags.rglob("*")]:
        path.chmod(0o755 if path.is_dir() else 0o644)
    return Stack(state=state, dags=dags)


@pytest.fixture(scope="session")
def stack(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    """A healthy stack with the DAGs of dags/ and of tests/integration/dags/."""
    if request.config.getoption("--stack") == "running":
        running = Stack(state=ROOT / "compose", dags=ROOT / "dags")
        for dag in TEST_DAGS.glob("*.py"):
            shutil.copy(dag, running.dags)
        try:
            yield running
        finally:
            for dag in TEST_DAGS.glob("*.py"):
                (running.dags / dag.name).unlink(missing_ok=True)
        return

    state = tmp_path_factory.mktemp("stack")
    stack = own_stack(state)
    compose = DockerCompose(ROOT / "compose", env_file=str(state / ".env"), wait=False)
    try:
        with request.config.pluginmanager.getplugin("capturemanager").global_and_fixture_disabled():
            print(f"\nbringing up a stack of the tests' own ({state})", flush=True)
            project = Project(root=ROOT, state=state)
            prepare(project, environment_file.read(project))
            compose.start()
            stack.command("up", stdout=sys.stdout)
        yield stack
    finally:
        if request.session.testsfailed:
            keep_logs(stack)
        compose.stop(down=True)


def keep_logs(stack: Stack) -> None:
    """Every container's log and state, in one folder."""
    REPORTS.mkdir(parents=True, exist_ok=True)
    for container in stack.containers(include_exited=True):
        name = f"{container.service}-{container.id[:12]}"
        for suffix, command in [(".log", ["logs", "--timestamps"]), (".json", ["inspect"])]:
            with (REPORTS / f"{name}{suffix}").open("w") as file:
                subprocess.run(["docker", *command, container.id], stdout=file, stderr=subprocess.STDOUT, check=False)
    print(f"\nevery container's log and state: {REPORTS.relative_to(ROOT)}/", flush=True)


@pytest.fixture
def healthy_stack(stack: Stack) -> Iterator[Stack]:
    """A stack that is whole before the test, and is awaited whole after it: what one test breaks, no other meets."""
    wait_until(stack.ready, timeout=240, what="every service is healthy")
    yield stack
    wait_until(stack.ready, timeout=240, what="every service is healthy again")
