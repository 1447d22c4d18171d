"""A DAG file that a drill or a bench adds to the DAG folder while it runs."""

from __future__ import annotations

import shutil
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING

from ops.clients.airflow import dag_path
from ops.waiting import wait

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from ops.clients.airflow import AirflowClient

DAG_SECONDS = 90.0
"""Timeout of Airflow parsing a new DAG file, or noticing that a file was deleted."""
DELETE_SECONDS = 300.0
"""Timeout of the deletion of a DAG with thousands of task instances."""


@dataclass(frozen=True)
class DagFile:
    """A DAG file and the ids of its DAGs."""

    path: Path
    ids: tuple[str, ...]

    @contextmanager
    def in_place(
        self, folder: Path, api: AirflowClient, report: Callable[[str], None], *, keep_runs: bool = False
    ) -> Iterator[None]:
        """Keep the file in the DAG folder for the duration of the block.

        Args:
            folder: The folder that Airflow reads DAGs from.
            api: The API of that Airflow.
            report: Prints a line of progress.
            keep_runs: Leave the DAGs' runs in the database afterwards, for an investigation.

        Raises:
            StackError: Airflow did not parse the file, or did not remove its DAGs after the file was deleted.
        """
        target = folder / self.path.name
        shutil.copy(self.path, target)
        target.chmod(0o644)
        try:
            wait(lambda: all(map(api.has_dag, self.ids)), DAG_SECONDS, f"Airflow has parsed {target.name}", report)
            yield
        finally:
            target.unlink(missing_ok=True)
            if not keep_runs:
                # Airflow recreates a DAG that is deleted before its file is forgotten.
                wait(
                    lambda: not any(map(api.has_dag, self.ids)),
                    DAG_SECONDS,
                    f"Airflow has removed the DAGs of {target.name}",
                    report,
                )
                for dag_id in self.ids:
                    api.ask("DELETE", dag_path(dag_id), missing=True, timeout=DELETE_SECONDS)
