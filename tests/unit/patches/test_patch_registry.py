"""The registry has a row for each patch, and its rows match the installed packages."""

from __future__ import annotations

import ast
import re
import tomllib

import pytest

from airflow_ha.patches import registry
from airflow_ha.patches.guard import Guard
from ops.project import ROOT

FOLDER = ROOT / "src/airflow_ha/patches"
HEADER = ["Problem", "Patch", "Applies to", "Upstream issue", "Remove when"]
ROWS = {patch.name: patch for patch in registry.PATCHES}


def test_each_patch_module_has_a_row():
    modules = {
        path.stem
        for path in FOLDER.glob("*.py")
        if any(isinstance(node, ast.FunctionDef) and node.name == "apply" for node in ast.parse(path.read_text()).body)
    }
    assert modules == ROWS.keys()
    assert len(registry.PATCHES) == len(ROWS)


def test_importing_a_patch_module_has_no_effect():
    """A module holds only definitions and names: no call whose result is dropped, and no assignment to an attribute."""
    for name in ROWS:
        for node in ast.parse((FOLDER / f"{name}.py").read_text()).body:
            is_text = isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant)
            assert is_text or not isinstance(node, (ast.Expr, ast.For, ast.While)), (name, node.lineno)
            targets = node.targets if isinstance(node, ast.Assign) else []
            assert not any(isinstance(target, (ast.Attribute, ast.Subscript)) for target in targets), (
                name,
                node.lineno,
            )


def test_headers_are_complete_and_name_existing_tests():
    tests = {path.name: path.read_text() for path in (ROOT / "tests/unit").rglob("test_*.py")}
    for name in ROWS:
        lines = (ast.get_docstring(ast.parse((FOLDER / f"{name}.py").read_text())) or "").splitlines()
        parts = [part for line in lines for part in HEADER if line.startswith(f"{part}: ")]
        assert parts == HEADER, name
        assert len(lines) <= 15, name
        for expected_text in re.findall(r"test_\w+(?:\.py)?", "\n".join(lines)):
            assert expected_text in tests or any(f"def {expected_text}(" in text for text in tests.values()), (
                name,
                expected_text,
            )


def test_rows_match_the_installed_sources():
    assert Guard().misfits(registry.PATCHES) == {}


def test_rows_match_the_locked_versions():
    lock = tomllib.loads((ROOT / "uv.lock").read_text())
    locked = {package["name"]: package["version"] for package in lock["package"]}
    for patch in registry.PATCHES:
        assert patch.written_for
        assert {name: locked.get(name) for name in patch.written_for} == dict(patch.written_for), patch.name


def test_each_row_is_complete():
    for patch in registry.PATCHES:
        assert patch.components, patch.name
        assert patch.components <= set(registry.SERVICES), patch.name
        assert patch.early <= patch.components, patch.name
        assert set(patch.requires) <= ROWS.keys(), patch.name
        assert (ROOT / "tests/unit" / patch.test_file).is_file(), patch.test_file
        for text in (patch.benefit, patch.cost):
            assert text, patch.name
            assert not text.endswith("."), patch.name
        assert patch.issue == registry.NONE_FOUND or patch.issue.startswith("https://"), patch.name


@pytest.mark.parametrize(
    ("patches", "disabled"), [("", ""), ("all", ""), ("safety", "celery_pool_flush, "), ("none", "")]
)
def test_known_values_are_valid(patches, disabled):
    registry.validate(patches, disabled)


@pytest.mark.parametrize(
    ("patches", "disabled", "expected_text"), [("some", "", "safety"), ("all", "busy", "celery_pool_flush")]
)
def test_unknown_value_is_refused_with_the_known_ones(patches, disabled, expected_text):
    with pytest.raises(ValueError, match=expected_text):
        registry.validate(patches, disabled)


def test_switched_off_patch_disables_its_dependents():
    assert registry.switched_off("all", "") == {}
    assert set(registry.switched_off("none", "")) == set(ROWS)
    safety = registry.switched_off("safety", "")
    assert {ROWS[name].kind for name in safety} == {"speed"}
    off = registry.switched_off("all", "isolate_task_process,split_xcom_slice")
    assert set(off) == {"isolate_task_process", "split_xcom_slice", "report_task_exit", "bound_xcom_reads"}
    assert "requires split_xcom_slice" in off["bound_xcom_reads"]


def test_own_worker_service_counts_as_a_worker():
    assert registry.component_patches("worker-gpu") == registry.component_patches("worker")
    assert registry.component_patches("postgres") == ()
