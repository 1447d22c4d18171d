"""The stack's secrets: generated once, checked at every `up`, handed to containers as files.

`secrets/NAME` are the operator's: mode 0600, never printed, kept for ever. From them every `up` writes
`secrets/mounted/READER/NAME`, what the containers mount: each file is read by one user only, and belongs to that user
with mode 0600, since compose mounts a file secret with the owner and mode that it has on the host
(https://docs.docker.com/reference/compose-file/secrets/).
"""

from __future__ import annotations

import base64
import hashlib
import json
import os
import secrets
import shutil
import stat
import subprocess
import sys
from typing import TYPE_CHECKING, Final
from urllib.parse import quote

from ops.errors import FAILURE, StackError
from ops.notification_secrets import OPTIONAL_SECRETS, mounted_secrets
from ops.project import ADMIN
from ops.services import POSTGRES_NODES, REDIS_NODES, SENTINELS
from ops.settings_file import profiles

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Mapping
    from pathlib import Path

    from ops.project import Project


def fernet_key() -> str:
    """32 random bytes, URL-safe base64: https://cryptography.io/en/latest/fernet/."""
    return base64.urlsafe_b64encode(os.urandom(32)).decode()


def password() -> str:
    """192 random bits that need no quoting in a URL."""
    return secrets.token_urlsafe(24)


def signing_key() -> str:
    """512 random bits: Airflow signs its tokens with HS512, whose key should be as long as its hash (RFC 7518, 3.2)."""
    return secrets.token_urlsafe(64)


GENERATORS: Final[dict[str, Callable[[], str]]] = {
    "fernet_key": fernet_key,
    "jwt_secret": signing_key,
    "api_secret_key": signing_key,
    "postgres_superuser_password": password,
    "postgres_airflow_password": password,
    "postgres_celery_password": password,
    "postgres_monitoring_password": password,
    "postgres_replication_password": password,
    "patroni_api_password": password,
    "etcd_password": password,
    "redis_password": password,
    "airflow_admin_password": password,
    "airflow_monitoring_password": password,
    "flower_password": password,
    "grafana_admin_password": password,
}
"""The operator's secrets and how each is made."""

NAMES_FILE: Final = ".names"
"""Lists what was generated: a name in it whose file is gone was lost, one not in it is new in this version."""

READERS: Final = {
    "airflow": 50000,
    "postgres": 999,
    "redis": 999,
    "postgres-exporter": 65534,
    "redis-exporter": 59000,
    "grafana": 472,
    "alertmanager": 65534,
}
"""The uid of each image's user, as in compose/*.yaml."""


SUPPLIED: Final = ("postgres_airflow_password", "postgres_celery_password", "redis_password")
"""The secrets that the operator brings when Postgres and Redis run elsewhere: random ones would fit nothing there."""


def check(project: Project, data_volume_exists: Callable[[], bool], *, external: bool = False) -> None:
    """Refuses secrets that are missing, empty or open to others; changes nothing.

    Args:
        project: Whose secrets.
        data_volume_exists: Whether Postgres has data of this stack, made with secrets that should be here.
        external: Whether Postgres and Redis run elsewhere.

    Raises:
        StackError: naming the file and the hint.
    """
    folder = project.shown(project.secrets)
    try:
        found = [name for name in GENERATORS if (project.secrets / name).exists()]
        known = generated_names(project)
    except OSError as error:
        raise StackError(
            f"the secrets cannot be read: {error.strerror}",
            where=folder,
            hint=f"run this as who ran ./ops/stack up first, or: sudo chown -R $(id -u) {folder}",
        ) from error
    if not known and data_volume_exists():
        if not found:
            raise StackError(
                "the secrets of this stack are gone, and its database was made with them",
                where=folder,
                hint="restore the folder from your backup; or give up the data: ./ops/stack down --volumes",
            )
        known = list(GENERATORS)
    for name in SUPPLIED if external else ():
        if name not in found and name not in known:
            where = project.shown(project.secrets / name)
            raise StackError(
                f"the secret {name} is missing: Postgres and Redis are yours, and so are their passwords",
                where=where,
                hint=f"write the password into {where} with an editor, and: chmod 600 {where}",
            )
    for name in dict.fromkeys([*known, *found]):
        check_file(project, project.secrets / name)
    check_optional(project)


