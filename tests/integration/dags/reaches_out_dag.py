"""A DAG file and a task that try to reach what they must not; test_trust_boundaries_secrets.py reads the outcomes."""

import json
import os
from datetime import UTC, datetime
from pathlib import Path

from airflow.sdk import dag, task

LOGS = Path("/opt/airflow/logs")
SECRETS = Path("/run/secrets")


def actions_on_logs() -> dict[str, bool]:
    """Return whether this process can do each of these in the log folder."""
    others = next(LOGS.glob("dag_id=ml_pipeline_dag/run_id=*/task_id=plan_run"), None)
    actions = {
        "create a log": lambda: (LOGS / f"forged-{os.getpid()}.log").touch(),
        "link to the secrets": lambda: (LOGS / f"link-{os.getpid()}").symlink_to(SECRETS),
        "append to another DAG's log": lambda: (others / "attempt=1.log").open("a").close(),
        "delete another DAG's log": lambda: (others / "attempt=1.log").rename(others / "gone.log"),
    }
    outcomes = {"another DAG has a log": others is not None}
    for name, action in actions.items():
        try:
            action()
            outcomes[name] = True
        except (OSError, TypeError):  # TypeError: no other DAG has a log yet
            outcomes[name] = False
    return outcomes


def parsed_with() -> dict[str, object]:
    """Return what the process that parses this file can reach."""
    return {"secrets": sorted(path.name for path in SECRETS.iterdir()), "logs": actions_on_logs()}


@dag(
    schedule=None,
    start_date=datetime(2026, 1, 1, tzinfo=UTC),
    catchup=False,
    default_args={"owner": "tests", "retries": 0},
    doc_md=json.dumps(parsed_with()),  # the API shows what the DAG processor's process stored
    tags=["tests"],
)
def reaches_out():
    @task
    def attack_logs() -> dict[str, bool]:
        print("a printed line")
        return actions_on_logs()

    attack_logs()


reaches_out()
