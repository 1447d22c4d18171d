"""Task, DAG processor and triggerer logs never show the contents of the container's secret files.

Problem: before each task the supervisor drops the secrets that Airflow masked in its own settings, so
  `print(conf.get("celery", "broker_url"))` in a task prints the password. No process masks a URL's password by itself.
Patch: mask the contents of the mounted secret files from the start, also after the masker is reset. Compile the
  patterns once, before processes are forked.
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
    """Return the patterns of the mounted secrets, in all their encodings, as the masker stores them."""
    secrets = secret_masking.mounted_secrets()
    texts = {form for secret in secrets for form in (secret, *secret_masking.forms(secret))}
    skipped = core.SECRETS_TO_SKIP_MASKING
    return {re.escape(text) for text in texts if len(text) >= min_length and text.lower() not in skipped}


def compile_patterns(patterns: set[str]) -> re.Pattern[str] | None:
    """Return a regular expression for all patterns, longest first, because a secret may start with another."""
    return re.compile("|".join(sorted(patterns, key=len, reverse=True))) if patterns else None


def keep_patterns(patterns: set[str], reset: Callable[[Any], None]) -> Callable[[Any], None]:
    """Wrap upstream's reset of a masker so that it keeps these patterns."""
    replacer = compile_patterns(patterns)

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
        masker.replacer = compile_patterns(masker.patterns)
        module.SecretsMasker.reset_masker = keep_patterns(files, module.SecretsMasker.reset_masker)