def optional(project: Project) -> set[str]:
    """The operator's secrets that switch something on, as far as they are there."""
    return {name for name in OPTIONAL_SECRETS if (project.secrets / name).exists()}


def check_optional(project: Project, besides: Collection[str] = ()) -> None:
    """Refuses the operator's secrets that cannot be what their names say.

    Args:
        project: Whose secrets.
        besides: Those that are about to be replaced.

    Raises:
        StackError: naming the file and the hint.
    """
    for name in sorted(optional(project) - set(besides)):
        check_file(project, project.secrets / name)
        check_form(project, name, read(project, name))


def read(project: Project, name: str) -> str:
    """The value of a secret."""
    return (project.secrets / name).read_text(encoding="utf-8").strip()


def check_form(project: Project, name: str, value: str) -> None:
    """Refuses an optional secret that cannot be one; does not say what it holds.

    Raises:
        StackError: naming the secret, and what it takes.
    """
    if takes := OPTIONAL_SECRETS[name](value):
        where = project.shown(project.secrets / name)
        raise StackError(f"the secret {name} is malformed", where=where, hint=f"it takes {takes}; or delete the file")


def generated_names(project: Project) -> list[str]:
    """The secrets that an earlier `up` made, as far as this version knows them."""
    try:
        names = (project.secrets / NAMES_FILE).read_text(encoding="utf-8").split()
    except FileNotFoundError:
        return []
    return [name for name in names if name in GENERATORS]


def check_file(project: Project, path: Path) -> None:
    """Refuses one secret file that is missing, empty, has several lines, or is open to others."""
    where = project.shown(path)
    try:
        mode = path.stat().st_mode
        text = path.read_text(encoding="utf-8")
    except FileNotFoundError:
        raise StackError(
            f"the secret {path.name} is missing",
            where=where,
            hint="restore it from your backup: a new one would not fit what it protects",
        ) from None
    except (OSError, UnicodeDecodeError) as error:
        raise StackError(
            f"the secret {path.name} cannot be read: {getattr(error, 'strerror', None) or 'it is not text'}",
            where=where,
            hint=f"make it a text file that you own: sudo chown $(id -u) {where}",
        ) from None
    if mode & (stat.S_IRWXG | stat.S_IRWXO):
        raise StackError(
            f"the secret {path.name} is open to others (mode {stat.S_IMODE(mode):04o})",
            where=where,
            hint=f"chmod 600 {where}",
        )
    if not text.strip():
        raise StackError(f"the secret {path.name} is empty", where=where, hint="put its value in, or restore it")
    if len(text.strip().splitlines()) != 1:
        raise StackError(f"the secret {path.name} has several lines", where=where, hint="it takes one line")


def generate(project: Project) -> list[str]:
    """Makes the secrets that do not exist yet, all or none; returns their names."""
    made = [name for name in GENERATORS if not (project.secrets / name).exists()]
    project.secrets.mkdir(mode=0o700, parents=True, exist_ok=True)
    project.secrets.chmod(0o700)
    parts = project.secrets / ".part"
    shutil.rmtree(parts, ignore_errors=True)
    parts.mkdir(mode=0o700)
    for name in made:
        write_private(parts / name, GENERATORS[name]() + "\n")
    for name in made:
        (parts / name).rename(project.secrets / name)
    parts.rmdir()
    if made:
        write_private(project.secrets / NAMES_FILE, "\n".join(GENERATORS) + "\n")
    return made


def write_private(path: Path, text: str) -> None:
    """Writes a file that only its owner can read, from its first moment."""
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    with os.fdopen(descriptor, "w", encoding="utf-8") as file:
        file.write(text)


NOTICED: Final = "connect_timeout=3&keepalives_idle=5&keepalives_interval=2&keepalives_count=3&tcp_user_timeout=10000"
"""What libpq is told in every URL: a server that does not answer within 3 s is not waited for, and a connection to one
that was cut off is broken after some 10 s. https://www.postgresql.org/docs/17/libpq-connect.html"""

SENTINEL_PATIENCE: Final = {"socket_timeout": 2, "socket_connect_timeout": 2}
"""Seconds for the answer of one Sentinel; then the next is asked."""


