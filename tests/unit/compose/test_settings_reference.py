"""compose/README.md lists every setting of .env with its default, and no other."""

from __future__ import annotations

import re

from ops import container_limits, setting_checks, settings_file
from ops.project import ROOT, Project
from tests.unit.compose.model import COMPOSE, COMPOSE_FILES

ROWS = [
    line.split(" | ")
    for line in (COMPOSE / "README.md").read_text().partition("## Settings")[2].splitlines()
    if line.startswith("| `")
]
LISTED = [name for row in ROWS for name in re.findall(r"`([A-Z0-9_]+)`", row[0])]
DERIVED = {"TRACES", "BACKUP_REPOSITORY", "BACKUP_ROUTE", "REDIS_EXPORTER_CA", "REDIS_MUTUAL_TLS"}
INTERPOLATED = {
    (name, default)
    for file in COMPOSE_FILES
    for name, default in re.findall(r"\$\{(\w+)(?::[-?+]([^}]*))?\}", file.read_text())
}
REPLACED = {pair for file in COMPOSE_FILES for pair in re.findall(r"\$\{(\w+):\+([^}]*)\}", file.read_text())}
"""What stands for a setting that has a value."""


def test_the_reference_lists_every_setting_once_and_no_other():
    read_by_compose = {name for name, _ in INTERPOLATED}
    known = {*setting_checks.KINDS, *setting_checks.WRITTEN_BY_UP, *read_by_compose}
    assert sorted(LISTED) == sorted(known | settings_file.defaults(Project(ROOT, ROOT / "nowhere")).keys())


def test_every_setting_of_the_reference_is_checked():
    limits = container_limits.defaults(COMPOSE)
    assert set(LISTED) - {*setting_checks.KINDS, *setting_checks.WRITTEN_BY_UP, *limits} == set()
    free_text = {name for name, kind in setting_checks.KINDS.items() if kind is setting_checks.TEXT}
    assert free_text == {"ALERT_EMAIL_USER", "COMPOSE_PROFILES"}, "COMPOSE_PROFILES has a check of its own"


def test_the_reference_gives_the_defaults_of_compose():
    cells = {name: row[1] for row in ROWS for name in re.findall(r"`([A-Z0-9_]+)`", row[0])}
    wrong = {
        name: default
        for name, default in INTERPOLATED
        if re.fullmatch(r"[\w./-]+", default) and not name.endswith(("_IMAGE", "_TIER")) and name not in DERIVED
        if f"`{default}`" not in cells[name] and (name, default) not in REPLACED
    }
    assert wrong == {}
