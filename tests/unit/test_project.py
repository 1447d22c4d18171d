"""The project's own rules: one source for each fact, and content that must never be committed."""

from __future__ import annotations

import re
import subprocess
import tomllib
from pathlib import Path

import yaml

from ops import container_limits, preflight, secrets_store
from ops.commands.test import IMAGES, SUITES, checks
from ops.images.resolve import read_images_env
from ops.project import ROOT, Project
from ops.services import (
    BACKUP,
    BACKUP_PROFILES,
    MAX_INSTANCES,
    OPTIONAL,
    PROFILES,
    SCALABLE,
    SLACK_STUB_PROFILE,
    replicas_variable,
)
from ops.settings_file import defaults
from tests.images.conftest import LONGEST, SPREAD
from tests.unit.compose.model import COMPOSE, ONE_SHOTS, compose_model

SERVICES = compose_model()["services"]
TRACKED = [
    ROOT / name
    for name in subprocess.run(
        ["git", "ls-files", "--cached", "--others", "--exclude-standard"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
    ).stdout.splitlines()
    if (ROOT / name).is_file()
]


def test_profiles_of_up_are_those_of_the_compose_files():
    added = {SLACK_STUB_PROFILE, *BACKUP_PROFILES.values()}
    known = set(PROFILES) | {published.profile for published in OPTIONAL} | added
    assert {profile for service in SERVICES.values() for profile in service.get("profiles", [])} == known


def test_scalable_services_read_their_replicas_variable():
    text = "\n".join(file.read_text() for file in COMPOSE.glob("*.yaml"))
    read = {service for service in SERVICES if "${" + replicas_variable(service) in text}
    assert read == set(SCALABLE)


def test_defaults_of_up_are_those_of_the_compose_files():
    text = "\n".join(file.read_text() for file in COMPOSE.glob("*.yaml"))
    in_compose = dict(re.findall(r"\$\{(\w+):-([^}]*)\}", text))
    in_up = defaults(Project(ROOT, ROOT / "compose"))
    shared = in_compose.keys() & in_up.keys()
    assert {"AIRFLOW_PORT", "FLOWER_PORT", "WORKER_REPLICAS", "BIND_ADDRESS"} <= shared
    assert {key: in_compose[key] for key in shared} == {key: in_up[key] for key in shared}


def test_gateway_has_a_server_slot_for_every_instance():
    slots = re.findall(r"server-template \S+ (\d+) ", (COMPOSE / "gateway/haproxy.cfg").read_text())
    assert {int(slot) for slot in slots} == {MAX_INSTANCES}


def test_mounted_secret_belongs_to_the_uid_of_its_service():
    users = {service: int(model["user"].split(":")[0]) for service, model in SERVICES.items()}
    mounted = compose_model()["secrets"]
    for service, model in SERVICES.items():
        for secret in model.get("secrets", []):
            folder = Path(mounted[secret]["file"]).parent.name
            assert secrets_store.READERS[folder] == users[service], f"{service} reads {secret}"


def test_first_start_requires_40_percent_of_the_limits():
    """Workers count with their idle memory, because their limits are for their tasks; backups are off."""
    backups = {BACKUP, *BACKUP_PROFILES.values()}

    def limits(without: str) -> int:
        return sum(
            int(model["deploy"].get("replicas", 1))
            * (container_limits.WORKER_BASE if name == "worker" else model["deploy"]["resources"]["limits"]["memory"])
            for name, model in SERVICES.items()
            if name not in ONE_SHOTS and backups.union({without}).isdisjoint(model.get("profiles", []))
        )

    assert limits(without="data-ha") * 0.4 <= preflight.MEMORY_NEEDED
    assert limits(without="data") * 0.4 <= preflight.MEMORY_NEEDED + preflight.REPLICAS_MEMORY


def test_health_checks_use_the_ports_of_their_services():
    for name in ("api-server", "execution-api"):
        command, probe = SERVICES[name]["command"], SERVICES[name]["healthcheck"]["test"]
        assert command[command.index("--port") + 1] == probe[probe.index("http") + 1]


def test_base_image_has_the_airflow_version_of_the_lock():
    """Otherwise the build replaces all of Airflow."""
    lock = tomllib.loads((ROOT / "uv.lock").read_text())
    (version,) = (entry["version"] for entry in lock["package"] if entry["name"] == "apache-airflow")
    assert f"-{version}-" in read_images_env(ROOT)["AIRFLOW_BASE_IMAGE"]


def test_no_image_is_latest():
    assert "latest" not in re.sub(r"#.*", "", (COMPOSE / "images.env").read_text())


def test_no_local_path_or_package_registry_is_committed():
    """Except in uv.lock, where uv records the source of each hash."""
    machine = re.compile(r"/work/|/root/\.pyenv|/home/(?!airflow)")
    registry = re.compile(
        r"(?:deb\.debian|security\.debian|pypi|pythonhosted|proxy\.golang|npmjs|crates|maven)\.(?:org|io|com)"
    )
    hits = []
    for path in TRACKED:
        if path.name == "uv.lock" or path == Path(__file__):
            continue
        try:
            text = path.read_text(encoding="utf-8")
        except UnicodeDecodeError:
            continue
        hits += [f"{path.relative_to(ROOT)}: {hit[0]}" for hit in [*machine.finditer(text), *registry.finditer(text)]]
    assert hits == []


def test_top_level_has_only_the_folders_of_the_design():
    allowed = {
        "compose", "dags", "src", "ops", "alerting", "tests", "pyproject.toml", "README.md", "uv.lock", "LICENSE",
    }  # fmt: skip
    assert {path.relative_to(ROOT).parts[0] for path in TRACKED} - allowed == {
        name for name in {path.relative_to(ROOT).parts[0] for path in TRACKED} if name.startswith(".")
    }


def test_pre_commit_hooks_are_the_checks_of_the_test_command():
    hooks = yaml.safe_load((ROOT / ".pre-commit-config.yaml").read_text())["repos"][0]["hooks"]
    assert {hook["name"] for hook in hooks} == set(checks())


def anchors(page: Path) -> set[str]:
    """Return the anchors that GitHub gives the headings of a page."""
    headings = re.findall(r"^#+ (.+)$", page.read_text(), re.MULTILINE)
    return {re.sub(r"[^\w -]", "", heading.lower()).replace(" ", "-") for heading in headings}


def test_every_test_that_starts_processes_runs_beside_the_images():
    """The suite UNIT leaves them out."""
    marked = {
        path for path in (ROOT / "tests/unit").rglob("test_*.py") if re.search(r"mark\.processes\b", path.read_text())
    }
    assert marked - {Path(__file__)} <= {ROOT / argument for argument in SUITES[IMAGES]}


def test_image_tests_with_a_place_in_the_order_exist():
    assert {*LONGEST, *SPREAD} <= {path.stem for path in (ROOT / "tests/images").glob("test_*.py")}


def test_relative_links_lead_to_a_file_and_a_heading():
    broken = []
    for page in (path for path in TRACKED if path.suffix == ".md"):
        for link in re.findall(r"\]\((?!\w+:)([^)\s]+)\)", page.read_text()):
            path, _, anchor = link.partition("#")
            target = (page.parent / path).resolve() if path else page
            if not target.exists() or (anchor and anchor not in anchors(target)):
                broken.append(f"{page.relative_to(ROOT)}: {link}")
    assert broken == []