def single_postgres(settings: Mapping[str, str], login: str, database: str) -> str:
    """The URL of a database on the one Postgres, without its driver."""
    return f"{login}@{settings['POSTGRES_HOST']}:{settings['POSTGRES_PORT']}/{database}?{NOTICED}"


def replicated_postgres(settings: Mapping[str, str], login: str, database: str) -> str:
    """The URL of a database on the replicated Postgres: the driver connects to the node that takes writes.

    In SQLAlchemy's own form: it refuses several hosts before the path.
    https://docs.sqlalchemy.org/en/20/dialects/postgresql.html#specifying-multiple-fallback-hosts
    """
    hosts = "&".join(f"host={node}:5432" for node in POSTGRES_NODES)
    return f"{login}@/{database}?{hosts}&target_session_attrs=read-write&{NOTICED}"


def sentinel_url(password: str) -> str:
    """The broker behind the Sentinels.

    The first host is all of them, by the name that they share: Flower knows only the first, and any that lives will do.
    """
    return ";".join(f"sentinel://:{password}@{host}:26379/0" for host in ("sentinel", *SENTINELS))


def exporter_login(password: str) -> str:
    """The log-in of postgres_exporter for a node that it is asked about. YAML, as which JSON passes.

    https://github.com/prometheus-community/postgres_exporter#multi-target-support-beta
    """
    login = {
        "type": "userpass",
        "userpass": {"username": "monitoring", "password": password},
        "options": {"sslmode": "disable", "connect_timeout": "3"},
    }
    return json.dumps({"auth_modules": {"monitoring": login}})


def mounted_files(project: Project, settings: Mapping[str, str]) -> dict[str, str]:
    """What the containers mount: the text of each file, by its path under secrets/mounted/."""
    value = {name: read(project, name) for name in GENERATORS}
    alertmanager = mounted_secrets({name: read(project, name) for name in optional(project)})
    # An operator's own password may hold what a URL cannot.
    in_url = {name: quote(text, safe="") for name, text in value.items()}
    replicated = "data-ha" in profiles(settings)
    postgres = replicated_postgres if replicated else single_postgres
    metadata = postgres(settings, f"airflow:{in_url['postgres_airflow_password']}", "airflow")
    results = postgres(settings, f"celery_results:{in_url['postgres_celery_password']}", "celery_results")
    redis = [f"{settings['REDIS_HOST']}:{settings['REDIS_PORT']}"]
    broker, sentinel = f"redis://:{in_url['redis_password']}@{redis[0]}/0", {}
    if replicated:
        redis = [f"{node}:6379" for node in REDIS_NODES]
        broker = sentinel_url(in_url["redis_password"])
        sentinel = {"password": value["redis_password"], **SENTINEL_PATIENCE}
    own = ("fernet_key", "jwt_secret", "api_secret_key", "airflow_admin_password", "airflow_monitoring_password")
    return {
        **{f"airflow/{name}": value[name] for name in own},
        "airflow/sql_alchemy_conn": f"postgresql+psycopg2://{metadata}",
        "airflow/sql_alchemy_conn_async": f"postgresql+psycopg_async://{metadata}",
        "airflow/celery_result_backend": f"db+postgresql+psycopg2://{results}",
        "airflow/celery_broker_url": broker,
        "airflow/celery_sentinel_kwargs": json.dumps(sentinel),
        "airflow/flower_basic_auth": f"{ADMIN}:{value['flower_password']}",
        "postgres/postgres_superuser_password": value["postgres_superuser_password"],
        "postgres/postgres_airflow_password": value["postgres_airflow_password"],
        "postgres/postgres_celery_password": value["postgres_celery_password"],
        "postgres/postgres_monitoring_password": value["postgres_monitoring_password"],
        "postgres/postgres_replication_password": value["postgres_replication_password"],
        "postgres/patroni_api_password": value["patroni_api_password"],
        "postgres/etcd_password": value["etcd_password"],
        "postgres-exporter/postgres_exporter_password": value["postgres_monitoring_password"],
        "postgres-exporter/postgres_exporter.yaml": exporter_login(value["postgres_monitoring_password"]),
        "redis-exporter/redis_exporter_passwords.json": json.dumps(
            {f"redis://{node}": value["redis_password"] for node in redis}
        ),
        "grafana/grafana_admin_password": value["grafana_admin_password"],
        "redis/redis_auth.conf": "".join(
            f"{setting} {value['redis_password']}\n" for setting in ("requirepass", "masterauth")
        ),
        "redis/redis_password": value["redis_password"],
        **{f"alertmanager/{name}": text for name, text in alertmanager.items()},
    }


