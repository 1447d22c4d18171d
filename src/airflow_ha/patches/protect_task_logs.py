"""DAG code cannot write to the folder of task logs: neither a task, nor a DAG file, nor a trigger.

Problem: Airflow runs DAG code as the same user as the supervisor that writes its log. So a task can forge, empty and
delete the logs of other DAGs, and put links there for the server that reads them.
Patch: the forked process gives up its right to write below `[logging] base_log_folder`, by Landlock. Its supervisor
writes the log.
Applies to: Airflow 3.3.2, `airflow.sdk.execution_time.supervisor._fork_main`; Linux 5.19 or later.
Upstream issue: none found.
Remove when: tasks run as another user than their supervisor.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any, Final, NoReturn

from airflow.configuration import conf
from airflow.sdk.execution_time import supervisor

from airflow_ha.task_process import landlock

LOGS: Final = Path(conf.get_mandatory_value("logging", "base_log_folder")).expanduser()

_fork_main: Any = supervisor._fork_main


def fork_main(*args: Any, **kwargs: Any) -> NoReturn:
    """Give up the right in the forked child, then run upstream's main function."""
    landlock.forbid_writes(LOGS)
    _fork_main(*args, **kwargs)
    raise AssertionError("upstream's function never returns")


def apply() -> None:
    """Confine each process that runs DAG code.

    Raises:
        OSError: the kernel cannot confine a process.
    """
    if reason := landlock.obstacle():
        raise OSError(f"{reason}. hint: use a newer kernel, or PATCHES_DISABLED=protect_task_logs")
    supervisor._fork_main = fork_main
