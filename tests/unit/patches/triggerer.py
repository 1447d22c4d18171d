"""A triggerer's supervisor and runner without a database, for test_isolate_trigger_faults.py.

Run it as a program: each argument is a group of trigger names, separated by commas, for one supervisor. `upstream:`
before a group leaves the patch out. It prints a line of JSON for each group.
"""

from __future__ import annotations

import asyncio
import contextlib
import ctypes
import json
import os
import signal
import sys
import time
from types import SimpleNamespace
from typing import Any

import airflow.jobs.triggerer_job_runner as runner
from airflow.models.trigger import Trigger
from airflow.triggers.base import BaseTrigger, TaskSuccessEvent, TriggerEvent
from sqlalchemy.exc import DataError, OperationalError

SECONDS = 60.0


class Test(BaseTrigger):
    def serialize(self):
        return f"__main__.{type(self).__name__}", {}

    async def run(self):
        await asyncio.sleep(0.1)
        yield TriggerEvent(self.payload())

    def payload(self):
        return "fine"


class Good(Test):
    async def run(self):
        await asyncio.sleep(2.5)  # longer than the others need to fail
        yield TriggerEvent("fine")


def define_trigger(name: str, payload: Any) -> None:
    """Define a trigger whose event holds the function's return value."""
    globals()[name] = type(name, (Test,), {"payload": lambda self: payload()})


def circular_list() -> list[Any]:
    items: list[Any] = []
    items.append(items)
    return items


define_trigger("Nul", lambda: {"deep": [{"er": "a\0b"}]})
define_trigger("Surrogate", lambda: "\ud800")
define_trigger("LargeInteger", lambda: 2**70)
define_trigger("Unserializable", object)
define_trigger("Circle", circular_list)
define_trigger("Large", lambda: "x" * 5_000_000)
define_trigger("Exits", lambda: sys.exit("no more"))
define_trigger("RaisesSurrogate", lambda: 1 / 0 if not "\ud800\0" else int("\ud800\0"))
define_trigger("Segfault", lambda: ctypes.string_at(0))
define_trigger("ExitsAtOnce", lambda: os._exit(0))
define_trigger("Killed", lambda: os.kill(os.getpid(), signal.SIGKILL))
define_trigger("Sleeps", lambda: time.sleep(1000))
define_trigger("Outage", lambda: "outage")


def spin() -> None:
    while True:
        pass


define_trigger("Spins", spin)


class NoEvent(Test):
    async def run(self):
        yield "not an event"


class BytesAsXCom(Test):
    async def run(self):
        yield TaskSuccessEvent(xcoms={"key": b"\0"})


class RefusesArguments(Test):
    def __init__(self):
        raise ValueError("\0 refused")


class ExitsInConstructor(Test):
    def __init__(self):
        sys.exit(1)


class Breaks(Test):
    def __init__(self):
        ctypes.string_at(0)


class Many(Test):
    """A trigger with four events, which do not fit into one message."""

    async def run(self):
        for _ in range(4):
            yield TriggerEvent("x" * 3_000_000)


class Postgres:
    """The triggers and their outcomes."""

    def __init__(self, names: list[str]) -> None:
        self.triggers = {
            number: SimpleNamespace(
                id=number, classpath=f"__main__.{name}", encrypted_kwargs="{}", task_instance=None, assets=[]
            )
            for number, name in enumerate(names, 1)
        }
        self.names = dict(enumerate(names, 1))
        self.outcome: dict[str, str] = {}
        self.events = 0

    def ids(self, *_: Any, **__: Any) -> list[int]:
        return [number for number, name in self.names.items() if name not in self.outcome]

    def submit_event(self, trigger_id: int, event: TriggerEvent) -> None:
        if event.payload == "outage":
            raise OperationalError("UPDATE", {}, Exception("server closed the connection"), connection_invalidated=True)
        if "\\u0000" in json.dumps(event.payload):
            raise DataError("UPDATE", {}, type("Untranslatable", (Exception,), {"pgcode": "22P05"})("a\0b"))
        self.events += 1
        self.outcome[self.names[trigger_id]] = "event"

    def submit_failure(self, trigger_id: int, exc: list[str] | None = None) -> None:
        text = "".join(exc or ())
        assert "\0" not in text
        text.encode()
        self.outcome[self.names[trigger_id]] = f"failed: {text}"


def supervise(names: list[str]) -> dict[str, Any]:
    """Run the triggers until each has an outcome, or until the runner or the supervisor ends."""
    database = Postgres(names)

    @contextlib.contextmanager
    def create_session():
        yield SimpleNamespace(execute=lambda _: None, get=lambda *_: None)

    Trigger.assign_unassigned = lambda *_, **__: None
    Trigger.ids_for_triggerer = database.ids
    Trigger.clean_unused = lambda: None
    Trigger.submit_event, Trigger.submit_failure = database.submit_event, database.submit_failure
    runner.create_session = create_session
    runner.perform_heartbeat = lambda *_, **__: None
    supervisor = runner.TriggerRunnerSupervisor
    supervisor.fetch_trigger_details = lambda _, ids, session: {number: database.triggers[number] for number in ids}
    supervisor.fetch_non_task_trigger_ids = lambda _, session: set(database.triggers)
    supervisor.runner_health_check_threshold = 1.0
    if patch := sys.modules.get("airflow_ha.patches.isolate_trigger_faults"):
        patch.create_session = create_session
        patch._cells[0] = patch._cells[1] = patch._cells[2] = 0
        patch._ended = False
        patch.BUSY_SECONDS = 0.5
    process = supervisor.start(job=SimpleNamespace(id=1, hostname="here"), capacity=100, logger=None)
    deadline = time.monotonic() + SECONDS
    supervisor.should_stop = lambda self: not database.ids() or time.monotonic() > deadline
    error = None
    try:
        process.run()
    except Exception as raised:
        error = type(raised).__name__
    finally:
        if process.is_alive():
            process.kill(signal.SIGKILL)
    return {"outcome": database.outcome, "error": error, "exit": process._exit_code, "events": database.events}


def main() -> None:
    for group in sys.argv[1:]:
        if not group.startswith("upstream:"):
            from airflow_ha.patches import isolate_trigger_faults

            isolate_trigger_faults.apply()
        result = supervise(group.removeprefix("upstream:").split(","))
        print("RESULT", json.dumps(result), flush=True)


if __name__ == "__main__":
    main()
