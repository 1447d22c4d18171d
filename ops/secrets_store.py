"""The stack's secrets: generated once, checked at every `up`, mounted into containers as files.

`secrets/NAME` are the operator's files: mode 0600, never printed, never replaced. From them every `up` writes
`secrets/mounted/READER/NAME`, the files that the containers mount. Each belongs to the one user that reads it, with
mode 0600: compose mounts a file secret with the owner and mode that it has on the host
(https://docs.docker.com/reference/compose-file/secrets/).
"""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
import os
import secrets
import shutil
import stat
import sys
from functools import partial
from typing import TYPE_CHECKING, Final
from urllib.parse import quote

from airflow_ha import passwords
from ops import (
    backup_config,
    backup_storage,
    external_data,
    redis_users,
    secrets_backend,
    single_sign_on,
    time_limits,
    token_keys,
)
from ops.atomic_file import write_atomically
from ops.child_process import run_limited
from ops.errors import FAILURE, StackError
from ops.notification_secrets import OPTIONAL_SECRETS, mounted_secrets
from ops.project import ADMIN
from ops.services import LOGIN, POSTGRES_NODES, PUBLISHED
from ops.settings_file import has_own_data, profiles

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Mapping
    from pathlib import Path

    from ops.project import Project


def fernet_key() -> str:
    """Return 32 random bytes as URL-safe base64: https://cryptography.io/en/latest/fernet/."""
    return base64.urlsafe_b64encode(os.urandom(32)).decode()


def password() -> str:
    """Return 192 random bits that need no quoting in a URL."""
    return secrets.token_urlsafe(24)


def signing_key() -> str:
    """Return 512 random bits, with which the API servers sign sessions and page tokens."""
    return secrets.token_urlsafe(64)


GENERATORS: Final[dict[str, Callable[[], str]]] = {
    "fernet_key": fernet_key,
    token_keys.TASKS: token_keys.private_key,
    token_keys.USERS: token_keys.private_key,
    "api_secret_key": signing_key,
    "postgres_superuser_password": password,
    "postgres_airflow_password": password,
    "postgres_celery_password": password,
    "postgres_monitoring_password": password,
    "postgres_replication_password": password,
    "patroni_api_password": password,
    "etcd_password": password,
    "redis_password": password,
    "redis_operator_password": password,
    "redis_health_password": password,
    "redis_replica_password": password,
    "redis_sentinel_password": password,
    "redis_exporter_password": password,
    "redis_scheduler_password": password,
    "redis_flower_password": password,
    "airflow_admin_password": password,
    "airflow_monitoring_password": password,
    "flower_password": password,
    "grafana_admin_password": password,
    LOGIN: password,
    backup_config.PASSPHRASE: password,
}
"""The generator of each secret of the operator."""

NAMES_FILE: Final = ".names"
"""Lists the generated secrets: a listed name without a file was lost, an unlisted name is new in this version."""

ROLLED: Final = (token_keys.READER, secrets_backend.READER, single_sign_on.READER, *external_data.READERS)
"""The readers whose former and new files are both valid for a while: containers with each may run side by side."""

READERS: Final = {
    "airflow": 50000,
    token_keys.READER: 50000,
    secrets_backend.READER: 50000,
    single_sign_on.READER: 50000,
    **external_data.READERS,
    "postgres": 999,
    "redis": 999,
    "postgres-exporter": 65534,
    "redis-exporter": 59000,
    "grafana": 472,
    "alertmanager": 65534,
    "gateway": 99,
    "pages": 99,
    "prometheus": 65534,
    "backup": 999,
    "backup-files": 50000,
}
"""The uid of each image's user, as in compose/*.yaml."""

LOG_INS: Final = tuple(dict.fromkeys(published.login for published in PUBLISHED))
"""The secrets by which somebody may log in to a page: each has a minimum length."""

MAX_BYTES: Final = 72
"""bcrypt reads no more of a password."""
BCRYPT_ALPHABET: Final = bytes.maketrans(
    b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/",
    b"./ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789",
)
"""From base64 to bcrypt's own order of the letters."""

