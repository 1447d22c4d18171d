"""What must not appear in a log: every secret file's content, and the forms in which a secret is written."""

from __future__ import annotations

import contextlib
import html
import json
import re
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final
from urllib.parse import parse_qsl, quote, quote_plus, unquote, urlsplit

if TYPE_CHECKING:
    from collections.abc import Iterator

SECRETS: Final = Path("/run/secrets")
"""Where a container's secrets are mounted."""
MIN_LINE: Final = 16
"""Characters of a line of a longer secret, such as a key, that is masked by itself: logs are written line by line."""
PASSWORD_NAME: Final = re.compile(r"pass|pwd|secret|token|key", re.IGNORECASE)


def forms(secret: str) -> list[str]:
    """Return the other forms in which a secret may be written: quoted, escaped, line by line.

    Airflow calls this for each secret that it masks (`[logging] secret_mask_adapter`). Base64 is left out: its forms
    made a log line's masking three times as slow.
    """
    quoted = [quote(secret, safe=safe) for safe in ("", "/", " +")]  # the last is SQLAlchemy's
    found = [
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
    return [form for form in dict.fromkeys(found) if form != secret]


def key_lines(secret: str) -> Iterator[str]:
    """Yield the lines of a secret of several lines that are long enough to be no ordinary words."""
    lines = secret.splitlines()
    if len(lines) > 1:
        yield from (line for line in lines if len(line) >= MIN_LINE and not line.startswith("-----"))


def secrets_in(text: str) -> Iterator[str]:
    """Yield a secret file's content, the passwords of URLs in it, and the sensitive members of JSON."""
    text = text.strip()
    yield text
    for url in text.split(";"):  # Celery's brokers; a URL may name several hosts
        yield from passwords_of_url(url.strip())
    if (user_and_password := re.fullmatch(r"[^\s:/]+:(\S+)", text)) and "://" not in text:
        yield user_and_password[1]
    with contextlib.suppress(ValueError):
        yield from sensitive_members(json.loads(text))


def passwords_of_url(url: str) -> Iterator[str]:
    """Yield the passwords of a URL, as they are written and as they are meant."""
    try:
        parts = urlsplit(url)
        query = parse_qsl(parts.query)
    except ValueError:
        return
    if not parts.scheme or not parts.netloc:
        return
    found = [parts.password, *(value for name, value in query if PASSWORD_NAME.search(name))]
    for password in found:
        if password:
            yield password
            yield unquote(password)


def sensitive_members(value: Any, *, sensitive: bool = False) -> Iterator[str]:
    """Yield the texts of a JSON document whose name, or that of what they are in, is a password's."""
    if isinstance(value, dict):
        for name, member in value.items():
            yield from sensitive_members(member, sensitive=sensitive or bool(PASSWORD_NAME.search(name)))
    elif isinstance(value, list):
        for member in value:
            yield from sensitive_members(member, sensitive=sensitive)
    elif isinstance(value, str) and sensitive:
        yield value


def mounted_secrets(folder: Path = SECRETS) -> list[str]:
    """Return all secrets of the files that this container has been given, the longest first."""
    found: set[str] = set()
    for file in sorted(folder.iterdir()) if folder.is_dir() else ():
        try:
            found.update(secrets_in(file.read_text()))
        except (OSError, UnicodeDecodeError):  # not ours to read, so no task can print it either
            continue
    return sorted(found, key=len, reverse=True)
