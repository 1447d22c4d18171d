"""A project of paper: the real compose files, a state folder of its own, a `docker` that answers what a test says."""

from __future__ import annotations

import json
import os
import sys
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from ops.project import ROOT, Project

# Without site-packages, which would take most of its time.
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
    """Answers by a part of the command line; the first that fits counts, and what none fits succeeds with nothing."""

    folder: Path
    answers: dict[str, dict[str, Any]] = field(default_factory=dict)

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
