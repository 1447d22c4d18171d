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
import time
from functools import partial
from typing import TYPE_CHECKING, Final, NamedTuple

from airflow_ha import passwords
from ops import (
    backup_config,
    backup_storage,
    external_data,
    inner_tls,
    postgres_roles,
    redis_users,
    rotation_state,
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
    from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
    from pathlib import Path

    from ops.project import Project
    from ops.rotation_state import InUse


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

ROLLED: Final = (
    *(token_keys.READER, secrets_backend.READER, single_sign_on.READER),
    *(*external_data.READERS, *inner_tls.READERS),
)
"""The readers whose former and new files are both valid for a while: containers with each may run side by side."""

READERS: Final = {
    "airflow": 50000,
    token_keys.READER: 50000,
    secrets_backend.READER: 50000,
    single_sign_on.READER: 50000,
    **external_data.READERS,
    **inner_tls.READERS,
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
    if not external:
        rotation_state.refuse_edited(project, {name: read(project, name) for name in present})


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


def exporter_login(user: str, password: str) -> str:
    """Return postgres_exporter's configuration with its log-in to every node, as JSON, which is valid YAML.

    https://github.com/prometheus-community/postgres_exporter#multi-target-support-beta
    """
    login = {
        "type": "userpass",
        "userpass": {"username": user, "password": password},
        "options": {"sslmode": "disable", "connect_timeout": "3"},
    }
    return json.dumps({"auth_modules": {"monitoring": login}})


def mounted_files(project: Project, settings: Mapping[str, str]) -> dict[str, str]:
    """Return the text of each file that the containers mount, by its path under secrets/mounted/."""
    in_use = rotation_state.in_use(project, generated_values(project))
    value = in_use.current
    chosen = {name: read(project, name) for name in optional(project)}
    certificates = external_data.files(project, settings)
    backends, provider = secrets_backend.files(project), single_sign_on.files(project)
    web = web_config(value[LOGIN], key=value["api_secret_key"])
    own = ("api_secret_key", "airflow_admin_password", "airflow_monitoring_password")
    monitoring, flower = in_use.accepted("airflow_monitoring_password"), in_use.accepted("flower_password")
    return {
        **{f"airflow/{name}": value[name] for name in own},
        f"airflow/{rotation_state.FERNET}": ",".join(in_use.accepted(rotation_state.FERNET)),
        **postgres_files(settings, in_use, external_data.postgres_options(settings, certificates)),
        **token_keys.mounted_files(project, in_use),
        **external_data.mounted_files(settings, certificates),
        **inner_tls.mounted_files(project, settings),
        **secrets_backend.mounted_files(settings, backends),
        **single_sign_on.mounted_files(settings, provider),
        **redis_users.mounted_files(project, settings, in_use),
        **backup_config.mounted_files(
            settings, {**value, **chosen, **backends, **provider, **backup_storage.secrets(project)}
        ),
        "airflow/flower_basic_auth": ",".join(sorted(f"{ADMIN}:{text}" for text in flower)),
        "grafana/grafana_admin_password": value["grafana_admin_password"],
        "grafana/grafana_observability_password": value[LOGIN],
        "prometheus/observability_password": value[LOGIN],
        "prometheus/prometheus_web.yaml": web,
        "alertmanager/alertmanager_web.yaml": web,
        "postgres-exporter/postgres_exporter_web.yaml": web,
        "gateway/findings.cfg": findings_door(monitoring, value[LOGIN]),
        "grafana/grafana_log_in_header": grafana_header(value["api_secret_key"]),
        "pages/pages.cfg": pages_door(flower, value[LOGIN], grafana_header(value["api_secret_key"])),
        **{f"alertmanager/{name}": text for name, text in mounted_secrets(chosen).items()},
    }


def generated_values(project: Project) -> dict[str, str]:
    """Return the content of each secret file that `up` generates."""
    return {name: read(project, name) for name in GENERATORS}


def postgres_files(settings: Mapping[str, str], in_use: InUse, tls: str) -> dict[str, str]:
    """Return the text of each file about Postgres that containers mount, by its path under secrets/mounted/.

    Args:
        settings: Of .env.
        in_use: The secrets.
        tls: Of external_data.postgres_options().
    """
    value = in_use.current
    url = replicated_postgres if "data-ha" in profiles(settings) else partial(single_postgres, tls=tls)
    login = {role: postgres_roles.url_login(role, in_use) for role in postgres_roles.PASSWORDS}
    metadata = url(settings, login["airflow"], "airflow")
    results = url(settings, login["celery_results"], "celery_results")
    results_owner = url(settings, login["airflow"], "celery_results")
    superuser = url(settings, login["postgres"], "postgres")
    user, password = postgres_roles.user_and_password("monitoring", in_use)
    of_servers = (*postgres_roles.PASSWORDS.values(), "postgres_replication_password")
    return {
        "airflow/sql_alchemy_conn": f"postgresql+psycopg2://{metadata}",
        "airflow/sql_alchemy_conn_async": f"postgresql+psycopg_async://{metadata}",
        "airflow/celery_result_backend": f"db+postgresql+psycopg2://{results}",
        "airflow/celery_results_owner": f"db+postgresql+psycopg2://{results_owner}",
        # Empty for an external Postgres, whose superuser is unknown.
        "airflow/postgres_superuser_conn": f"postgresql+psycopg2://{superuser}" if has_own_data(settings) else "",
        **{f"postgres/{name}": value[name] for name in (*of_servers, "patroni_api_password", "etcd_password")},
        "postgres-exporter/postgres_exporter_user": user,
        "postgres-exporter/postgres_exporter_password": password,
        "postgres-exporter/postgres_exporter.yaml": exporter_login(user, password),
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


def userlists(name: str, texts: Sequence[str], user: str = ADMIN) -> str:
    """Return the list `name` of HAProxy with one user, and `name_also` with a second password of it, or without users.

    A list cannot have two passwords of one user.

    Args:
        name: The first list's name.
        texts: One or two passwords.
        user: The user's name.
    """
    first, *others = sorted(texts)
    also = userlist(f"{name}_also", others[0], user) if others else f"userlist {name}_also\n"
    return userlist(name, first, user) + also


def findings_door(monitoring: Sequence[str], observability: str) -> str:
    """Return the passwords of the gateway's door to the Alertmanagers: the DAG's, and the gateway's own.

    Args:
        monitoring: The passwords of the Airflow account `monitoring`, which the DAG has in its connection.
        observability: The password of the Alertmanagers.
    """
    own = f'global\n    set-var proc.observability str("{authorization(observability)}")\n'
    return userlists("findings", monitoring, "monitoring") + own


def pages_door(flower: Sequence[str], observability: str, header: str) -> str:
    """Return what the pages' door asks for, and what it sends to a page for a session of Airflow.

    Args:
        flower: The passwords of Flower, the used one first.
        observability: The password of the other pages.
        header: Of grafana_header().
    """
    return (
        f"global\n    setenv GRAFANA_LOG_IN {header}\n"
        f'    set-var proc.flower str("{authorization(flower[0])}")\n'
        f'    set-var proc.observability str("{authorization(observability)}")\n'
        + userlists("flower", flower)
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


def mount(project: Project, settings: Mapping[str, str], image: str, live: Collection[str] = ()) -> bool:
    """Write the files that the containers mount where they differ, and return whether any did.

    Args:
        project: The stack.
        settings: The settings of .env: the URLs contain the hosts of Postgres and Redis.
        image: A local image with a shell; a container of it changes the files' owners if this user is not root.
        live: The files that are written in place, by their path. Running containers read them again, and do not count
            as older.

    Raises:
        StackError: The owners could not be changed.
    """
    root = project.secrets / "mounted"
    texts = mounted_files(project, settings)
    before = {reader: written(root / reader) for reader in READERS}
    changed = outdated_files(root, texts, before)
    gone = {name for reader, files in before.items() for file in files if (name := f"{reader}/{file}") not in texts}
    if not changed and not gone:
        return False
    part = project.secrets / "mounted.part"
    shutil.rmtree(part, ignore_errors=True)
    for name, text in changed.items():
        (part / name).parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        write_atomically(part / name, text, OWNER_ONLY)
    change_owners(part, changed, image)
    in_place = {name for name in changed if name in live and (root / name).exists()}
    write_in_place(part, root, in_place, image)
    for name in changed.keys() - in_place:
        (root / name).parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        (part / name).rename(root / name)
    for name in gone:
        (root / name).unlink(missing_ok=True)
    for reader in {name.partition("/")[0] for name in (*changed, *gone)}:
        files = {name.partition("/")[2]: text for name, text in texts.items() if name.startswith(f"{reader}/")}
        replaced = {name.partition("/")[2] for name in changed.keys() - in_place if name.startswith(f"{reader}/")}
        note_written(root / reader, facts_of(files, replaced, before[reader]))
    shutil.rmtree(part)
    return True


def are_current(project: Project, settings: Mapping[str, str]) -> bool:
    """Return whether the files that the containers mount are those that `mount` would write."""
    root = project.secrets / "mounted"
    before = {reader: written(root / reader) for reader in READERS}
    return not outdated_files(root, mounted_files(project, settings), before)


def outdated_files(root: Path, texts: Mapping[str, str], before: Mapping[str, Mapping[str, Written]]) -> dict[str, str]:
    """Return the files that do not exist with their text, or do not belong to their reader."""
    return {name: text for name, text in texts.items() if not is_mounted(root, name, text, before)}


def facts_of(files: Mapping[str, str], replaced: Collection[str], before: Mapping[str, Written]) -> dict[str, Written]:
    """Return what to note about the files of a reader: those that were replaced have their content since now."""
    now = time.time()
    return {
        file: Written(digest(text), now if file in replaced or file not in before else before[file].since)
        for file, text in files.items()
    }


def write_in_place(part: Path, root: Path, names: Collection[str], image: str) -> None:
    """Write files into the existing ones: a container that mounts a file sees no other file in its place."""
    if not names:
        return
    if sys.platform == "linux" and os.geteuid() != 0:
        script = " && ".join(f"cat /from/{name} > /to/{name}" for name in sorted(names))
        run_as_root(script, [f"--volume={part}:/from:ro", f"--volume={root}:/to"], image)
        return
    for name in names:
        with (root / name).open("r+", encoding="utf-8") as file:
            file.write((part / name).read_text(encoding="utf-8"))
            file.truncate()


DIGEST_FILE: Final = ".digest"
"""Holds what is known of each file beside it, which this user may be unable to read."""


class Written(NamedTuple):
    """A file that containers mount.

    Attributes:
        digest: Of its content.
        since: When containers had to be replaced to get it, in seconds since the epoch.
    """

    digest: str
    since: float


def digest(text: str) -> str:
    """Return a digest of a file's content."""
    return hashlib.sha256(text.encode()).hexdigest()


def is_mounted(root: Path, name: str, text: str, before: Mapping[str, Mapping[str, Written]]) -> bool:
    """Return whether a file exists with this text and belongs to its reader."""
    reader, _, file = name.partition("/")
    known = before[reader].get(file)
    return known is not None and known.digest == digest(text) and all_owned(root, [name])


def written(folder: Path) -> dict[str, Written]:
    """Return the files of a reader; none if an older version wrote them, or nothing did."""
    try:
        return {file: Written(*facts) for file, facts in json.loads(note_of(folder)).items()}
    except (ValueError, AttributeError):
        return {}


def note_of(folder: Path) -> str:
    """Return the text of the note about a reader's files; empty without one."""
    path = folder / DIGEST_FILE
    return path.read_text(encoding="utf-8") if path.exists() else ""


def note_written(folder: Path, files: Mapping[str, Written]) -> None:
    """Note the files of a reader."""
    write_atomically(folder / DIGEST_FILE, json.dumps(files, indent=1) + "\n", OWNER_ONLY)


def mounted_since(project: Project) -> dict[str, float]:
    """Return when each mounted file got its content, seconds since the epoch: older containers use an older one."""
    root = project.secrets / "mounted"
    return {f"{reader}/{file}": facts.since for reader in READERS for file, facts in written(root / reader).items()}


def all_owned(root: Path, files: Iterable[str]) -> bool:
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
        if note_of(root / reader) == note_of(kept / reader):
            continue
        current, former = written(root / reader), written(kept / reader)
        if former:
            same = {file for file, facts in former.items() if file in current and current[file].digest == facts.digest}
            now = time.time()
            facts = {
                file: current[file] if file in same else Written(each.digest, now) for file, each in former.items()
            }
            note_written(part / reader, facts)
        shutil.rmtree(root / reader, ignore_errors=True)
        (part / reader).rename(root / reader)
    shutil.rmtree(part)
