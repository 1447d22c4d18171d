"""The commands after a restore, in a container of the stack, and their reports."""

from __future__ import annotations

import json
from datetime import UTC, datetime

import pytest

from ops import restored, time_limits
from ops.errors import BAD_INPUT, FAILURE, StackError


@pytest.fixture
def answer(docker, project):
    project.env_file.write_text("COMPOSE_PROJECT_NAME=test\n")
    return docker.answer


def test_a_report_is_read_from_a_container_of_its_own(docker, project, answer):
    answer("airflow_ha.restored", out=json.dumps({"held": []}))
    assert restored.hold(project) == {"held": []}
    call = docker.calls()[-1]
    assert {"run", "--rm", "--no-deps", "--entrypoint=timeout"} <= set(call)
    command = ["hold", "--json", "--keep=canary_dag", "--keep=monitoring_dag"]
    assert call[call.index("python") :] == ["python", "-m", "airflow_ha.restored", *command]


def test_arguments_name_the_time_and_the_dags(docker, project, answer):
    answer("airflow_ha.restored", out="{}")
    restored.missed(project, datetime(2026, 11, 29, 12, tzinfo=UTC))
    restored.release(project, ["-odd", "other"])
    restored.release(project)
    calls = [call[call.index("--json") + 1 :] for call in docker.calls()]
    assert calls == [["--since=2026-11-29T12:00:00+00:00"], ["--", "-odd", "other"], ["--all"]]


def test_problems_are_returned_although_the_check_fails(project, answer):
    answer("airflow_ha.restored", out=json.dumps({"problems": ["damaged"]}), code=1)
    assert restored.check(project) == {"problems": ["damaged"]}


def test_a_refusal_keeps_its_reason_and_hint(project, answer):
    answer("airflow_ha.restored", err="a warning\ncannot release a: not held. hint: run it\n", code=1)
    with pytest.raises(StackError) as refused:
        restored.release(project, ["a"])
    assert (refused.value.what, refused.value.hint) == ("cannot release a: not held", "run it")
    assert refused.value.code == BAD_INPUT


def test_a_crash_shows_its_last_lines(project, answer):
    answer("airflow_ha.restored", err="Traceback\nKeyError: none\n", code=1)
    with pytest.raises(StackError, match="KeyError: none") as failed:
        restored.show(project)
    assert failed.value.code == FAILURE


def test_a_command_that_hangs_ends_at_its_limit(project, answer):
    answer("airflow_ha.restored", code=time_limits.EXCEEDED)
    with pytest.raises(StackError, match=r"show`: no answer in 1800 s"):
        restored.show(project)


def test_only_tables_with_fewer_rows_are_reported():
    lost = restored.lost_rows({"dag": 3, "log": 9, "gone": 1}, {"dag": 3, "log": 8})
    assert lost == ["log has 8 rows, it had 9 at the backup", "gone has 0 rows, it had 1 at the backup"]


def test_damage_and_lost_rows_refuse_a_restored_database(project, answer):
    answer("airflow_ha.restored", out=json.dumps({"problems": [], "rows": {"dag": 1}}))
    restored.refuse_problems(project, {})
    with pytest.raises(StackError, match="dag has 1 rows, it had 2") as refused:
        restored.refuse_problems(project, {"dag": 2})
    assert "--accept-problems" in refused.value.hint


def test_a_report_prints_every_value(capsys):
    rows = [{"task_id": "a[0]", "map_index": 7, "assets": ["x", "y"]}, {"task_id": "b", "todo": "wait"}]
    restored.print_report({"held": ["one", "two"], "settled": rows, "waiting": [], "rows": {"dag": 3}})
    output = capsys.readouterr().out
    for text in ("held: one, two", "a[0]", "7", "x, y", "todo", "waiting: none", "dag 3"):
        assert text in output