def mount(project: Project, settings: Mapping[str, str], image: str) -> bool:
    """Writes the files that the containers mount, if they are not what they should be; returns whether it did.

    Args:
        project: Whose secrets.
        settings: Its .env: the hosts of Postgres and Redis are part of the URLs.
        image: An image that is here and has a shell, to hand the files over to their readers where this user may not.

    Raises:
        StackError: The files could not be handed over.
    """
    root = project.secrets / "mounted"
    files = mounted_files(project, settings)
    by_reader: dict[str, dict[str, str]] = {}
    for name, text in files.items():
        by_reader.setdefault(name.partition("/")[0], {})[name] = text
    # Those of one reader are written together, and only if one of them changed: other containers keep theirs.
    changed = {of: texts for of, texts in by_reader.items() if not is_mounted(root, of, texts)}
    if not changed:
        return False
    part = project.secrets / "mounted.part"
    shutil.rmtree(part, ignore_errors=True)
    new = {name: text for texts in changed.values() for name, text in texts.items()}
    for name, text in new.items():
        (part / name).parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        write_private(part / name, text)
    hand_over(part, new, image)
    root.mkdir(mode=0o700, exist_ok=True)
    for of, texts in changed.items():
        write_private(part / of / DIGEST_FILE, digest(texts))
        shutil.rmtree(root / of, ignore_errors=True)
        (part / of).rename(root / of)
    part.rmdir()
    return True


DIGEST_FILE: Final = ".digest"
"""Tells what the files beside it hold: this user may be unable to read what belongs to a reader."""


def digest(files: Mapping[str, str]) -> str:
    """Changes with the files."""
    return hashlib.sha256(repr(sorted(files.items())).encode()).hexdigest()


def is_mounted(root: Path, of: str, files: Mapping[str, str]) -> bool:
    """Whether the files of a reader are there as they should be."""
    written = root / of / DIGEST_FILE
    return written.exists() and written.read_text(encoding="utf-8") == digest(files) and all_owned(root, files)


def mounted_since(project: Project) -> dict[str, float]:
    """When each reader's mounted files were last written, seconds since the epoch: an older container has others."""
    found = (project.secrets / "mounted").glob(f"*/{DIGEST_FILE}")
    return {path.parent.name: path.stat().st_mtime for path in found}


def all_owned(root: Path, files: Mapping[str, str]) -> bool:
    """Whether every mounted file is there and belongs to its reader."""
    if sys.platform != "linux":
        return all((root / name).exists() for name in files)
    try:
        return all((root / name).stat().st_uid == reader(name) for name in files)
    except FileNotFoundError:
        return False


def reader(name: str) -> int:
    """The uid that reads a mounted file."""
    return READERS[name.partition("/")[0]]


def hand_over(root: Path, files: Mapping[str, str], image: str) -> None:
    """Makes each file its reader's, by a container where this user is not root.

    Docker Desktop shows every file to a container as its own user's, so there is nothing to do elsewhere than on Linux.
    """
    if sys.platform != "linux":
        return
    if os.geteuid() == 0:
        for name in files:
            os.chown(root / name, reader(name), -1)
        return
    orders = " && ".join(f"chown {reader(name)} /secrets/{name}" for name in files)
    command = ["docker", "run", "--rm", "--network=none", "--user=0", "--entrypoint=sh", f"--volume={root}:/secrets"]
    result = subprocess.run([*command, image, "-c", orders], capture_output=True, text=True, check=False)
    if result.returncode != 0:
        raise StackError(
            f"the secrets could not be handed to the containers' users: {result.stderr.strip()}",
            where=str(root),
            hint="run ./ops/stack up as root once",
            code=FAILURE,
        )
