"""compose/.env: values are kept and checked, and an invalid line is refused with its number."""

from __future__ import annotations

import pytest

from ops import setting_checks, settings_file
from ops.errors import StackError


def test_first_up_has_two_replicas_of_critical_services(project):
    settings = settings_file.read(project)
    assert settings["SCHEDULER_REPLICAS"] == settings["WORKER_REPLICAS"] == settings["API_SERVER_REPLICAS"] == "2"
    assert settings_file.profiles(settings) == ["data", "flower", "observability"]
    assert settings["BIND_ADDRESS"] == "127.0.0.1"


def test_operators_values_comments_and_unknown_keys_are_kept(project):
    project.env_file.write_text("# mine\nAIRFLOW_PORT=9090\nMY_OWN=1\n\nQUOTED='a b'\n")
    settings = settings_file.read(project)
    settings["WORKER_REPLICAS"] = "4"
    settings_file.write(project, settings)
    text = project.env_file.read_text()
    assert text.startswith("# mine\nAIRFLOW_PORT=9090\nMY_OWN=1\n\nQUOTED='a b'\n")
    assert "WORKER_REPLICAS=4\n" in text


def test_values_are_parsed_as_compose_parses_them(project):
    project.env_file.write_text(
        """AIRFLOW_PORT=9090  # not 8080\nFLOWER_PORT="5556" # quoted\nSINGLE='a # b'\nEMPTY=\nHASH=a#b\n"""
    )
    settings = settings_file.read(project)
    assert (settings["AIRFLOW_PORT"], settings["FLOWER_PORT"]) == ("9090", "5556")
    assert (settings["SINGLE"], settings["EMPTY"], settings["HASH"]) == ("a # b", "", "a#b")


def test_duplicate_key_is_written_once_with_the_new_value(project):
    project.env_file.write_text("WORKER_REPLICAS=2\nWORKER_REPLICAS=3\n")
    settings = settings_file.read(project) | {"WORKER_REPLICAS": "5"}
    settings_file.write(project, settings)
    assert settings_file.read(project)["WORKER_REPLICAS"] == "5"
    assert project.env_file.read_text().count("WORKER_REPLICAS") == 1


def test_unclosed_quote_is_refused_with_its_line(project):
    project.env_file.write_text("\nAIRFLOW_PORT='9090\n")
    with pytest.raises(StackError) as refused:
        settings_file.read(project)
    assert refused.value.where.endswith(".env, line 2")


def test_invalid_value_is_refused_with_its_line(project):
    project.env_file.write_text("# mine\nFLOWER_PORT=5555\nAIRFLOW_PORT=0\n")
    with pytest.raises(StackError, match="AIRFLOW_PORT=0") as refused:
        settings_file.read(project)
    assert refused.value.where.endswith(".env, line 3")


def test_writing_unchanged_settings_changes_nothing(project):
    settings = settings_file.read(project)
    assert settings_file.write(project, settings) is True
    assert settings_file.write(project, settings_file.read(project)) is False


def test_malformed_line_is_refused_with_its_number(project):
    project.env_file.write_text("AIRFLOW_PORT=9090\nthis is no setting\n")
    with pytest.raises(StackError, match="this is no setting") as refused:
        settings_file.read(project)
    assert "line 2" in str(refused.value)


def test_binary_env_file_is_refused(project):
    project.env_file.write_bytes(b"\xff\xfe\x00")
    with pytest.raises(StackError, match="cannot read"):
        settings_file.read(project)


