"""A task's process has a folder and limits of its own, its log says why it ended, and it leaves nothing behind."""

from __future__ import annotations

import json

import pytest

from tests.unit.forks import in_forks

IMPORTS = """
import ctypes, json, multiprocessing, os, resource, signal, subprocess, sys, tempfile, time, uuid
from pathlib import Path
from types import SimpleNamespace
import airflow.executors.workloads
from airflow.sdk.execution_time import coordinator, supervisor, task_runner
"""
RUN = """
home = Path(tempfile.mkdtemp())
os.environ["AIRFLOW_HA_SCRATCH"] = str(home / "scratch")
for name in ("scratch", "dags"):
    (home / name).mkdir()
(home / "dags/query.sql").write_text("select 1")
{load}
from airflow.sdk.api.datamodels._generated import TaskInstanceState
if "airflow_ha.patches.isolate_task_process" in sys.modules:
    from airflow_ha.task_process import descendants, supervised_task
    from airflow_ha.patches import isolate_task_process
    isolate_task_process.AIRFLOW_HOME = str(home)
    isolate_task_process.prepare_supervisor()
    counted = []
    report_task_exit = sys.modules["airflow_ha.patches.report_task_exit"]
    report_task_exit.count = lambda ti, ending: counted.append(ending.reason)

def task():
    pass

{task}

holder = isolate_task_process if "airflow_ha.patches.isolate_task_process" in sys.modules else supervisor
fork_main = holder._fork_main
holder._fork_main = lambda requests, out, err, log, target: fork_main(requests, out, err, log, task)
supervisor.ActivitySubprocess.send_msg = lambda *_, **__: None
reported = []
calls = SimpleNamespace(
    start=lambda *_: SimpleNamespace(should_retry=False, start_date=None),
    finish=lambda **told: reported.append(str(told["state"].value)),
    heartbeat=lambda *_, **__: None,
)
ti = SimpleNamespace(id=uuid.uuid4(), dag_id="d", task_id="t", queue="default", pid=0)
begun, error = time.monotonic(), None
log = home / "task.log"
descriptor = log.open("ab")
import structlog
logger = structlog.wrap_logger(
    structlog.BytesLogger(descriptor),
    processors=[structlog.processors.JSONRenderer(lambda event, **_: json.dumps(event, default=str).encode())],
)
supervisor._make_process_nondumpable()
try:
    coordinator._PythonCoordinator().execute_task(
        what=ti, dag_rel_path="d.py", bundle_info=None, client=SimpleNamespace(task_instances=calls),
        logger=logger.bind(), subprocess_logs_to_stdout=False,
    )
except Exception as raised:
    error = type(raised).__name__ + ": " + str(raised)
print(json.dumps({{
    "error": error,
    "reported": reported,
    "seconds": time.monotonic() - begun,
    "log": log.read_text(),
    "scratch": os.listdir(home / "scratch"),
    "home": str(home),
    "counted": globals().get("counted"),
    "found": globals().get("found", lambda: None)(),
}}))
"""
OURS = """
import importlib
for name in ("reap_ended_task", "heartbeat_lease", "dag_import_signals", "isolate_task_process", "report_task_exit"):
    importlib.import_module(f"airflow_ha.patches.{name}").apply()
"""
LEAVES_A_PROCESS = """
import subprocess
def task():
    subprocess.Popen(["sleep", "77"], start_new_session=True)
    subprocess.Popen(["sh", "-c", "trap '' TERM; sleep 77 & wait"], start_new_session=True)
    time.sleep(0.2)
    task_runner_says("done")
def task_runner_says(what):
    print(what, flush=True)
    os._exit(3)
def found():
    time.sleep(0.1)
    return [path.parent.name for path in Path("/proc").glob("[0-9]*/cmdline") if b"sleep\\x0077" in path.read_bytes()]
"""
CASES = {
    "exits": "def task(): print('a line', flush=True); os._exit(3)",
    "exits with 0": "def task(): os._exit(0)",
    "killed": "def task(): kept = bytearray(100_000_000); os.kill(os.getpid(), signal.SIGKILL)",
    "faults": "def task(): ctypes.string_at(0)",
    "leaves processes": LEAVES_A_PROCESS,
    "places": """
def task():
    print(json.dumps({
        "cwd": os.getcwd(), "tmp": tempfile.gettempdir(), "sql": Path("dags/query.sql").read_text(),
        "core": resource.getrlimit(resource.RLIMIT_CORE)[0], "score": Path("/proc/self/oom_score_adj").read_text(),
    }), flush=True)
    Path("kept/inner").mkdir(parents=True)
    Path("kept/inner/file").write_text("x")
    Path("kept/inner").chmod(0o500)
    Path("kept").chmod(0)
    os._exit(3)
def found():
    return Path("/proc/self/oom_score_adj").read_text()
""",
    "ends while watched": """
supervised_task.WATCH_AFTER_SECONDS = isolate_task_process.WATCH_AFTER_SECONDS = 0.1
supervised_task.WATCH_SECONDS = supervised_task.CHECK_SHARE = 0
def task():
    if not os.fork() and not os.fork():
        time.sleep(0.2)  # an orphan, which ends before the task
        os._exit(0)
    time.sleep(1)
    supervisor = os.getppid()
    children = Path(f"/proc/{supervisor}/task/{supervisor}/children").read_text().split()
    print(children == [str(os.getpid())], flush=True)
    os._exit(3)
""",
    "memory limit": """
supervised_task.limits.cache_clear()
os.environ["AIRFLOW_HA_TASK_MEMORY_LIMIT"] = "1g"
def task():
    try:
        bytearray(2 << 30)
    except MemoryError:
        print("MemoryError", flush=True)
    os._exit(3)
""",
    **{
        f"fills {what}": f"""
from airflow_ha.task_process import usage
look = usage.open_files
if {what != "by its child"}:  # as where we are not root: a process that ran no other program may not be looked at
    usage.open_files = lambda pid, *where: look(pid, *where) if pid == "self" else None
supervised_task.WATCH_AFTER_SECONDS = isolate_task_process.WATCH_AFTER_SECONDS = 0.1
supervised_task.WATCH_SECONDS = supervised_task.CLOSE_SECONDS = 0.1
supervised_task.limits.cache_clear()
os.environ["AIRFLOW_HA_TASK_SCRATCH_LIMIT"] = "8m"
def task():
    {how}
    time.sleep(30)
"""
        for what, how in {
            "its folder": "for n in range(3000): Path(str(n)).write_bytes(b'x' * 4096)",
            "a deleted file": "file = tempfile.TemporaryFile(); file.write(b'x' * 12_000_000); file.flush()",
            "another place": "Path('/tmp/airflow-ha-fills').write_bytes(b'x' * 12_000_000); "
            "kept = open('/tmp/airflow-ha-fills', 'r+b')",
            "by its child": "subprocess.Popen("
            "['sh', '-c', 'exec 5>gone; rm gone; head -c 12000000 /dev/zero >&5; sleep 30'])",
        }.items()
    },
}


