"""Texts that must not appear in a log: the secrets in mounted files, and the forms in which they are written."""

from __future__ import annotations

import contextlib
import html
import json
import os
import re
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final
from urllib.parse import parse_qsl, quote, quote_plus, unquote, urlsplit

if TYPE_CHECKING:
    from collections.abc import Iterator

SECRETS: Final = Path(os.environ.get("AIRFLOW_HA_SECRETS_FOLDER") or "/run/secrets")
"""The mount point of a container's secrets. Kubernetes mounts tokens of its own below /run/secrets (ops/kubernetes)."""
MIN_LINE: Final = 16
"""The least characters for which a line of a multi-line secret, such as a key, is masked separately."""
FERNET_KEYS: Final = re.compile(r"[\w=-]{44}(,[\w=-]{44})+")
"""Several keys in one setting, the current one first, as after a rotation or a restore."""
PASSWORD_NAME: Final = re.compile(r"pass|pwd|secret|token|key|credential|signature|webhook|dsn", re.IGNORECASE)
"""Names whose values are secrets."""


def forms(secret: str) -> list[str]:
    """Return the other forms in which a secret may be written: quoted, escaped, line by line.

    Airflow calls this for each secret that it masks (`[logging] secret_mask_adapter`). Base64 is excluded: its forms
    made the masking of a log line three times as slow.
    """
    quoted = [quote(secret, safe=safe) for safe in ("", "/", " +")]  # SQLAlchemy uses the last
    variants = [
        *quoted,
        *(re.sub(r"%[0-9A-F]{2}", lambda code: code[0].lower(), each) for each in quoted),
        quote_plus(secret),
        quote(quoted[0], safe=""),
        json.dumps(secret)[1:-1],
        json.dumps(secret, ensure_ascii=False)[1:-1],
        repr(secret)[1:-1],
        html.escape(secret),
        *key_lines(secret),
    ]
    return [form for form in dict.fromkeys(variants) if form != secret]


def key_lines(secret: str) -> Iterator[str]:
    """Yield the lines of a multi-line secret that are too long to be ordinary words."""
    lines = secret.splitlines()
    if len(lines) > 1:
        yield from (line for line in lines if len(line) >= MIN_LINE and not line.startswith("-----"))


def secrets_in(text: str) -> Iterator[str]:
    """Yield a secret file's content, its Fernet keys, the passwords in its URLs, the sensitive members of its JSON.

    A file of certificates alone has no secret.
    """
    text = text.strip()
    if text.startswith("-----BEGIN CERTIFICATE-----") and "PRIVATE KEY" not in text:
        return  # public, and thousands of lines in a bundle of authorities
    yield text
    if FERNET_KEYS.fullmatch(text):
        yield from text.split(",")
    for url in text.split(";"):  # Celery separates the URLs of several brokers with semicolons
        yield from passwords_of_url(url.strip())
    if (user_and_password := re.fullmatch(r"[^\s:/]+:(\S+)", text)) and "://" not in text:
        yield user_and_password[1]
    with contextlib.suppress(ValueError):
        yield from sensitive_members(json.loads(text))


def passwords_of_url(url: str) -> Iterator[str]:
    """Yield the passwords in a URL, quoted and unquoted."""
    try:
        parts = urlsplit(url)
        query = parse_qsl(parts.query)
    except ValueError:
        return
    if not parts.scheme or not parts.netloc:
        return
    passwords = [parts.password, *(value for name, value in query if PASSWORD_NAME.search(name))]
    for password in passwords:
        if password:
            yield password
            yield unquote(password)


def sensitive_members(value: Any, *, sensitive: bool = False) -> Iterator[str]:
    """Yield the strings of a JSON document whose own key, or the key of a parent, names a password."""
    if isinstance(value, dict):
        for name, member in value.items():
            yield from sensitive_members(member, sensitive=sensitive or bool(PASSWORD_NAME.search(name)))
    elif isinstance(value, list):
        for member in value:
            yield from sensitive_members(member, sensitive=sensitive)
    elif isinstance(value, str) and sensitive:
        yield value


def mounted_secrets(folder: Path = SECRETS) -> list[str]:
    """Return the secrets in this container's secret files, the longest first."""
    secrets: set[str] = set()
    for file in sorted(folder.iterdir()) if folder.is_dir() else ():
        try:
            secrets.update(secrets_in(file.read_text()))
        except (OSError, UnicodeDecodeError):  # unreadable, so no task can print it either
            continue
    return sorted(secrets, key=len, reverse=True)
