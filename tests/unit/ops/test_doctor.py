"""`doctor`: each check finds its fault, and each part that does not answer is a finding."""

from __future__ import annotations

import json
import time

import pytest

from ops import data_tier, preflight
from ops.compose import Instance
from ops.doctor import (
    backups,
    before_up,
    broker,
    changes,
    containers,
    database,
    diagnosis,
    firing_alerts,
    host,
    metrics,
    service_health,
    tasks,
)
from ops.doctor.backups import Backups
from ops.doctor.finding import Examined, Finding, Urgency
from ops.errors import StackError
from ops.upgrade import journal
from tests.unit.stack_fakes import container, run

GIB = 1 << 30


def found(check, facts) -> list[tuple[str, str]]:
    """Return the urgency and object of each finding."""
    return [(str(finding.urgency), finding.object) for finding in check(facts)]


# ---- checks ------------------------------------------------------------------------------------------------


def host_with(**fields) -> host.Host:
    usual = {"memory": 16 * GIB, "available": 8 * GIB, "pressure": {}, "disks": (), "is_synchronized": True}
    return host.Host(**{**usual, **fields})


@pytest.mark.parametrize(("available", "urgency"), [(2.0, []), (1.5, ["soon"]), (0.5, ["urgent"])])
def test_little_available_memory_is_found(available, urgency):
    facts = host_with(available=int(available * GIB))
    assert [each for each, _ in found(host.memory, facts)] == urgency


def test_memory_pressure_is_found_and_missing_psi_is_a_note():
    assert found(host.pressure, host_with(pressure={("memory", "full"): 12.0, ("io", "full"): 19.0})) == [
        ("urgent", "host")
    ]
    assert found(host.pressure, host_with(pressure=None)) == [("note", "host")]


def test_unfinished_changes_are_found(project):
    record = journal.Journal(version="main", target="v2", started="today")
    journal.folder(project).mkdir(parents=True)
    journal.write(project, record)
    waiting = Instance("a", "running", "healthy", 0.0, waits_for="waits for approval")
    settings = {"COMPOSE_PROFILES": "data"}
    facts = changes.gather(Examined(project, settings, {"maintenance": [waiting]}))
    assert found(changes.unfinished_upgrade, facts) == [("urgent", "upgrade")]
    assert found(changes.maintenance, facts) == [("soon", "maintenance")]
    assert found(changes.backups, facts) == [("note", "backups")]


def test_stack_with_backups_and_no_change_has_no_finding(project):
    facts = changes.gather(Examined(project, {"COMPOSE_PROFILES": "data,backup"}))
    (every,) = [source.checks for source in diagnosis.SOURCES if source.name == "changes"]
    assert [found(check, facts) for check in every] == [[]] * len(every)


@pytest.mark.parametrize("is_unfinished", [False, True])
def test_a_kept_database_is_found_unless_a_restore_needs_it(project, monkeypatch, is_unfinished):
    answers = {"du": f"{3 * GIB}\treplaced", "ls": "unfinished" if is_unfinished else None}
    monkeypatch.setattr(data_tier, "ask", lambda _, command, *__: answers[command])
    nodes = {"postgres": [Instance("a", "running", "healthy", 0.0)]}
    facts = changes.gather(Examined(project, {"COMPOSE_PROFILES": "data,backup"}, nodes))
    assert found(changes.unfinished_restore, facts) == ([("urgent", "restore")] if is_unfinished else [])
    findings = list(changes.replaced_database(facts))
    assert [each.value.partition(", until")[0] for each in findings] == ([] if is_unfinished else ["3,072 MiB"])


