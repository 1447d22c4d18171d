"""Where the project's files are, and the few facts about it that more than one command needs."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Mapping

ROOT: Final = Path(__file__).resolve().parents[1]


PIPELINE: Final = "ml_pipeline_dag"
"""The DAG whose success ends `up`."""
RUNBOOK_BASE_URL: Final = "https://github.com/airflow-ha/airflow-ha/blob/main"
"""Where people read this repository's files: messages lead to alerting/runbooks there."""
ADMIN: Final = "admin"
"""The user of Airflow and of Flower."""


@dataclass(frozen=True)
class Project:
    """One stack: the repository's files, and the state of this machine's stack.

    Attributes:
        root: The repository.
        state: The folder of `.env`, `secrets/` and the lock: compose/, or what STACK_STATE_DIR names (a second stack).
    """

    root: Path
    state: Path

    @property
    def compose_directory(self) -> Path:
        """The folder of the compose files."""
        return self.root / "compose"

    @property
    def env_file(self) -> Path:
        """The settings; see ops/settings_file.py."""
        return self.state / ".env"

    @property
    def secrets(self) -> Path:
        """The folder of the secrets; see ops/secrets_store.py."""
        return self.state / "secrets"

    @property
    def generated(self) -> Path:
        """The folder of what `up` writes for Prometheus and Alertmanager; see ops/observability/generated_config.py."""
        return self.state / "generated"

    @property
    def is_default(self) -> bool:
        """Whether the state is beside the compose files, where `docker compose` by hand finds it."""
        return self.state == self.compose_directory

    def shown(self, path: Path) -> str:
        """A path as people would type it from the repository, if it is inside."""
        return str(path.relative_to(self.root)) if path.is_relative_to(self.root) else str(path)


def current_project() -> Project:
    """The project that this command is about."""
    state = os.environ.get("STACK_STATE_DIR")
    return Project(root=ROOT, state=Path(state).resolve() if state else ROOT / "compose")


def dags_folder(project: Project, settings: Mapping[str, str]) -> Path:
    """The folder that Airflow reads DAGs from, by .env."""
    return (project.compose_directory / (settings.get("DAGS_DIR") or "../dags")).resolve()


def plugins_folder(project: Project, settings: Mapping[str, str]) -> Path:
    """The folder that Airflow loads plugins and shared modules from, by .env."""
    return (project.compose_directory / (settings.get("PLUGINS_DIR") or "../dags/plugins")).resolve()
