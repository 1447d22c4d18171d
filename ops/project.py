"""The locations of the project's files, and facts that several commands share."""

from __future__ import annotations

import os
import tomllib
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Mapping

ROOT: Final = Path(__file__).resolve().parents[1]
PIPELINE: Final = "ml_pipeline_dag"
"""The DAG whose successful run completes `up`."""
RUNBOOK_BASE_URL: Final = "https://github.com/airflow-ha/airflow-ha/blob/main"
"""The base of the links to alerting/runbooks in messages."""
ADMIN: Final = "admin"
"""The user of Airflow and of Flower."""


@dataclass(frozen=True)
class Project:
    """One stack: the repository's files, and the state of this machine's stack.

    Attributes:
        root: The repository.
        state: The folder of `.env`, `secrets/` and the lock: compose/, or STACK_STATE_DIR for a second stack.
    """

    root: Path
    state: Path

    @property
    def compose_directory(self) -> Path:
        """The folder of the compose files."""
        return self.root / "compose"

    @property
    def env_file(self) -> Path:
        """The file of the settings; see ops/settings_file.py."""
        return self.state / ".env"

    @property
    def secrets(self) -> Path:
        """The folder of the secrets; see ops/secrets_store.py."""
        return self.state / "secrets"

    @property
    def generated(self) -> Path:
        """The folder of the generated configuration; see ops/observability/generated_config.py."""
        return self.state / "generated"

    @property
    def is_default(self) -> bool:
        """Whether the state is in compose/, where a manual `docker compose` reads it."""
        return self.state == self.compose_directory

    def shown(self, path: Path) -> str:
        """Return a path relative to the repository if it is inside, else the absolute path."""
        return str(path.relative_to(self.root)) if path.is_relative_to(self.root) else str(path)


def current_project() -> Project:
    """Return the project of STACK_STATE_DIR, by default that of compose/."""
    state = os.environ.get("STACK_STATE_DIR")
    return Project(root=ROOT, state=Path(state).resolve() if state else ROOT / "compose")


def version(root: Path) -> str:
    """Return the project's version; pyproject.toml is its only place."""
    return str(tomllib.loads((root / "pyproject.toml").read_text(encoding="utf-8"))["project"]["version"])


def dags_folder(project: Project, settings: Mapping[str, str]) -> Path:
    """Return the folder that Airflow reads DAGs from, by DAGS_DIR."""
    return (project.compose_directory / (settings.get("DAGS_DIR") or "../dags")).resolve()


def plugins_folder(project: Project, settings: Mapping[str, str]) -> Path:
    """Return the folder that Airflow loads plugins and shared modules from, by PLUGINS_DIR."""
    return (project.compose_directory / (settings.get("PLUGINS_DIR") or "../dags/plugins")).resolve()
