"""Every service is unprivileged, limited, checked and restarted; networks and secrets are separated."""

from __future__ import annotations

import inspect
import json
import re
from typing import TYPE_CHECKING

import yaml

from ops.backup_storage import ROUTED
from ops.services import (
    ALERTMANAGERS,
    BACKUP_FILES,
    BACKUP_NODES,
    GATEWAY,
    PAGES_DOOR,
    PAGES_DOOR_PROFILES,
    POSTGRES_NODES,
    PUBLISHED,
    REDIS_NODES,
    SENTINELS,
    door,
)
from tests.unit.compose.model import COMPOSE, NO_SHELL, ONE_SHOTS, compose_model

if TYPE_CHECKING:
    from collections.abc import Iterable

MODEL = compose_model()
SERVICES = MODEL["services"]
ETCD = {"etcd-1", "etcd-2", "etcd-3"}
GUARD = "/usr/local/bin/restart-when-unhealthy.sh"
DATABASE_SECRETS = {
    "sql_alchemy_conn",
    "sql_alchemy_conn_async",
    "fernet_key",
    "jwt_tasks_key",
    "jwt_users_key",
    "api_secret_key",
}


def test_services_are_unprivileged_and_read_only():
    confined = {"cap_drop": ["ALL"], "security_opt": ["no-new-privileges:true"], "read_only": True, "privileged": None}
    wrong = {
        name
        for name, service in SERVICES.items()
        if service["user"].startswith("0") or {key: service.get(key) for key in confined} != confined
    }
    assert wrong == set()


def test_services_have_limits_and_a_rotated_log():
    rotated = {"max-size": "10m", "max-file": "5"}
    wrong = {
        name
        for name, service in SERVICES.items()
        if min(service["deploy"]["resources"]["limits"].values()) <= 0 or service["logging"]["options"] != rotated
    }
    assert wrong == set()


def test_memory_file_systems_are_bounded():
    """A file in them counts as memory of the container: they take at most half of it."""
    unbounded = {}
    for name, service in SERVICES.items():
        mounts = service.get("tmpfs", [])
        sizes = [int(size) for mount in mounts for size in re.findall(r"[:,]size=(\d+)m\b", mount)]
        limit = service["deploy"]["resources"]["limits"]["memory"]
        if len(sizes) != len(mounts) or sum(sizes) * 1024**2 > limit // 2:
            unbounded[name] = mounts
    assert unbounded == {}


def test_services_that_exit_are_restarted():
    assert {name for name, service in SERVICES.items() if service["restart"] != "always"} == ONE_SHOTS


def test_services_that_stay_unhealthy_are_restarted():
    wrong = {}
    for name in SERVICES.keys() - ONE_SHOTS - NO_SHELL:
        service, check = SERVICES[name], SERVICES[name]["healthcheck"]
        seconds = int(check["interval"].removesuffix("s")) * int(check["test"][3])
        mounts = [*service["tmpfs"], *service["volumes"]]
        wrong[name] = [
            requirement
            for requirement, is_met in {
                "the script ends the child of docker-init": service["init"] is True,
                "the script runs the check": check["test"][:3] == ["CMD", "sh", GUARD],
                "the script is mounted": f"./health/restart-when-unhealthy.sh:{GUARD}:ro" in mounts,
                "the script counts in /tmp": any(mount.startswith("/tmp") for mount in mounts),
                "short load restarts nothing, a minute does": 20 <= seconds <= 60,
                "more than the 8 s that the script gives a check": check["timeout"] == "30s",
            }.items()
            if not is_met
        ]
    assert {name: unmet for name, unmet in wrong.items() if unmet} == {}


def test_services_on_the_path_of_heartbeats_come_first():
    default = 1024
    shares = {name: service.get("cpu_shares", default) for name, service in SERVICES.items()}
    first = {name for name, weight in shares.items() if weight > default}
    assert first == {"gateway", "execution-api", "postgres", "redis"} | {
        name for name, service in SERVICES.items() if service.get("profiles") == ["data-ha"]
    }
    backups = {node for nodes in BACKUP_NODES.values() for node in nodes} | {BACKUP_FILES}
    assert {name for name, weight in shares.items() if weight < default} == {"api-server", "maintenance"} | backups


def test_only_the_doors_publish_ports_and_on_loopback_only():
    published = {name: service["ports"] for name, service in SERVICES.items() if "ports" in service}
    ports = {
        each: sorted(f"127.0.0.1:{page.default_port}:{page.default_port}" for page in PUBLISHED if door(page) == each)
        for each in (GATEWAY, PAGES_DOOR)
    }
    assert {name: sorted(mappings) for name, mappings in published.items()} == ports