SUPPLIED: Final = ("postgres_airflow_password", "postgres_celery_password", "redis_password")
"""The secrets that the operator must supply for an external Postgres and Redis: generated ones would not match."""
OWNER_ONLY: Final = 0o600


def check(project: Project, data_volume_exists: Callable[[], bool], *, external: bool = False) -> None:
    """Refuse secrets that are missing, empty or readable by others; change nothing.

    Args:
        project: The stack.
        data_volume_exists: Returns whether Postgres has data of this stack, so that its secrets must exist.
        external: Whether Postgres and Redis are external.

    Raises:
        StackError: A secret is unusable; the error names its file.
    """
    folder = project.shown(project.secrets)
    try:
        present = [name for name in GENERATORS if (project.secrets / name).exists()]
        expected = generated_names(project)
    except OSError as error:
        raise StackError(
            f"cannot read the secrets: {error.strerror}",
            where=folder,
            hint=f"run this as the user who ran ./ops/stack up first, or run: sudo chown -R $(id -u) {folder}",
        ) from error
    if not expected and data_volume_exists():
        if not present:
            raise StackError(
                "cannot use the database: the secrets that it was created with are missing",
                where=folder,
                hint="restore the folder from your backup, or delete the data with ./ops/stack down --volumes",
            )
        expected = list(GENERATORS)
    if external:
        check_supplied(project, {*present, *expected})
    for name in dict.fromkeys([*expected, *present]):
        check_file(project, project.secrets / name)
    check_optional(project)


def check_supplied(project: Project, known: Collection[str]) -> None:
    """Refuse an external Postgres and Redis without the operator's passwords.

    Args:
        project: The stack.
        known: The secrets that exist, or existed.

    Raises:
        StackError: A password is missing; the error names its file.
    """
    for name in SUPPLIED:
        if name not in known:
            where = project.shown(project.secrets / name)
            raise StackError(
                f"cannot connect to your own Postgres and Redis: the secret {name} is missing",
                where=where,
                hint=f"write the password into {where} with an editor, then run: chmod 600 {where}",
            )


def optional(project: Project) -> set[str]:
    """Return the names of the optional secrets that exist; each turns a feature on."""
    return {name for name in OPTIONAL_SECRETS if (project.secrets / name).exists()}


def check_optional(project: Project, besides: Collection[str] = ()) -> None:
    """Refuse optional secrets that are not valid.

    Args:
        project: The stack.
        besides: The names to skip, because their files are about to be replaced.

    Raises:
        StackError: A secret is not valid; the error names its file.
    """
    for name in sorted(optional(project) - set(besides)):
        check_file(project, project.secrets / name)
        check_form(project, name, read(project, name))


def read(project: Project, name: str) -> str:
    """Return the value of a secret."""
    return (project.secrets / name).read_text(encoding="utf-8").strip()


def check_form(project: Project, name: str, value: str) -> None:
    """Refuse a malformed optional secret without showing its value.

    Raises:
        StackError: The value is malformed; the hint states the expected form.
    """
    if takes := OPTIONAL_SECRETS[name](value):
        where = project.shown(project.secrets / name)
        raise StackError(
            f"cannot use the secret {name}: its value is malformed",
            where=where,
            hint=f"write {takes} into the file, or delete it",
        )


def generated_names(project: Project) -> list[str]:
    """Return the secrets that an earlier `up` generated and this version still uses."""
    try:
        names = (project.secrets / NAMES_FILE).read_text(encoding="utf-8").split()
    except FileNotFoundError:
        return []
    return [name for name in names if name in GENERATORS]


