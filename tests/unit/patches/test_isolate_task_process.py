"""A task process has its own folder, its log states why it ended, and it leaves nothing behind."""

from __future__ import annotations

import json

import pytest

from tests.unit.patches.task_runs import log_messages, outcomes_of

pytestmark = pytest.mark.processes

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
}


@pytest.fixture(scope="module")
def outcomes():
    """The outcome of each task with the patches, and of one that exits without them."""
    return outcomes_of(CASES) | outcomes_of({"upstream exits": CASES["exits"]}, load="")


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