def test_the_pages_door_knows_every_page_and_starts_after_it():
    configuration = (COMPOSE / "pages/haproxy.cfg").read_text()
    pages = [published for published in PUBLISHED if door(published) == PAGES_DOOR]
    binds = re.findall(r"^    bind :(\d+)$", configuration, re.MULTILINE)
    assert sorted(map(int, binds)) == sorted(published.default_port for published in pages)
    servers = dict(re.findall(r"^    server (\S+) (\S+):\d+$", configuration, re.MULTILINE))
    assert servers == {published.service: published.service for published in pages}
    assert SERVICES[PAGES_DOOR]["depends_on"].keys() == servers.keys()
    assert SERVICES[PAGES_DOOR]["profiles"] == sorted(PAGES_DOOR_PROFILES, reverse=True)


def test_postgres_and_redis_are_on_internal_networks():
    nodes = {"postgres": "database", "redis": "broker"}
    nodes |= dict.fromkeys(POSTGRES_NODES, "database") | dict.fromkeys((*REDIS_NODES, *SENTINELS), "broker")
    for service, network in nodes.items():
        assert list(SERVICES[service]["networks"]) == [network]
        assert MODEL["networks"][network]["internal"] is True


def test_only_s3_gives_postgres_and_backups_a_route_outside():
    """`up` sets BACKUP_ROUTE with S3; without it no service has such a network, and compose does not create it."""
    routes = {"backup-storage", "backup-storage-1", "backup-storage-2"}
    assert [name for name, service in SERVICES.items() if routes & set(service.get("networks", []))] == []
    common = yaml.safe_load((COMPOSE / "common.yaml").read_text())["services"]
    by_network: dict[str, set[str]] = {}
    for file in ("airflow", "data", "data-ha", "observability", "backup"):
        for name, service in yaml.safe_load((COMPOSE / f"{file}.yaml").read_text())["services"].items():
            base, _, suffix = service.get("extends", {}).get("service", "").partition("${BACKUP_ROUTE:+")
            if "BACKUP_ROUTE" in base:
                (network,) = common[ROUTED + suffix.removesuffix("}")]["networks"]
                by_network.setdefault(network, set()).add(name)
    # Nodes reach each other, and backup services reach Postgres, on `database` only.
    first, second = POSTGRES_NODES
    backups = {node for nodes in BACKUP_NODES.values() for node in nodes} | {BACKUP_FILES}
    assert by_network == {
        "backup-storage": backups,
        "backup-storage-1": {"postgres", first},
        "backup-storage-2": {second},
    }


def test_etcd_members_have_a_network_and_a_password():
    assert MODEL["networks"]["consensus"]["internal"] is True
    assert {name for name, service in SERVICES.items() if "consensus" in service["networks"]} == ETCD
    start = (COMPOSE / "etcd/start.sh").read_text()
    assert '--listen-peer-urls "http://$peer_address:2380"' in start
    assert "auth enable" in (COMPOSE / "etcd/check-leader-and-auth.sh").read_text()


def test_the_name_of_a_stopped_container_fails_at_once():
    assert {name for name, service in SERVICES.items() if service["dns_opt"] != ["ndots:1"]} == set()


def test_a_data_network_has_only_clients_of_its_data():
    members = {net: {n for n, s in SERVICES.items() if net in s["networks"]} for net in ("database", "broker")}
    airflow_with_database = {
        "migrate",
        "api-server",
        "execution-api",
        "scheduler",
        "dag-processor",
        "triggerer",
        "maintenance",
    }
    # The worker uses Celery's results.
    backups = {node for nodes in BACKUP_NODES.values() for node in nodes}
    postgres_services = {"postgres", "postgres-exporter", *POSTGRES_NODES, *ETCD, *backups}
    assert members["database"] == {"worker"} | postgres_services | airflow_with_database
    redis_services = {"redis", "redis-exporter", *REDIS_NODES, *SENTINELS}
    assert members["broker"] == {"scheduler", "worker", "flower"} | redis_services


AIRFLOW = {
    *("migrate", "api-server", "execution-api", "scheduler", "dag-processor", "triggerer", "worker", "flower"),
    "maintenance",
}
RECEIVERS = {"statsd-exporter", "otel-collector"}


def members(network: str) -> set[str]:
    return {name for name, service in SERVICES.items() if network in service["networks"]}


def test_tasks_share_a_network_with_two_receivers_of_telemetry_only():
    observability = {name for name, service in SERVICES.items() if "observability" in service.get("profiles", [])}
    exporters = {"postgres-exporter", "redis-exporter"}  # not on the addresses of those networks: the next test
    for component in ("worker", "dag-processor", "triggerer"):
        near = set().union(*(members(network) for network in SERVICES[component]["networks"]))
        assert near & observability - exporters - ONE_SHOTS == RECEIVERS
    assert members("telemetry") - AIRFLOW - ONE_SHOTS == RECEIVERS
    assert MODEL["networks"]["telemetry"]["internal"] is MODEL["networks"]["monitoring"]["internal"] is True


