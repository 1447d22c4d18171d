"""Every service is confined, limited, watched and restarted; what should not meet does not."""

from __future__ import annotations

import re

import pytest
import yaml

from ops.services import POSTGRES_NODES, REDIS_NODES, SENTINELS
from tests.unit.compose.model import COMPOSE, NO_SHELL, ONE_SHOTS, compose_model

MODEL = compose_model()
SERVICES = MODEL["services"]
ETCD = {"etcd-1", "etcd-2", "etcd-3"}
KEY_ORDER = [
    "profiles", "image", "user", "entrypoint", "command", "environment", "secrets", "volumes", "tmpfs", "networks",
    "depends_on", "healthcheck", "deploy", "ports",
]  # fmt: skip
DATABASE_SECRETS = {
    "sql_alchemy_conn",
    "sql_alchemy_conn_async",
    "fernet_key",
    "jwt_secret",
    "api_secret_key",
}


@pytest.mark.parametrize("name", SERVICES)
def test_a_service_runs_without_root_or_privileges_and_cannot_write_its_image(name):
    service = SERVICES[name]
    assert not service["user"].startswith("0")
    assert service["cap_drop"] == ["ALL"]
    assert service["security_opt"] == ["no-new-privileges:true"]
    assert service["read_only"] is True
    assert "privileged" not in service


@pytest.mark.parametrize("name", SERVICES)
def test_a_service_has_limits_and_its_log_is_rotated(name):
    limits = SERVICES[name]["deploy"]["resources"]["limits"]
    assert limits["memory"] > 0
    assert limits["pids"] > 0
    assert SERVICES[name]["logging"]["options"]["max-size"]


@pytest.mark.parametrize("name", [name for name in SERVICES if name not in ONE_SHOTS])
def test_a_service_restarts_when_it_ends(name):
    assert SERVICES[name]["restart"] == "always"


@pytest.mark.parametrize("name", [name for name in SERVICES if name not in ONE_SHOTS | NO_SHELL])
def test_a_service_restarts_also_when_it_is_unhealthy(name):
    service = SERVICES[name]
    assert service["init"] is True, "guard.sh ends the child of docker-init"
    command = service["healthcheck"]["test"]
    assert command[:3] == ["CMD", "sh", "/usr/local/bin/guard.sh"]
    seconds = int(service["healthcheck"]["interval"].removesuffix("s")) * int(command[3])
    assert 20 <= seconds <= 60, "neither for a moment's load nor after more than a minute"
    assert service["healthcheck"]["timeout"] == "30s", "guard.sh gives up a probe after 8 s, when it gets CPU"
    assert "./health/guard.sh:/usr/local/bin/guard.sh:ro" in service["volumes"]
    writable = [*service["tmpfs"], *service.get("volumes", [])]
    assert any(mount.startswith("/tmp") for mount in writable), "guard.sh counts in /tmp"


def test_what_heartbeats_pass_through_gets_the_cpu_first():
    default = 1024
    shares = {name: service.get("cpu_shares", default) for name, service in SERVICES.items()}
    first = {name for name, weight in shares.items() if weight > default}
    assert first == {"gateway", "execution-api", "postgres", "redis"} | {
        name for name, service in SERVICES.items() if service.get("profiles") == ["data-ha"]
    }
    assert {name for name, weight in shares.items() if weight < default} == {"api-server"}


def test_only_pages_for_people_publish_a_port_and_only_on_loopback():
    published = {name: service["ports"] for name, service in SERVICES.items() if "ports" in service}
    assert published == {
        "gateway": ["127.0.0.1:8080:8080"],
        "flower": ["127.0.0.1:5555:5555"],
        "prometheus": ["127.0.0.1:9090:9090"],
        "alertmanager-1": ["127.0.0.1:9093:9093"],
        "alertmanager-2": ["127.0.0.1:9094:9093"],
        "slack-stub": ["127.0.0.1:8025:8025"],
        "grafana": ["127.0.0.1:3000:3000"],
        "jaeger": ["127.0.0.1:16686:16686"],
    }


def test_postgres_and_redis_are_on_networks_that_lead_nowhere_else():
    nodes = {"postgres": "database", "redis": "broker"}
    nodes |= dict.fromkeys(POSTGRES_NODES, "database") | dict.fromkeys((*REDIS_NODES, *SENTINELS), "broker")
    for service, network in nodes.items():
        assert list(SERVICES[service]["networks"]) == [network]
        assert MODEL["networks"][network]["internal"] is True


def test_only_etcds_members_hear_each_other_and_who_reaches_their_keys_needs_a_password():
    assert MODEL["networks"]["consensus"]["internal"] is True
    assert {name for name, service in SERVICES.items() if "consensus" in service["networks"]} == ETCD
    start = (COMPOSE / "etcd/start.sh").read_text()
    assert '--listen-peer-urls "http://$peer_address:2380"' in start
    assert "auth enable" in (COMPOSE / "etcd/probe.sh").read_text()


