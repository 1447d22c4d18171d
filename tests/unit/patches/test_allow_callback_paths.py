"""A worker runs callbacks of the deployment's own code and of notifiers, and no others."""

from __future__ import annotations

import sys

import pytest
import structlog
from airflow.sdk.execution_time import callback_supervisor

from tests.unit.patches.loading import applied

MODULE = """
import os
from os import system
from subprocess import run as imported

def defined(**arguments):
    return arguments

class Notifier:
    def __call__(self, *arguments):
        return arguments
"""
DAG_FILE = "unusual_prefix_0123456789abcdef_a_dag"
REFUSED = [
    "os.system", "subprocess.run", "builtins.exec", "airflow.utils.db.resetdb", "nowhere.function", "", "function",
    "in_plugins.system", "in_plugins.imported", "in_plugins.os.system", "in_plugins.missing", "in_bundle.system",
    "outside.defined", f"{DAG_FILE}.system", f"{DAG_FILE}.missing", "..os.system",
    "airflow.providers.smtp.hooks.smtp.SmtpHook",
]  # fmt: skip


@pytest.fixture
def patch(tmp_path, monkeypatch):
    """The patch, and a bundle and a plugins folder with modules."""
    for file in ("bundle/a_dag", "bundle/in_bundle", "plugins/in_plugins", "plugins/package/module", "other/outside"):
        (tmp_path / file).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / f"{file}.py").write_text(MODULE)
    (tmp_path / "plugins/package/__init__.py").touch()
    for folder in ("bundle", "plugins", "other"):
        monkeypatch.syspath_prepend(tmp_path / folder)
    with applied("allow_callback_paths") as module:
        monkeypatch.setattr(module.conf, "get", lambda *_, **__: str(tmp_path / "plugins"))
        yield module
    for name in ("in_bundle", "in_plugins", "package", "package.module", "outside"):
        sys.modules.pop(name, None)


def run(path: str, bundle, dag_file: str = "a_dag.py") -> tuple[bool, str | None]:
    """Run a callback as its process does."""
    return callback_supervisor.execute_callback(path, {}, dag_file, str(bundle), structlog.get_logger("callback"))


@pytest.mark.parametrize(
    "path",
    [
        f"{DAG_FILE}.defined",
        f"{DAG_FILE}.Notifier",
        "in_bundle.defined",
        "in_plugins.defined",
        "in_plugins.Notifier",
        "package.module.defined",
    ],
)
@pytest.mark.usefixtures("patch")
def test_callback_of_the_deployment_runs(tmp_path, path):
    assert run(path, tmp_path / "bundle") == (True, None)


@pytest.mark.usefixtures("patch")
def test_any_other_callback_is_refused_unimported(tmp_path):
    for path in REFUSED:
        success, reason = run(path, tmp_path / "bundle")
        assert not success, path
        assert "CALLBACK_PATHS" in (reason or ""), path
    assert not {"outside", "in_plugins"} & sys.modules.keys()


@pytest.mark.usefixtures("patch")
@pytest.mark.parametrize("dag_file", ["../other/outside.py", "/etc/passwd", "missing.py", "link.py"])
def test_dag_file_outside_the_bundle_is_refused(tmp_path, dag_file):
    (tmp_path / "bundle/link.py").symlink_to(tmp_path / "other/outside.py")
    success, reason = run(f"{DAG_FILE}.defined", tmp_path / "bundle", dag_file)
    assert not success
    assert "CALLBACK_PATHS" in (reason or "")


def test_notifiers_and_listed_paths_are_allowed(patch, monkeypatch):
    assert patch.is_allowed("airflow.providers.amazon.aws.notifications.sns.SnsNotifier", "", "")
    assert not patch.is_allowed("company.alerts.page", "", "")
    monkeypatch.setattr(patch, "ALLOWED", ("company.alerts.page", "shared."))
    assert patch.is_allowed("company.alerts.page", "", "")
    assert patch.is_allowed("shared.any.function", "", "")
    assert not patch.is_allowed("company.alerts.page_all", "", "")
    assert not patch.is_allowed("company.alerts.page.other", "", "")


def test_upstream_runs_any_function(tmp_path):
    """If this fails, Airflow checks the paths: delete allow_callback_paths and this file."""
    assert run("gc.collect", tmp_path) == (True, None)
