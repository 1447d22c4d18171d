"""The links to Postgres and Redis: TLS and certificates, and the users of the operator's own servers.

With TLS=on the own servers are verified in the same way, with files of the authority of the stack (inner_tls.py). The
servers of the operator are verified with the authorities in secrets/postgres_ca.pem and secrets/redis_ca.pem. With
mutual TLS a client shows secrets/postgres_client.pem or secrets/redis_client.pem: its certificate, those between it and
the authority, and its key.
"""

from __future__ import annotations

import json
import stat
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Final
from urllib.parse import quote

from cryptography import x509
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat, load_pem_private_key

from airflow_ha.external_data import UNREACHABLE
from ops import inner_tls, time_limits
from ops.child_process import run_limited
from ops.errors import FAILURE, StackError
from ops.services import OBSERVABILITY
from ops.settings_file import has_own_data, profiles

if TYPE_CHECKING:
    from collections.abc import Mapping

    from ops.project import Project

LINKS: Final = {"postgres": "Postgres", "redis": "Redis"}
CA_FILES: Final = {link: f"{link}_ca.pem" for link in LINKS}
CLIENT_FILES: Final = {link: f"{link}_client.pem" for link in LINKS}
READERS: Final = {"links": 50000, "postgres-exporter-link": 65534, "redis-exporter-link": 59000}
"""The folders of these files under secrets/mounted/, and the uid of the containers that read each."""
REDIS_USERS: Final = {
    "scheduler": "REDIS_SCHEDULER_USER",
    "flower": "REDIS_FLOWER_USER",
    "exporter": "REDIS_MONITORING_USER",
}
"""The setting of each client that may have a user of its own."""
MOUNTED: Final = "/run/secrets"
VERIFYING: Final = ("verify-ca", "verify-full")
SSLMODES: Final = ("disable", "require", *VERIFYING)
ON: Final = "true"


def files(project: Project, settings: Mapping[str, str]) -> dict[str, str]:
    """Return the text of each certificate file: those of the operator that exist, or those of the stack's authority."""
    if has_own_data(settings):
        return inner_tls.data_clients(project) if inner_tls.covers_data(settings) else {}
    paths = {name: project.secrets / name for name in (*CA_FILES.values(), *CLIENT_FILES.values())}
    return {name: path.read_text(encoding="utf-8") for name, path in paths.items() if path.exists()}


def uses_tls(settings: Mapping[str, str], link: str) -> bool:
    """Return whether a link must be encrypted."""
    if has_own_data(settings):
        return inner_tls.covers_data(settings)
    if link == "redis":
        return settings.get("REDIS_TLS") == ON
    return sslmode(settings) not in ("", "disable")


def verifies(settings: Mapping[str, str], link: str) -> bool:
    """Return whether a link verifies its server's certificate: always for Redis."""
    return uses_tls(settings, link) and (link == "redis" or sslmode(settings) in VERIFYING)


def sslmode(settings: Mapping[str, str]) -> str:
    """Return libpq's mode of TLS to Postgres; empty for libpq's default."""
    if has_own_data(settings):
        return "verify-full" if inner_tls.covers_data(settings) else ""
    return settings.get("POSTGRES_SSLMODE", "")


def check(project: Project, settings: Mapping[str, str]) -> None:
    """Refuse settings of TLS that the stack's own data tier lacks, and certificates that are missing or not valid.

    Raises:
        StackError: The error names the link, and the setting or the file.
    """
    if has_own_data(settings):
        for name in ("POSTGRES_SSLMODE", "REDIS_TLS"):
            if settings.get(name, "") not in ("", "disable", "false"):
                raise StackError(
                    f"cannot use {name}: it is for your own Postgres and Redis",
                    where=project.shown(project.env_file),
                    hint=f"delete {name}, or omit the profiles data and data-ha; TLS=on is for the stack's own",
                )
        return
    for client, setting in REDIS_USERS.items():
        _, secret = redis_log_in(client, settings)
        if settings.get(setting) and not (project.secrets / secret).exists():
            where = project.shown(project.secrets / secret)
            raise StackError(
                f"cannot log in to your Redis as {settings[setting]}: the secret {secret} is missing",
                where=where,
                hint=f"write the password of {setting} into {where}, then run: chmod 600 {where}",
            )
    present = files(project, settings)
    for link, title in LINKS.items():
        authority = CA_FILES[link]
        if verifies(settings, link) and not present.get(authority, "").strip():
            where = project.shown(project.secrets / authority)
            raise StackError(
                f"cannot verify the certificate of your {title}: the file of its authority is missing",
                where=where,
                hint=f"write its certificate in PEM into {where}; of a public authority, copy your system's bundle",
            )
        if authority in present:
            certificates(project, authority, present[authority], f"the authority of your {title}")
        if CLIENT_FILES[link] in present:
            check_client(project, CLIENT_FILES[link], present[CLIENT_FILES[link]], title)


