"""The sensor succeeds at once if the data is available, and otherwise waits in the triggerer."""

import asyncio
from datetime import timedelta

import pytest
from airflow.sdk.exceptions import TaskDeferred

from airflow_ha.ml.sensor import DataSensor, DataTrigger


def sensor(source):
    return DataSensor(task_id="wait", source=source, poke_interval=15, timeout=3600)


def test_bundled_data_needs_no_wait():
    sensor("digits").execute({})


def test_missing_data_defers_to_the_triggerer(tmp_path):
    url = f"file://{tmp_path}/late.csv"

    with pytest.raises(TaskDeferred) as deferred:
        sensor(url).execute({})

    assert deferred.value.trigger.serialize() == (
        "airflow_ha.ml.sensor.DataTrigger",
        {"source": url, "poll_seconds": 15},
    )
    assert deferred.value.timeout == timedelta(hours=1)
    assert callable(getattr(DataSensor, deferred.value.method_name))


def test_another_triggerer_can_restore_the_trigger():
    path, arguments = DataTrigger("s3://warehouse@images/a.csv", 15).serialize()

    assert path == f"{DataTrigger.__module__}.{DataTrigger.__name__}"
    assert DataTrigger(**arguments).serialize() == (path, arguments)


def test_trigger_fires_when_the_data_arrives_and_not_before(tmp_path):
    data = tmp_path / "late.csv"

    async def wait():
        fired = asyncio.ensure_future(anext(DataTrigger(f"file://{data}", 0.01).run()))
        done, _ = await asyncio.wait([fired], timeout=0.2)
        assert not done, "fired without data"
        data.write_text("a,label\n")
        return await asyncio.wait_for(fired, timeout=10)

    assert asyncio.run(wait()).payload == {"source": f"file://{data}"}