@pytest.fixture(scope="module")
def ends():
    """What became of each task, with our patches; and of one that leaves a process, and one that exits, without."""
    names = [*CASES, "upstream exits"]
    scripts = [RUN.format(load=OURS, task=task) for task in CASES.values()]
    scripts.append(RUN.format(load="", task=CASES["exits"]))
    return dict(zip(names, map(json.loads, in_forks(IMPORTS, scripts)), strict=True))


def log_of(end):
    """What a task's log says, one text a line."""
    return [json.loads(line)["event"] for line in end["log"].splitlines()]


@pytest.mark.parametrize(
    ("case", "reason", "words"),
    [
        ("exits", "exit", ["exit code 3", "MiB"]),
        ("exits with 0", "exit", ["exit code 0"]),
        ("killed", "signal", ["SIGKILL", "MiB"]),
        ("faults", "signal", ["SIGSEGV", "MiB"]),
    ],
)
def test_task_whose_process_ends_is_left_to_the_scheduler(ends, case, reason, words):
    end = ends[case]
    assert (end["reported"], end["counted"]) == ([], [reason])
    assert all(word in end["error"] and word in log_of(end)[-1] for word in words)


def test_upstream_reports_the_state_itself(ends):
    """When this fails, Airflow lets the scheduler decide, or runs the callbacks: delete our update of the state."""
    assert (ends["upstream exits"]["reported"], ends["upstream exits"]["error"]) == (["failed"], None)


def test_what_a_task_wrote_comes_before_the_reason(ends):
    assert [*log_of(ends["exits"])[:-1]] == ["a line"]
    assert any("string_at" in line for line in log_of(ends["faults"])[:-1])


def test_peak_memory_is_what_the_task_had(ends):
    idle, busy = (int(ends[name]["error"].split(" MiB")[0].split()[-1]) for name in ("exits", "killed"))
    assert busy - idle == pytest.approx(100_000_000 / 2**20, abs=10)


def test_orphan_that_ends_is_no_zombie_while_the_task_runs(ends):
    assert log_of(ends["ends while watched"])[0] == "True"
    assert "exit code 3" in ends["ends while watched"]["error"]


def test_what_a_task_leaves_behind_ends_at_once(ends):
    end = ends["leaves processes"]
    assert end["found"] == []
    assert end["seconds"] < 10
    assert any("left behind" in line for line in log_of(end))


def test_task_has_a_folder_of_its_own(ends):
    end = ends["places"]
    places = json.loads(log_of(end)[0])
    assert places["cwd"] == places["tmp"]
    assert places["cwd"].startswith(end["home"] + "/scratch/")
    assert places["sql"] == "select 1"


def test_kernel_takes_the_task_first_and_not_its_supervisor(ends):
    assert int(json.loads(log_of(ends["places"])[0])["score"]) > int(ends["places"]["found"])


@pytest.mark.parametrize("case", CASES)
def test_nothing_is_left_of_a_tasks_folder(ends, case):
    assert ends[case]["scratch"] == []


def test_task_over_its_memory_gets_a_memory_error(ends):
    assert log_of(ends["memory limit"])[0] == "MemoryError"


@pytest.mark.parametrize("case", [case for case in CASES if case.startswith("fills ")])
def test_task_that_fills_the_disk_ends(ends, case):
    end = ends[case]
    assert "No space left on device" in log_of(end)[-1]
    assert all(words in log_of(end)[-1] for words in ("8 MiB", "TASK_SCRATCH_LIMIT"))
    assert (end["counted"], end["seconds"] < 20) == (["scratch"], True)
