"""actionlint detects errors in expressions, in the repository's own actions and in scripts, which a schema does not."""

from __future__ import annotations

import pytest

from ops.ci import actionlint
from ops.project import ROOT

WORKFLOW = """\
on: push
permissions: {{}}
jobs:
  job:
    runs-on: {runner}
    steps:
      - {step}
"""
ACTION = """\
name: one
description: The repository's own action
runs:
  using: composite
  steps: []
"""


@pytest.fixture(scope="module")
def reference():
    return actionlint.image(ROOT, print)


@pytest.fixture
def check(reference, tmp_path, capfd):
    """Check a workflow with one step; return the exit code and the output."""

    def run(step: str, runner: str = "ubuntu-24.04-arm") -> tuple[int, str]:
        folder = tmp_path / ".github/workflows"
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "ci.yaml").write_text(WORKFLOW.format(step=step, runner=runner))
        (tmp_path / ".github/actions/one").mkdir(parents=True, exist_ok=True)
        (tmp_path / ".github/actions/one/action.yaml").write_text(ACTION)
        # The container has another user, and pytest's folders are private.
        for path in [tmp_path, *tmp_path.rglob("*")]:
            path.chmod(0o755 if path.is_dir() else 0o644)
        status = actionlint.check(tmp_path, reference, [".github/workflows/ci.yaml"])
        return status, capfd.readouterr().out

    return run


def test_a_good_workflow_passes(check):
    assert check("run: echo well") == (0, "")


@pytest.mark.parametrize(
    ("step", "finding"),
    [
        ("run: echo ${{ github.nothing_of_this_name }}", "nothing_of_this_name"),
        ("{ uses: ./.github/actions/one, with: { colour: red } }", 'input "colour"'),
        ("run: echo $HOME/a b | read", "SC2086"),
        ('run: echo "${{ github.event.issue.title }}"', "untrusted"),
    ],
)
def test_a_broken_or_unsafe_workflow_is_refused(check, step, finding):
    status, output = check(step)
    assert status != 0
    assert finding in output


def test_an_unknown_runner_is_refused(check):
    status, output = check("run: echo well", runner="ubuntu-24.04-sparc")
    assert status != 0
    assert "ubuntu-24.04-sparc" in output
