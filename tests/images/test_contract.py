"""Every image, official or fallback, has what ops/images/airgap/contract.yaml lists."""

from __future__ import annotations

import json
import re
import subprocess
import tarfile

import pytest
import yaml

from ops.images.resolve import BUILT_ON, OPTIONAL, official_references
from ops.images.versions import repository_and_tag
from tests.images.conftest import ROOT, docker, run_in

CONTRACT = yaml.safe_load((ROOT / "ops/images/airgap/contract.yaml").read_text(encoding="utf-8"))
IMAGES = sorted(CONTRACT)
WITH_A_SHELL = [key for key in IMAGES if CONTRACT[key]["commands"]]
NAMED_USERS = [key for key in IMAGES if "name" in CONTRACT[key]["user"]]
FOLDERS = [(key, folder, kind) for key in IMAGES for folder, kind in CONTRACT[key]["folders"].items()]


def numbers(text: str) -> list[str]:
    version = re.search(r"\d+(\.\d+)+", text)
    assert version, f"no version in: {text}"
    return version.group().split(".")


def test_the_contract_has_every_image_of_the_stack(images):
    assert set(images) <= set(CONTRACT)
    assert set(CONTRACT) - set(images) <= set(OPTIONAL)


@pytest.mark.parametrize("key", NAMED_USERS)
def test_the_services_user_has_its_name(reference, key):
    user = CONTRACT[key]["user"]
    answer = run_in(reference, user["id"], ["sh", "-c", "echo $(id -un) $(id -u):$(id -g)"])
    assert answer.output.split() == [user["name"], user["id"]]


@pytest.mark.parametrize("key", IMAGES)
def test_the_image_sets_the_variables(reference, key):
    expected = CONTRACT[key]["environment"]
    answer = docker("image", "inspect", "--format", "{{json .Config.Env}}", reference)
    variables = dict(pair.split("=", 1) for pair in json.loads(answer.output))
    assert {name: variables.get(name) for name in expected} == expected


@pytest.mark.parametrize("key", WITH_A_SHELL)
def test_the_services_user_can_run_the_commands(reference, key):
    commands = CONTRACT[key]["commands"]
    script = 'for name; do command -v "$name" >/dev/null || echo "$name"; done'
    answer = run_in(reference, CONTRACT[key]["user"]["id"], ["sh", "-c", script, "sh", *commands])
    assert (answer.status, answer.output.split()) == (0, []), "missing commands"


@pytest.mark.parametrize(("key", "folder", "kind"), FOLDERS)
def test_a_folder_exists_and_a_new_volume_is_writable(reference, volume, key, folder, kind):
    mount = ("--volume", f"{volume}:{folder}") if kind == "volume" else ()
    script = f"test -d {folder}" + (f" && touch {folder}/written" if kind == "volume" else "")
    user = CONTRACT[key]["user"]["id"]
    answer = run_in(reference, user, ["sh", "-c", script], *mount)
    assert answer.status == 0, answer.output


@pytest.mark.parametrize("key", IMAGES)
def test_the_software_has_the_version_of_images_env(reference, key):
    version = CONTRACT[key]["version"]
    base = BUILT_ON.get(key, (key,))[-1]
    official = official_references(ROOT, {})[base]
    # Airflow writes its configuration; the compose files too put it into /tmp.
    writable = ("--tmpfs", "/tmp", "--env", "AIRFLOW_CONFIG=/tmp/airflow.cfg")
    answer = run_in(reference, CONTRACT[key]["user"]["id"], version["command"], *writable)
    digits = version["digits"]
    assert numbers(answer.output)[:digits] == numbers(repository_and_tag(official)[1])[:digits], answer.output


@pytest.mark.parametrize("key", IMAGES)
def test_no_secret_of_the_build_stays_in_the_image(reference, key, start):
    container = docker("create", reference, "none").output.strip()
    secrets = docker("cp", f"{container}:/run/secrets/.", "-")
    docker("rm", "--volumes", container)
    assert "secrets" not in secrets.output or "no such" in secrets.output.lower() or "Could not find" in secrets.output
    history = docker("image", "history", "--no-trunc", "--format", "{{.CreatedBy}}", reference)
    assert not re.search(r"(?i)https?_proxy=|index_url=|default_index=http|goproxy=http", history.output)


@pytest.mark.parametrize("key", IMAGES)
def test_no_program_runs_with_its_owners_rights(images, reference, key):
    if images[key].origin == "official" and key not in BUILT_ON:
        pytest.skip("the image is not built here; no-new-privileges holds there too")
    container = docker("create", reference, "none").output.strip().splitlines()[-1]
    try:
        with (
            subprocess.Popen(["docker", "export", container], stdout=subprocess.PIPE) as export,
            tarfile.open(fileobj=export.stdout, mode="r|") as files,
        ):
            privileged = [file.name for file in files if file.isfile() and file.mode & 0o6000]
    finally:
        docker("rm", "--volumes", container)
    assert privileged == []


@pytest.mark.parametrize("key", sorted(set(IMAGES) - set(WITH_A_SHELL)))
def test_an_image_without_commands_has_no_shell(reference, key):
    assert run_in(reference, CONTRACT[key]["user"]["id"], ["sh", "-c", "true"]).status == 127
