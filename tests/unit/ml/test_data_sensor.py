"""The sensor succeeds at once if the data is available, and otherwise waits in the triggerer."""

import asyncio
from datetime import timedelta

import pytest
from airflow.sdk.exceptions import AirflowFailException, TaskDeferred

from airflow_ha.ml import data_source
from airflow_ha.ml.sensor import DataSensor, DataTrigger


@pytest.fixture(autouse=True)
def roots(tmp_path, monkeypatch):
    """The URLs that runs may read, as the Airflow Variable has them."""
    monkeypatch.setenv("AIRFLOW_VAR_ML_DATA_ROOTS", f"s3://warehouse@images/ file://{tmp_path}")
    return ["s3://warehouse@images/", f"file://{tmp_path}"]


def sensor(source):
    return DataSensor(task_id="wait", source=source, poke_interval=15, timeout=3600)


def test_bundled_data_needs_no_wait():
    sensor("digits").execute({})


def test_missing_data_defers_to_the_triggerer(tmp_path, roots):
    url = f"file://{tmp_path}/late.csv"

    with pytest.raises(TaskDeferred) as deferred:
        sensor(url).execute({})

    assert deferred.value.trigger.serialize() == (
        "airflow_ha.ml.sensor.DataTrigger",
        {"source": url, "poll_seconds": 15, "roots": roots},
    )
    assert deferred.value.timeout == timedelta(hours=1)
    assert callable(getattr(DataSensor, deferred.value.method_name))


def test_refused_source_fails_the_task_without_a_retry():
    with pytest.raises(AirflowFailException, match="ml_data_roots"):
        sensor("file:///etc/hostname").execute({})


def test_default_source_is_allowed_without_a_root(tmp_path, monkeypatch):
    (tmp_path / "nightly.csv").write_text("a,label\n")
    monkeypatch.delenv("AIRFLOW_VAR_ML_DATA_ROOTS")
    monkeypatch.setenv("AIRFLOW_VAR_ML_DATA_SOURCE", f"file://{tmp_path}/nightly.csv")

    assert data_source.allowed_roots() == [*data_source.DEFAULT_ROOTS, f"file://{tmp_path}/nightly.csv"]
    sensor(f"file://{tmp_path}/nightly.csv").execute({})


def test_another_triggerer_can_restore_the_trigger(roots):
    path, arguments = DataTrigger("s3://warehouse@images/a.csv", 15, roots).serialize()

    assert path == f"{DataTrigger.__module__}.{DataTrigger.__name__}"
    assert DataTrigger(**arguments).serialize() == (path, arguments)


def test_trigger_of_the_version_before_reads_the_default_roots():
    assert DataTrigger(source="digits", poll_seconds=15).roots == list(data_source.DEFAULT_ROOTS)


def test_trigger_fires_when_the_data_arrives_and_not_before(tmp_path, roots):
    data = tmp_path / "late.csv"

    async def wait():
        fired = asyncio.ensure_future(anext(DataTrigger(f"file://{data}", 0.01, roots).run()))
        done, _ = await asyncio.wait([fired], timeout=0.2)
        assert not done, "fired without data"
        data.write_text("a,label\n")
        return await asyncio.wait_for(fired, timeout=10)

    assert asyncio.run(wait()).payload == {"source": f"file://{data}"}
