"""The `secrets` of each service: exactly what its own code reads, and what .github/SECURITY.md shows."""

from __future__ import annotations

import json
import re

from ops.services import BACKUP_FILES, BACKUP_NODES, POSTGRES_NODES, REDIS_NODES, SENTINELS
from tests.unit.compose.model import COMPOSE, compose_model

ROOT = COMPOSE.parent
SERVICES = compose_model()["services"]
SECURITY = ROOT / ".github/SECURITY.md"
ALERTMANAGER = [ROOT / "alerting/alertmanager"]
LINKS = [ROOT / "ops/external_data.py"]
READ_ELSEWHERE = {
    "migrate": [ROOT / "src/airflow_ha/migrate.py", ROOT / "src/airflow_ha/result_database.py", *LINKS],
    "maintenance": [ROOT / "src/airflow_ha/maintenance/__main__.py", *LINKS],
    "alertmanager-1": ALERTMANAGER,  # `up` puts these files together
    "alertmanager-2": ALERTMANAGER,
    **dict.fromkeys(("postgres-exporter", "redis-exporter"), LINKS),
    # pgBackRest's and restic's configuration name the file.
    **{
        name: [ROOT / "ops/backup_storage.py"]
        for name in ("postgres", *POSTGRES_NODES, *BACKUP_NODES["data"], *BACKUP_NODES["data-ha"], BACKUP_FILES)
    },
    # The URLs of an external Postgres and Redis name the certificates.
    **dict.fromkeys(("scheduler", "dag-processor", "worker"), LINKS),
    "api-server": [*LINKS, ROOT / "ops/single_sign_on.py"],
    "execution-api": [*LINKS, ROOT / "ops/secrets_backend.py"],
    "triggerer": [*LINKS, ROOT / "ops/secrets_backend.py"],
    "flower": LINKS,
    # ./ops/stack runs redis-cli in these.
    **{name: [ROOT / "ops/data_tier.py"] for name in ("redis", *REDIS_NODES, *SENTINELS)},
}
"""Files of a service that read secrets and are not mounted."""
OF_THE_OPERATOR = {"./secrets/..:/set/state:ro"}
"""Mounts without code of the service."""


def held(name: str) -> set[str]:
    return set(SERVICES[name].get("secrets", []))


def text_of(name: str) -> str:
    """Return the settings and commands of a service, and the text of the files that it mounts."""
    service = {key: value for key, value in SERVICES[name].items() if key != "secrets"}
    mounts = [
        volume.split(":")[0]
        for volume in service.get("volumes", [])
        if volume.startswith("./") and volume not in OF_THE_OPERATOR
    ]
    places = [*(COMPOSE / mount for mount in mounts), *READ_ELSEWHERE.get(name, [])]
    files = [file for place in places for file in ([place] if place.is_file() else place.rglob("*"))]
    return json.dumps(service) + "".join(file.read_text() for file in files if file.is_file())


def paths_in(text: str) -> set[str]:
    """Return the names of the secret files that a text names by their path."""
    return set(re.findall(r"/run/secrets/([\w.-]*\w)", text))


def test_each_service_has_exactly_the_secrets_that_it_reads():
    unread, missing = {}, {}
    for name in SERVICES:
        text = text_of(name)
        unread[name] = {secret for secret in held(name) if not re.search(rf"\b{re.escape(secret)}\b", text)}
        missing[name] = paths_in(text) - held(name)
    assert {name: secrets for name, secrets in unread.items() if secrets} == {}
    assert {name: secrets for name, secrets in missing.items() if secrets} == {}


def test_signing_keys_are_only_where_no_dag_code_runs():
    holders = {
        key: {name for name in SERVICES if key in held(name)}
        for key in ("jwt_tasks_key", "jwt_users_key", "api_secret_key", "fernet_key")
    }
    assert holders == {
        "jwt_tasks_key": {"execution-api", "scheduler"},
        "jwt_users_key": {"api-server"},
        "api_secret_key": {"api-server"},
        "fernet_key": {"api-server", "execution-api", "scheduler", "dag-processor", "triggerer", "migrate"},
    }


def test_the_security_page_shows_the_secrets_of_every_service():
    by_secrets: dict[str, list[str]] = {}
    for name in SERVICES:
        if held(name):
            by_secrets.setdefault(", ".join(f"`{secret}`" for secret in sorted(held(name))), []).append(name)
    expected = [f"| {', '.join(names)} | {secrets} |" for secrets, names in by_secrets.items()]
    _, _, rest = SECURITY.read_text().partition("<!-- secrets -->\n")
    shown = [line for line in rest.partition("<!-- /secrets -->")[0].splitlines() if line.startswith("| ")][1:]
    assert shown == expected, "write this into .github/SECURITY.md:\n" + "\n".join(expected)


def test_a_path_of_a_secret_is_found_in_every_way_of_writing():
    text = 'cat /run/secrets/jwt_users_key" (/run/secrets/redis_auth.conf). /run/secrets/$1 /run/secrets'
    assert paths_in(text) == {"jwt_users_key", "redis_auth.conf"}
