"""The settings of suspension, and the memory that a supervisor shares with its task's process."""

from __future__ import annotations

import os

import pytest

from airflow_ha.task_process import suspension


def test_suspension_defaults_to_on_for_eight_minutes():
    assert suspension.is_on({})
    assert suspension.is_on({suspension.SWITCH: ""})
    assert suspension.limit_seconds({}) == suspension.DEFAULT_LIMIT_SECONDS == 480.0


def test_suspension_settings_apply():
    assert not suspension.is_on({suspension.SWITCH: "off"})
    assert suspension.limit_seconds({suspension.LIMIT: "30"}) == 30.0


@pytest.mark.parametrize("value", ["no", "OFF", "0"])
def test_invalid_switch_is_refused(value):
    with pytest.raises(ValueError, match=suspension.SWITCH):
        suspension.is_on({suspension.SWITCH: value})


@pytest.mark.parametrize("value", ["0", "-5", "8m", "inf", "nan"])
def test_invalid_limit_is_refused(value):
    with pytest.raises(ValueError, match=suspension.LIMIT):
        suspension.limit_seconds({suspension.LIMIT: value})


def test_supervisors_of_one_worker_share_nothing(monkeypatch):
    monkeypatch.setattr(suspension, "_shared", suspension._shared)
    suspension.share_with_tasks()
    if not (pid := os.fork()):
        suspension.share_with_tasks()
        suspension.add_held(5.0)
        os._exit(0)
    assert os.waitpid(pid, 0)[1] == 0
    assert suspension.held_seconds() == 0.0


def test_each_pool_process_maps_its_own_memory():
    from airflow.sdk.execution_time import task_runner
    from airflow.sdk.execution_time.supervisor import ActivitySubprocess
    from celery.signals import worker_process_init

    from tests.unit.patches.loading import applied

    with applied("heartbeat_lease", ActivitySubprocess, task_runner):
        assert any(receiver() is suspension.share_with_tasks for _, receiver in worker_process_init.receivers)
