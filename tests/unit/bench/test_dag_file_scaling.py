"""DAG files are created, timed by what the API returns for their DAGs, and removed without a trace."""

from __future__ import annotations

import ast
from types import SimpleNamespace

import pytest

from ops import waiting
from ops.bench import dag_file_scaling
from ops.bench.dag_file_scaling import FOLDER, SIZES, TAG, WATCHED, WATCHED_TAG
from ops.bench.targets import Measurement, Target
from ops.compose import Instance
from ops.errors import StackError
from ops.project import Project


class Airflow:
    """Airflow that parses all files of a folder for each request, each time a minute later, and keeps the rows."""

    def __init__(self, folder):
        self.folder = folder / FOLDER
        self.rows: dict[str, dict] = {}
        self.minute = 0
        self.deleted: list[str] = []

    def read(self):
        self.minute += 1
        for row in self.rows.values():
            row["stale"] = True
        for path in self.folder.glob("*.py"):
            call = next(node for node in ast.walk(ast.parse(path.read_text())) if isinstance(node, ast.Call))
            arguments = {key.arg: key.value for key in call.keywords}
            self.rows[path.stem] = {
                "dag_id": arguments["dag_id"].value,
                "description": arguments["description"].value,
                "tags": ast.literal_eval(arguments["tags"]),
                "last_parsed_time": f"2026-01-01T00:{self.minute:02}:00Z",
                "last_parse_duration": 0.25,
                "stale": False,
            }

    def ask(self, method, path, *, params=None, missing=False, timeout=0):
        if method == "DELETE":
            self.deleted.append(path)
            return self.rows.pop(path.rpartition("/")[2], None)
        self.read()
        rows = [row for row in self.rows.values() if params["tags"] in row["tags"] and not row["stale"]]
        return {"dags": rows[: params["limit"]], "total_entries": len(rows)}

    def dag_ids(self, *, tags, exclude_stale):
        return [
            dag_id for dag_id, row in self.rows.items() if tags in row["tags"] and not (exclude_stale and row["stale"])
        ]


@pytest.fixture
def stack(tmp_path, monkeypatch):
    """Fake stack with its DAG folder, and the docker commands that were run."""
    commands: list[tuple[str, ...]] = []
    monkeypatch.setenv("STACK_STATE_DIR", str(tmp_path))
    (tmp_path / "dags").mkdir()
    (tmp_path / ".env").write_text(f"DAGS_DIR={tmp_path / 'dags'}\nCOMPOSE_PROFILES=data\n")
    keeper = [Instance(id="e", state="running", health="healthy", created=0.0)]
    monkeypatch.setattr(
        dag_file_scaling.compose, "instances", lambda project: {"statsd-exporter": keeper, "worker": keeper}
    )
    monkeypatch.setattr(dag_file_scaling.compose, "docker", lambda *arguments: commands.append(arguments))
    for name in ("wait_until_ready", "wait_until_idle"):
        monkeypatch.setattr(dag_file_scaling, name, lambda *_: None)
    monkeypatch.setattr(dag_file_scaling, "measure_latency", lambda target, report: {"latency": 1.0})
    monkeypatch.setattr(dag_file_scaling, "measure_idle", lambda target, report, seconds: {"cores": seconds})
    monkeypatch.setattr(waiting, "POLL_SECONDS", 0.0)
    api = Airflow(tmp_path / "dags")
    target = Target("here", "x", {}, api, lambda slots: None)
    return SimpleNamespace(
        project=Project(tmp_path, tmp_path), target=target, api=api, dags=tmp_path / "dags", commands=commands
    )


def test_each_size_is_measured_and_removed(stack, monkeypatch):
    monkeypatch.setattr(dag_file_scaling, "SIZES", (10, 100))
    samples: dict = {}
    dag_file_scaling.compare(Measurement(stack.project, stack.target, 2, samples, print))
    assert {name: len(taken) for name, taken in samples.items()} == {"10 files": 2, "100 files": 2}
    sample = samples["100 files"][0]
    assert (sample[dag_file_scaling.AGAIN], sample[dag_file_scaling.READING]) == (60.0, 0.25)
    assert (sample["latency"], sample["cores"]) == (1.0, dag_file_scaling.IDLE_SECONDS)
    assert set(sample) >= {dag_file_scaling.KNOWN, dag_file_scaling.EDITED}
    assert list(stack.dags.iterdir()) == []
    assert stack.api.rows == {}
    assert len(stack.api.deleted) == 220
    assert stack.commands == [("restart", "e")] * 4


def test_interrupted_and_killed_benches_are_cleaned_up(stack, monkeypatch):
    def interrupted(*_):
        raise KeyboardInterrupt

    (stack.dags / FOLDER).mkdir()
    dag_file_scaling.write_files(stack.dags / FOLDER, range(25), [], "of a bench that was killed")
    stack.api.read()
    monkeypatch.setattr(dag_file_scaling, "measure_parsing", interrupted)
    with pytest.raises(KeyboardInterrupt):
        dag_file_scaling.measure(stack.project, stack.target, 10, print)
    assert list(stack.dags.iterdir()) == []
    assert stack.api.rows == {}
    assert len(stack.api.deleted) == 35
    assert stack.commands == [("restart", "e")]


def test_dag_is_not_deleted_while_its_file_is_known(stack, monkeypatch):
    (stack.dags / FOLDER).mkdir()
    dag_file_scaling.write_files(stack.dags / FOLDER, range(3), [], "x")
    stack.api.read()
    monkeypatch.setattr(stack.api, "read", lambda: None)
    monkeypatch.setattr(dag_file_scaling, "STALE_SECONDS", -1.0)
    with pytest.raises(StackError, match="DAGs of the bench's files are gone"):
        dag_file_scaling.remove_files(stack.dags / FOLDER, stack.api, print)
    assert stack.api.deleted == []


def test_removal_of_many_dags_reports_progress(stack, monkeypatch):
    monkeypatch.setattr(dag_file_scaling, "REPORT_SECONDS", -1.0)
    stack.api.rows = {f"d{number}": {"tags": [TAG], "stale": True} for number in range(3)}
    lines: list[str] = []
    dag_file_scaling.remove_files(stack.dags / FOLDER, stack.api, lines.append)
    assert [line.count(f"{number} of 3") for number, line in enumerate(lines, start=1)] == [1, 1, 1]


@pytest.mark.parametrize("files", SIZES)
def test_each_size_watches_the_same_number_of_files(files):
    assert len(range(0, files, files // WATCHED)) == WATCHED


def test_file_is_readable_and_has_one_small_paused_dag(tmp_path):
    from airflow.dag_processing.dagbag import DagBag

    dag_file_scaling.write_files(tmp_path, range(2), [1], "original")
    bag = DagBag(dag_folder=str(tmp_path))
    assert bag.import_errors == {}
    assert set(bag.dags) == {"bench_file_0000", "bench_file_0001"}
    first, second = (bag.dags[dag_id] for dag_id in sorted(bag.dags))
    assert (first.tags, second.tags) == ({TAG}, {TAG, WATCHED_TAG})
    assert first.is_paused_upon_creation
    assert (first.description, len(first.tasks)) == ("original", 1)
    assert {path.stat().st_mode & 0o777 for path in tmp_path.glob("*.py")} == {0o644}
