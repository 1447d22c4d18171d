"""Each client of Redis logs in as its own user; an external Redis has one password for all."""

from __future__ import annotations

import hashlib
import json
import re
from urllib.parse import unquote, urlsplit

import pytest

from ops import redis_users, secrets_store, settings_file
from ops.rotation_state import InUse

CLIENTS = {"scheduler": "scheduler", "worker": "celery", "flower": "flower"}


@pytest.fixture
def mounted(project):
    """Return the mounted files for a choice of profiles."""
    secrets = {name: f"{name} p@ss/word" for name in secrets_store.GENERATORS}

    def files(profiles: str) -> dict[str, str]:
        settings = settings_file.read(project) | {"COMPOSE_PROFILES": profiles}
        return redis_users.mounted_files(project, settings, InUse(secrets))

    return files


@pytest.mark.parametrize("file", ["redis/redis_users.acl", "redis/sentinel_auth.conf"])
def test_users_have_the_hash_of_their_own_password(mounted, file):
    lines = [line.split() for line in mounted("data")[file].splitlines() if line.startswith("user ")]
    users = {name: rules[0] for _, name, state, *rules in lines if state == "on"}
    assert {"operator", "health", "sentinel", "scheduler", "worker", "flower"} <= users.keys()
    for name, rule in users.items():
        secret = f"{redis_users.secret_name(name)} p@ss/word"
        assert rule == f"#{hashlib.sha256(secret.encode()).hexdigest()}"


def test_nobody_logs_in_as_the_default_user(mounted):
    files = mounted("data-ha")
    for file in ("redis/redis_users.acl", "redis/sentinel_auth.conf"):
        assert re.findall(r"^user default (\w+)", files[file], re.MULTILINE) == ["off"]
        assert "nopass" not in files[file]


@pytest.mark.parametrize("user", CLIENTS)
@pytest.mark.parametrize("profiles", ["data", "data-ha"])
def test_each_client_has_its_own_user(mounted, profiles, user):
    files, password = mounted(profiles), f"{redis_users.secret_name(user)} p@ss/word"
    urls = [urlsplit(url) for url in files[f"airflow/{CLIENTS[user]}_broker_url"].split(";")]
    assert {(url.username, unquote(url.password or "")) for url in urls} == {(user, password)}
    sentinel = json.loads(files[f"airflow/{CLIENTS[user]}_sentinel_kwargs"])
    if profiles == "data":
        assert ([url.hostname for url in urls], sentinel) == (["redis"], {})
    else:
        assert [url.hostname for url in urls] == ["sentinel", "sentinel-1", "sentinel-2", "sentinel-3"]
        assert (sentinel["username"], sentinel["password"]) == (user, password)


def test_clients_of_an_external_redis_share_its_password(mounted):
    files = mounted("flower,observability")
    urls = {files[f"airflow/{prefix}_broker_url"] for prefix in CLIENTS.values()}
    assert urls == {"redis://:redis_password%20p%40ss%2Fword@redis:6379/0"}
    passwords = json.loads(files["redis-exporter/redis_exporter_passwords.json"])
    assert passwords == {"redis://redis:6379": "redis_password p@ss/word"}


@pytest.mark.parametrize(("profiles", "nodes"), [("data", ["redis"]), ("data-ha", ["redis-1", "redis-2", "redis-3"])])
def test_exporter_logs_in_to_every_node(mounted, profiles, nodes):
    passwords = json.loads(mounted(profiles)["redis-exporter/redis_exporter_passwords.json"])
    assert passwords == {f"redis://exporter@{node}:6379": "redis_exporter_password p@ss/word" for node in nodes}