def check_file(project: Project, path: Path) -> None:
    """Refuse a secret file that is missing, empty, too short, longer than one line, or readable by others."""
    where = project.shown(path)
    try:
        mode = path.stat().st_mode
        text = path.read_text(encoding="utf-8")
    except FileNotFoundError:
        raise StackError(
            f"cannot find the secret {path.name}: its file is missing",
            where=where,
            hint="restore it from your backup: a new secret does not match the existing data",
        ) from None
    except (OSError, UnicodeDecodeError) as error:
        raise StackError(
            f"cannot read the secret {path.name}: {getattr(error, 'strerror', None) or 'the file is not text'}",
            where=where,
            hint=f"make it a text file that you own: sudo chown $(id -u) {where}",
        ) from None
    if mode & (stat.S_IRWXG | stat.S_IRWXO):
        raise StackError(
            f"cannot use the secret {path.name}: other users have access (mode {stat.S_IMODE(mode):04o})",
            where=where,
            hint=f"run: chmod 600 {where}",
        )
    if not text.strip():
        raise StackError(
            f"cannot use the secret {path.name}: the file is empty",
            where=where,
            hint="write its value into the file, or restore it",
        )
    if len(text.strip().splitlines()) != 1:
        raise StackError(
            f"cannot use the secret {path.name}: the file has several lines",
            where=where,
            hint="reduce the file to one line",
        )
    if path.name in token_keys.TRUSTED:
        token_keys.check(project, path.name, text.strip())
    if path.name in LOG_INS and len(text.strip()) < passwords.MIN_LENGTH:
        raise StackError(
            f"cannot use the secret {path.name}: it has fewer than {passwords.MIN_LENGTH} characters",
            where=where,
            hint="write a longer password into the file; ./ops/stack up sets it in Airflow and in the pages",
        )
    if path.name == LOGIN and len(text.strip().encode()) > MAX_BYTES:
        raise StackError(
            f"cannot use the secret {path.name}: it has more than {MAX_BYTES} bytes",
            where=where,
            hint="write a shorter password into the file",
        )


def generate(project: Project) -> list[str]:
    """Generate the secrets that do not exist yet, all or none, and return their names."""
    missing = [name for name in GENERATORS if not (project.secrets / name).exists()]
    project.secrets.mkdir(mode=0o700, parents=True, exist_ok=True)
    project.secrets.chmod(0o700)
    parts = project.secrets / ".part"
    shutil.rmtree(parts, ignore_errors=True)
    parts.mkdir(mode=0o700)
    for name in missing:
        write_atomically(parts / name, GENERATORS[name]() + "\n", OWNER_ONLY)
    for name in missing:
        (parts / name).rename(project.secrets / name)
    parts.rmdir()
    if missing:
        write_atomically(project.secrets / NAMES_FILE, "\n".join(GENERATORS) + "\n", OWNER_ONLY)
    return missing


LIBPQ_TIMEOUTS: Final = (
    "connect_timeout=3&keepalives_idle=5&keepalives_interval=2&keepalives_count=3&tcp_user_timeout=10000"
)
"""libpq parameters of every URL: connecting times out after 3 s, and a connection to an unreachable server is closed
after about 10 s. https://www.postgresql.org/docs/17/libpq-connect.html"""


def single_postgres(settings: Mapping[str, str], login: str, database: str, tls: str = "") -> str:
    """Return the URL of a database on a single or external Postgres, without the driver prefix.

    Args:
        settings: Of .env.
        login: User and password.
        database: Its name.
        tls: Of external_data.postgres_options().
    """
    return f"{login}@{settings['POSTGRES_HOST']}:{settings['POSTGRES_PORT']}/{database}?{LIBPQ_TIMEOUTS}{tls}"


def replicated_postgres(settings: Mapping[str, str], login: str, database: str) -> str:
    """Return the URL of a database on the replicated Postgres: the driver connects to the node that accepts writes.

    The hosts are query parameters, because SQLAlchemy refuses several hosts before the path:
    https://docs.sqlalchemy.org/en/20/dialects/postgresql.html#specifying-multiple-fallback-hosts
    """
    hosts = "&".join(f"host={node}:5432" for node in POSTGRES_NODES)
    return f"{login}@/{database}?{hosts}&target_session_attrs=read-write&{LIBPQ_TIMEOUTS}"


