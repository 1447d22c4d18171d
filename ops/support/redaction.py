"""Removal of secrets from text: every known value in the forms in which programs write it, and what resembles one."""

from __future__ import annotations

import base64
import hashlib
import json
import re
from typing import TYPE_CHECKING, Any, Final

from airflow_ha.secret_masking import PASSWORD_NAME, forms

if TYPE_CHECKING:
    from collections.abc import Iterable

REMOVED: Final = "[removed]"
SHORT: Final = 4
"""Shorter values are removed only as whole words: each letter occurs everywhere."""
ENCODED: Final = 8
"""Least length of a part of a base64 text that identifies a value."""

_VALUE: Final = r"""(?:"(?:\\.|[^"\\])*"|'(?:\\.|[^'\\])*'|[^\s"'&,;]+)"""
_NAMES: Final = (
    r"pass(?:word|wd|phrase)|secret|token|credentials?|signature|(?:api|access|account|private|shared)[_-]?key"
)
PATTERNS: Final = (
    # An unterminated key is removed to its last line.
    (re.compile(r"-----BEGIN [A-Z ]*PRIVATE KEY-----.*?(-----END [A-Z ]*-----|\Z)", re.DOTALL), REMOVED),
    # User and password of a URL; a password may contain a slash or an @.
    (re.compile(r"(?<=://)[^\s\"'<>]*@"), f"{REMOVED}@"),
    (re.compile(r"(hooks\.slack\.com/services/)[^\s\"'<>]+"), rf"\1{REMOVED}"),
    (re.compile(r"((?:authorization|cookie|x-api-key)[\"']?\s*[:=]\s*)[^\r\n]+", re.IGNORECASE), rf"\1{REMOVED}"),
    (re.compile(r"\b((?:bearer|basic)\s+)[\w.~+/=-]{8,}", re.IGNORECASE), rf"\1{REMOVED}"),
    (re.compile(rf"((?:{_NAMES})[\w.-]{{0,40}}[\"']?\s{{0,3}}[:=]\s{{0,3}}){_VALUE}", re.IGNORECASE), rf"\1{REMOVED}"),
    # JSON web tokens, Fernet tokens, bcrypt hashes, access keys of AWS.
    (re.compile(r"\beyJ[\w-]{8,}\.[\w-]+\.[\w-]*"), REMOVED),
    (re.compile(r"\bgAAAAA[\w-]{20,}={0,2}"), REMOVED),
    (re.compile(r"\$2[aby]\$\d\d\$[./A-Za-z0-9]{20,}"), REMOVED),
    (re.compile(r"\bA[KS]IA[0-9A-Z]{16}\b"), REMOVED),
)


def variants(value: str) -> set[str]:
    """Return the forms of a value in logs, URLs, JSON, HTML, headers and lists of users."""
    plain = {value, *forms(value), json.dumps(json.dumps(value))[3:-3], *value.splitlines()}
    encoded = {part for text in (value, f"{value}\n") for part in base64_parts(text.encode())}
    digests = {hashlib.sha256(value.encode()).hexdigest()} if len(value) >= SHORT else set()
    return {variant for variant in plain if variant.strip()} | encoded | digests


def base64_parts(value: bytes) -> set[str]:
    """Return the part of a base64 text that a value determines, at each of its three offsets.

    A header `Basic` encodes user and password together, so the value begins anywhere.
    """
    parts = set()
    for offset, start in enumerate((0, 2, 3)):
        text = base64.b64encode(b"\0" * offset + value).decode()
        part = text[start : (offset + len(value)) * 8 // 6]
        parts |= {part, part.translate(str.maketrans("+/", "-_"))}
    return {part for part in parts if len(part) >= ENCODED}


class Redactor:
    """Removes known secrets, and what resembles a secret.

    Args:
        secrets: Every value that must not remain.
    """

    def __init__(self, secrets: Iterable[str]) -> None:
        known = {variant for value in secrets for variant in variants(value)}
        # The longest first: a value may contain another.
        self._known = sorted((value for value in known if len(value) >= SHORT), key=len, reverse=True)
        short = sorted(value for value in known if len(value) < SHORT)
        self._words = re.compile(rf"(?<!\w)(?:{'|'.join(map(re.escape, short))})(?!\w)") if short else None

    def redact(self, text: str) -> str:
        """Return a text without secrets."""
        for value in self._known:
            text = text.replace(value, REMOVED)
        if self._words:
            text = self._words.sub(REMOVED, text)
        for pattern, replacement in PATTERNS:
            text = pattern.sub(replacement, text)
        return text

    def redact_tree(self, value: Any) -> Any:
        """Return a JSON value without secrets: strings under a sensitive key are removed whole."""
        if isinstance(value, dict):
            return {
                self.redact(key): REMOVED
                if isinstance(inner, str) and PASSWORD_NAME.search(key)
                else self.redact_tree(inner)
                for key, inner in value.items()
            }
        if isinstance(value, list | tuple):
            return [self.redact_tree(inner) for inner in value]
        if isinstance(value, int | float) and not isinstance(value, bool):
            return value if self.is_clean(str(value)) else REMOVED
        return self.redact(value) if isinstance(value, str) else value

    def is_clean(self, text: str) -> bool:
        """Return whether no known secret is in a text."""
        return not any(value in text for value in self._known)
