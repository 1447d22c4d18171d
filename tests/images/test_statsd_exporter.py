"""statsd_exporter accepts the mapping and every line that Airflow may send: none unmapped, none in conflict."""

from __future__ import annotations

import re
import socket
import subprocess
import time
from importlib.util import find_spec
from pathlib import Path

import httpx
import pytest

from ops.observability import metric_contract as contract
from ops.project import ROOT

MAPPING = ROOT / contract.MAPPING
METRICS = contract.airflow_metrics(Path(find_spec("airflow").origin).parent)
VALUES = {"counter": "1|c", "gauge": "3|g", "timer": "1500|ms"}


@pytest.fixture(scope="module")
def statsd_exporter(program):
    return program("STATSD_EXPORTER_IMAGE", "/bin/statsd_exporter")


def free_port(kind):
    with socket.socket(socket.AF_INET, kind) as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


class Exporter:
    def __init__(self, web, udp):
        self.url, self.udp = f"http://127.0.0.1:{web}", udp
        self.lines = 0

    def send(self, *lines):
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as out:
            for line in lines:
                out.sendto(line.encode(), ("127.0.0.1", self.udp))
        self.lines += len(lines)
        deadline = time.monotonic() + 10
        while self.handled() < self.lines:
            assert time.monotonic() < deadline, f"of {self.lines} lines the exporter has handled {self.handled()}"

    def handled(self):
        actions = self.counted("statsd_exporter_events_actions_total")
        return actions + self.counted("statsd_exporter_events_unmapped_total")

    def metrics(self):
        return httpx.get(f"{self.url}/metrics").text

    def counted(self, name):
        return sum(
            float(value) for value in re.findall(rf"^{name}(?:\{{[^}}]*\}})? (\S+)$", self.metrics(), re.MULTILINE)
        )


@pytest.fixture
def exporter(statsd_exporter, tmp_path):
    web, udp = free_port(socket.SOCK_STREAM), free_port(socket.SOCK_DGRAM)
    command = [statsd_exporter, f"--statsd.mapping-config={MAPPING}", "--statsd.listen-tcp="]
    addresses = [f"--web.listen-address=127.0.0.1:{web}", f"--statsd.listen-udp=127.0.0.1:{udp}"]
    with (tmp_path / "log").open("w") as log, subprocess.Popen([*command, *addresses], stderr=log) as process:
        try:
            deadline = time.monotonic() + 10
            while True:
                try:
                    httpx.get(f"http://127.0.0.1:{web}/-/healthy").raise_for_status()
                    break
                except httpx.HTTPError:
                    assert process.poll() is None, (tmp_path / "log").read_text()
                    assert time.monotonic() < deadline
            yield Exporter(web, udp)
        finally:
            process.terminate()


def line(name, metric_type, **tags):
    labels = {**tags, "component": "scheduler", "airflow_instance": "0123456789ab"}
    return f"{name}:{VALUES[metric_type]}|#{','.join(f'{tag}:{value}' for tag, value in labels.items())}"


def check(statsd_exporter, mapping):
    return subprocess.run(
        [statsd_exporter, "--check-config", f"--statsd.mapping-config={mapping}"], capture_output=True, text=True
    )


def test_the_exporter_accepts_the_mapping(statsd_exporter):
    done = check(statsd_exporter, MAPPING)
    assert done.returncode == 0, done.stderr


def test_the_exporter_refuses_a_broken_mapping(statsd_exporter, tmp_path):
    broken = tmp_path / "mapping.yaml"
    broken.write_text(MAPPING.read_text().replace("name: airflow_task_start_total", "name: 'airflow task'"))
    assert check(statsd_exporter, broken).returncode != 0


def test_every_metric_of_airflow_is_mapped_without_conflict(exporter):
    lines = [
        line(name, metric.type, **{tag: f"some_{tag}" for tag in metric.tags})
        for metric in METRICS
        for name in contract.statsd_names(metric)
    ]
    exporter.send(*lines)
    for trouble in ("events_unmapped", "events_conflict", "events_error", "tag_errors", "sample_errors"):
        assert exporter.counted(f"statsd_exporter_{trouble}_total") == 0, trouble


def test_the_exporter_exports_the_names_of_the_contract(exporter):
    rules = contract.mapping_rules(MAPPING.read_text())
    expected, lines = set(), []
    for metric in METRICS:
        for name in contract.statsd_names(metric):
            rule = contract.rule_for(rules, name, metric.type)
            lines.append(line(name, metric.type))
            if not rule.dropped:
                expected |= contract.series_names(rule.prometheus_name(name), rule.type)
    exporter.send(*lines)
    names = set(re.findall(r"^(airflow_\w+)", exporter.metrics(), re.MULTILINE))
    assert names == expected


def test_a_line_without_a_rule_is_kept_and_counted(exporter):
    exporter.send(line("airflow.brand_new", "counter"))
    assert exporter.counted("statsd_exporter_events_unmapped_total") == 1
    assert exporter.counted("airflow_brand_new") == 1


def test_a_task_of_three_hours_has_its_own_bucket(exporter):
    exporter.send("airflow.task.duration:10800000|ms|#dag_id:d,task_id:t")
    text = exporter.metrics()
    assert re.search(r'airflow_dag_task_duration_bucket\{[^}]*le="7200"\} 0', text)
    assert re.search(r'airflow_dag_task_duration_bucket\{[^}]*le="14400"\} 1', text)


def test_a_tag_that_differs_by_run_is_no_label(exporter):
    exporter.send(
        *(
            line("airflow.deadline_alerts.deadline_missed", "counter", dag_id="d", dagrun_id=f"run{n}")
            for n in range(50)
        )
    )
    assert exporter.counted("airflow_deadline_alerts_deadline_missed") == 50
    assert exporter.metrics().count("\nairflow_deadline_alerts_deadline_missed{") == 1


def test_parse_durations_sent_as_milliseconds_are_seconds(exporter):
    exporter.send("airflow.dag_processing.last_duration:0.5|ms|#file_name:f")
    assert exporter.counted("airflow_dag_processing_last_duration_sum") == pytest.approx(0.5)
