"""The commands of the workflows exist and run locally, and their permissions are minimal."""

from __future__ import annotations

import importlib.util
import json
import re
import shlex
import tomllib

import pytest
import typer.main
import yaml

from ops.__main__ import app
from ops.ci.official_images import facts
from ops.commands.test import CHECKS
from ops.images.resolve import AIRFLOW_BASE_IMAGE, airflow_reference
from ops.images.versions import read_images_env, repository_and_tag
from ops.project import ROOT
from tests.resilience.test_restores import STORAGES, TIERS

FOLDER = ROOT / ".github"
WORKFLOWS = {path.name: path for path in sorted((FOLDER / "workflows").iterdir())}
ACTIONS = {path.parent.name: path for path in sorted((FOLDER / "actions").glob("*/action.yaml"))}
# YAML 1.1 parses the key `on` as true.
ON = True


def load(path):
    return yaml.safe_load(path.read_text())


JOBS = [(name, job, model) for name, path in WORKFLOWS.items() for job, model in load(path)["jobs"].items()]
WITH_STEPS = [(name, job, model) for name, job, model in JOBS if "steps" in model]
STEPS = [(f"{name}:{job}", step) for name, job, model in WITH_STEPS for step in model["steps"]]
STEPS += [(f"{name}", step) for name, path in ACTIONS.items() for step in load(path)["runs"]["steps"]]
COMMANDS = sorted(
    {
        (where, line.strip())
        for where, step in STEPS
        for line in step.get("run", "").splitlines()
        if re.match(r"\s*(\./ops/|python3? -m |\.venv/|\.bootstrap/)", line)
    }
)
LINES = [
    (f"{path.relative_to(ROOT)}:{number}", line)
    for path in [*WORKFLOWS.values(), *ACTIONS.values()]
    for number, line in enumerate(path.read_text().splitlines(), 1)
]
USES = [(where, line) for where, line in LINES if re.match(r"\s*(- )?uses:", line)]


def words(command):
    """Return the words of a command, up to a redirection or pipe."""
    parts = shlex.split(command, comments=True)
    return next((parts[:index] for index, word in enumerate(parts) if word.startswith((">", "|", "2>"))), parts)


def test_workflows_cover_pushes_nights_and_releases():
    assert set(WORKFLOWS) == {"ci.yaml", "kubernetes.yaml", "nightly.yaml", "release.yaml"}
    assert {"push", "pull_request"} <= set(load(WORKFLOWS["ci.yaml"])[ON])
    assert all("schedule" in load(WORKFLOWS[name])[ON] for name in ("nightly.yaml", "kubernetes.yaml"))
    assert load(WORKFLOWS["release.yaml"])[ON] == {"push": {"tags": ["v*"]}}


# ---- commands


@pytest.mark.parametrize(("where", "command"), [entry for entry in COMMANDS if "./ops/stack" in entry[1]])
def test_stack_command_exists(where, command):
    program, verb, *arguments = words(command)
    assert (ROOT / program).is_file()
    known = typer.main.get_command(app).commands
    assert verb in known or verb == "--help"
    if verb != "test" or arguments == [CHECKS]:
        return
    paths = [argument for argument in arguments if not argument.startswith("-")]
    assert paths, "without a path pytest runs everything"
    for path in paths:
        assert (ROOT / path).is_file() or list((ROOT / path).rglob("test_*.py")), f"no test in {path}"


@pytest.mark.parametrize(("where", "command"), [entry for entry in COMMANDS if " -m " in entry[1]])
def test_python_module_exists_and_is_executable(where, command):
    parts = words(command)
    module = importlib.util.find_spec(parts[parts.index("-m") + 1])
    assert module is not None
    assert '__name__ == "__main__"' in (ROOT / module.origin).read_text()


def test_other_programs_are_those_of_the_environment():
    others = {words(command)[0] for _, command in COMMANDS} - {"./ops/stack", "python3"}
    assert others == {".bootstrap/bin/uv"}


def test_every_push_runs_every_test_folder_but_the_drills():
    run = {words(command)[2] for where, command in COMMANDS if where.startswith("ci.yaml") and "ops/stack" in command}
    parts = {
        path.relative_to(ROOT).as_posix() for path in (ROOT / "tests").iterdir() if list(path.glob("**/test_*.py"))
    }
    # Drills are too long for a push.
    assert run == {CHECKS, *parts} - {"tests/resilience"}


def test_every_push_requires_90_percent_coverage():
    (unit,) = [command for where, command in COMMANDS if where.startswith("ci.yaml") and "tests/unit" in command]
    assert "--cov" in words(unit)
    settings = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["coverage"]
    assert settings["run"]["source"] == ["src"]
    assert settings["report"]["fail_under"] >= 90


