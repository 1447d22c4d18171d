"""Which values each setting of compose/.env accepts, and which names are misspelled."""

from __future__ import annotations

import difflib
import ipaddress
import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, NamedTuple

from airflow_ha.patches import registry
from airflow_ha.sizes import MIB
from ops import container_limits, worker_bounds
from ops.services import MAX_INSTANCES, PUBLISHED, SCALABLE, replicas_variable

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Mapping


class Problem(NamedTuple):
    """A setting that is not valid, and the imperative clause that corrects it."""

    key: str
    reason: str
    correction: str


@dataclass(frozen=True)
class Kind:
    """The values that a setting accepts.

    Attributes:
        takes: The valid values, in words.
        accepts: Whether a value is valid.
        is_required: Whether an empty value is refused; otherwise it selects the default.
    """

    takes: str
    accepts: Callable[[str], bool]
    is_required: bool = False


MAX_SLOTS: Final = 64
"""Slots of one worker; for more slots, add workers."""
SUSPENSION_SECONDS: Final = (10, 600)
"""The shortest and longest suspension: the task's token expires after about 660 s (compose/airflow.yaml)."""
REQUEST_LIMIT_BYTES: Final = (100_000, 50_000_000)
"""The smallest limit still admits Airflow's own requests; above the largest the servers run out of memory."""
DEFAULT_QUEUE: Final = "default"
CLOSE: Final = 0.9
"""Similarity from which an unknown name counts as misspelled: 0.96 for WORKR_MEMORY, 0.88 for WORKER_GPU_REPLICAS."""

OWN_WORKER = re.compile(r"WORKER_\w+_REPLICAS")
HOST = re.compile(r"[A-Za-z0-9._-]+|\[[0-9A-Fa-f:.]+\]")


def matching(pattern: str, takes: str, *, is_required: bool = False) -> Kind:
    """Return the kind of the values that match a regular expression as a whole."""
    compiled = re.compile(pattern, re.ASCII)
    return Kind(takes, lambda text: compiled.fullmatch(text) is not None, is_required)


def integer(minimum: int, maximum: int, takes: str, *, is_required: bool = False) -> Kind:
    """Return the kind of the whole numbers within the bounds."""
    return Kind(takes, lambda text: text.isdecimal() and minimum <= int(text) <= maximum, is_required)


def memory(minimum: int) -> Kind:
    """Return the kind of the sizes from a number of bytes."""
    takes = f"a size such as 2g or 1500m, of at least {minimum >> 20}m"
    return Kind(takes, lambda text: (container_limits.size(text) or 0) >= minimum)


def is_network(text: str) -> bool:
    """Return whether a text is an IP address or a network."""
    try:
        ipaddress.ip_network(text, strict=False)
    except ValueError:
        return False
    return True


def is_address(text: str) -> bool:
    """Return whether a text is an IP address."""
    return "/" not in text and is_network(text)


def is_host(text: str) -> bool:
    """Return whether a text is a host name or an IP address, in brackets for IPv6."""
    return HOST.fullmatch(text) is not None


def is_request_limit(text: str) -> bool:
    """Return whether a text is a size within REQUEST_LIMIT_BYTES, in the gateway's syntax."""
    parts = re.fullmatch(r"(\d{1,9})([km]?)", text, re.ASCII)
    if parts is None:
        return False
    smallest, largest = REQUEST_LIMIT_BYTES
    return smallest <= int(parts[1]) * {"": 1, "k": 1_000, "m": 1_000_000}[parts[2]] <= largest


def is_mail_server(text: str) -> bool:
    """Return whether a text is HOST:PORT."""
    match = re.fullmatch(r"[A-Za-z0-9._-]+:(\d{1,5})", text, re.ASCII)
    return match is not None and 0 < int(match[1]) < 65536


def is_endpoint(text: str) -> bool:
    """Return whether a text is HOST or HOST:PORT."""
    host, _, port = text.partition(":")
    return is_host(host) and (not port if host == text else port.isdecimal() and 0 < int(port) < 65536)


TEXT: Final = Kind("text", lambda _: True)
PORT: Final = integer(1, 65535, "a port, 1 to 65535", is_required=True)
REPLICAS: Final = integer(1, MAX_INSTANCES, f"a number of instances, 1 to {MAX_INSTANCES}", is_required=True)
SERVER: Final = Kind("a host name or an IP address, in [brackets] for IPv6", is_host, is_required=True)
ON_OR_OFF: Final = matching("on|off", "on or off")
URL: Final = matching(r'https?://[^\s/<>|{}"][^\s<>|{}"]*', "an address that begins with https:// or http://")
# Compose takes any other beginning for the name of a volume.
MOUNTED_PATH: Final = matching(r"[./][^:]*", "a path that begins with /, ./ or ../, without a colon")
EMAIL: Final = matching(r"[^@\s]+@[^@\s]+", "an e-mail address")
REDIS_USER: Final = matching(r"[\w.-]+", "the name of a user, of letters, digits, dots, dashes and underscores")
DAYS: Final = integer(0, 36500, "a number of days, 0 to keep everything")
REQUEST_LIMIT: Final = Kind("a size from 100k to 50m, such as 4m (k is 1000 bytes, m a million)", is_request_limit)