def exporter_login(password: str) -> str:
    """Return postgres_exporter's configuration with its log-in to every node, as JSON, which is valid YAML.

    https://github.com/prometheus-community/postgres_exporter#multi-target-support-beta
    """
    login = {
        "type": "userpass",
        "userpass": {"username": "monitoring", "password": password},
        "options": {"sslmode": "disable", "connect_timeout": "3"},
    }
    return json.dumps({"auth_modules": {"monitoring": login}})


def mounted_files(project: Project, settings: Mapping[str, str]) -> dict[str, str]:
    """Return the text of each file that the containers mount, by its path under secrets/mounted/."""
    value = {name: read(project, name) for name in GENERATORS}
    chosen = {name: read(project, name) for name in optional(project)}
    alertmanager = mounted_secrets(chosen)
    # An operator's own password may contain characters that a URL must quote.
    in_url = {name: quote(text, safe="") for name, text in value.items()}
    certificates = external_data.files(project)
    backends, provider = secrets_backend.files(project), single_sign_on.files(project)
    tls = external_data.postgres_options(settings, certificates)
    postgres = replicated_postgres if "data-ha" in profiles(settings) else partial(single_postgres, tls=tls)
    metadata = postgres(settings, f"airflow:{in_url['postgres_airflow_password']}", "airflow")
    results = postgres(settings, f"celery_results:{in_url['postgres_celery_password']}", "celery_results")
    results_owner = postgres(settings, f"airflow:{in_url['postgres_airflow_password']}", "celery_results")
    superuser = postgres(settings, f"postgres:{in_url['postgres_superuser_password']}", "postgres")
    web = web_config(value[LOGIN], key=value["api_secret_key"])
    own = ("fernet_key", "api_secret_key", "airflow_admin_password", "airflow_monitoring_password")
    return {
        **{f"airflow/{name}": value[name] for name in own},
        "airflow/sql_alchemy_conn": f"postgresql+psycopg2://{metadata}",
        "airflow/sql_alchemy_conn_async": f"postgresql+psycopg_async://{metadata}",
        "airflow/celery_result_backend": f"db+postgresql+psycopg2://{results}",
        "airflow/celery_results_owner": f"db+postgresql+psycopg2://{results_owner}",
        # Empty for an external Postgres, whose superuser is unknown.
        "airflow/postgres_superuser_conn": f"postgresql+psycopg2://{superuser}" if has_own_data(settings) else "",
        **token_keys.mounted_files(project, value),
        **external_data.mounted_files(settings, certificates),
        **secrets_backend.mounted_files(settings, backends),
        **single_sign_on.mounted_files(settings, provider),
        **redis_users.mounted_files(project, settings, value),
        **backup_config.mounted_files(settings, value | chosen | backends | provider | backup_storage.secrets(project)),
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
        "grafana/grafana_admin_password": value["grafana_admin_password"],
        "grafana/grafana_observability_password": value[LOGIN],
        "prometheus/observability_password": value[LOGIN],
        "prometheus/prometheus_web.yaml": web,
        "alertmanager/alertmanager_web.yaml": web,
        "postgres-exporter/postgres_exporter_web.yaml": web,
        "gateway/findings.cfg": findings_door(value["airflow_monitoring_password"], value[LOGIN]),
        "grafana/grafana_log_in_header": grafana_header(value["api_secret_key"]),
        "pages/pages.cfg": pages_door(value["flower_password"], value[LOGIN], grafana_header(value["api_secret_key"])),
        **{f"alertmanager/{name}": text for name, text in alertmanager.items()},
    }


def userlist(name: str, text: str, user: str = ADMIN) -> str:
    """Return a list of HAProxy with one user: https://docs.haproxy.org/3.0/configuration.html#3.4.

    Args:
        name: The list's name.
        text: The password. HAProxy gets it in clear: a hash would cost it milliseconds for each request.
        user: The user's name.
    """
    quoted = text.replace("'", r"'\''")
    return f"userlist {name}\n    user {user} insecure-password '{quoted}'\n"


