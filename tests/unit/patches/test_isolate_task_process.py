"""A task process has its own folder and limits, its log states why it ended, and it leaves nothing behind."""

from __future__ import annotations

import json

import pytest

from tests.unit.forks import in_forks

pytestmark = pytest.mark.processes

IMPORTS = """
import ctypes, json, multiprocessing, os, resource, signal, subprocess, sys, tempfile, threading, time, uuid
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
    finish=lambda **call: reported.append(str(call["state"].value)),
    heartbeat=lambda *_, **__: None,
)
ti = SimpleNamespace(id=uuid.uuid4(), dag_id="d", task_id="t", queue="default", pid=0)
started, error = time.monotonic(), None
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
    "seconds": time.monotonic() - started,
    "log": log.read_text(),
    "scratch": os.listdir(home / "scratch"),
    "home": str(home),
    "counted": globals().get("counted"),
    "after": globals().get("after", lambda: None)(),
}}))
"""
PATCHES = """
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
    finish("done")
def finish(text):
    print(text, flush=True)
    os._exit(3)
def after():
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
def after():
    return Path("/proc/self/oom_score_adj").read_text()
""",
    "ends while watched": """
supervised_task.WATCH_AFTER_SECONDS = isolate_task_process.WATCH_AFTER_SECONDS = 0.1
supervised_task.WATCH_SECONDS = supervised_task.CHECK_SHARE = 0
def task():
    if not os.fork() and not os.fork():
        time.sleep(0.2)  # an orphan that ends before the task
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
        f"many processes{where}": f"""
from airflow_ha.task_process import limits
supervised_task.WATCH_AFTER_SECONDS = isolate_task_process.WATCH_AFTER_SECONDS = 0.1
supervised_task.WATCH_SECONDS = supervised_task.CLOSE_SECONDS = 0.1
supervised_task.limits = lambda: limits.Limits(memory=None, allocation=None, scratch=1 << 30, threads=20)
{before}
def task():
    end = time.monotonic() + 60
    for number in range(30):
        if not os.fork():
            os.setsid()
            if number:
                time.sleep(60)
            while time.monotonic() < end and not os.fork():
                pass  # a new process for each fork: the id that gets a signal has exited
            os._exit(0)
    time.sleep(30)
def after():
    return len(descendants.reap(descendants.children()))
"""
        for where, before in {
            "": "",
            " and no thread can start": """
start = threading.Thread.start
def refuse(thread):
    if thread.name == "task-watch":
        raise RuntimeError("can't start new thread")
    start(thread)
threading.Thread.start = refuse
""",
        }.items()
    },
    **{
        f"forks that {what}": f"""
from airflow_ha.task_process import limits, process_tree
share = process_tree.share

def share_of(pid):
    if pid == "self":
        return share(pid)
    raise PermissionError  # as without root: forks are not dumpable

process_tree.share = share_of
supervised_task.WATCH_AFTER_SECONDS = isolate_task_process.WATCH_AFTER_SECONDS = 0.1
supervised_task.WATCH_SECONDS = supervised_task.CLOSE_SECONDS = 0.1
supervised_task.limits = lambda: limits.Limits(memory=600 << 20, allocation=None, scratch=1 << 30)
def task():
    kept = os.urandom({parent} << 20)
    children = 5
    for _ in range(children):
        if not os.fork():
            kept = [kept, os.urandom({child} << 20)]
            time.sleep({seconds})
            os._exit(0)
    for _ in range(children):
        os.wait()
    os._exit(3)
"""
        for what, parent, child, seconds in (("leak", 1, 200, 30), ("share", 200, 1, 2))
    },
    **{
        f"fills {place}": f"""
from airflow_ha.task_process import usage
open_files = usage.open_files
if {place != "by its child"}:  # as without root: files of a process that ran no other program are not readable
    usage.open_files = lambda pid, *where: open_files(pid, *where) if pid == "self" else None
supervised_task.WATCH_AFTER_SECONDS = isolate_task_process.WATCH_AFTER_SECONDS = 0.1
supervised_task.WATCH_SECONDS = supervised_task.CLOSE_SECONDS = 0.1
supervised_task.limits.cache_clear()
os.environ["AIRFLOW_HA_TASK_SCRATCH_LIMIT"] = "8m"
def task():
    {statement}
    time.sleep(30)
