"""Tasks that send, print and read more than is good for them; tests/integration/test_big_requests.py runs them."""

from datetime import UTC, datetime, timedelta

from airflow.providers.standard.operators.trigger_dagrun import TriggerDagRunOperator
from airflow.providers.standard.triggers.temporal import TimeDeltaTrigger
from airflow.sdk import Asset, BaseOperator, Metadata, Variable, dag, get_current_context, task

BIG = 40_000_000
FITS = 990_000
SETTINGS = {
    "schedule": None,
    "start_date": datetime(2026, 1, 1, tzinfo=UTC),
    "catchup": False,
    "is_paused_upon_creation": False,
    "default_args": {"owner": "tests", "retries": 2, "retry_delay": timedelta(seconds=1)},
    "tags": ["tests"],
    "max_active_tasks": 32,
}
EVENTS = Asset("big_requests")


class DefersWith(BaseOperator):
    """Defers with a large argument for its trigger, or for itself."""

    def __init__(self, *, trigger: str = "", resume: str = "", **kwargs):
        super().__init__(**kwargs)
        self.trigger, self.resume = trigger, resume

    def execute(self, context):
        del context
        kwargs = {"text": "x" * BIG} if self.resume else None
        trigger = TimeDeltaTrigger(timedelta(seconds=1))
        if self.trigger:
            trigger.end_from_trigger = "x" * BIG
        self.defer(trigger=trigger, method_name="resumed", kwargs=kwargs)

    def resumed(self, context, event=None, text=""):
        del context, event, text


@dag(**SETTINGS)
def too_big():
    @task
    def xcom() -> str:
        return "x" * BIG

    @task
    def escaped_xcom() -> str:
        return "\x00" * FITS  # six times as large as JSON

    @task
    def pushed() -> None:
        get_current_context()["ti"].xcom_push("mine", ["x" * 1000] * (BIG // 1000))

    @task
    def variable() -> None:
        Variable.set("big_requests", "x" * BIG)

    @task(outlets=[EVENTS])
    def asset_event():
        yield Metadata(EVENTS, extra={"text": "x" * BIG})

    TriggerDagRunOperator(task_id="conf", trigger_dag_id="fits", conf={"text": "x" * BIG})
    DefersWith(task_id="trigger_kwargs", trigger="yes")
    DefersWith(task_id="next_kwargs", resume="yes")
    xcom(), escaped_xcom(), pushed(), variable(), asset_event()


@dag(**SETTINGS)
def fits():
    @task
    def numbers() -> list[int]:
        return list(range(16))

    @task
    def big(number: int) -> str:
        return str(number % 10) * FITS

    @task
    def reads(text: str) -> int:
        return len(text)

    @task
    def reads_all() -> int:
        return sum(map(len, get_current_context()["ti"].xcom_pull(task_ids="big")))

    values = big.expand(number=numbers())
    reads.expand(text=values)
    values >> reads_all()


@dag(**SETTINGS)
def prints():
    @task
    def long_line() -> None:
        print("z" * 30_000_000)
        print("after the long line")

    @task
    def log() -> None:
        print("a log that the test makes larger")

    long_line(), log()


too_big(), fits(), prints()
