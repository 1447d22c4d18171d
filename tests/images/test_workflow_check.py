"""actionlint finds what a schema cannot: in expressions, in the repository's own actions, in the scripts of steps."""

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
description: An action of the repository's own
runs:
  using: composite
  steps: []
"""


@pytest.fixture(scope="module")
def reference():
    return actionlint.image(ROOT, print)


@pytest.fixture
def check(reference, tmp_path, capfd):
    """What it says about a workflow with one step."""

    def run(step: str, runner: str = "ubuntu-24.04-arm") -> tuple[int, str]:
        folder = tmp_path / ".github/workflows"
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "ci.yaml").write_text(WORKFLOW.format(step=step, runner=runner))
        (tmp_path / ".github/actions/one").mkdir(parents=True, exist_ok=True)
        (tmp_path / ".github/actions/one/action.yaml").write_text(ACTION)
        # The container's user is another, and pytest's folders are private.
        for path in [tmp_path, *tmp_path.rglob("*")]:
            path.chmod(0o755 if path.is_dir() else 0o644)
        status = actionlint.check(tmp_path, reference, [".github/workflows/ci.yaml"])
        return status, capfd.readouterr().out

    return run


def test_a_good_workflow_passes(check):
    assert check("run: echo well") == (0, "")


@pytest.mark.parametrize(
    ("step", "found"),
    [
        ("run: echo ${{ github.nothing_of_this_name }}", "nothing_of_this_name"),
        ("{ uses: ./.github/actions/one, with: { colour: red } }", 'input "colour"'),
        ("run: echo $HOME/a b | read", "SC2086"),
        ('run: echo "${{ github.event.issue.title }}"', "untrusted"),
    ],
)
def test_a_workflow_that_would_fail_or_could_be_abused_is_refused(check, step, found):
    status, said = check(step)
    assert status != 0
    assert found in said


def test_a_runner_that_github_has_not_is_refused(check):
    status, said = check("run: echo well", runner="ubuntu-24.04-sparc")
    assert status != 0
    assert "ubuntu-24.04-sparc" in said
