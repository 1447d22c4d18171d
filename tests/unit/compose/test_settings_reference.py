"""compose/README.md lists every setting of .env with its default, and no other."""

from __future__ import annotations

import re

from ops import settings_file
from ops.observability.alertmanager_config import EMAIL_SETTINGS, EMAIL_USER
from ops.project import ROOT, Project
from tests.unit.compose.model import COMPOSE, COMPOSE_FILES

ROWS = [
    line.split(" | ")
    for line in (COMPOSE / "README.md").read_text().partition("## Settings")[2].splitlines()
    if line.startswith("| `")
]
LISTED = [name for row in ROWS for name in re.findall(r"`([A-Z0-9_]+)`", row[0])]
INTERPOLATED = {
    (name, default)
    for file in COMPOSE_FILES
    for name, default in re.findall(r"\$\{(\w+)(?::[-?+]([^}]*))?\}", file.read_text())
}


def known_settings() -> set[str]:
    """Return the settings that ops/settings_file.py writes or checks, and those of e-mail."""
    source = (ROOT / "ops/settings_file.py").read_text()
    return (
        {name for name, _ in INTERPOLATED}
        | settings_file.defaults(Project(ROOT, ROOT / "nowhere")).keys()
        | set(settings_file.PORTS)
        | set(re.findall(r'"([A-Z]+(?:_[A-Z0-9]+)*)"', source))
        | {*EMAIL_SETTINGS, EMAIL_USER}
    )


def test_the_reference_lists_every_setting_once_and_no_other():
    assert sorted(LISTED) == sorted(known_settings())


def test_the_reference_gives_the_defaults_of_compose():
    cells = {name: row[1] for row in ROWS for name in re.findall(r"`([A-Z0-9_]+)`", row[0])}
    wrong = {
        name: default
        for name, default in INTERPOLATED
        if re.fullmatch(r"[\w./-]+", default) and not name.endswith(("_IMAGE", "_TIER")) and name != "TRACES"
        if f"`{default}`" not in cells[name] and default != "-on"
    }
    assert wrong == {}
