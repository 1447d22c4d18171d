"""A scheduler reads the state of a message and decodes nothing that a task could have stored."""

from __future__ import annotations

import pickle
from pathlib import Path

import pytest
import sqlalchemy
from celery import Celery
from celery.result import AsyncResult

from airflow_ha.result_backend import ResultBackend, TaskFailedError

TRACEBACK = "Traceback (most recent call last):\n  …\nValueError: no such thing\n"


class Tripwire:
    """An object whose pickle creates a file when it is decoded."""

    def __init__(self, file: Path) -> None:
        self.file = file

    def __reduce__(self):
        return Path.touch, (self.file,)


@pytest.fixture
def tripwire(tmp_path):
    return tmp_path / "decoded"


@pytest.fixture(params=[{}, {"result_extended": True}], ids=["", "extended"])
def app(request, tmp_path, tripwire):
    """Celery as in a scheduler, over a table that has more than this version writes."""
    database = sqlalchemy.create_engine(f"sqlite:///{tmp_path}/results")
    with database.begin() as connection:
        columns = "task_id TEXT, status TEXT, date_done TIMESTAMP, traceback TEXT, result BLOB, args BLOB, kwargs BLOB"
        connection.exec_driver_sql(f"CREATE TABLE celery_taskmeta ({columns})")
        row = {"blob": pickle.dumps(Tripwire(tripwire)), "traceback": TRACEBACK}
        for state in ("SUCCESS", "FAILURE", "REVOKED", "RETRY"):
            insert = "INSERT INTO celery_taskmeta VALUES (:state, :state, NULL, :traceback, :blob, :blob, :blob)"
            connection.execute(sqlalchemy.text(insert), row | {"state": state})
    options = {"execution_options": {"schema_translate_map": {"results": None}}}  # SQLite has no schemas
    return Celery(
        set_as_current=False,
        config_source={
            "result_backend": f"db+sqlite:///{tmp_path}/results",
            "override_backends": {"db": "airflow_ha.result_backend:ResultBackend"},
            "database_engine_options": options,
            **request.param,
        },
    )


def test_the_tripwire_works(tripwire):
    pickle.loads(pickle.dumps(Tripwire(tripwire)))  # noqa: S301
    assert tripwire.exists()


def test_a_scheduler_reads_states_without_decoding(app, tripwire):
    from airflow.providers.celery.executors.celery_executor_utils import BulkStateFetcher

    names = ("SUCCESS", "FAILURE", "REVOKED", "RETRY", "unknown")
    read = BulkStateFetcher(1, app).get_many([AsyncResult(name, app=app) for name in names])
    assert {name: state for name, (state, _) in read.items()} == {
        **{name: name for name in names},
        "unknown": "PENDING",
    }
    assert not tripwire.exists()


@pytest.mark.parametrize(
    ("name", "expected"), [("SUCCESS", "None"), ("FAILURE", "TaskFailedError('ValueError: no such thing')")]
)
def test_an_adopted_tasks_result_is_its_last_line(app, tripwire, name, expected):
    """A scheduler that adopts the tasks of another one logs it."""
    result = AsyncResult(name, app=app)
    assert (result.state, repr(result.result), result.traceback) == (name, expected, TRACEBACK)
    assert not tripwire.exists()


def test_only_a_class_of_ours_reads_results(app):
    assert type(app.backend) is ResultBackend
    columns = app.backend.task_cls.__table__.columns
    assert {str(column.type) for column in columns} == {"VARCHAR(155)", "VARCHAR(50)", "DATETIME", "TEXT"}
    assert issubclass(TaskFailedError, Exception)


def test_groups_are_refused(app):
    with pytest.raises(NotImplementedError, match="pickles"):
        app.backend.restore_group("any")
