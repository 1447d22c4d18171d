"""A process that gave up a folder can write beside it, and to nothing in it."""

from __future__ import annotations

import json
import subprocess
import sys
from types import SimpleNamespace

import pytest

from airflow_ha.task_process import landlock

CONFINED = """
import ctypes, json, os, sys
from pathlib import Path
from airflow_ha.task_process import landlock
home = Path(sys.argv[1])
logs, artifacts = home / "logs", home / "artifacts"
landlock.forbid_writes(home / "logs-link")
ACTIONS = {
    "read": lambda: (logs / "d/a.log").read_text(),
    "append": lambda: (logs / "d/a.log").open("a"),
    "create": lambda: (logs / "d/b.log").touch(),
    "make folder": lambda: (logs / "e").mkdir(),
    "link": lambda: (logs / "l").symlink_to("/etc"),
    "remove": lambda: (logs / "d/a.log").unlink(),
    "truncate": lambda: os.truncate(logs / "d/a.log", 0),
    "move out": lambda: (logs / "d").rename(artifacts / "d"),
    "move in": lambda: (artifacts / "old").rename(logs / "new"),
    "hard link out": lambda: os.link(logs / "d/a.log", artifacts / "a.log"),
    "by a link": lambda: (artifacts / "to-logs/d/a.log").open("a"),
    "by a child": lambda: os.execvp("true", ["true"]) if os.spawnlp(
        os.P_WAIT, "sh", "sh", "-c", f"echo x >> {logs}/d/a.log") == 0 else (_ for _ in ()).throw(OSError("refused")),
    "trace the parent": lambda: ctypes.CDLL(None).ptrace(16, os.getppid(), 0, 0) == 0 or (
        _ for _ in ()).throw(OSError("refused")),
    "write beside": lambda: (artifacts / "x").write_text("x"),
    "move beside": lambda: (artifacts / "x").rename(home / "dags/x"),
    "write to a device": lambda: Path("/dev/null").write_text("x"),
    "write to proc": lambda: Path("/proc/self/oom_score_adj").write_text("500"),
}
outcomes = {}
for name, action in ACTIONS.items():
    try:
        action()
        outcomes[name] = True
    except OSError:
        outcomes[name] = False
print(json.dumps(outcomes))
"""
ALLOWED = {"read", "write beside", "move beside", "write to a device", "write to proc"}

needs_landlock = pytest.mark.skipif(bool(landlock.obstacle()), reason=landlock.obstacle())


@needs_landlock
def test_confined_process_writes_beside_the_folder_only(tmp_path):
    for folder in ("logs/d", "artifacts/old", "dags"):
        (tmp_path / folder).mkdir(parents=True)
    (tmp_path / "logs/d/a.log").write_text("a line")
    (tmp_path / "logs-link").symlink_to("logs")
    (tmp_path / "artifacts/to-logs").symlink_to("../logs")
    process = subprocess.run(
        [sys.executable, "-c", CONFINED, str(tmp_path)], capture_output=True, text=True, timeout=60, check=True
    )
    outcomes = json.loads(process.stdout)
    assert {name for name, done in outcomes.items() if done} == ALLOWED
    assert (tmp_path / "logs/d/a.log").read_text() == "a line"
    assert sorted(path.name for path in (tmp_path / "logs").rglob("*")) == ["a.log", "d"]


@pytest.mark.parametrize(("version", "usable"), [(-1, False), (1, False), (2, True), (7, True)])
def test_kernel_without_landlock_is_reported(monkeypatch, version, usable):
    monkeypatch.setattr(landlock, "_libc", SimpleNamespace(syscall=lambda *_: version))
    assert ("Linux 5.19" in landlock.obstacle()) is not usable
