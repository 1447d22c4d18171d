"""A task process that exceeds a limit ends, and its log names the limit."""

from __future__ import annotations

import pytest

from airflow_ha.task_process import supervised_task
from tests.unit.patches.task_runs import log_messages, outcomes_of

pytestmark = pytest.mark.processes

CASES = {
    "nearly full disk": """
supervised_task.must_brake = lambda disk: True
def task():
    Path("small").write_bytes(b"x" * 100_000)
    try:
        Path("large").write_bytes(b"x" * 3_000_000)
    except OSError as error:
        print(error, flush=True)
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
artifacts = home / "artifacts"
def task():
    {statement}
    time.sleep(30)
"""
        for place, statement in {
            "its folder": "for n in range(3000): Path(str(n)).write_bytes(b'x' * 4096)",
            "a deleted file": "file = tempfile.TemporaryFile(); file.write(b'x' * 12_000_000); file.flush()",
            "another place": "Path('/tmp/airflow-ha-fills').write_bytes(b'x' * 12_000_000); "
            "kept = open('/tmp/airflow-ha-fills', 'r+b')",
            "the artifacts": "file = open(artifacts / 'model', 'wb'); file.write(b'x' * 12_000_000); file.flush()",
            "its log": "for _ in range(30): print('x' * 500_000, flush=True)",
            "by its child": "subprocess.Popen("
            "['sh', '-c', 'exec 5>gone; rm gone; head -c 12000000 /dev/zero >&5; sleep 30'])",
        }.items()
    },
}


@pytest.fixture(scope="module")
def outcomes():
    """The outcome of each task."""
    return outcomes_of(CASES)


@pytest.mark.parametrize("case", CASES)
def test_folder_of_a_task_over_its_limit_is_removed(outcomes, case):
    assert outcomes[case]["scratch"] == []


def test_task_writes_no_large_file_on_a_nearly_full_disk(outcomes):
    lines = log_messages(outcomes["nearly full disk"])
    assert [line for line in lines if "TASK_DISK_RESERVE" in line] == [supervised_task.BRAKED]
    assert [line for line in lines if "File too large" in line and "Errno" in line]


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