def test_monitoring_has_no_airflow_component_and_every_scraped_service():
    assert not members("monitoring") & AIRFLOW
    configuration = yaml.safe_load((COMPOSE / "prometheus/prometheus.yaml").read_text())
    scraped = set(re.findall(r"([\w-]+):\d{4}\b", json.dumps(configuration))) - {"localhost"}
    assert scraped | {"postgres-exporter", "redis-exporter"} <= members("monitoring")


def test_metrics_are_served_on_the_network_monitoring_only():
    bound = {
        "gateway": SERVICES["gateway"]["environment"]["METRICS_ADDRESS"],
        "pages": SERVICES["pages"]["environment"]["METRICS_ADDRESS"],
        "otel-collector": SERVICES["otel-collector"]["environment"]["MONITORING_ADDRESS"],
        **{
            name: option.partition("=")[2].rpartition(":")[0]
            for name in ("statsd-exporter", "postgres-exporter", "redis-exporter")
            for option in SERVICES[name]["command"]
            if option.startswith("--web.listen-address=")
        },
        **{node: SERVICES[node]["environment"]["METRICS_ADDRESS"] for nodes in BACKUP_NODES.values() for node in nodes},
    }
    scraped_on_two_networks = {n for n in members("monitoring") if len(SERVICES[n]["networks"]) > 1}
    assert bound.keys() == scraped_on_two_networks - set(ALERTMANAGERS)
    for name, address in bound.items():
        assert SERVICES[name]["networks"]["monitoring"]["aliases"] == [address] == [f"{name}.monitoring"]
    collector = (COMPOSE / "otel-collector/config.yaml").read_text()
    assert set(re.findall(r"0\.0\.0\.0:(\d+)", collector)) == {"4317", "4318"}


def test_prometheus_alertmanagers_and_the_probe_ask_for_a_password():
    for name in ("prometheus", *ALERTMANAGERS, "postgres-exporter"):
        (file,) = [option.partition("=")[2] for option in SERVICES[name]["command"] if "--web.config.file" in option]
        assert file.removeprefix("/run/secrets/") in SERVICES[name]["secrets"]
        assert "/usr/local/bin/check-log-in.sh" in SERVICES[name]["healthcheck"]["test"]
    jobs = yaml.safe_load((COMPOSE / "prometheus/prometheus.yaml").read_text())
    log_in = {"username": "admin", "password_file": "/run/secrets/observability_password"}
    with_password = {job["job_name"] for job in jobs["scrape_configs"] if job.get("basic_auth") == log_in}
    assert with_password == {"prometheus", "alertmanager", "postgres"}
    assert [each["basic_auth"] for each in jobs["alerting"]["alertmanagers"]] == [log_in]


def test_servers_behind_the_gateway_listen_on_frontend_only():
    for name, option in {"api-server": "--host", "execution-api": "--host", "flower": "--hostname"}.items():
        service = SERVICES[name]
        assert service["entrypoint"] == ["sh", "/usr/local/bin/listen-on-frontend.sh", option]
        assert option not in service["command"]
        assert service["healthcheck"]["test"][-1] == "frontend"
        outer = [network for network in service["networks"] if not (MODEL["networks"][network] or {}).get("internal")]
        assert outer == ["frontend"]
    assert "worker" not in members("frontend")


def test_the_gateway_takes_exactly_the_findings_of_the_dag():
    from airflow_ha.monitoring.alertmanager_client import MAX_BODY
    from airflow_ha.monitoring.findings import ALERT_NAMES

    configuration = (COMPOSE / "gateway/haproxy.cfg").read_text()
    (names,) = re.findall(r'"alertname":"\(([\w|]+)\)"', configuration)
    assert names.split("|") == list(ALERT_NAMES)
    assert f"req.hdr_val(Content-Length) gt {MAX_BODY}" in configuration


def test_worker_and_flower_have_no_metadata_credentials():
    for service in (SERVICES["worker"], SERVICES["flower"]):
        assert not DATABASE_SECRETS & set(service["secrets"])
        assert "no-access@" in service["environment"]["AIRFLOW__DATABASE__SQL_ALCHEMY_CONN"]


def test_only_dag_code_has_dags_and_only_maintenance_its_logs_too():
    def mounting(target: str) -> dict[str, bool]:
        """Return the services with a mount at a folder, and whether it is read-only."""
        mounts = [
            (name, volume.split(":")) for name, service in SERVICES.items() for volume in service.get("volumes", [])
        ]
        return {name: parts[2:] == ["ro"] for name, parts in mounts if parts[1:2] == [target]}

    run_dag_code = {"worker", "dag-processor", "triggerer"}
    assert mounting("/opt/airflow/dags") == dict.fromkeys(run_dag_code, True)
    assert mounting("/opt/airflow/logs") == dict.fromkeys({*run_dag_code, "maintenance"}, False) | {"api-server": True}