@pytest.mark.parametrize(
    ("failed", "days", "urgency"), [(0, 13.9, []), (0, 14.1, ["soon"]), (1, 1, ["urgent"]), (1, 15, ["urgent", "soon"])]
)
def test_backups_without_a_verified_restore_are_found(failed, days, urgency):
    metrics = {
        'airflow_ha_backup_verification_failed{repository="s3"}': float(failed),
        'airflow_ha_backup_unverified_since_timestamp_seconds{repository="s3"}': time.time() - days * backups.DAY,
        'airflow_ha_backup_verification_interval_seconds{repository="s3"}': 7 * backups.DAY,
        'airflow_ha_backup_verification_failed{repository="local"}': 0.0,
        'airflow_ha_backup_unverified_since_timestamp_seconds{repository="local"}': time.time(),
        'airflow_ha_backup_verification_interval_seconds{repository="local"}': 7 * backups.DAY,
    }
    assert [each for each, _ in found(backups.verification, Backups(metrics))] == urgency
    assert found(backups.verification, Backups()) == [], "without the profile backup"


@pytest.mark.parametrize(
    ("up", "problems", "expected"),
    [
        ({"local": 1, "s3": 1}, {}, []),
        ({"local": 0}, {"local": "its disk is full"}, [("urgent", "backups in local")]),
        ({"local": 1, "s3": 0}, {"s3": "[HostConnectError] unable to connect"}, [("soon", "backups in s3")]),
        ({"local": 0, "s3": 0}, {}, [("urgent", "backups in local"), ("urgent", "backups in s3")]),
        ({"local": 1}, {"local": "ERROR: [041]: [28] No space left on device"}, [("soon", "backups in local")]),
        ({}, {}, []),
    ],
)
def test_storages_that_cannot_be_used_are_found(up, problems, expected):
    metrics = {
        f'airflow_ha_backup_repository_up{{repository="{storage}"}}': float(is_up) for storage, is_up in up.items()
    }
    assert found(backups.storages, Backups(metrics, problems)) == expected


@pytest.mark.parametrize(
    ("reason", "fix"),
    [
        ("cannot use the repository: its disk is full", "BACKUP_KEEP"),
        ("cannot use the repository: its disk is read-only", "./ops/stack restart"),
        ("cannot use the repository: its backups are gone", "backup now --new"),
        ("[HostConnectError] unable to connect", "./ops/stack up"),
        ("unknown", "BackupRepositoryDown.md"),
    ],
)
def test_storage_that_cannot_be_used_has_its_command(reason, fix):
    facts = Backups({'airflow_ha_backup_repository_up{repository="s3"}': 0.0}, {"s3": reason})
    (finding,) = backups.storages(facts)
    assert fix in finding.fix
    assert reason in finding.value


@pytest.mark.parametrize(("seconds", "urgency"), [(299.0, []), (301.0, ["soon"])])
def test_log_that_waits_for_a_storage_is_found(seconds, urgency):
    facts = Backups({"airflow_ha_backup_archive_lag_seconds": seconds})
    assert [each for each, _ in found(backups.archive, facts)] == urgency


def test_backups_are_read_from_every_service_that_answers(project, monkeypatch):
    pages = {
        ("backup", "metrics"): 'airflow_ha_backup_repository_up{repository="local"} 0.0',
        ("backup", "problems"): '{"local": "of the database"}',
        ("files", "problems"): '{"local": "of the files", "s3": "of the files"}',
        ("backup-2", "metrics"): None,
    }
    monkeypatch.setattr(data_tier, "ask", lambda container, *command: pages.get((container, command[-1])))
    nodes = {name: [Instance(name, "running", "healthy", 0.0)] for name in ("backup", "backup-2")}
    nodes["backup-files"] = [Instance("files", "running", "healthy", 0.0)]
    facts = backups.gather(Examined(project, {}, nodes))
    assert facts.metrics == {'airflow_ha_backup_repository_up{repository="local"}': 0.0}
    assert facts.problems == {"local": "of the database", "s3": "of the files"}