KINDS: Final[dict[str, Kind]] = {
    "COMPOSE_PROJECT_NAME": matching(
        r"[a-z0-9][a-z0-9_-]*", "lower-case letters, digits, dashes and underscores", is_required=True
    ),
    "COMPOSE_PROFILES": TEXT,  # settings_file.check_profiles() refuses unknown ones, as for --profile.
    "DAGS_DIR": MOUNTED_PATH,
    "PLUGINS_DIR": MOUNTED_PATH,
    "SECRETS_DIR": matching(r"[^:]+", "a path without a colon", is_required=True),
    "GENERATED_DIR": MOUNTED_PATH,
    "BIND_ADDRESS": Kind("an IP address, such as 127.0.0.1 or 0.0.0.0", is_address, is_required=True),
    **{published.port: PORT for published in PUBLISHED},
    "LOG_IN_FAILURES": integer(3, 1000, "a number of failed log-ins, 3 to 1000"),
    "SESSION_MINUTES": integer(5, 43200, "a number of minutes, 5 to 43200"),
    "TRUSTED_PROXIES": Kind(
        "addresses or networks, separated by spaces, such as 192.0.2.7 or 10.0.0.0/8",
        lambda text: all(map(is_network, text.split())),
    ),
    "PUBLIC_HOSTS": Kind(
        "host names without ports, separated by spaces, such as airflow.example.com",
        lambda text: all(map(is_host, text.split())),
    ),
    "API_DOCS": ON_OR_OFF,
    "TLS": ON_OR_OFF,
    "PAGES_LOG_IN": matching("airflow", "airflow, or empty for passwords only"),
    "POSTGRES_HOST": SERVER,
    "POSTGRES_PORT": PORT,
    "REDIS_HOST": SERVER,
    "REDIS_PORT": PORT,
    "POSTGRES_SSLMODE": matching("disable|require|verify-ca|verify-full", "disable, require, verify-ca or verify-full"),
    "REDIS_TLS": matching("true|false", "true or false"),
    **dict.fromkeys(("REDIS_USER", "REDIS_SCHEDULER_USER", "REDIS_FLOWER_USER", "REDIS_MONITORING_USER"), REDIS_USER),
    "SECRETS_BACKEND": matching(
        "vault|aws-secrets-manager|aws-parameter-store", "vault, aws-secrets-manager or aws-parameter-store"
    ),
    "OIDC_ISSUER": URL,
    "OIDC_CLIENT_ID": matching(r"\S+", "the client's name, without spaces"),
    "OIDC_SCOPES": matching(r"openid( [\w:./-]+)*", "scopes separated by spaces, openid first"),
    "OIDC_ROLES": matching(r"[^=,]+=[^=,]+(,[^=,]+=[^=,]+)*", "group=Role, separated by commas"),
    "SECRETS_PREFIX": matching(r"[\w.-]+(/[\w.-]+)*", "a path without / at its ends"),
    "VAULT_ADDR": URL,
    "VAULT_NAMESPACE": matching(r"[\w.-]+(/[\w.-]+)*/?", "a namespace, such as team/"),
    "SECRETS_AWS_REGION": matching(r"[A-Za-z0-9-]+", "a region, such as eu-central-1"),
    "SECRETS_AWS_ENDPOINT": URL,
    **{replicas_variable(service): REPLICAS for service in SCALABLE},
    **dict.fromkeys(
        (worker_bounds.FLOOR, worker_bounds.CEILING),
        integer(1, MAX_INSTANCES, f"a number of workers, 1 to {MAX_INSTANCES}"),
    ),
    "WORKER_QUEUES": Kind(
        f"names separated by commas, without spaces, with {DEFAULT_QUEUE!r} among them for tasks that set no queue",
        lambda text: (
            re.fullmatch(r"[A-Za-z0-9_.-]+(,[A-Za-z0-9_.-]+)*", text) is not None and DEFAULT_QUEUE in text.split(",")
        ),
        is_required=True,
    ),
    "WORKER_CONCURRENCY": integer(1, MAX_SLOTS, f"how many tasks a worker runs at once, 1 to {MAX_SLOTS}"),
    "PARALLELISM": matching(r"[1-9]\d{0,5}", "a number of tasks, 1 or more"),
    "SCHEDULER_REST_FACTOR": matching(r"\d{1,2}(\.\d+)?", "a number from 0 to 99, such as 1.5"),
    "WORKER_STOP_GRACE": matching(r"(\d+(\.\d+)?(ms|s|m|h))+", "a duration, such as 90s, 10m or 1h30m"),
    "FLOWER_READ_ONLY": matching("true|false", "true or false"),
    "BUNDLE_CLEANUP_INTERVAL": matching(r"\d{1,9}", "a number of seconds, 0 for never"),
    "TASK_MEMORY_LIMIT": memory(512 * MIB),
    "TASK_PIDS_LIMIT": integer(32, 1_000_000, "how many processes and threads a task may have, 32 or more"),
    "TASK_SCRATCH_LIMIT": memory(MIB),
    "TASK_DISK_RESERVE": memory(MIB),
    "XCOM_LIMIT": REQUEST_LIMIT,
    "REQUEST_LIMIT": REQUEST_LIMIT,
    "CALLBACK_PATHS": Kind(
        "import paths separated by commas, or prefixes with a dot at the end, such as shared.callbacks.",
        lambda text: all(re.fullmatch(r"[^\W\d]\w*(\.[^\W\d]\w*)*\.?|", path.strip()) for path in text.split(",")),
    ),
    "TASK_SUSPENSION": ON_OR_OFF,
    "TASK_SUSPENSION_LIMIT": integer(
        *SUSPENSION_SECONDS, "for how long a task may be suspended, {} to {} seconds".format(*SUSPENSION_SECONDS)
    ),
    "MAINTENANCE_HOUR": integer(0, 23, "an hour in UTC, 0 to 23"),
    "RETENTION_RUNS_DAYS": DAYS,
    "RETENTION_MONITORING_DAYS": DAYS,
    "RETENTION_AUDIT_DAYS": DAYS,
    "RETENTION_LOGS_DAYS": DAYS,
    "RETENTION_LOGS_SIZE": matching(r"0|[1-9]\d{0,8}[mgt]", "a size such as 500m or 20g, or 0 for no limit"),
    "RETENTION_DISK_PERCENT": integer(50, 100, "a percentage, 50 to 100"),
    "RETENTION_ARTIFACTS_DAYS": DAYS,
    "RETENTION_MODELS": integer(0, 1_000_000, "a number of models, 0 to keep all"),
    "PATCHES": matching("|".join(registry.MODES), f"one of {', '.join(registry.MODES)}"),
    "PATCHES_DISABLED": Kind(
        f"names of {', '.join(sorted(registry.NAMES))}",
        lambda text: set(registry.disabled_names(text)) <= set(registry.NAMES),
    ),
    "STATSD_ON": matching("(?i:true|false)", "True or False"),
    "OTLP_BACKEND_ENDPOINT": URL,
    "PROMETHEUS_RETENTION": matching(
        r"0|(?=\d)(\d+y)?(\d+w)?(\d+d)?(\d+h)?(\d+m)?(\d+s)?(\d+ms)?", "a duration such as 15d, 2w or 1d12h"
    ),
    "PROMETHEUS_RETENTION_SIZE": matching(r"0|\d+(\.\d+)?([KMGTPE]i?)?B", "a size such as 512MB or 5GB"),
    "AIRFLOW_URL": URL,
    "GRAFANA_URL": URL,
    "RUNBOOK_BASE_URL": URL,
    "ALERT_EMAIL_SMARTHOST": Kind("HOST:PORT", is_mail_server),
    "ALERT_EMAIL_FROM": EMAIL,
    "ALERT_EMAIL_TO": EMAIL,
    "ALERT_EMAIL_USER": TEXT,
    "BACKUP_PASSPHRASE_STORED": matching("[0-9A-Fa-f]{8}", "the first 8 characters of the passphrase file's sha256sum"),
    "BACKUP_STORAGE": matching("local|s3|local,s3", "local, s3 or local,s3"),
    "BACKUP_FOLDER": MOUNTED_PATH,
    "BACKUP_S3_ENDPOINT": Kind(
        "a host name or an IP address without https://, with :PORT if it is not 443", is_endpoint
    ),
    "BACKUP_S3_BUCKET": matching(r"[a-z0-9][a-z0-9.-]{1,61}[a-z0-9]", "the name of a bucket"),
    "BACKUP_S3_REGION": matching(r"[A-Za-z0-9-]+", "a region, such as eu-central-1"),
    "BACKUP_S3_PREFIX": matching(r"[\w.-]+(/[\w.-]+)*", "a path in the bucket, without / at its ends"),
    "BACKUP_S3_URI_STYLE": matching("host|path", "host or path"),
    "BACKUP_FULL_DAYS": integer(1, 90, "a number of days, 1 to 90"),
    "BACKUP_INCREMENTAL_HOURS": integer(1, 720, "a number of hours, 1 to 720"),
    "BACKUP_VERIFY_DAYS": integer(0, 90, "a number of days, 0 to 90; 0 for never"),
    "BACKUP_KEEP": integer(1, 1000, "how many full backups are kept, 1 to 1000"),
    "BACKUP_WAL_SECONDS": integer(10, 3600, "a number of seconds, 10 to 3600"),
    "BACKUP_WAL_LIMIT": matching(r"[1-9]\d{0,5}(MiB|GiB|TiB)", "a size such as 512MiB or 8GiB"),
}
"""The settings that users choose, in the order of compose/README.md, without the limits of containers."""