def certificates(project: Project, name: str, text: str, whose: str) -> list[x509.Certificate]:
    """Return the certificates of a file, of which the first, or any of several authorities, is still valid.

    Raises:
        StackError: It has none, or they have expired.
    """
    where = project.shown(project.secrets / name)
    try:
        found = x509.load_pem_x509_certificates(text.encode())
    except ValueError:
        raise StackError(
            f"cannot use {whose}: the file has no certificate",
            where=where,
            hint="write the certificate into it in PEM, from -----BEGIN CERTIFICATE----- on",
        ) from None
    judged = found if name in CA_FILES.values() else found[:1]
    if all(certificate.not_valid_after_utc < datetime.now(UTC) for certificate in judged):
        raise StackError(
            f"cannot use {whose}: its certificate expired on {judged[0].not_valid_after_utc:%Y-%m-%d}",
            where=where,
            hint="write a certificate that is valid into the file",
        )
    return found


def check_client(project: Project, name: str, text: str, title: str) -> None:
    """Refuse a client's file that others can read, or whose key is not that of its first certificate."""
    whose = f"the client certificate for your {title}"
    path = project.secrets / name
    where = project.shown(path)
    if (mode := path.stat().st_mode) & (stat.S_IRWXG | stat.S_IRWXO):
        raise StackError(
            f"cannot use {whose}: other users have access to its key (mode {stat.S_IMODE(mode):04o})",
            where=where,
            hint=f"run: chmod 600 {where}",
        )
    certificate = certificates(project, name, text, whose)[0]
    spki = (Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
    try:
        key = load_pem_private_key(text[text.find("-----BEGIN", text.find("PRIVATE KEY") - 30) :].encode(), None)
        fits = key.public_key().public_bytes(*spki) == certificate.public_key().public_bytes(*spki)
    except (ValueError, TypeError, UnsupportedAlgorithm):
        fits = False
    if not fits:
        raise StackError(
            f"cannot use {whose}: the file lacks its private key, without a passphrase",
            where=where,
            hint="write the certificate and after it its key into the file: cat client.crt client.key",
        )


def paths(settings: Mapping[str, str], present: Mapping[str, str], link: str, reader: str = "") -> tuple[str, str]:
    """Return where a container has the file of the authority and the client's file of a link; empty where unused.

    Args:
        settings: Of .env.
        present: Of files().
        link: A key of LINKS.
        reader: Of the mounted file's name, between the link and the kind; empty in Airflow's components.
    """
    prefix = f"{MOUNTED}/{link}{reader}"
    return (
        f"{prefix}_ca.pem" if verifies(settings, link) else "",
        f"{prefix}_client.pem" if uses_tls(settings, link) and CLIENT_FILES[link] in present else "",
    )


def postgres_options(settings: Mapping[str, str], present: Mapping[str, str], reader: str = "") -> str:
    """Return libpq's parameters of TLS as they end a URL's query; empty without a mode of TLS."""
    if not (mode := sslmode(settings)):
        return ""
    authority, client = paths(settings, present, "postgres", reader)
    # libpq and its exporter read a certificate and its key from the same file.
    values = {"sslmode": mode, "sslrootcert": authority, "sslcert": client, "sslkey": client}
    return "".join(f"&{name}={value}" for name, value in values.items() if value)


def redis_options(settings: Mapping[str, str], present: Mapping[str, str]) -> str:
    """Return the query of a broker's URL, as kombu and redis-py read it; empty without TLS."""
    if not uses_tls(settings, "redis"):
        return ""
    authority, client = paths(settings, present, "redis")
    values = {"ssl_ca_certs": authority, "ssl_certfile": client, "ssl_keyfile": client}
    return "?ssl_cert_reqs=required" + "".join(f"&{name}={value}" for name, value in values.items() if value)


def redis_log_in(client: str, settings: Mapping[str, str]) -> tuple[str, str]:
    """Return a client's user of an external Redis, empty for the default one, and the name of its password's secret.

    Workers and clients without a user of their own have REDIS_USER.
    """
    own = settings.get(REDIS_USERS.get(client, ""), "")
    return (own, f"redis_{client}_password") if own else (settings.get("REDIS_USER", ""), "redis_password")


def derived(settings: Mapping[str, str], present: Mapping[str, str]) -> dict[str, str]:
    """Return the settings that compose files read and that follow from the settings of TLS."""
    authority, client = paths(settings, present, "redis")
    exporter = paths(settings, present, "redis", "_exporter")
    return {
        "DATA_INTERNAL": str(has_own_data(settings)).lower(),
        "REDIS_CA": authority,
        "REDIS_CLIENT": client,
        "REDIS_MUTUAL_TLS": str(bool(client)),
        "REDIS_EXPORTER_CA": exporter[0],
        "REDIS_EXPORTER_CLIENT": exporter[1],
        "POSTGRES_EXPORTER_TLS": postgres_options(settings, present, "_exporter").removeprefix("&"),
    }


def mounted_files(settings: Mapping[str, str], present: Mapping[str, str]) -> dict[str, str]:
    """Return the text of each certificate file that containers mount, by its path under secrets/mounted/.

    The exporters, which run as other users, have copies: postgres_exporter_ca.pem, postgres_exporter_client.pem,
    redis_exporter_ca.pem and redis_exporter_client.pem.
    """
    texts: dict[str, str] = {}
    for link in LINKS:
        authority, client = paths(settings, present, link)
        for folder, reader in (("links", ""), (f"{link}-exporter-link", "_exporter")):
            texts[f"{folder}/{link}{reader}_ca.pem"] = present[CA_FILES[link]] if authority else ""
            name = f"{link}{reader}_client.pem"
            texts[f"{folder}/{name}"] = present.get(name, present[CLIENT_FILES[link]]) if client else ""
    return texts


def verify_links(settings: Mapping[str, str], mounted: Mapping[str, str], image: str) -> list[str]:
    """Connect to the external servers as every client does, and return a warning for each that does not answer.

    This runs in a container on Docker's default network: the stack's own may have another route.

    Args:
        settings: Of .env.
        mounted: The text of each file that the containers mount.
        image: The image of Airflow, with the drivers.

    Raises:
        StackError: A server refuses a link, or a link refuses a server; the error names each link.
    """
    names = {
        "sql_alchemy_conn": "Airflow's database",
        "sql_alchemy_conn_async": "Airflow's database, async",
        "celery_result_backend": "the workers' results",
        "celery_results_owner": "the schedulers' results",
        "celery_broker_url": "the workers' broker",
        "scheduler_broker_url": "the schedulers' broker",
        "flower_broker_url": "Flower's broker",
    }
    if "flower" not in profiles(settings):
        del names["flower_broker_url"]
    urls = {title: mounted[f"airflow/{name}"] for name, title in names.items()}
    if OBSERVABILITY in profiles(settings):
        password = quote(mounted["postgres-exporter/postgres_exporter_password"], safe="")
        server = mounted["airflow/sql_alchemy_conn"].partition("@")[2].replace("/airflow?", "/postgres?", 1)
        urls["the metrics of Postgres"] = f"postgresql+psycopg2://monitoring:{password}@{server}"
    request = {
        "urls": urls,
        "files": {name.partition("/")[2]: text for name, text in mounted.items() if name.startswith("links/")},
    }
    restrictions = ("--read-only", "--tmpfs=/tmp:size=16m,mode=1777", "--cap-drop=ALL", "--user=50000:0")
    result = run_limited(
        [
            *("docker", "run", "--rm", "--interactive", *restrictions, "--entrypoint=python", image),
            *("-m", "airflow_ha.external_data"),
        ],
        time_limits.COMMAND,
        "connect to your Postgres and Redis",
        stdin=json.dumps(request),
    )
    if result.returncode != 0:
        raise StackError(f"cannot check your Postgres and Redis: {result.stderr.strip()[-300:]}", code=FAILURE)
    problems: dict[str, str] = json.loads(result.stdout)
    refused = {title: text for title, text in problems.items() if not UNREACHABLE.search(text)}
    if refused:
        raise StackError(
            "cannot connect to your own servers: " + "; ".join(f"{title}: {text}" for title, text in refused.items()),
            where="compose/.env and compose/secrets",
            hint="correct POSTGRES_*, REDIS_*, the passwords or the certificates of these links",
            code=FAILURE,
        )
    return [f"{title} does not answer from Docker's default network: {text}" for title, text in problems.items()]
