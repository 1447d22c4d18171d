"""Every service is unprivileged, limited, checked and restarted; networks and secrets are separated."""

from __future__ import annotations

import re

import pytest
import yaml

from ops.services import POSTGRES_NODES, REDIS_NODES, SENTINELS
from tests.unit.compose.model import COMPOSE, NO_SHELL, ONE_SHOTS, compose_model

MODEL = compose_model()
SERVICES = MODEL["services"]
ETCD = {"etcd-1", "etcd-2", "etcd-3"}
GUARD = "/usr/local/bin/restart-when-unhealthy.sh"
DATABASE_SECRETS = {
    "sql_alchemy_conn",
    "sql_alchemy_conn_async",
    "fernet_key",
    "jwt_secret",
    "api_secret_key",
}


@pytest.mark.parametrize("name", SERVICES)
def test_a_service_is_unprivileged_and_read_only(name):
    service = SERVICES[name]
    assert not service["user"].startswith("0")
    assert service["cap_drop"] == ["ALL"]
    assert service["security_opt"] == ["no-new-privileges:true"]
    assert service["read_only"] is True
    assert "privileged" not in service


@pytest.mark.parametrize("name", SERVICES)
def test_a_service_has_limits_and_a_rotated_log(name):
    limits = SERVICES[name]["deploy"]["resources"]["limits"]
    assert limits["memory"] > 0
    assert limits["pids"] > 0
    assert SERVICES[name]["logging"]["options"] == {"max-size": "10m", "max-file": "5"}


@pytest.mark.parametrize("name", [name for name in SERVICES if name not in ONE_SHOTS])
def test_a_service_that_exits_is_restarted(name):
    assert SERVICES[name]["restart"] == "always"


@pytest.mark.parametrize("name", [name for name in SERVICES if name not in ONE_SHOTS | NO_SHELL])
def test_a_service_that_stays_unhealthy_is_restarted(name):
    service = SERVICES[name]
    assert service["init"] is True, "the script ends the child of docker-init"
    command = service["healthcheck"]["test"]
    assert command[:3] == ["CMD", "sh", GUARD]
    seconds = int(service["healthcheck"]["interval"].removesuffix("s")) * int(command[3])
    assert 20 <= seconds <= 60, "short load restarts nothing, and a hung process is restarted within a minute"
    assert service["healthcheck"]["timeout"] == "30s", "more than the 8 s that the script gives a probe"
    assert f"./health/restart-when-unhealthy.sh:{GUARD}:ro" in service["volumes"]
    writable = [*service["tmpfs"], *service.get("volumes", [])]
    assert any(mount.startswith("/tmp") for mount in writable), "the script counts in /tmp"


def test_services_on_the_path_of_heartbeats_come_first():
    default = 1024
    shares = {name: service.get("cpu_shares", default) for name, service in SERVICES.items()}
    first = {name for name, weight in shares.items() if weight > default}
    assert first == {"gateway", "execution-api", "postgres", "redis"} | {
        name for name, service in SERVICES.items() if service.get("profiles") == ["data-ha"]
    }
    assert {name for name, weight in shares.items() if weight < default} == {"api-server"}


def test_only_pages_publish_a_port_and_on_loopback_only():
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


def test_postgres_and_redis_are_on_internal_networks():
    nodes = {"postgres": "database", "redis": "broker"}
    nodes |= dict.fromkeys(POSTGRES_NODES, "database") | dict.fromkeys((*REDIS_NODES, *SENTINELS), "broker")
    for service, network in nodes.items():
        assert list(SERVICES[service]["networks"]) == [network]
        assert MODEL["networks"][network]["internal"] is True


def test_etcd_members_have_a_network_and_a_password():
    assert MODEL["networks"]["consensus"]["internal"] is True
    assert {name for name, service in SERVICES.items() if "consensus" in service["networks"]} == ETCD
    start = (COMPOSE / "etcd/start.sh").read_text()
    assert '--listen-peer-urls "http://$peer_address:2380"' in start
    assert "auth enable" in (COMPOSE / "etcd/check-leader-and-auth.sh").read_text()


@pytest.mark.parametrize("name", SERVICES)
def test_the_name_of_a_stopped_container_fails_at_once(name):
    assert SERVICES[name]["dns_opt"] == ["ndots:1"]


def test_a_data_network_has_only_clients_of_its_data():
    members = {net: {n for n, s in SERVICES.items() if net in s["networks"]} for net in ("database", "broker")}
    airflow_with_database = {
        "migrate",
        "api-server",
        "execution-api",
        "scheduler",
        "dag-processor",
        "triggerer",
    }
    # The worker uses Celery's results.
    postgres_services = {"postgres", "postgres-exporter", *POSTGRES_NODES, *ETCD}
    assert members["database"] == {"worker"} | postgres_services | airflow_with_database
    redis_services = {"redis", "redis-exporter", *REDIS_NODES, *SENTINELS}
    assert members["broker"] == {"scheduler", "worker", "flower"} | redis_services


@pytest.mark.parametrize("name", ["worker", "flower"])
def test_worker_and_flower_have_no_metadata_credentials(name):
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


def test_every_declared_secret_is_read_and_every_read_declared():
    read = {secret for service in SERVICES.values() for secret in service.get("secrets", [])}
    assert read == set(MODEL["secrets"])


def test_prometheus_scrapes_every_node_of_both_data_profiles():
    def scraped(tier: str, job: str) -> list[str]:
        groups = yaml.safe_load((COMPOSE / "prometheus/targets" / tier / f"{job}.yaml").read_text())
        return [group.get("labels", {}).get("instance", group["targets"][0]) for group in groups]

    assert scraped("data-ha", "postgres") == list(POSTGRES_NODES)
    assert scraped("data-ha", "redis") == list(REDIS_NODES)
    assert scraped("data", "postgres") == ["postgres-exporter:9187"]
    assert scraped("data", "redis") == ["redis-exporter:9121"]


def test_every_mounted_file_exists():
    mounts = [volume for service in SERVICES.values() for volume in service.get("volumes", [])]
    files = {mount.split(":")[0] for mount in mounts if mount.startswith(".")}
    # `up` writes these.
    files -= {"./generated/rules", "./generated/alertmanager"}
    assert files
    assert [file for file in files if not (COMPOSE / file).exists()] == []


def test_a_worker_knows_the_alertmanagers_for_findings():
    from airflow_ha.monitoring.check_run import ALERTMANAGERS

    assert ALERTMANAGERS in SERVICES["worker"]["environment"]
