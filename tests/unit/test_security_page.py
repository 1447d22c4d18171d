"""Tables of .github/SECURITY.md: equal to their sources, and naming tests that exist."""

from __future__ import annotations

import ast
import re

from ops.project import ROOT
from tests.integration.access_matrix import ACCESS, BOUNDARIES, WHO, table

TEXT = (ROOT / ".github/SECURITY.md").read_text()


def test_the_security_page_shows_who_can_access_what():
    _, _, rest = TEXT.partition("<!-- access -->\n")
    shown = rest.partition("<!-- /access -->")[0].strip().splitlines()
    assert shown == table(), "write this into .github/SECURITY.md:\n" + "\n".join(table())


def test_every_cell_of_the_access_table_is_yes_or_no():
    rows = [*ACCESS.values(), *(cells for cells, *_ in BOUNDARIES.values())]
    assert {len(row.split()) for row in rows} == {len(WHO)}
    assert {cell for row in rows for cell in row.split()} == {"yes", "no"}


def test_every_test_that_the_security_page_names_exists():
    existing = set()
    for file in (ROOT / "tests").rglob("test_*.py"):
        tree = ast.parse(file.read_text())
        existing |= {file.stem, *(node.name for node in tree.body if isinstance(node, ast.FunctionDef))}
    named = set(re.findall(r"\btest_\w+", TEXT))
    assert len(named) > len(BOUNDARIES)
    assert named - existing == set()