@pytest.mark.parametrize(
    ("line", "takes"),
    [
        ("AIRFLOW_PORT=http", "1 to 65535"),
        ("FLOWER_PORT=70000", "1 to 65535"),
        ("WORKER_REPLICAS=0", "1 to 20"),
        ("WORKER_REPLICAS=-1", "1 to 20"),
        ("BIND_ADDRESS=everywhere", "an IP address"),
        ("COMPOSE_PROJECT_NAME=Air Flow", "lower-case"),
        ("COMPOSE_PROFILES=data,flour", "observability: "),
        ("POSTGRES_HOST=", "a host name"),
        ("REDIS_HOST=redis://cache", "a host name"),
        ("XCOM_LIMIT=4mb", "a size from 100k to 50m"),
        ("XCOM_LIMIT=99k", "a size from 100k to 50m"),
        ("REQUEST_LIMIT=-1m", "a size from 100k to 50m"),
        ("REQUEST_LIMIT=51m", "a size from 100k to 50m"),
        ("WORKER_GPU_REPLICAS=many", "1 to 20"),
        ("WORKER_QUEUES=default, gpu", "without spaces"),
        ("WORKER_QUEUES=gpu", "'default' among them"),
        ("WORKER_QUEUES=default,,gpu", "names separated by commas"),
        ("PARALLELISM=0", "1 or more"),
        ("SCHEDULER_REST_FACTOR=-1", "0 to 99"),
        ("SCHEDULER_REST_FACTOR=inf", "0 to 99"),
        ("TASK_MEMORY_LIMIT=2 GB", "a size such as 2g"),
        ("TASK_MEMORY_LIMIT=100m", "at least 512m"),
        ("TASK_PIDS_LIMIT=31", "32 or more"),
        ("FLOWER_READ_ONLY=yes", "true or false"),
        ("TASK_SCRATCH_LIMIT=0g", "at least 1m"),
        ("TASK_SCRATCH_LIMIT=-1g", "a size such as 2g"),
        ("PATCHES=some", "one of all, safety, none"),
        ("PATCHES_DISABLED=heartbeat_lease,busy_pool", "celery_pool_flush"),
        ("TRUSTED_PROXIES=proxy", "separated by spaces"),
        ("TRUSTED_PROXIES=192.0.2.7,192.0.2.8", "separated by spaces"),
        ("PUBLIC_HOSTS=https://airflow.example.com", "without ports"),
        ("PUBLIC_HOSTS=airflow.example.com:8080", "without ports"),
        ("LOG_IN_FAILURES=0", "3 to 1000"),
        ("SESSION_MINUTES=1d", "5 to 43200"),
        ("API_DOCS=yes", "on or off"),
        ("TASK_SUSPENSION=no", "on or off"),
        ("TASK_SUSPENSION_LIMIT=8m", "10 to 600 seconds"),
        ("TASK_SUSPENSION_LIMIT=0", "10 to 600 seconds"),
        ("TASK_SUSPENSION_LIMIT=1200", "10 to 600 seconds"),
        ("WORKER_STOP_GRACE=banana", "a duration"),
        ("WORKER_STOP_GRACE=90", "a duration"),
        ("WORKER_STOP_GRACE=1d", "a duration"),
        ("PROMETHEUS_RETENTION=abc", "15d"),
        ("PROMETHEUS_RETENTION=15", "15d"),
        ("PROMETHEUS_RETENTION_SIZE=abc", "5GB"),
        ("PROMETHEUS_RETENTION_SIZE=5g", "5GB"),
        ("OTLP_BACKEND_ENDPOINT=foo", "https://"),
        ("STATSD_ON=maybe", "True or False"),
        ("BUNDLE_CLEANUP_INTERVAL=x", "seconds"),
        ("CALLBACK_PATHS='a b'", "import paths"),
        ("DAGS_DIR=dags", "a path"),
        ("SECRETS_DIR=", "a path"),
        ("ALERT_EMAIL_SMARTHOST=mail.test", "HOST:PORT"),
        ("ALERT_EMAIL_SMARTHOST=mail.test:0", "HOST:PORT"),
        ("ALERT_EMAIL_TO=me", "an e-mail address"),
    ],
)
def test_invalid_value_is_refused_with_the_valid_values(project, line, takes):
    project.env_file.write_text(line + "\n")
    with pytest.raises(StackError) as refused:
        settings_file.read(project)
    assert takes in str(refused.value)
    assert project.env_file.read_text() == line + "\n"


