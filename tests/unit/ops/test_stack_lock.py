"""The stack's lock outlives a killed command while its `docker compose` still changes containers."""

from __future__ import annotations

import os
import signal
import subprocess
import sys

import pytest

from ops.errors import StackError
from ops.lock import stack_lock
from ops.project import ROOT, Project

COMMAND = """
import sys
from pathlib import Path
from ops import child_process, lock
from ops.project import ROOT, Project
with lock.stack_lock(Project(ROOT, Path(sys.argv[1])), "up", print):
    child_process.run_with_progress(sys.argv[2:], lambda _: None, print, None, tuple(lock.held))
"""


def test_lock_is_kept_by_the_child_of_a_killed_command(tmp_path):
    project = Project(ROOT, tmp_path)
    program = 'import os, sys, time; open(sys.argv[1], "w").write(str(os.getpid())); time.sleep(60)'
    started = tmp_path / "started"
    os.mkfifo(started)
    child = [sys.executable, "-c", program, str(started)]
    with subprocess.Popen([sys.executable, "-c", COMMAND, str(tmp_path), *child], cwd=ROOT) as command:
        process = int(started.read_text())
        command.kill()
    with pytest.raises(StackError, match="ops/stack up"), stack_lock(project, "restore", print, wait_seconds=0):
        pass
    os.kill(process, signal.SIGKILL)
    with stack_lock(project, "restore", print, wait_seconds=10):
        pass
