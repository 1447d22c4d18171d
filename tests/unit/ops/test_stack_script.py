"""ops/stack, until it starts Python."""

from __future__ import annotations

import base64
import hashlib
import os
import re
import shutil
import stat
import subprocess
import sys
import zipfile

import pytest

from ops.project import ROOT


@pytest.mark.parametrize("command", ["--help", "--version", "doctor", "support-bundle"])
def test_compiled_python_is_kept_in_the_projects_folder(tmp_path, command):
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

    # These need no Docker: this one does not answer.
    done = subprocess.run(
        [tmp_path / "ops/stack", command],
        env={**os.environ, "PYTHONDONTWRITEBYTECODE": "1", "PATH": "/usr/bin:/bin", "DOCKER_HOST": "tcp://127.0.0.1:1"},
        capture_output=True,
        text=True,
        check=True,
    )

    assert done.stdout == f"unset {tmp_path}/.venv/bytecode\n"


@pytest.fixture(scope="module")
def uv_wheel(tmp_path_factory):
    """A package uv 9.9.9 whose program prints its version."""
    path = tmp_path_factory.mktemp("wheels") / "uv-9.9.9-py3-none-any.whl"
    files = {
        "uv-9.9.9.data/scripts/uv": b"#!/bin/sh\necho uv 9.9.9\n",
        "uv-9.9.9.dist-info/METADATA": b"Metadata-Version: 2.1\nName: uv\nVersion: 9.9.9\n",
        "uv-9.9.9.dist-info/WHEEL": b"Wheel-Version: 1.0\nGenerator: test\nRoot-Is-Purelib: true\nTag: py3-none-any\n",
    }
    record = "".join(
        f"{name},sha256={base64.urlsafe_b64encode(hashlib.sha256(text).digest()).rstrip(b'=').decode()},{len(text)}\n"
        for name, text in files.items()
    )
    with zipfile.ZipFile(path, "w") as wheel:
        for name, text in {**files, "uv-9.9.9.dist-info/RECORD": record.encode()}.items():
            entry = zipfile.ZipInfo(name)
            entry.external_attr = (stat.S_IFREG | 0o755) << 16
            wheel.writestr(entry, text)
    return path


@pytest.mark.parametrize("is_known", [True, False])
def test_uv_is_installed_by_its_hash_only(tmp_path, uv_wheel, is_known):
    (tmp_path / "ops/bootstrap").mkdir(parents=True)
    digest = hashlib.sha256(uv_wheel.read_bytes() + (b"" if is_known else b"changed")).hexdigest()
    (tmp_path / "ops/bootstrap/uv-requirements.txt").write_text(f"# uv\nuv==9.9.9 \\\n    --hash=sha256:{digest}\n")
    script = f"set -e; STACK_ROOT={tmp_path}; . {ROOT}/ops/bootstrap/python.sh; install_uv; uv --version"
    done = subprocess.run(
        ["bash", "-c", script],
        env={**os.environ, "PIP_NO_INDEX": "1", "PIP_FIND_LINKS": str(uv_wheel.parent)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert (done.returncode == 0) is is_known, done.stderr
    assert (done.stdout == "uv 9.9.9\n") is is_known


def test_every_package_manager_of_the_bootstrap_checks_hashes():
    text = (ROOT / "ops/bootstrap/python.sh").read_text()
    installs = re.findall(r"^.*pip(?:\"|) (?:install|sync) .*$", text, re.MULTILINE)
    assert len(installs) == 3
    assert [line for line in installs if "--require-hashes" not in line] == []


def test_script_runs_its_own_code_in_the_root_of_another_checkout(tmp_path):
    own, other = (tmp_path / name for name in ("own", "other"))
    shutil.copytree(ROOT / "ops/bootstrap", own / "ops/bootstrap")
    shutil.copy(ROOT / "ops/stack", own / "ops/stack")
    (own / ".venv/bin").mkdir(parents=True)
    (own / ".venv/bin/python").symlink_to(sys.executable)
    for name in ("uv.lock", "pyproject.toml"):
        (own / name).touch()
    (own / ".venv/.synced-ops").touch()
    os.utime(own / "uv.lock", (0, 0))
    os.utime(own / "pyproject.toml", (0, 0))
    for root in (own, other):
        (root / "ops").mkdir(parents=True, exist_ok=True)
        (root / "ops/__init__.py").touch()
        (root / "ops/__main__.py").write_text(f"print('{root.name}')\n")
    done = subprocess.run([own / "ops/stack", "--help"], cwd=other, capture_output=True, text=True, check=False)
    assert (done.stdout, done.stderr) == ("own\n", "")
