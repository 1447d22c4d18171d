"""The changelog has the form of Keep a Changelog, and a section for the version that a release would have."""

from __future__ import annotations

import re

from ops.project import ROOT, version
from tests.unit.stack_fakes import run

TEXT = (ROOT / ".github/CHANGELOG.md").read_text()
SECTIONS = re.findall(r"^## (.*)$", TEXT, re.MULTILINE)
GROUPS = {"Added", "Changed", "Deprecated", "Removed", "Fixed", "Security"}


def test_sections_are_unreleased_then_versions_with_a_date_newest_first():
    assert SECTIONS[0] == "[Unreleased]"
    released = [re.fullmatch(r"\[(\d+)\.(\d+)\.(\d+)\] - \d{4}-\d\d-\d\d", section) for section in SECTIONS[1:]]
    assert all(released), SECTIONS
    numbers = [tuple(map(int, match.groups())) for match in released if match]
    assert numbers == sorted(numbers, reverse=True)


def test_groups_are_those_of_keep_a_changelog():
    assert set(re.findall(r"^### (.*)$", TEXT, re.MULTILINE)) <= GROUPS


def test_current_version_has_a_section_or_is_named_as_the_next():
    assert f"[{version(ROOT)}]" in TEXT or version(ROOT) in TEXT.partition("## [Unreleased]")[2].partition("## ")[0]


def test_command_prints_the_version():
    result = run("--version")
    assert (result.returncode, result.stdout) == (0, f"{version(ROOT)}\n")