def findings_door(monitoring: str, observability: str) -> str:
    """Return the passwords of the gateway's door to the Alertmanagers: the DAG's, and the gateway's own.

    Args:
        monitoring: The password of the Airflow account `monitoring`, which the DAG has in its connection.
        observability: The password of the Alertmanagers.
    """
    own = f'global\n    set-var proc.observability str("{authorization(observability)}")\n'
    return userlist("findings", monitoring, "monitoring") + own


def pages_door(flower: str, observability: str, header: str) -> str:
    """Return what the pages' door asks for, and what it sends to a page for a session of Airflow.

    Args:
        flower: The password of Flower.
        observability: The password of the other pages.
        header: Of grafana_header().
    """
    return (
        f"global\n    setenv GRAFANA_LOG_IN {header}\n"
        f'    set-var proc.flower str("{authorization(flower)}")\n'
        f'    set-var proc.observability str("{authorization(observability)}")\n'
        + userlist("flower", flower)
        + userlist("observability", observability)
    )


def authorization(text: str) -> str:
    """Return the header Authorization of user `admin` with a password."""
    return f"Basic {base64.b64encode(f'{ADMIN}:{text}'.encode()).decode()}"


def grafana_header(key: str) -> str:
    """Return the name of the header by which the pages' door logs a user of Airflow in to Grafana.

    Args:
        key: A secret: who knows the name can open Grafana's dashboards.
    """
    return f"X-Log-In-{hmac.digest(key.encode(), b'log-in at Grafana', 'sha256').hex()[:40]}"


def web_config(text: str, key: str) -> str:
    """Return a web configuration of Prometheus and its exporters with the user `admin`.

    The same password gives the same hash, so that a second `up` changes no file: the salt is derived with another
    secret, and so nobody can compute it. https://prometheus.io/docs/prometheus/latest/configuration/https/

    Args:
        text: The password, of at most MAX_BYTES.
        key: A secret that is not the password.
    """
    import bcrypt

    salt = hmac.digest(key.encode(), b"salt of " + LOGIN.encode(), "sha256")[:16]
    encoded = base64.b64encode(salt).translate(BCRYPT_ALPHABET).rstrip(b"=")
    return f"basic_auth_users:\n  {ADMIN}: '{bcrypt.hashpw(text.encode(), b'$2b$10$' + encoded).decode()}'\n"


def mount(project: Project, settings: Mapping[str, str], image: str) -> bool:
    """Write the files that the containers mount where they differ, and return whether any did.

    Args:
        project: The stack.
        settings: The settings of .env: the URLs contain the hosts of Postgres and Redis.
        image: A local image with a shell; a container of it changes the files' owners if this user is not root.

    Raises:
        StackError: The owners could not be changed.
    """
    root = project.secrets / "mounted"
    by_reader: dict[str, dict[str, str]] = {}
    for name, text in mounted_files(project, settings).items():
        by_reader.setdefault(name.partition("/")[0], {})[name] = text
    # Only the folders of readers with a changed file are replaced: the containers of other readers keep theirs.
    changed = {reader: texts for reader, texts in by_reader.items() if not is_mounted(root, reader, texts)}
    if not changed:
        return False
    part = project.secrets / "mounted.part"
    shutil.rmtree(part, ignore_errors=True)
    new = {name: text for texts in changed.values() for name, text in texts.items()}
    for name, text in new.items():
        (part / name).parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        write_atomically(part / name, text, OWNER_ONLY)
    change_owners(part, new, image)
    root.mkdir(mode=0o700, exist_ok=True)
    for reader, texts in changed.items():
        write_atomically(part / reader / DIGEST_FILE, digest(texts), OWNER_ONLY)
        shutil.rmtree(root / reader, ignore_errors=True)
        (part / reader).rename(root / reader)
    part.rmdir()
    return True


DIGEST_FILE: Final = ".digest"
"""Holds the digest of the files beside it, which this user may be unable to read."""


def digest(files: Mapping[str, str]) -> str:
    """Return a digest of the names and texts of files."""
    return hashlib.sha256(repr(sorted(files.items())).encode()).hexdigest()