@pytest.mark.parametrize(
    "line",
    [
        "TRUSTED_PROXIES=",
        "TRUSTED_PROXIES=192.0.2.7",
        "TRUSTED_PROXIES=192.0.2.7 10.0.0.0/8 2001:db8::/32",
        "PUBLIC_HOSTS=airflow.example.com other",
        "LOG_IN_FAILURES=1000",
        "WORKER_STOP_GRACE=1h30m",
        "PROMETHEUS_RETENTION=1d12h",
        "PROMETHEUS_RETENTION_SIZE=512MB",
        "PROMETHEUS_RETENTION=0",
        "PROMETHEUS_RETENTION_SIZE=0",
        "OTLP_BACKEND_ENDPOINT=http://otlp.example:4318",
        "STATSD_ON=false",
        "BUNDLE_CLEANUP_INTERVAL=1800",
        "CALLBACK_PATHS=shared.callbacks.,shared.notify.on_miss",
        "DAGS_DIR=/srv/dags",
        "ALERT_EMAIL_SMARTHOST=mail.test:587",
        "ALERT_EMAIL_USER=any text",
    ],
)
def test_valid_value_is_accepted(project, line):
    project.env_file.write_text(line + "\n")
    key, _, value = line.partition("=")
    assert settings_file.read(project)[key] == value


def test_every_optional_setting_may_be_empty(project):
    optional = [name for name, kind in setting_checks.KINDS.items() if not kind.is_required]
    project.env_file.write_text("".join(f"{name}=\n" for name in optional))
    assert {settings_file.read(project)[name] for name in optional} == {""}


def test_all_invalid_settings_are_refused_at_once(project):
    project.env_file.write_text("AIRFLOW_PORT=0\nSTATSD_ON=maybe\nREDIS_MEMORY=1m\nLOGIN_FAILURES=5\n")
    with pytest.raises(StackError) as refused:
        settings_file.read(project)
    assert all(name in refused.value.what for name in ("AIRFLOW_PORT=0", "STATSD_ON=maybe", "REDIS_MEMORY=1m"))
    assert "LOGIN_FAILURES=5" in refused.value.what
    assert refused.value.where.endswith("lines 1, 2, 3, 4")


@pytest.mark.parametrize(
    ("name", "meant"),
    [
        ("LOGIN_FAILURES", "LOG_IN_FAILURES"),
        ("WORKER_CONCURENCY", "WORKER_CONCURRENCY"),
        ("WORKR_MEMORY", "WORKER_MEMORY"),
        ("SCHEDULERS_REPLICAS", "SCHEDULER_REPLICAS"),
        ("WORKER_GPU_REPLICAS", None),
        ("WORKER_X_REPLICAS", None),
        ("COMPOSE_FILE", None),
    ],
)
def test_misspelled_name_is_refused_with_the_right_one(project, name, meant):
    project.env_file.write_text(f"{name}=5\n")
    if meant is None:
        assert settings_file.read(project)[name] == "5"
        return
    with pytest.raises(StackError, match=f"{name}=5: no setting") as refused:
        settings_file.read(project)
    assert meant in refused.value.hint


def test_name_that_the_override_file_reads_is_accepted(project):
    project.env_file.write_text("WORKERS_MEMORY=8g\n")
    override = "services:\n  mine:\n    mem_limit: ${WORKERS_MEMORY:-1g}\n"
    (project.state / "compose.override.yaml").write_text(override)
    assert settings_file.read(project)["WORKERS_MEMORY"] == "8g"


def test_replica_count_of_an_own_worker_is_no_misspelled_name(project):
    override = "services:\n  workers:\n    extends: {file: airflow.yaml, service: worker}\n"
    (project.state / "compose.override.yaml").write_text(override)
    assert settings_file.read(project)["WORKERS_REPLICAS"] == "1"