def test_pressure_is_read_from_the_kernel(tmp_path):
    (tmp_path / "memory").write_text(
        "some avg10=1.00 avg60=2.00 avg300=3.00 total=4\nfull avg10=0 avg60=0 avg300=0.50 total=1\n"
    )
    (tmp_path / "io").write_text("some avg10=0.00 avg60=0.00 avg300=0.00 total=4\n")
    assert host.read_pressure(tmp_path) == {
        ("memory", "some"): 3.0, ("memory", "full"): 0.5, ("io", "some"): 0.0
    }  # fmt: skip
    assert host.read_pressure(tmp_path / "missing") is None


def test_full_disk_and_used_inodes_are_found():
    disks = (
        host.Disk("/a", "Docker", 100 * GIB, 20 * GIB, 0.5),
        host.Disk("/b", "volume b", 100 * GIB, 20 * GIB, 0.98),
        host.Disk("/c", "volume c", 100 * GIB, 8 * GIB, 0.5),
    )
    assert found(host.disk_space, host_with(disks=disks)) == [
        ("urgent", "disk of volume b"),
        ("soon", "disk of volume c"),
    ]


def test_folders_on_one_disk_are_one_disk(tmp_path):
    (tmp_path / "a").mkdir()
    folders = {"Docker": tmp_path, "volume a": tmp_path / "a", "volume gone": tmp_path / "gone"}
    (disk,) = host.disks(folders)
    assert (disk.content, disk.folder) == ("Docker", str(tmp_path))
    assert 0 <= disk.used <= 1


def test_clock_without_time_service_is_found():
    assert found(host.clock, host_with(is_synchronized=False)) == [("soon", "host")]
    assert found(host.clock, host_with(is_synchronized=None)) == []


def test_clock_difference_is_what_the_readings_cannot_explain():
    assert host.clock_difference(10.0, 11.0, 12.0) == 0.0
    assert host.clock_difference(10.0, 15.0, 12.0) == 3.0
    assert host.clock_difference(10.0, 8.0, 12.0) == 2.0
    assert list(host.other_clock("redis", 0.9)) == []


def database_with(**fields) -> database.Database:
    usual = {
        **{"container": "abc", "clock": 0.0, "limit": 600, "connections": 60, "oldest_id": 1000},
        **{"sessions": (), "tables": {}, "slots": {}},
    }
    return database.Database(**{**usual, **fields})


@pytest.mark.parametrize(("connections", "urgency"), [(479, []), (480, ["soon"]), (570, ["urgent"])])
def test_used_connections_are_found(connections, urgency):
    assert [each for each, _ in found(database.connections, database_with(connections=connections))] == urgency


def session(seconds, *, statement=0.0, blocked=0) -> database.Session:
    return database.Session(77, "airflow", "airflow", "active", seconds, statement, blocked)


@pytest.mark.parametrize(
    ("open_session", "urgency", "state"),
    [
        (session(301), Urgency.SOON, "long transaction"),
        (session(901), Urgency.URGENT, "long transaction"),
        (session(61, blocked=3), Urgency.URGENT, "transaction blocks 3 sessions"),
        (session(61, statement=61), Urgency.SOON, "slow statement"),
    ],
)
def test_long_transaction_is_found_with_the_command_that_ends_it(open_session, urgency, state):
    (finding,) = database.transactions(database_with(sessions=(open_session,)))
    assert (finding.urgency, finding.state) == (urgency, state)
    assert finding.fix == 'docker exec abc psql -U postgres -d airflow -c "select pg_terminate_backend(77)"'


def test_short_transactions_are_no_finding():
    assert found(database.transactions, database_with(sessions=(session(59, statement=59, blocked=1),))) == []


def test_bloat_transaction_ids_and_unread_slots_are_found():
    facts = database_with(
        tables={"log": (200_000, 100_000), "task_instance": (200_000, 1_000_000), "job": (50_000, 10)},
        oldest_id=1_600_000_000,
        slots={"patroni_2": 2 * GIB, "small": 1},
    )
    assert found(database.dead_rows, facts) == [("soon", "table log")]
    assert found(database.transaction_ids, facts) == [("urgent", "postgres")]
    assert found(database.unread_slots, facts) == [("soon", "replication slot patroni_2")]