WRITTEN_BY_UP: Final = (
    *("STACK_IMAGES_ORIGIN", "DATA_TIER", "REDIS_EXPORTER_USER", "TRACES", "OTLP_ENDPOINT", "ALERTMANAGERS"),
    *("BACKUP_REPOSITORY", "BACKUP_ROUTE", "DATA_INTERNAL", "POSTGRES_EXPORTER_TLS", "SECRETS_BACKEND_CLASS"),
    *("REDIS_CA", "REDIS_CLIENT", "REDIS_MUTUAL_TLS", "REDIS_EXPORTER_CA", "REDIS_EXPORTER_CLIENT", "DATA_TLS"),
    *("PATRONI_IMAGE", "POSTGRES_EXPORTER_IMAGE", "POSTGRES_IMAGE", "REDIS_EXPORTER_IMAGE", "REDIS_IMAGE"),
    *("AIRFLOW_IMAGE", "BACKUP_IMAGE", "CADVISOR_IMAGE", "OTEL_COLLECTOR_IMAGE", "STATSD_EXPORTER_IMAGE"),
    *(published.image for published in PUBLISHED),
)
"""The settings that every `up` overwrites; their values are not checked."""


def problems(settings: Mapping[str, str], limits: Mapping[str, str], own: Collection[str] = ()) -> list[Problem]:
    """Return every setting whose value is not valid or whose name is misspelled, in the order of the settings.

    Args:
        settings: The settings of .env over the defaults.
        limits: The limits that the compose files read, with their defaults; see container_limits.defaults().
        own: The names that compose.override.yaml adds.
    """
    known = {*KINDS, *WRITTEN_BY_UP, *limits, *own}
    found = [problem for key, value in settings.items() if (problem := value_problem(key, value))]
    if all(problem.key != "WORKER_CONCURRENCY" for problem in found):
        found += [
            Problem(key, "the value is not valid", f"set {key} to {takes}")
            for key, takes in container_limits.refused_values(settings, limits)
        ]
    if all(problem.key not in (worker_bounds.FLOOR, worker_bounds.CEILING) for problem in found):
        found += [problem] if (problem := bounds_problem(settings)) else []
    found += [problem for key in settings if (problem := name_problem(key, known))]
    order = list(settings)
    return sorted(found, key=lambda problem: order.index(problem.key))


