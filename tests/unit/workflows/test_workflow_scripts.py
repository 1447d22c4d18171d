"""The scripts in the workflows, run as on a GitHub runner, with fake programs in PATH."""

from __future__ import annotations

import datetime
import os
import subprocess
import tomllib

import pytest
import yaml

from ops.project import ROOT

TAG = "v" + tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["version"]


@pytest.fixture
def step(tmp_path):
    """A function that runs the script of a workflow's job that contains a word; returns its exit code and outputs."""
    (tmp_path / "bin").mkdir()
    (tmp_path / "pyproject.toml").write_text((ROOT / "pyproject.toml").read_text())

    def run(workflow: str, job: str, word: str, **environment: str) -> tuple[int, dict[str, str]]:
        model = yaml.safe_load((ROOT / ".github/workflows" / workflow).read_text())
        (script,) = (step["run"] for step in model["jobs"][job]["steps"] if word in step.get("run", ""))
        output = tmp_path / "output"
        output.write_text("")
        result = subprocess.run(
            # The command of `shell: bash`: https://docs.github.com/en/actions/reference/workflow-syntax-for-github-actions
            ["bash", "--noprofile", "--norc", "-eo", "pipefail", "-c", script],
            cwd=tmp_path,
            env={
                "PATH": f"{tmp_path}/bin:{os.environ['PATH']}",
                "GITHUB_OUTPUT": str(output),
                "GITHUB_ENV": str(tmp_path / "environment"),
                **environment,
            },
            capture_output=True,
            check=False,
        )
        return result.returncode, outputs(output.read_text())

    return run


def outputs(text: str) -> dict[str, str]:
    """Return the outputs in $GITHUB_OUTPUT: `name=value`, or several lines up to a delimiter."""
    values, lines = {}, iter(text.splitlines())
    for line in lines:
        name, separator, value = line.partition("<<")
        if separator:
            values[name] = "\n".join(iter(lambda: next(lines), value))
        else:
            name, _, values[name] = line.partition("=")
    return values


@pytest.fixture
def program(tmp_path):
    """A function that adds a program to PATH, or at its path; its arguments are recorded in `calls`."""

    def write(name: str, script: str) -> None:
        path = tmp_path / name if "/" in name else tmp_path / "bin" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(f'#!/bin/sh\necho "$*" >> "{tmp_path}/calls"\n{script}\n')
        path.chmod(0o755)

    return write


def calls(tmp_path):
    return (tmp_path / "calls").read_text().splitlines()


# ---- release


def test_version_tag_names_the_image_in_lower_case(step):
    status, step_outputs = step(
        "release.yaml", "version", "GITHUB_REF_NAME", GITHUB_REF_NAME=TAG, GITHUB_REPOSITORY="Us/HA"
    )
    assert status == 0
    assert step_outputs == {"repository": "ghcr.io/us/ha", "version": TAG.removeprefix("v")}


@pytest.mark.parametrize("tag", ["v99.0.0", "v", "v.*", 'v"$(id)"'])
def test_other_tag_releases_nothing(step, tag):
    status, step_outputs = step(
        "release.yaml", "version", "GITHUB_REF_NAME", GITHUB_REF_NAME=tag, GITHUB_REPOSITORY="us/ha"
    )
    assert (status, step_outputs) == (1, {})


def test_signed_digest_is_the_index_of_both_architectures(step, program, tmp_path):
    program("docker", """[ "$3" = create ] || echo '{"digest": "sha256:index"}'""")
    program("jq", "sed 's/.*\\(sha256:[a-z]*\\).*/\\1/'")
    environment = {"REPOSITORY": "ghcr.io/us/ha", "VERSION": "1.2.3", "AMD64": "sha256:a", "ARM64": "sha256:b"}
    status, step_outputs = step("release.yaml", "publish", "imagetools create", **environment)
    assert (status, step_outputs) == (0, {"digest": "sha256:index"})
    created = "buildx imagetools create --tag ghcr.io/us/ha:1.2.3 ghcr.io/us/ha@sha256:a ghcr.io/us/ha@sha256:b"
    assert calls(tmp_path)[0] == created


# ---- nightly


def test_changes_of_the_lock_are_an_output(step, program):
    program(".bootstrap/bin/uv", "echo 'Resolved 256 packages'; echo 'Updated celery v5.6.3 -> v5.7.0' >&2")
    status, step_outputs = step("nightly.yaml", "tomorrow", "uv lock")
    assert (status, step_outputs) == (0, {"changes": "Updated celery v5.6.3 -> v5.7.0"})


def test_lock_and_install_use_the_versions_of_today(step, program, tmp_path):
    program(".bootstrap/bin/uv", 'echo "UV_EXCLUDE_NEWER=$UV_EXCLUDE_NEWER" > locked')
    assert step("nightly.yaml", "tomorrow", "uv lock")[0] == 0
    locked = (tmp_path / "locked").read_text()
    assert locked == (tmp_path / "environment").read_text()
    moment = datetime.datetime.fromisoformat(locked.strip().removeprefix("UV_EXCLUDE_NEWER="))
    assert datetime.timedelta(0) <= datetime.datetime.now(datetime.UTC) - moment < datetime.timedelta(minutes=5)


def test_unchanged_lock_is_no_failure(step, program):
    program(".bootstrap/bin/uv", "echo 'Resolved 256 packages'")
    assert step("nightly.yaml", "tomorrow", "uv lock") == (0, {"changes": ""})


def test_versions_that_do_not_resolve_fail_the_job(step, program):
    program(".bootstrap/bin/uv", "echo 'No solution found'; exit 1")
    assert step("nightly.yaml", "tomorrow", "uv lock")[0] == 1


@pytest.mark.parametrize(("open_issue", "command"), [("", "issue create"), ("17", "issue comment 17")])
def test_failure_opens_one_issue_and_then_comments(step, program, tmp_path, open_issue, command):
    program("gh", f'[ "$2" != list ] || echo "{open_issue}"')
    environment = {
        "RUN": "https://github.com/us/ha/actions/runs/1",
        "CHANGES": "Updated a v1 -> v2",
        "TITLE": "It fails",
    }
    assert step("nightly.yaml", "report", "gh issue", **environment) == (0, {})
    listing, posted = calls(tmp_path)
    assert "--state open" in listing
    assert posted.startswith(command)
    body = (tmp_path / "body.md").read_text()
    assert environment["RUN"] in body
    assert "Updated a v1 -> v2" in body
