"""ops/stack, until it starts Python."""

from __future__ import annotations

import os
import shutil
import subprocess

from ops.project import ROOT


def test_compiled_python_is_kept_in_the_projects_folder(tmp_path):
    shutil.copytree(ROOT / "ops/bootstrap", tmp_path / "ops/bootstrap")
    shutil.copy(ROOT / "ops/stack", tmp_path / "ops/stack")
    python = tmp_path / ".venv/bin/python"
    python.parent.mkdir(parents=True)
    python.write_text('#!/bin/sh\necho "${PYTHONDONTWRITEBYTECODE-unset} $PYTHONPYCACHEPREFIX"\n')
    python.chmod(0o755)
    (tmp_path / ".venv/.synced-ops").touch()  # newer than its inputs
    for name in ("uv.lock", "pyproject.toml"):
        (tmp_path / name).touch()
        os.utime(tmp_path / name, (0, 0))

    done = subprocess.run(
        [tmp_path / "ops/stack", "--help"],
        env={**os.environ, "PYTHONDONTWRITEBYTECODE": "1"},
        capture_output=True,
        text=True,
        check=True,
    )

    assert done.stdout == f"unset {tmp_path}/.venv/bytecode\n"
