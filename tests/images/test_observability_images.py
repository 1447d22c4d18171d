"""The images of the profile observability, official or fallback, behave as compose/observability.yaml expects."""

from __future__ import annotations

import base64

import pytest
import yaml

from ops.secrets_store import web_config
from tests.images.conftest import ROOT, docker, run_in
from tests.images.test_data_images import wait_for

COLLECTOR = "10001:10001"
NOBODY = "65534:65534"
COMPOSE = ROOT / "compose"
ALERTMANAGER = ["--config.file=/run/secrets/routes.yaml", "--storage.path=/tmp/data", "--cluster.listen-address="]
SERVICES = yaml.safe_load((COMPOSE / "observability.yaml").read_text(encoding="utf-8"))["services"]


@pytest.mark.parametrize("jaeger", ["jaeger", "jaeger-on"])
@pytest.mark.parametrize("backend", ["backend", "backend-on"])
def test_the_collector_accepts_every_configuration(images, backend, jaeger):
    files = [f"--config=/etc/otelcol/{name}.yaml" for name in ("config", backend, jaeger)]
    answer = run_in(
        images["OTEL_COLLECTOR_IMAGE"].reference,
        COLLECTOR,
        ["/otelcol-contrib", "validate", *files],
        *("--volume", f"{COMPOSE / 'otel-collector'}:/etc/otelcol:ro"),
        *("--tmpfs", "/var/lib/otelcol:uid=10001,gid=10001"),
        *("--env", "OTLP_BACKEND_ENDPOINT=http://backend.test:4318", "--env", "MONITORING_ADDRESS=127.0.0.1"),
    )
    assert (answer.status, answer.output) == (0, "")


def test_the_collector_refuses_an_unknown_component(images, tmp_path):
    """Otherwise the test above proves nothing."""
    tmp_path.chmod(0o755)
    wrong = tmp_path / "wrong.yaml"
    wrong.write_text("receivers: {otlp: {}, no_such: {}}\n")
    command = ["/otelcol-contrib", "validate", "--config=/wrong.yaml"]
    reference = images["OTEL_COLLECTOR_IMAGE"].reference
    answer = run_in(reference, COLLECTOR, command, "--volume", f"{wrong}:/wrong.yaml:ro")
    assert answer.status != 0
    assert "no_such" in answer.output


def test_statsd_exporter_makes_labels_of_our_clients_tags(images, start):
    container = start(
        *("--network", "none", "--user", NOBODY, "--entrypoint", "/bin/statsd_exporter"),
        *(images["STATSD_EXPORTER_IMAGE"].reference, "--statsd.listen-tcp="),
    )
    wait_for(container, "wget", "-q", "-O", "/dev/null", "http://127.0.0.1:9102/-/healthy")
    line = "airflow.ti.finish:3|c|#dag_id:d,state:success,component:scheduler"
    send = f"import socket; socket.socket(type=socket.SOCK_DGRAM).sendto(b'{line}', ('127.0.0.1', 9125))"
    # The image has no program that sends a UDP packet.
    sender = ("run", "--rm", "--network", f"container:{container}", "--entrypoint", "python")
    assert docker(*sender, images["AIRFLOW_IMAGE"].reference, "-c", send).status == 0
    expected = 'airflow_ti_finish{component="scheduler",dag_id="d",state="success"} 3'
    ask = f"wget -q -O - http://127.0.0.1:9102/metrics | grep -qF '{expected}'"
    wait_for(container, "sh", "-c", ask, seconds=10)


def test_prometheus_with_our_configuration_is_healthy(images, volume, start):
    container = start(
        *("--network", "none", "--user", NOBODY, "--tmpfs", "/tmp", "--entrypoint", "/bin/prometheus"),
        *("--volume", f"{COMPOSE / 'prometheus/prometheus.yaml'}:/etc/prometheus/prometheus.yaml:ro"),
        *("--volume", f"{COMPOSE / 'prometheus/rules'}:/etc/prometheus/rules:ro"),
        *("--volume", f"{COMPOSE.parent / 'alerting/rules'}:/etc/prometheus/alerting:ro"),
        *("--volume", f"{volume}:/prometheus"),
        images["PROMETHEUS_IMAGE"].reference,
        *("--config.file=/etc/prometheus/prometheus.yaml", "--storage.tsdb.path=/prometheus"),
    )
    wait_for(container, "/bin/promtool", "check", "healthy", "--url=http://127.0.0.1:9090")
    rules = docker("exec", container, "wget", "-q", "-O", "-", "http://127.0.0.1:9090/api/v1/rules").output
    assert '"status":"success"' in rules
    assert '"lastError"' not in rules


