"""Deferred tasks whose triggers are at fault, beside one whose trigger is not.

A trigger of a test's own cannot be imported by the triggerer: these are made of what can. Airflow's CallbackTrigger
calls what it is given, and a mock yields what it is given.
"""

from __future__ import annotations

from datetime import timedelta
from typing import Any

from airflow.providers.http.triggers.http import HttpTrigger
from airflow.providers.standard.sensors.time_delta import TimeDeltaSensor
from airflow.sdk import BaseOperator, dag
from airflow.triggers.base import BaseTrigger
from airflow.triggers.callback import CallbackTrigger


class Deferred(BaseOperator):
    def __init__(self, trigger: Any, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.make_trigger = trigger

    def execute(self, context: Any) -> None:
        self.defer(trigger=self.make_trigger(), method_name="resume")

    def resume(self, context: Any, event: Any = None) -> str:
        return "resumed"


class Named(BaseTrigger):
    """A trigger that is another one when the triggerer reads it."""

    def __init__(self, classpath: str, kwargs: dict[str, Any]) -> None:
        super().__init__()
        self.classpath, self.kwargs = classpath, kwargs

    def serialize(self) -> tuple[str, dict[str, Any]]:
        return self.classpath, self.kwargs

    async def run(self) -> Any:
        yield None


def result(value: Any) -> Any:
    """A trigger whose event holds the value."""
    return lambda: Named("unittest.mock.MagicMock", {"run.return_value.__aiter__.return_value": [{"payload": value}]})


def call(path: str, **kwargs: Any) -> Any:
    """A trigger that calls a function."""
    return lambda: CallbackTrigger(path, kwargs)


FAULTS = {
    "nul_in_error": lambda: HttpTrigger(http_conn_id="http_default", method="GET\x00", endpoint="x"),
    "nul_in_value": result({"deep": [{"er": "a\x00b"}]}),
    "nul_in_key": result({"a\x00b": 1}),
    "surrogate": result({"text": "\ud800"}),
    "not_a_number": result(float("nan")),
    "infinite": result([float("-inf")]),
    "large_integer": result(2**70),
    "large_event": result("x" * 5_000_000),
    "no_event": lambda: Named("unittest.mock.MagicMock", {"run.return_value.__aiter__.return_value": ["text"]}),
    "exits": lambda: Named("sys.exit", {}),
    "no_such_class": lambda: Named("no.such.Trigger", {}),
    "arguments_refused": lambda: Named("airflow.providers.standard.triggers.file.FileTrigger", {"nonsense": 1}),
    "value_refused": lambda: Named("datetime.timezone", {"offset": 1}),
}
FATAL = {
    "segmentation_fault": call("ctypes.string_at", ptr=0),
    "ends_the_process": call("os._exit", status=0),
    "blocks_for_ever": call("signal.pause"),
    "takes_all_memory": call("random.randbytes", n=1_500_000_000),
}


@dag(schedule=None, default_args={"retries": 0})
def faulty_triggers() -> None:
    for name, trigger in FAULTS.items():
        Deferred(task_id=name, trigger=trigger)
    TimeDeltaSensor(task_id="good", delta=timedelta(seconds=5), deferrable=True)


def fatal_dag(name: str) -> Any:
    @dag(dag_id=f"fatal_trigger_{name}", schedule=None, default_args={"retries": 0})
    def fatal_trigger() -> None:
        Deferred(task_id="fatal", trigger=FATAL[name])
        TimeDeltaSensor(task_id="good", delta=timedelta(seconds=5), deferrable=True)

    return fatal_trigger()


faulty_triggers()
for each in FATAL:
    fatal_dag(each)
