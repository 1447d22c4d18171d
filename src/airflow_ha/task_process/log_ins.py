"""A pool process gives up its worker's log-ins to Redis and Postgres before it runs tasks.

Tasks are forked from it, as the same user: they have its memory, its open files and its rights on files. The main
process takes messages and stores results (result_channel.py), so a pool process needs no log-in. It overwrites the
passwords in its memory, and gives up the rights to read their files and to signal processes that it did not fork. Its
tasks also lose the pipes to the main process, which trusts what it reads there. Workers load this module
(patches/loader.py). Without Landlock a task can read the files in any case; the log has a warning.
"""

from __future__ import annotations

import logging
import os
import socket
import stat
from contextlib import suppress
from typing import TYPE_CHECKING, Any, Final

from celery.signals import worker_init, worker_process_init

from airflow_ha import secret_masking
from airflow_ha.task_process import landlock, memory

if TYPE_CHECKING:
    from pathlib import Path

NAMES: Final = (
    *("celery_broker_url", "celery_sentinel_kwargs", "celery_result_backend"),
    *("postgres_client.pem", "redis_client.pem"),
)
"""The secret files of a worker. Others, which an operator adds for tasks, stay readable."""
MIN_LENGTH: Final = 16
"""A shorter password is not overwritten, because other memory may contain the same bytes."""
FIRST_FILE: Final = 3
"""The first file descriptor after input, output and errors."""

log = logging.getLogger(__name__)


@worker_init.connect  # type: ignore[untyped-decorator]
def report(**_: Any) -> None:
    """Log what leaves the log-ins to the tasks."""
    if obstacle := landlock.obstacle():
        log.warning("tasks can read this worker's log-ins to Redis and Postgres: %s", obstacle)
    elif any(len(password) < MIN_LENGTH for password in passwords(files())):
        log.warning(
            "tasks can find a password of this worker in memory. hint: use at least %d characters in compose/secrets",
            MIN_LENGTH,
        )


@worker_process_init.connect  # type: ignore[untyped-decorator]
def give_up(**_: Any) -> None:
    """Give up the log-ins, for this pool process and the tasks that it will fork."""
    if (hidden := files()) and not landlock.obstacle():
        try:
            memory.overwrite(password for password in passwords(hidden) if len(password) >= MIN_LENGTH)
            landlock.forbid_reads(hidden)
        except OSError as error:
            log.warning("tasks can find this worker's log-ins to Redis and Postgres: %s", error)
    nothing = os.open(os.devnull, os.O_RDWR | os.O_CLOEXEC)
    pipes, connections = inherited_files()
    replace(connections, nothing)
    pool_process = os.getpid()

    def replace_pipes() -> None:
        if os.getppid() == pool_process:  # not in a process that a task forks: it may use these numbers itself
            replace(pipes, nothing)

    os.register_at_fork(after_in_child=replace_pipes)


def files() -> list[Path]:
    """Return the secret files of this worker."""
    return [path for name in NAMES if (path := secret_masking.SECRETS / name).exists()]


def passwords(hidden: list[Path]) -> set[str]:
    """Return the passwords in secret files, as they are and quoted for a URL."""
    texts = [file.read_text().strip() for file in hidden]
    return {password for text in texts for password in secret_masking.secrets_in(text)} - set(texts)


def inherited_files() -> tuple[list[int], list[int]]:
    """Return the pipes and, separately, the network connections and event queues from the main process."""
    pipes, connections = [], []
    for number in map(int, os.listdir("/proc/self/fd")):  # noqa: PTH208
        with suppress(OSError):  # the folder itself was open
            kind = os.fstat(number).st_mode
            if number < FIRST_FILE:
                continue
            if stat.S_ISFIFO(kind):
                pipes.append(number)
            elif is_connection(number, kind) or is_event_queue(number):
                connections.append(number)
    return pipes, connections


def is_connection(number: int, kind: int) -> bool:
    """Return whether a file is a stream to another host. Metrics are sent as datagrams."""
    if not stat.S_ISSOCK(kind):
        return False
    with socket.socket(fileno=os.dup(number)) as copy:
        return copy.type == socket.SOCK_STREAM and copy.family in (socket.AF_INET, socket.AF_INET6)


def is_event_queue(number: int) -> bool:
    """Return whether a file is an epoll instance, which a fork shares with its parent."""
    return os.readlink(f"/proc/self/fd/{number}") == "anon_inode:[eventpoll]"  # noqa: PTH115


def replace(numbers: list[int], nothing: int) -> None:
    """Replace files by the null device: an object that has a closed one would later close another file."""
    for number in numbers:
        os.dup2(nothing, number, inheritable=False)
