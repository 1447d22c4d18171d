"""Many DAG files are put in place, timed by what the API says of their DAGs, and nothing of them is left."""

from __future__ import annotations

import ast
from types import SimpleNamespace

import pytest

from ops import waiting
from ops.bench import dag_file_scaling
from ops.bench.dag_file_scaling import FOLDER, SIZES, TAG, WATCHED, WATCHED_TAG
from ops.bench.targets import Side
from ops.compose import Instance
from ops.errors import StackError
from ops.project import Project


class Airflow:
    """Reads every file of a folder whenever its DAGs are asked for, each time a minute later, and keeps the rows."""

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
            said = {key.arg: key.value for key in call.keywords}
            self.rows[path.stem] = {
                "dag_id": said["dag_id"].value,
                "description": said["description"].value,
                "tags": ast.literal_eval(said["tags"]),
                "last_parsed_time": f"2026-01-01T00:{self.minute:02}:00Z",
                "last_parse_duration": 0.25,
                "stale": False,
            }

    def ask(self, method, path, *, params=None, missing=False, timeout=0):
        if method == "DELETE":
            self.deleted.append(path)
            return self.rows.pop(path.rpartition("/")[2], None)
        self.read()
        found = [row for row in self.rows.values() if params["tags"] in row["tags"] and not row["stale"]]
        return {"dags": found[: params["limit"]], "total_entries": len(found)}

    def dag_ids(self, *, tags, exclude_stale):
        return [
            dag_id for dag_id, row in self.rows.items() if tags in row["tags"] and not (exclude_stale and row["stale"])
        ]


@pytest.fixture
def stack(tmp_path, monkeypatch):
    """A stack of paper, its DAG folder, and what was done to its containers."""
    done: list[tuple[str, ...]] = []
    monkeypatch.setenv("STACK_STATE_DIR", str(tmp_path))
    (tmp_path / "dags").mkdir()
    (tmp_path / ".env").write_text(f"DAGS_DIR={tmp_path / 'dags'}\nCOMPOSE_PROFILES=data\n")
    keeper = [Instance(id="e", state="running", health="healthy", created=0.0)]
    monkeypatch.setattr(
        dag_file_scaling.compose, "instances", lambda project: {"statsd-exporter": keeper, "worker": keeper}
    )
    monkeypatch.setattr(dag_file_scaling.compose, "docker", lambda *arguments: done.append(arguments))
    for name in ("whole", "quiet"):
        monkeypatch.setattr(dag_file_scaling, name, lambda *_: None)
    monkeypatch.setattr(dag_file_scaling, "latency", lambda side, report: {"latency": 1.0})
    monkeypatch.setattr(dag_file_scaling, "idle", lambda side, report, seconds: {"cores": seconds})
    monkeypatch.setattr(waiting, "POLL_SECONDS", 0.0)
    api = Airflow(tmp_path / "dags")
    side = Side("here", "x", {}, api, lambda slots: None)
    return SimpleNamespace(project=Project(tmp_path, tmp_path), side=side, api=api, dags=tmp_path / "dags", done=done)


def test_each_size_is_measured_ascending_and_nothing_is_left(stack, monkeypatch):
    monkeypatch.setattr(dag_file_scaling, "SIZES", (10, 100))
    taken: dict = {}
    dag_file_scaling.compare(stack.project, stack.side, 2, taken, print)
    assert {name: len(of) for name, of in taken.items()} == {"10 files": 2, "100 files": 2}
    sample = taken["100 files"][0]
    assert (sample[dag_file_scaling.AGAIN], sample[dag_file_scaling.READING]) == (60.0, 0.25)
    assert (sample["latency"], sample["cores"]) == (1.0, dag_file_scaling.IDLE_SECONDS)
    assert set(sample) >= {dag_file_scaling.KNOWN, dag_file_scaling.EDITED}
    assert list(stack.dags.iterdir()) == []
    assert stack.api.rows == {}
    assert len(stack.api.deleted) == 220
    assert stack.done == [("restart", "e")] * 4


def test_an_interrupted_bench_leaves_nothing_and_one_that_was_killed_is_cleaned_up_after(stack, monkeypatch):
    def interrupted(*_):
        raise KeyboardInterrupt

    (stack.dags / FOLDER).mkdir()
    dag_file_scaling.write(stack.dags / FOLDER, range(25), [], "of a bench that was killed")
    stack.api.read()
    monkeypatch.setattr(dag_file_scaling, "readings", interrupted)
    with pytest.raises(KeyboardInterrupt):
        dag_file_scaling.measure(stack.project, stack.side, 10, print)
    assert list(stack.dags.iterdir()) == []
    assert stack.api.rows == {}
    assert len(stack.api.deleted) == 35
    assert stack.done == [("restart", "e")]


def test_no_dag_is_removed_while_airflow_still_has_its_file(stack, monkeypatch):
    (stack.dags / FOLDER).mkdir()
    dag_file_scaling.write(stack.dags / FOLDER, range(3), [], "x")
    stack.api.read()
    monkeypatch.setattr(stack.api, "read", lambda: None)
    monkeypatch.setattr(dag_file_scaling, "GONE_SECONDS", -1.0)
    with pytest.raises(StackError, match="DAGs of the bench's files are gone"):
        dag_file_scaling.remove(stack.dags / FOLDER, stack.api, print)
    assert stack.api.deleted == []


def test_removing_many_dags_says_how_far_it_is(stack, monkeypatch):
    monkeypatch.setattr(dag_file_scaling, "REPORT_SECONDS", -1.0)
    stack.api.rows = {f"d{number}": {"tags": [TAG], "stale": True} for number in range(3)}
    said: list[str] = []
    dag_file_scaling.remove(stack.dags / FOLDER, stack.api, said.append)
    assert said == ["1 of 3 DAGs are removed", "2 of 3 DAGs are removed", "3 of 3 DAGs are removed"]


@pytest.mark.parametrize("files", SIZES)
def test_as_many_files_are_watched_at_each_size(files):
    assert len(range(0, files, files // WATCHED)) == WATCHED


def test_a_file_holds_one_small_paused_dag_that_everybody_may_read(tmp_path):
    from airflow.dag_processing.dagbag import DagBag

    dag_file_scaling.write(tmp_path, range(2), [1], "as it was")
    bag = DagBag(dag_folder=str(tmp_path))
    assert bag.import_errors == {}
    assert set(bag.dags) == {"bench_file_0000", "bench_file_0001"}
    first, second = (bag.dags[dag_id] for dag_id in sorted(bag.dags))
    assert (first.tags, second.tags) == ({TAG}, {TAG, WATCHED_TAG})
    assert first.is_paused_upon_creation
    assert (first.description, len(first.tasks)) == ("as it was", 1)
    assert {path.stat().st_mode & 0o777 for path in tmp_path.glob("*.py")} == {0o644}