def test_every_night_runs_all_drills_as_root():
    (job,) = (model for name, job, model in WITH_STEPS if (name, job) == ("nightly.yaml", "drills"))
    (step,) = (step for step in job["steps"] if "stack test" in step.get("run", ""))
    assert {"tests/resilience", "--drills=all", "--patches=$PATCHES"} <= set(words(step["run"]))
    assert job["strategy"]["matrix"] == {"patches": ["all", "safety"]}
    assert step["shell"].startswith("sudo "), "without root some faults are skipped"
    assert job["env"] == {"PATCHES": "${{ matrix.patches }}", "STACK_IMAGES": "official"}


def test_every_night_runs_the_long_tests():
    runs = [words(command) for _, command in COMMANDS if "--nightly" in command]
    tests = ROOT / "tests"
    marked = {
        path.relative_to(tests).parts[0] for path in tests.rglob("test_*.py") if "mark.nightly" in path.read_text()
    }
    assert {f"tests/{folder}" for folder in marked} <= {word for run in runs for word in run}


def test_every_night_restores_each_data_tier_from_each_storage():
    matrix = load(WORKFLOWS["nightly.yaml"])["jobs"]["restores"]["strategy"]["matrix"]
    assert (set(matrix["tier"]), set(matrix["storage"])) == (set(TIERS), set(STORAGES))


def test_every_night_starts_a_stack_without_patches():
    (run,) = [words(command) for where, command in COMMANDS if "--patches=none" in command]
    assert "tests/integration/test_up.py" in run


def test_ci_uses_official_images_on_both_architectures():
    ci = load(WORKFLOWS["ci.yaml"])
    assert ci["env"] == {"STACK_IMAGES": "official"}
    matrix = ci["jobs"]["integration"]["strategy"]["matrix"]["include"]
    assert {leg["architecture"]: leg["runner"] for leg in matrix} == {
        "amd64": "ubuntu-latest",
        "arm64": "ubuntu-24.04-arm",
    }


@pytest.mark.parametrize(
    ("name", "job", "model"),
    [entry for entry in WITH_STEPS if any("stack test tests/" in step.get("run", "") for step in entry[2]["steps"])],
)
def test_job_with_tests_has_a_summary_and_keeps_its_reports(name, job, model):
    run = next(step["run"] for step in model["steps"] if "stack test tests/" in step.get("run", ""))
    assert re.search(r"--junitxml=reports/\S+\.xml", run)
    summary = next(step for step in model["steps"] if "ops.ci.junit_summary reports" in step.get("run", ""))
    assert summary["if"] == "${{ !cancelled() }}"
    upload = next(step for step in model["steps"] if step.get("uses", "").startswith("actions/upload-artifact@"))
    assert upload["if"] == "failure()"
    assert "reports/" in upload["with"]["path"].splitlines()


def test_built_image_has_the_name_that_up_expects():
    image_facts = facts(ROOT)
    versions = read_images_env(ROOT)
    assert image_facts["reference"] == airflow_reference(ROOT, versions[AIRFLOW_BASE_IMAGE])
    images = json.loads(image_facts["images"])
    assert {image["reference"] for image in images} == {
        value for key, value in versions.items() if key.endswith("_IMAGE") and key != AIRFLOW_BASE_IMAGE
    }
    assert all("\n" not in value for value in image_facts.values())


def test_build_passes_the_arguments_of_the_dockerfile():
    dockerfile = (ROOT / facts(ROOT)["dockerfile"]).read_text()
    arguments = set(re.findall(r"^ARG (\w+)$", dockerfile, re.MULTILINE))
    builds = [step["with"] for _, step in STEPS if step.get("uses", "").startswith("docker/build-push-action@")]
    assert len(builds) == 2
    for build in builds:
        assert {line.split("=")[0] for line in build["build-args"].splitlines()} == arguments


def test_every_image_is_scanned_before_a_release():
    jobs = load(WORKFLOWS["ci.yaml"])["jobs"]
    scans = {
        name: step["with"]["image"]
        for name, job in jobs.items()
        for step in job["steps"]
        if step.get("uses") == "./.github/actions/vulnerabilities"
    }
    assert scans == {
        "vulnerabilities": "${{ matrix.image.reference }}",
        "airflow-vulnerabilities": "${{ steps.airflow.outputs.reference }}",
    }
    (scan,) = (step for step in load(ACTIONS["vulnerabilities"])["runs"]["steps"] if "scan-action" in str(step))
    assert scan["with"]["fail-build"] is True
    assert scan["with"]["severity-cutoff"] == "critical"


# ---- permissions


@pytest.mark.parametrize(("where", "line"), USES)
def test_action_is_pinned_by_commit_with_its_version(where, line):
    if "uses: ./" in line:
        path = ROOT / line.split("uses: ./")[1].strip()
        assert path.is_file() or (path / "action.yaml").is_file()
    else:
        assert re.fullmatch(r"\s*(- )?uses: [\w.-]+(/[\w.-]+)+@[0-9a-f]{40} # v\d+\.\d+\.\d+", line)