def is_mounted(root: Path, reader: str, files: Mapping[str, str]) -> bool:
    """Return whether a reader's files exist with these texts and belong to it."""
    return written_digest(root / reader) == digest(files) and all_owned(root, files)


def written_digest(folder: Path) -> str:
    """Return the digest of a reader's files when they were written; empty if they were not."""
    path = folder / DIGEST_FILE
    return path.read_text(encoding="utf-8") if path.exists() else ""


def mounted_since(project: Project) -> dict[str, float]:
    """Return when each reader's files were last written, seconds since the epoch: older containers use old files."""
    digests = (project.secrets / "mounted").glob(f"*/{DIGEST_FILE}")
    return {path.parent.name: path.stat().st_mtime for path in digests}


def all_owned(root: Path, files: Mapping[str, str]) -> bool:
    """Return whether every file exists and belongs to its reader."""
    if sys.platform != "linux":
        return all((root / name).exists() for name in files)
    try:
        return all((root / name).stat().st_uid == reader_uid(name) for name in files)
    except FileNotFoundError:
        return False


def reader_uid(name: str) -> int:
    """Return the uid that reads a mounted file."""
    return READERS[name.partition("/")[0]]


def change_owners(root: Path, files: Mapping[str, str], image: str) -> None:
    """Change the owner of each file to its reader; a root container does so if this user is not root.

    Linux only: Docker Desktop shows every mounted file as owned by the container's own user.
    """
    if sys.platform != "linux":
        return
    if os.geteuid() == 0:
        for name in files:
            os.chown(root / name, reader_uid(name), -1)
        return
    script = " && ".join(f"chown {reader_uid(name)} /secrets/{name}" for name in files)
    run_as_root(script, [f"--volume={root}:/secrets"], image)


def run_as_root(script: str, volumes: list[str], image: str) -> None:
    """Run a shell script as root in a container of a local image.

    Raises:
        StackError: The script failed.
    """
    command = ["docker", "run", "--rm", "--network=none", "--user=0", "--entrypoint=sh", *volumes]
    result = run_limited([*command, image, "-c", script], time_limits.COMMAND, "change the mounted secrets")
    if result.returncode != 0:
        raise StackError(
            f"cannot change the mounted secrets: {result.stderr.strip()}",
            hint="run the same command as root",
            code=FAILURE,
        )


def copy_mounted(source: Path, target: Path, image: str) -> None:
    """Copy the files that the containers mount, with their owners, into a new folder.

    Args:
        source: The folder of the readers' folders.
        target: A folder that does not exist.
        image: A local image with a shell; a container of it copies if this user is not root, who may not read them.

    Raises:
        StackError: They could not be copied.
    """
    target.mkdir(mode=0o700, parents=True)
    if sys.platform == "linux" and os.geteuid() != 0:
        run_as_root("cp -a /from/. /to/", [f"--volume={source}:/from:ro", f"--volume={target}:/to"], image)
        return
    for path in sorted(source.rglob("*")):
        copied = target / path.relative_to(source)
        if path.is_dir():
            copied.mkdir(mode=0o700)
        else:
            write_atomically(copied, path.read_text(encoding="utf-8"), OWNER_ONLY)
        if sys.platform == "linux":
            os.chown(copied, path.stat().st_uid, path.stat().st_gid)


def bring_back(project: Project, kept: Path, image: str) -> None:
    """Give the containers the files of `copy_mounted` again, where the current ones differ.

    The files count as new, so that containers which started with the current ones are replaced.

    Args:
        project: The stack.
        kept: The folder of the copy, which stays.
        image: As in copy_mounted().
    """
    root, part = project.secrets / "mounted", project.secrets / "mounted.part"
    shutil.rmtree(part, ignore_errors=True)
    copy_mounted(kept, part, image)
    for reader in (folder.name for folder in kept.iterdir()):
        if written_digest(root / reader) != written_digest(kept / reader):
            (part / reader / DIGEST_FILE).touch()
            shutil.rmtree(root / reader, ignore_errors=True)
            (part / reader).rename(root / reader)
    shutil.rmtree(part)