def test_stuck_tasks_are_found():
    facts = tasks.Tasks(
        (
            tasks.StuckTask("sales", "load", "r1", "queued", "default", "", 400.0),
            tasks.StuckTask("sales", "train", "r1", "running", "default", "worker", 300.0),
        )
    )
    assert [(finding.object, finding.state) for finding in tasks.stuck(facts)] == [
        ("task sales.load", "no worker takes it"),
        ("task sales.train", "running without heartbeat"),
    ]


def broker_with(**fields) -> broker.Broker:
    info = {"used_memory": "10", "maxmemory": "100", "aof_enabled": "1", "aof_last_write_status": "ok"}
    usual = {
        **{"container": "abc", "clock": 0.0, "info": info, "messages": {}, "tasks": {}},
        **{"consumed": frozenset({"default"}), "orphaned": 0},
    }
    return broker.Broker(**{**usual, **fields})


def test_queue_without_consumer_is_found_by_messages_and_by_tasks():
    facts = broker_with(messages={"default": 3, "ghost": 2}, tasks={"default": 1, "gpu": 4})
    assert found(broker.unconsumed_queues, facts) == [("soon", "queue ghost"), ("soon", "queue gpu")]


def test_command_that_deletes_messages_quotes_the_queue():
    (finding,) = broker.unconsumed_queues(broker_with(messages={"x; rm y": 2}))
    assert finding.fix.endswith("sh 'x; rm y'")
    (finding,) = broker.unconsumed_queues(broker_with(tasks={"gpu": 2}))
    assert " del " not in finding.fix


def test_unknown_consumers_are_no_finding():
    assert found(broker.unconsumed_queues, broker_with(messages={"default": 3}, consumed=None)) == []


def test_consumed_queues_are_those_announced_in_the_last_minute():
    assert broker.parse_consumed("default\n100\nold\n30\n", 120.0) == {"default"}
    assert broker.parse_consumed("", 120.0) is None


def test_redis_at_its_limits_is_found():
    full = broker_with(info={"used_memory": "96", "maxmemory": "100", "aof_enabled": "0"}, orphaned=4)
    assert found(broker.memory, full) == [("urgent", "redis")]
    assert found(broker.persistence, full) == [("urgent", "redis")]
    assert found(broker.orphaned_messages, full) == [("soon", "redis")]


def test_trends_are_found():
    facts = metrics.Trends(until_full=3600.0, oom_kills={"worker": 2})
    assert found(metrics.disk_growth, facts) == [("urgent", "disk of Docker's volumes")]
    assert found(metrics.oom_kills, facts) == [("soon", "worker")]
    assert found(metrics.disk_growth, metrics.Trends(None, {})) == []


def instance(**fields) -> Instance:
    return Instance(**{"id": "abc", "state": "running", "health": "healthy", "created": 0.0, **fields})


def test_restarts_and_kills_count_while_they_are_recent():
    now = time.time()
    facts = {
        "worker": [instance(started=now, restarts=3, was_out_of_memory=True)],
        "scheduler": [instance(started=now - 90_000, restarts=9, was_out_of_memory=True)],
    }
    assert found(containers.restarts, facts) == [("soon", "worker")]
    assert found(containers.killed, facts) == [("soon", "worker")]


def service(name: str, wanted: int, *healths: str) -> dict:
    instances = [
        {
            "id": name,
            "state": "running",
            "health": health,
            "suspended_tasks": 0,
            "refused_addresses": 0,
            "refused_users": 0,
        }
        for health in healths
    ]
    return {"name": name, "wanted": wanted, "healthy": healths.count("healthy"), "instances": instances}


