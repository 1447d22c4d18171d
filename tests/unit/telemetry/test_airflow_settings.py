"""Both copies of Airflow's StatsD logger, with the settings of compose/."""

from __future__ import annotations

import importlib

import pytest


@pytest.fixture(params=["airflow.observability", "airflow.sdk.observability"])
def logger(request, exporter, monkeypatch):
    import airflow.sdk.serde  # noqa: F401 (its first import sends a metric)

    for key, value in {
        "statsd_on": "True",
        "statsd_host": exporter.host,
        "statsd_port": str(exporter.port),
        "statsd_prefix": "airflow",
        "statsd_influxdb_enabled": "True",
        "statsd_custom_client_path": "airflow_ha.telemetry.statsd.TaggedStatsClient",
        "stat_name_handler": "airflow_ha.telemetry.statsd.any_stat",
    }.items():
        monkeypatch.setenv(f"AIRFLOW__METRICS__{key.upper()}", value)
    return importlib.import_module(f"{request.param}.metrics.statsd_logger").get_statsd_logger()


def test_tags_of_a_metric_arrive(logger, exporter):
    logger.incr("ti.start", tags={"dag_id": "d", "task_id": "t"})
    assert exporter.packet() == (
        "airflow.ti.start:1|c|#dag_id:d,task_id:t,component:scheduler,airflow_instance:0123456789ab"
    )


def test_timer_arrives_tagged_and_has_its_duration(logger, exporter):
    with logger.timer("dagrun.dependency-check", tags={"dag_id": "d"}) as timer:
        pass
    assert exporter.packet().startswith("airflow.dagrun.dependency-check:")
    assert timer.duration < 10_000


@pytest.mark.parametrize(
    "tags",
    [
        {"pool_name": "my pool"},
        {"dag_id": "größe"},
        {"queue": "a:b|c#d\ne"},
        {"dag_id": "d" * 250, "task_id": "t" * 250},
    ],
    ids=["space", "other alphabet", "separators", "longer than 250"],
)
def test_metric_that_airflow_drops_by_default_arrives(logger, exporter, tags):
    logger.gauge("pool.open_slots", 3, tags=tags)
    name, kind, sent = exporter.packet().split("|")
    assert (name, kind) == ("airflow.pool.open_slots:3", "g")
    assert set(tags) <= {pair.partition(":")[0] for pair in sent.removeprefix("#").split(",")}


@pytest.mark.parametrize("value", ["a,b", "a=b"])
def test_metric_arrives_without_a_tag_that_airflow_drops(logger, exporter, value):
    logger.gauge("pool.open_slots", 3, tags={"pool_name": value, "team_name": "t"})
    assert exporter.packet().startswith("airflow.pool.open_slots:3|g|#team_name:t,component:")