@pytest.mark.parametrize(
    ("key", "program", "port", "path"),
    [
        ("PROMETHEUS_IMAGE", "/bin/prometheus", 9090, "-/healthy"),
        ("ALERTMANAGER_IMAGE", "/bin/alertmanager", 9093, "-/healthy"),
        ("POSTGRES_EXPORTER_IMAGE", "/bin/postgres_exporter", 9187, "metrics"),
    ],
)
def test_a_server_with_our_web_configuration_needs_its_password(images, start, readable, key, program, port, path):
    configuration = readable("web.yaml", web_config('it\'s "secret" $HOME', key="k"))
    routes = readable("routes.yaml", "{route: {receiver: nobody}, receivers: [{name: nobody}]}")
    more = {"PROMETHEUS_IMAGE": ["--storage.tsdb.path=/tmp/data"], "ALERTMANAGER_IMAGE": ALERTMANAGER}
    container = start(
        *("--network", "none", "--user", NOBODY, "--tmpfs", "/tmp:mode=1777", "--entrypoint", program),
        *("--volume", f"{configuration}:/run/secrets/web.yaml:ro", "--volume", f"{routes}:/run/secrets/routes.yaml:ro"),
        *("--volume", f"{COMPOSE}/health/check-log-in.sh:/usr/local/bin/check-log-in.sh:ro"),
        *(images[key].reference, "--web.config.file=/run/secrets/web.yaml", *more.get(key, [])),
    )
    url = f"http://127.0.0.1:{port}/{path}"
    wait_for(container, "sh", "/usr/local/bin/check-log-in.sh", url)
    for password, status in (('it\'s "secret" $HOME', 0), ("wrong", 1)):
        header = base64.b64encode(f"admin:{password}".encode()).decode()
        get = ("wget", "-q", "-O", "-", "--header", f"Authorization: Basic {header}", url)
        assert docker("exec", container, *get).status == status


def test_a_server_without_a_log_in_is_unhealthy(images, start):
    container = start(
        *("--network", "none", "--user", NOBODY, "--tmpfs", "/tmp:mode=1777", "--entrypoint", "/bin/statsd_exporter"),
        *("--volume", f"{COMPOSE}/health/check-log-in.sh:/usr/local/bin/check-log-in.sh:ro"),
        images["STATSD_EXPORTER_IMAGE"].reference,
    )
    wait_for(container, "wget", "-q", "-O", "/dev/null", "http://127.0.0.1:9102/-/healthy")
    check = ("sh", "/usr/local/bin/check-log-in.sh", "http://127.0.0.1:9102/-/healthy")
    assert docker("exec", container, *check).status != 0


def test_cadvisor_measures_containers_without_dockers_socket(images, start):
    service = SERVICES["cadvisor"]
    container = start(
        *("--network", "none", "--user", service["user"], "--tmpfs", "/tmp", "--volume", "/sys:/sys:ro"),
        *(f"--volume={COMPOSE}/cadvisor/{name}:/usr/local/bin/{name}:ro" for name in ("start.sh", "oom-kills.sh")),
        *("--entrypoint", service["entrypoint"][0], images["CADVISOR_IMAGE"].reference),
        *(*service["entrypoint"][1:], *service["command"]),
    )
    wait_for(container, *service["healthcheck"]["test"][4:])
    container_id = docker("inspect", "--format", "{{.Id}}", container).output.strip()
    ask = f"wget -q -O - http://127.0.0.1:8080/metrics | grep '^container_memory_working_set_bytes.*{container_id}'"
    assert float(wait_for(container, "sh", "-c", ask, seconds=30).output.split()[1]) > 0
    # The script runs with the image's own shell and awk, and lists this container.
    ask = f"sh /usr/local/bin/oom-kills.sh && grep '^old {container_id[:12]} [0-9]* 0$' /tmp/oom-kills"
    assert wait_for(container, "sh", "-c", ask, seconds=30).output.count("\n") == 1


@pytest.mark.parametrize(
    ("key", "service", "environment", "metric"),
    [
        ("POSTGRES_EXPORTER_IMAGE", "postgres-exporter", "DATA_SOURCE_URI=127.0.0.1:1/postgres", "pg_up 0"),
        ("REDIS_EXPORTER_IMAGE", "redis-exporter", "REDIS_ADDR=redis://127.0.0.1:1", "redis_up 0"),
    ],
)
def test_an_exporter_reports_an_unreachable_server(images, start, key, service, environment, metric):
    model = SERVICES[service]
    container = start(
        *("--network", "none", "--user", model["user"], "--env", environment),
        *("--add-host", f"{service}.monitoring:127.0.0.1"),
        *("--entrypoint", model["entrypoint"][0], images[key].reference, model["command"][0]),
    )
    port = model["command"][0].rsplit(":", 1)[1]
    ask = f"wget -q -O - http://{service}.monitoring:{port}/metrics | grep -x '{metric}'"
    wait_for(container, "sh", "-c", ask, seconds=20)