"""
        for place, statement in {
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
def outcomes():
    """The outcome of each task with the patches, and of one that exits without them."""
    names = [*CASES, "upstream exits"]
    scripts = [RUN.format(load=PATCHES, task=task) for task in CASES.values()]
    scripts.append(RUN.format(load="", task=CASES["exits"]))
    return dict(zip(names, map(json.loads, in_forks(IMPORTS, scripts)), strict=True))


def log_messages(outcome):
    """Return the messages in a task's log."""
    return [json.loads(line)["event"] for line in outcome["log"].splitlines()]


@pytest.mark.parametrize(
    ("case", "reason", "words"),
    [
        ("exits", "exit", ["exit code 3", "MiB"]),
        ("exits with 0", "exit", ["exit code 0"]),
        ("killed", "signal", ["SIGKILL", "MiB"]),
        ("faults", "signal", ["SIGSEGV", "MiB"]),
    ],
)
def test_task_whose_process_ends_is_left_to_the_scheduler(outcomes, case, reason, words):
    outcome = outcomes[case]
    assert (outcome["reported"], outcome["counted"]) == ([], [reason])
    assert all(word in outcome["error"] and word in log_messages(outcome)[-1] for word in words)


def test_upstream_reports_the_state_itself(outcomes):
    """If this fails, Airflow lets the scheduler decide, or runs the callbacks: delete our update of the state."""
    assert (outcomes["upstream exits"]["reported"], outcomes["upstream exits"]["error"]) == (["failed"], None)


def test_task_output_precedes_the_reason(outcomes):
    assert [*log_messages(outcomes["exits"])[:-1]] == ["a line"]
    assert any("string_at" in line for line in log_messages(outcomes["faults"])[:-1])


def test_peak_memory_is_that_of_the_task(outcomes):
    idle, busy = (int(outcomes[name]["error"].split(" MiB")[0].split()[-1]) for name in ("exits", "killed"))
    assert busy - idle == pytest.approx(100_000_000 / 2**20, abs=10)


def test_ended_orphan_is_reaped_while_the_task_runs(outcomes):
    assert log_messages(outcomes["ends while watched"])[0] == "True"
    assert "exit code 3" in outcomes["ends while watched"]["error"]


def test_leftover_processes_are_ended_at_once(outcomes):
    outcome = outcomes["leaves processes"]
    assert outcome["after"] == []
    assert outcome["seconds"] < 10
    assert any("left behind" in line for line in log_messages(outcome))


def test_task_has_its_own_folder(outcomes):
    outcome = outcomes["places"]
    places = json.loads(log_messages(outcome)[0])
    assert places["cwd"] == places["tmp"]
    assert places["cwd"].startswith(outcome["home"] + "/scratch/")
    assert places["sql"] == "select 1"


def test_task_is_an_earlier_oom_target_than_its_supervisor(outcomes):
    assert int(json.loads(log_messages(outcomes["places"])[0])["score"]) > int(outcomes["places"]["after"])


@pytest.mark.parametrize("case", CASES)
def test_task_folder_is_removed(outcomes, case):
    assert outcomes[case]["scratch"] == []


def test_task_over_its_memory_limit_gets_a_memory_error(outcomes):
    assert log_messages(outcomes["memory limit"])[0] == "MemoryError"


@pytest.mark.parametrize("case", [case for case in CASES if case.startswith("many ")])
def test_task_with_too_many_processes_ends_with_all_of_them(outcomes, case):
    outcome = outcomes[case]
    assert all(words in log_messages(outcome)[-1] for words in ("Too many processes", "20", "TASK_PIDS_LIMIT"))
    assert (outcome["counted"], outcome["after"], outcome["seconds"] < 20) == (["processes"], 0, True)


def test_task_whose_processes_use_too_much_memory_ends(outcomes):
    outcome = outcomes["forks that leak"]
    assert all(words in log_messages(outcome)[-1] for words in ("Out of memory", "600 MiB", "TASK_MEMORY_LIMIT"))
    assert (outcome["counted"], outcome["seconds"] < 20) == (["oom"], True)


def test_memory_that_forks_share_counts_once(outcomes):
    assert "exit code 3" in outcomes["forks that share"]["error"]


@pytest.mark.parametrize("case", [case for case in CASES if case.startswith("fills ")])
def test_task_that_fills_the_disk_ends(outcomes, case):
    outcome = outcomes[case]
    assert "No space left on device" in log_messages(outcome)[-1]
    assert all(words in log_messages(outcome)[-1] for words in ("8 MiB", "TASK_SCRATCH_LIMIT"))
    assert (outcome["counted"], outcome["seconds"] < 20) == (["scratch"], True)