def test_service_without_a_healthy_instance_is_urgent():
    now = {
        "services": [
            service("postgres", 1, "unhealthy"),
            service("scheduler", 2, "healthy"),
            service("worker", 2, "healthy", "starting"),
            service("gateway", 1, "healthy"),
        ]
    }
    assert [(str(finding.urgency), finding.object, finding.fix) for finding in service_health.services(now)] == [
        ("urgent", "postgres", "./ops/stack logs postgres"),
        ("soon", "scheduler", "./ops/stack up"),
        ("soon", "worker", "./ops/stack status in a minute"),
    ]


def test_many_services_that_are_down_are_one_finding():
    names = ("gateway", "postgres", "redis", "scheduler")
    every = [service(name, 1) for name in names]
    assert [each.object for each in service_health.services({"services": every[1:]})] == list(names[1:])
    (only,) = service_health.services({"services": every})
    assert (only.object, only.fix) == ("4 services", "./ops/stack up")
    assert all(f"{name} 0 of 1 healthy" in only.value for name in names)


def test_surplus_instance_is_no_missing_one():
    (surplus,) = service_health.services({"services": [service("worker", 1, "healthy", "healthy")]})
    assert "more" in surplus.state


def test_image_with_a_known_fault_is_urgent_unless_it_is_a_fallback():
    image = {"reference": f"redis:{8}.2.1", "origin": "official"}  # compose/images.env alone may name a version
    assert found(service_health.versions, {"images": {"REDIS_IMAGE": image}}) == [("urgent", "image")]
    assert found(service_health.versions, {"images": {"REDIS_IMAGE": {**image, "origin": "airgap"}}}) == []


def test_alerts_are_urgent_by_severity():
    def alert(name, severity, state="firing"):
        return {"labels": {"alertname": name, "severity": severity}, "annotations": {}, "state": state}

    facts = [alert("A", "page"), alert("B", "ticket"), alert("C", "none"), alert("D", "page", "silenced")]
    assert found(firing_alerts.firing, facts) == [("urgent", "alert A"), ("soon", "alert B")]


def test_refusal_of_up_is_urgent_while_nothing_runs():
    problem = StackError("cannot use x", where="file", hint="fix x")
    assert found(before_up.refusals, before_up.BeforeUp([problem], None, is_running=True)) == [("soon", "file")]
    assert found(before_up.refusals, before_up.BeforeUp([problem], None, is_running=False)) == [("urgent", "file")]


# ---- parts that do not answer ------------------------------------------------------------------------------

SERVER = {"now": 0, "limit": 600, "connections": 9, "oldest_id": 5, "sessions": [], "tables": [], "slots": []}


@pytest.fixture
def running(project, docker, monkeypatch):
    """A stack whose containers all answer, however busy this machine is; without metrics."""
    monkeypatch.setattr(data_tier, "ANSWER_SECONDS", 60.0)
    project.env_file.write_text("AIRFLOW_IMAGE=a\nCOMPOSE_PROFILES=data\n")
    model = {"name": "airflow-ha", "services": {name: {"restart": "always"} for name in ("postgres", "redis")}}
    docker.answer("config --format json", out=json.dumps(model))
    docker.answer("pg_is_in_recovery", out="f")
    docker.answer("pg_stat_activity", out=json.dumps(SERVER | {"now": time.time()}))
    docker.answer("'stuck'", out='{"stuck": []}')
    docker.answer("'queues'", out='{"queues": {"default": 1}}')
    docker.answer("redis-cli time", out=f"{time.time():.0f}\n0\n")
    docker.answer("redis-cli info", out="role:master\naof_enabled:1\n")
    docker.answer("redis-cli zcount", out="0")
    docker.answer("redis-cli zrange", out=f"default\n{time.time():.0f}\n")
    docker.answer("redis-cli scan 0", out="7\ndefault\nx.reply.celery.pidbox\n")
    docker.answer("redis-cli scan 7", out="0\nghost\n")
    docker.answer("redis-cli llen", out="2")
    docker.answer_containers(container("postgres", 1, health="healthy"), container("redis", 1, health="healthy"))
    return docker