def test_no_component_serves_logs():
    """Upstream's log server opens a path after its check, and API servers would fetch from a host that a task names."""
    for name in ("worker", "triggerer"):
        assert "--skip-serve-logs" in [*SERVICES[name]["entrypoint"], *SERVICES[name]["command"]]


def test_flower_refuses_every_operation_by_default():
    """Flower checks `read_only` in each handler that changes something: an upgrade must not add one without it."""
    from flower.urls import handlers

    assert SERVICES["flower"]["environment"]["FLOWER_READ_ONLY"] == "true"
    api = {rule[1] for rule in handlers if isinstance(rule, tuple) and rule[0].startswith("/api/")}
    writers = {handler: handler.post for handler in api if "post" in vars(handler)}
    assert len(writers) > 10
    assert [handler for handler, post in writers.items() if "options.read_only:" not in inspect.getsource(post)] == []


def test_only_migrate_has_the_superuser_and_no_dag_code_reads_results():
    def readers(secret: str) -> set[str]:
        return {name for name, service in SERVICES.items() if secret in service.get("secrets", [])}

    assert readers("postgres_superuser_conn") == {"migrate"}
    assert readers("celery_results_owner") == {"migrate", "scheduler", "maintenance"}
    assert readers("celery_result_backend") == {"migrate", "worker"}


def test_each_client_of_redis_has_its_own_log_in():
    for client, name in {"scheduler": "scheduler", "celery": "worker", "flower": "flower"}.items():
        for secret in (f"{client}_broker_url", f"{client}_sentinel_kwargs"):
            assert {n for n, s in SERVICES.items() if secret in s.get("secrets", [])} == {name}
        environment = SERVICES[name]["environment"]
        assert environment["AIRFLOW__CELERY__BROKER_URL_CMD"] == f"cat /run/secrets/{client}_broker_url"
    of_the_operator = {n for n, s in SERVICES.items() if "redis_operator_password" in s.get("secrets", [])}
    assert of_the_operator == {"redis", *REDIS_NODES, *SENTINELS}


def test_every_celery_app_has_the_backend_without_pickle():
    """Flower has none: it cannot reach the database."""
    for name in ("scheduler", "worker"):
        settings = json.loads(SERVICES[name]["environment"]["AIRFLOW__CELERY__EXTRA_CELERY_CONFIG"])
        assert settings["override_backends"] == {"db": "airflow_ha.result_backend:ResultBackend"}
    assert SERVICES["flower"]["environment"]["AIRFLOW__CELERY__RESULT_BACKEND"] == "disabled://"


def test_no_secret_is_in_the_environment():
    secret = re.compile(r"PASSWORD|SECRET|FERNET|TOKEN|BROKER_URL|RESULT_BACKEND|BASIC_AUTH")
    in_clear = {
        f"{name}: {key}"
        for name, service in SERVICES.items()
        for key, value in service.get("environment", {}).items()
        if secret.search(key) and not (key.endswith(("_CMD", "_FILE")) and "/run/secrets/" in value)
        if value != "disabled://"
    }
    names = ("AIRFLOW__LOGGING__SECRET_MASK_ADAPTER", "AIRFLOW__SECRETS__BACKEND")  # of a function and of a class
    assert {entry for entry in in_clear if not entry.endswith(names)} == set()


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
    files -= {"./generated/rules", "./generated/alertmanager", "./secrets/.."}
    assert files
    assert [file for file in files if not (COMPOSE / file).exists()] == []


def test_a_worker_knows_the_alertmanagers_for_findings():
    from airflow_ha.monitoring.check_run import ALERTMANAGERS

    assert ALERTMANAGERS in SERVICES["worker"]["environment"]


def test_every_script_that_a_service_runs_is_mounted():
    missing = []
    for name, service in SERVICES.items():
        arguments = [
            *(service.get("entrypoint") or []),
            *(service.get("command") or []),
            *(service.get("healthcheck", {}).get("test") or []),
        ]
        targets = {target for mount in service.get("volumes", []) for target in mount.split(":")[1:2]}
        scripts = {argument for argument in arguments if re.fullmatch(r"/(usr/local|etc)/\S+\.(sh|py)", argument)}
        missing += [f"{name}: {script}" for script in sorted(scripts) if not is_below(script, targets)]
    assert missing == []


def is_below(path: str, targets: Iterable[str]) -> bool:
    return any(path == target or path.startswith(target.rstrip("/") + "/") for target in targets)