def bounds_problem(settings: Mapping[str, str]) -> Problem | None:
    """Return the problem of a floor above the ceiling; None if there is none."""
    limits = worker_bounds.bounds(settings)
    if limits is None or limits.floor <= limits.ceiling:
        return None
    reason = f"it is below the floor, {limits.floor}"
    return Problem(worker_bounds.CEILING, reason, f"raise {worker_bounds.CEILING}, or lower {worker_bounds.FLOOR}")


def value_problem(key: str, value: str) -> Problem | None:
    """Return the problem of a value; None if it is valid, or the name is not known."""
    kind = REPLICAS if key.endswith("_REPLICAS") else KINDS.get(key, TEXT)
    is_valid = kind.accepts(value) if value else not kind.is_required
    return None if is_valid else Problem(key, "the value is not valid", f"set {key} to {kind.takes}")


def name_problem(key: str, known: Collection[str]) -> Problem | None:
    """Return the problem of a name that no setting has and that resembles one; None for any other name."""
    # .env keeps the replica count of a worker service that compose.override.yaml no longer has.
    if key in known or OWN_WORKER.fullmatch(key):
        return None
    close = difflib.get_close_matches(key, sorted(known), n=1, cutoff=CLOSE)
    return Problem(key, "no setting has this name", f"rename {key} to {close[0]}, or delete it") if close else None
