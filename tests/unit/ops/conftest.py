"""A project with the real compose files and its own state folder, and a fake `docker` with scripted answers."""

from __future__ import annotations

import json
import os
import sys
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from ops.project import ROOT, Project

# The fake runs without site-packages, whose import would take most of the start time.
FAKE_DOCKER = (
    f"#!{sys.executable} -SI\n"
    + """
import json, pathlib, signal, sys
folder = pathlib.Path(__file__).parent
arguments = sys.argv[1:]
with (folder / "calls.jsonl").open("a") as calls:
    calls.write(json.dumps(arguments) + "\\n")
for key, answer in json.loads((folder / "answers.json").read_text()).items():
    if key in " ".join(arguments):
        sys.stdout.write(answer.get("out", ""))
        sys.stderr.write(answer.get("err", ""))
        if answer.get("hangs"):
            signal.pause()
        sys.exit(answer.get("code", 0))
"""
)


@dataclass
class FakeDocker:
    """Scripted answers by a part of the command line.

    The first matching part counts; a command without a match succeeds without output.
    """

    folder: Path
    answers: dict[str, dict[str, Any]] = field(default_factory=dict)

    def answer_containers(self, *containers: dict[str, Any]) -> None:
        """Answer `ps --all` and `inspect` with these containers (tests/unit/stack_fakes.py)."""
        self.answer("ps --all", out="\n".join(container["Id"] for container in containers))
        self.answer("inspect", out=json.dumps(containers))

    def answer(self, part: str, out: str = "", err: str = "", code: int = 0, *, hangs: bool = False) -> None:
        self.answers[part] = {"out": out, "err": err, "code": code, "hangs": hangs}
        (self.folder / "answers.json").write_text(json.dumps(self.answers))

    def calls(self) -> list[list[str]]:
        path = self.folder / "calls.jsonl"
        return [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []


@pytest.fixture
def docker(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> FakeDocker:
    folder = tmp_path / "bin"
    folder.mkdir()
    (folder / "docker").write_text(FAKE_DOCKER)
    (folder / "docker").chmod(0o755)
    (folder / "answers.json").write_text("{}")
    monkeypatch.setenv("PATH", f"{folder}{os.pathsep}{os.environ['PATH']}")
    return FakeDocker(folder)


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Project:
    state = tmp_path / "state"
    state.mkdir()
    monkeypatch.setenv("STACK_STATE_DIR", str(state))
    return Project(root=ROOT, state=state)