def test_action_has_one_version_everywhere():
    pins = {line.split("uses: ")[1] for _, line in USES if "@" in line}
    assert len({pin.split("@")[0] for pin in pins}) == len(pins)


@pytest.mark.parametrize(("name", "job", "model"), JOBS)
def test_job_has_a_timeout_and_permissions(name, job, model):
    assert isinstance(model["permissions"], dict)
    # A job that calls another workflow has that workflow's timeouts. The drills need half of GitHub's limit for a job.
    longest = 360 if (name, job) == ("nightly.yaml", "drills") else 60
    assert "uses" in model or 0 < model["timeout-minutes"] <= longest


@pytest.mark.parametrize("name", WORKFLOWS)
def test_workflow_itself_has_no_permissions(name):
    workflow = load(WORKFLOWS[name])
    assert workflow["permissions"] == {}
    assert workflow["concurrency"]["group"].startswith(f"{name.removesuffix('.yaml')}-")
    assert workflow["defaults"]["run"]["shell"] == "bash", "with pipefail"


def test_only_listed_jobs_may_write():
    writers = {
        (name, job, scope)
        for name, job, model in JOBS
        for scope, level in model["permissions"].items()
        if level == "write"
    }
    assert writers == {
        ("nightly.yaml", "airflow-image", "security-events"),
        ("nightly.yaml", "dependencies", "security-events"),
        ("nightly.yaml", "images", "security-events"),
        ("nightly.yaml", "report", "issues"),
        ("release.yaml", "build", "packages"),
        ("release.yaml", "publish", "id-token"),
        ("release.yaml", "publish", "packages"),
    }


def test_fork_needs_no_secret():
    secrets = {use for _, line in LINES for use in re.findall(r"secrets[.\[][\w.'\"-]+|secrets: *inherit", line)}
    assert secrets <= {"secrets.GITHUB_TOKEN"}


def test_pull_request_gets_no_further_permissions():
    for path in WORKFLOWS.values():
        assert not {"pull_request_target", "workflow_run"} & set(load(path)[ON])


def test_checkout_does_not_keep_its_token():
    checkouts = [step for _, step in STEPS if step.get("uses", "").startswith("actions/checkout@")]
    assert checkouts
    assert all(step["with"]["persist-credentials"] is False for step in checkouts)


@pytest.mark.parametrize(("where", "step"), [entry for entry in STEPS if "run" in entry[1]])
def test_script_contains_no_expression(where, step):
    assert "${{" not in step["run"]


# ---- version updates


def test_renovate_finds_every_version_in_images_env():
    managers = json.loads((FOLDER / "renovate.json").read_text())["customManagers"]
    digest = f"@sha256:{'1' * 64}"
    by_tag = {f"{key}={value.partition('@')[0]}" for key, value in read_images_env(ROOT).items()}
    for expected in (by_tag, {f"{version}{digest}" for version in by_tag}):
        text, found = "\n".join(sorted(expected)), set()
        for manager in managers:
            (file,), (pattern,) = manager["managerFilePatterns"], manager["matchStrings"]
            assert re.search(file.strip("/"), "compose/images.env")
            for match in re.finditer(pattern.replace("(?<", "(?P<"), text):
                assert "@" not in match["currentValue"]
                assert match["currentDigest"] == (digest[1:] if digest in match[0] else None)
                found.add(match[0])
        assert found == expected


def test_renovate_writes_a_tag_with_its_digest():
    renovate = json.loads((FOLDER / "renovate.json").read_text())
    assert "docker:pinDigests" in renovate["extends"]
    for manager in renovate["customManagers"]:
        written = manager["autoReplaceStringTemplate"]
        assert written.endswith("{{{newValue}}}{{#if newDigest}}@{{{newDigest}}}{{/if}}")
        # The name of the setting is in `depType`: the template replaces the whole match.
        assert written.startswith("{{{depType}}}")
        assert "(?<depType>" in manager["matchStrings"][0]


def test_airflow_image_keeps_its_flavour_and_its_python():
    renovate = json.loads((FOLDER / "renovate.json").read_text())
    (rule,) = (rule for rule in renovate["packageRules"] if "versioning" in rule)
    pattern = rule["versioning"].removeprefix("regex:").replace("(?<", "(?P<")
    match = re.fullmatch(pattern, repository_and_tag(read_images_env(ROOT)[AIRFLOW_BASE_IMAGE])[1])
    assert match
    assert match["compatibility"] == "python3.13"


# ---- documentation


def test_commands_and_paths_of_contributing_exist():
    text = (FOLDER / "CONTRIBUTING.md").read_text()
    for path in re.findall(r"(?<![\w/.])((?:tests|ops|compose|dags|src|\.github)/[\w./-]*\w)", text):
        assert (ROOT / path).exists(), path
    for verb in re.findall(r"\./ops/stack ([a-z]+)", text):
        assert verb in typer.main.get_command(app).commands