@pytest.mark.parametrize(
    "name", [name for name in SERVICES if {"database", "broker"} & set(SERVICES[name]["networks"])]
)
def test_the_name_of_a_container_that_is_away_fails_at_once_for_who_tries_the_next(name):
    if not {"data", "observability", "grafana"} & set(SERVICES[name].get("profiles", [])):
        assert SERVICES[name]["dns_opt"] == ["ndots:1"]


def test_only_who_needs_it_is_on_a_data_network():
    members = {net: {n for n, s in SERVICES.items() if net in s["networks"]} for net in ("database", "broker")}
    airflow_with_database = {
        "migrate",
        "api-server",
        "execution-api",
        "scheduler",
        "dag-processor",
        "triggerer",
    }
    # The worker for Celery's results.
    of_postgres = {"postgres", "postgres-exporter", *POSTGRES_NODES, *ETCD}
    assert members["database"] == {"worker"} | of_postgres | airflow_with_database
    of_redis = {"redis", "redis-exporter", *REDIS_NODES, *SENTINELS}
    assert members["broker"] == {"scheduler", "worker", "flower"} | of_redis


@pytest.mark.parametrize("name", ["worker", "flower"])
def test_who_runs_user_code_or_a_page_holds_no_key_of_the_metadata_database(name):
    assert not DATABASE_SECRETS & set(SERVICES[name]["secrets"])
    assert "no-access@" in SERVICES[name]["environment"]["AIRFLOW__DATABASE__SQL_ALCHEMY_CONN"]


@pytest.mark.parametrize("name", SERVICES)
def test_no_secret_is_in_the_environment(name):
    for key, value in SERVICES[name].get("environment", {}).items():
        if key == "AIRFLOW__LOGGING__SECRET_MASK_ADAPTER":  # the name of a function
            continue
        if re.search(r"PASSWORD|SECRET|FERNET|TOKEN|BROKER_URL|RESULT_BACKEND|BASIC_AUTH", key):
            assert key.endswith(("_CMD", "_FILE")), key
            assert "/run/secrets/" in value


def test_every_secret_that_a_service_reads_is_declared_and_every_declared_one_is_read():
    read = {secret for service in SERVICES.values() for secret in service.get("secrets", [])}
    assert read == set(MODEL["secrets"])


def test_prometheus_is_told_of_every_node_of_either_data_profile():
    def asked(tier: str, job: str) -> list[str]:
        groups = yaml.safe_load((COMPOSE / "prometheus/targets" / tier / f"{job}.yaml").read_text())
        return [group.get("labels", {}).get("instance", group["targets"][0]) for group in groups]

    assert asked("data-ha", "postgres") == list(POSTGRES_NODES)
    assert asked("data-ha", "redis") == list(REDIS_NODES)
    assert asked("data", "postgres") == ["postgres-exporter:9187"]
    assert asked("data", "redis") == ["redis-exporter:9121"]


def test_every_file_that_a_service_mounts_exists():
    mounts = [volume for service in SERVICES.values() for volume in service.get("volumes", [])]
    files = {mount.split(":")[0] for mount in mounts if mount.startswith(".")}
    # What `up` writes.
    files -= {"./generated/rules", "./generated/alertmanager"}
    assert files
    assert [file for file in files if not (COMPOSE / file).exists()] == []


def test_every_compose_file_says_what_it_is_for_and_every_service_why_it_is_there():
    for file in COMPOSE.glob("*.yaml"):
        lines = file.read_text().splitlines()
        assert lines[0].startswith("# "), file.name
        body = lines[lines.index("services:") :] if "services:" in lines else []
        for number, line in enumerate(body):
            if re.fullmatch(r"  [a-z-]+:", line) and body[number + 1].startswith("    "):
                if line.strip() in {f"{secret}:" for secret in MODEL["secrets"]}:
                    continue
                assert body[number - 1].startswith("  # "), f"{file.name}: {line.strip()} has no sentence above it"


@pytest.mark.parametrize("name", SERVICES)
def test_a_services_keys_are_in_the_projects_order(name):
    text = "\n".join(file.read_text() for file in COMPOSE.glob("*.yaml"))
    block = re.search(rf"^  {name}:\n((?:    .*\n|\n)+)", text, re.MULTILINE)
    assert block
    keys = [key for key in re.findall(r"^    (\w+):", block[1], re.MULTILINE) if key in KEY_ORDER]
    assert keys == sorted(keys, key=KEY_ORDER.index)


def test_a_worker_is_told_where_the_findings_of_the_monitoring_dag_go():
    from airflow_ha.monitoring.check_run import ALERTMANAGERS

    assert ALERTMANAGERS in SERVICES["worker"]["environment"]
