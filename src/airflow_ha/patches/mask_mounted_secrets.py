"""Logs of tasks, DAG files and triggers show nothing of the container's secret files.

Problem: before each task the supervisor forgets what Airflow masked of its own settings, so that a task that prints
  `conf.get("celery", "broker_url")` prints the password; a URL's password is not masked by itself in any process.
Patch: what the mounted secret files hold is masked from the start, and is still masked after the masker is reset.
  Its patterns are compiled once, before processes are forked.
Applies to: Airflow 3.3.2, both copies of `secrets_masker`.
Upstream issue: none found.
Remove when: the test in `test_mask_mounted_secrets.py` that names upstream fails.
"""

from __future__ import annotations

import functools
import re
from typing import TYPE_CHECKING, Any

from airflow._shared.secrets_masker import secrets_masker as core
from airflow.sdk._shared.secrets_masker import secrets_masker as sdk

from airflow_ha import secret_masking

if TYPE_CHECKING:
    from collections.abc import Callable


def file_patterns(min_length: int) -> set[str]:
    """Return the patterns of the mounted files' secrets in all their forms, as the masker keeps them."""
    secrets = secret_masking.mounted_secrets()
    texts = {form for secret in secrets for form in (secret, *secret_masking.forms(secret))}
    skipped = core.SECRETS_TO_SKIP_MASKING
    return {re.escape(text) for text in texts if len(text) >= min_length and text.lower() not in skipped}


def one_of(patterns: set[str]) -> re.Pattern[str] | None:
    """Return what finds any of the patterns, the longest first: a secret may begin with another."""
    return re.compile("|".join(sorted(patterns, key=len, reverse=True))) if patterns else None


def keeping(patterns: set[str], reset: Callable[[Any], None]) -> Callable[[Any], None]:
    """Return upstream's reset of a masker, which keeps these patterns."""
    replacer = one_of(patterns)

    @functools.wraps(reset)
    def reset_masker(self: Any) -> None:
        reset(self)
        self.patterns, self.replacer = set(patterns), replacer

    return reset_masker


def apply() -> None:
    """Mask the mounted secrets in both copies of the masker."""
    for module in (core, sdk):
        masker: Any = module._secrets_masker()
        files = file_patterns(masker.min_length_to_mask)
        masker.patterns |= files
        masker.replacer = one_of(masker.patterns)
        module.SecretsMasker.reset_masker = keeping(files, module.SecretsMasker.reset_masker)
