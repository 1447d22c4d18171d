"""Every image keeps ops/images/airgap/contract.yaml, whichever of the two it is."""

from __future__ import annotations

import json
import re

import pytest
import yaml

from ops.images.resolve import BASES, OPTIONAL, official_references
from tests.images.conftest import ROOT, docker, run_in

CONTRACT = yaml.safe_load((ROOT / "ops/images/airgap/contract.yaml").read_text(encoding="utf-8"))
IMAGES = sorted(CONTRACT)
WITH_A_SHELL = [key for key in IMAGES if CONTRACT[key]["commands"]]
NAMED_USERS = [key for key in IMAGES if "name" in CONTRACT[key]["user"]]
FOLDERS = [(key, folder, kind) for key in IMAGES for folder, kind in CONTRACT[key]["folders"].items()]


def numbers(text: str) -> list[str]:
    found = re.search(r"\d+(\.\d+)+", text)
    assert found, f"no version in: {text}"
    return found.group().split(".")


def test_the_contract_is_about_every_image_that_the_stack_uses(images):
    assert set(images) <= set(CONTRACT)
    assert set(CONTRACT) - set(images) <= set(OPTIONAL)


@pytest.mark.parametrize("key", NAMED_USERS)
def test_the_services_user_is_known_by_its_name(reference, key):
    user = CONTRACT[key]["user"]
    answer = run_in(reference, user["id"], ["sh", "-c", "echo $(id -un) $(id -u):$(id -g)"])
    assert answer.output.split() == [user["name"], user["id"]]


@pytest.mark.parametrize("key", IMAGES)
def test_the_image_sets_the_variables(reference, key):
    wanted = CONTRACT[key]["environment"]
    answer = docker("image", "inspect", "--format", "{{json .Config.Env}}", reference)
    found = dict(pair.split("=", 1) for pair in json.loads(answer.output))
    assert {name: found.get(name) for name in wanted} == wanted


@pytest.mark.parametrize("key", WITH_A_SHELL)
def test_the_services_user_finds_the_commands_on_its_path(reference, key):
    commands = CONTRACT[key]["commands"]
    script = 'for name; do command -v "$name" >/dev/null || echo "$name"; done'
    answer = run_in(reference, CONTRACT[key]["user"]["id"], ["sh", "-c", script, "sh", *commands])
    assert (answer.status, answer.output.split()) == (0, []), "missing commands"


@pytest.mark.parametrize(("key", "folder", "kind"), FOLDERS)
def test_the_folder_is_there_and_a_fresh_volume_is_writable(reference, volume, key, folder, kind):
    mount = ("--volume", f"{volume}:{folder}") if kind == "volume" else ()
    script = f"test -d {folder}" + (f" && touch {folder}/written" if kind == "volume" else "")
    user = CONTRACT[key]["user"]["id"]
    answer = run_in(reference, user, ["sh", "-c", script], *mount)
    assert answer.status == 0, answer.output


@pytest.mark.parametrize("key", IMAGES)
def test_the_software_has_the_version_of_images_env_as_far_as_the_contract_says(reference, key):
    version = CONTRACT[key]["version"]
    base = next((base for base, built in BASES.items() if built == key), key)
    official = official_references(ROOT, {})[base]
    # Airflow writes its configuration beside its home; the compose files send it to /tmp as well.
    writable = ("--tmpfs", "/tmp", "--env", "AIRFLOW_CONFIG=/tmp/airflow.cfg")
    answer = run_in(reference, CONTRACT[key]["user"]["id"], version["command"], *writable)
    digits = version["digits"]
    assert numbers(answer.output)[:digits] == numbers(official.rsplit(":", 1)[1])[:digits], answer.output


@pytest.mark.parametrize("key", IMAGES)
def test_nothing_secret_of_the_build_machine_stays_in_the_image(reference, key, start):
    container = docker("create", reference, "none").output.strip()
    secrets = docker("cp", f"{container}:/run/secrets/.", "-")
    docker("rm", "--volumes", container)
    assert "secrets" not in secrets.output or "no such" in secrets.output.lower() or "Could not find" in secrets.output
    history = docker("image", "history", "--no-trunc", "--format", "{{.CreatedBy}}", reference)
    assert not re.search(r"(?i)https?_proxy=|index_url=|default_index=http|goproxy=http", history.output)


@pytest.mark.parametrize("key", sorted(set(IMAGES) - set(WITH_A_SHELL)))
def test_an_image_without_commands_has_no_shell_to_lean_on(reference, key):
    assert run_in(reference, CONTRACT[key]["user"]["id"], ["sh", "-c", "true"]).status == 127