def urgent(project) -> list[str]:
    return [each.object for each in diagnosis.diagnose(project).findings if each.urgency is Urgency.URGENT]


def without(docker, part: str, **answer) -> None:
    """Replace an answer of the fake Docker; the first match counts."""
    docker.answers = {part: {}, **docker.answers}
    docker.answer(part, **answer)


def test_stack_that_answers_has_no_urgent_finding(project, running, monkeypatch):
    monkeypatch.setattr(preflight, "problems", lambda *_: [])
    result = diagnosis.diagnose(project)
    # No api-server in this model.
    assert [finding.object for finding in result.findings if finding.urgency is Urgency.URGENT] == ["Airflow"]
    assert [finding.object for finding in result.findings if finding.state == "no worker consumes it"] == [
        "queue ghost"
    ]
    assert {"host", "pre-flight", "containers", "status", "Postgres", "tasks", "Redis"} <= set(result.read)


def test_postgres_that_does_not_answer_is_urgent(project, running):
    without(running, "pg_is_in_recovery", err="could not connect", code=2)
    assert {"Postgres", "tasks"} <= set(urgent(project))


def test_malformed_answer_is_a_finding(project, running):
    without(running, "pg_stat_activity", out="{}")
    assert "Postgres" in urgent(project)


def test_redis_that_does_not_answer_is_urgent(project, running):
    without(running, "redis-cli info", code=1)
    assert "Redis" in urgent(project)


@pytest.mark.parametrize("command", ["time", "scan", "llen", "zcount", "zrange"])
def test_command_that_redis_refuses_is_urgent(project, running, command):
    without(running, f"redis-cli {command}", err="unknown option", code=1)
    assert "Redis" in urgent(project)


def test_docker_that_does_not_answer_is_the_only_urgent_finding(project, running):
    without(running, "version", err="Cannot connect to the Docker daemon", code=1)
    assert urgent(project) == ["Docker"]
    (skipped,) = [each for each in diagnosis.diagnose(project).findings if each.state == "not checked"][:1]
    assert skipped.urgency is Urgency.NOTE


def test_docker_that_hangs_is_urgent(project, running, monkeypatch):
    monkeypatch.setattr(preflight, "DOCKER_SECONDS", 0.5)
    without(running, "version", hangs=True)
    assert urgent(project) == ["Docker"]


def test_missing_docker_is_urgent(project, monkeypatch):
    monkeypatch.setenv("PATH", "/nonexistent")
    assert urgent(project) == ["Docker"]


def test_invalid_settings_are_urgent(project, docker):
    project.env_file.write_text("AIRFLOW_PORT=x\n")
    assert urgent(project) == ["settings"]


def test_stack_that_is_down_is_urgent_with_the_command(project, docker, monkeypatch):
    monkeypatch.setattr(preflight, "problems", lambda *_: [])
    first = diagnosis.diagnose(project).findings[0]
    assert (first.urgency, first.object, first.fix) == (Urgency.URGENT, "stack", "./ops/stack up")


def test_command_lists_the_most_urgent_first_and_exits_with_1(project, docker):
    result = run("doctor")
    assert result.returncode == 1, result.stderr
    assert "Traceback" not in result.stdout + result.stderr
    assert "1. urgent: " in result.stdout
    listed = json.loads(run("doctor", "--json").stdout)["findings"]
    order = [str(urgency) for urgency in Urgency]
    assert listed == sorted(listed, key=lambda finding: order.index(finding["urgency"]))
    assert set(listed[0]) == set(Finding.__annotations__)


def test_names_from_dag_files_cannot_control_the_terminal():
    assert diagnosis.printable("queue \x1b[2J\nx") == "queue ?[2J x"
