"""Rules for the imports between modules, and for the modules' names."""

from __future__ import annotations

import ast
from collections import Counter, defaultdict
from graphlib import CycleError, TopologicalSorter

import pytest

from ops.project import ROOT

SOURCES = {"ops": ROOT, "airflow_ha": ROOT / "src"}
SHARED_NAMES = {"__init__", "__main__"}


def modules() -> dict[str, ast.Module]:
    """Return the syntax tree of each module by its dotted name."""
    return {
        ".".join(path.relative_to(base).with_suffix("").parts).removesuffix(".__init__"): ast.parse(path.read_text())
        for package, base in SOURCES.items()
        for path in (base / package).rglob("*.py")
    }


def imports(trees: dict[str, ast.Module]) -> dict[str, set[str]]:
    """Return the modules of the project that each module imports, also inside functions."""
    imported: dict[str, set[str]] = {name: set() for name in trees}
    for name, tree in trees.items():
        for node in ast.walk(tree):
            if isinstance(node, ast.Import):
                imported[name] |= {alias.name for alias in node.names} & trees.keys()
            elif isinstance(node, ast.ImportFrom) and node.module:
                for alias in node.names:
                    submodule = f"{node.module}.{alias.name}"
                    imported[name] |= {submodule if submodule in trees else node.module} & trees.keys()
    return imported


def group(module: str) -> str:
    """Return the package of a module; a module directly in ops or airflow_ha counts by itself."""
    return module.rpartition(".")[0] if module.count(".") > 1 else module


GRAPH = imports(modules())


def import_cycle(graph: dict[str, set[str]]) -> str | None:
    """Return the cycle of a graph; None if it has none."""
    try:
        TopologicalSorter(graph).prepare()
    except CycleError as error:
        return " -> ".join(error.args[1])
    return None


def test_no_module_imports_itself_through_others():
    assert import_cycle(GRAPH) is None


def test_no_package_imports_itself_through_others():
    packages: dict[str, set[str]] = defaultdict(set)
    for module, imported in GRAPH.items():
        packages[group(module)] |= {group(other) for other in imported} - {group(module)}
    assert import_cycle(packages) is None


def test_the_check_finds_a_cycle():
    assert import_cycle({"a": {"b"}, "b": {"c"}, "c": {"a"}})


def test_no_command_is_imported_but_by_the_entry_point():
    importers = {
        module for module, imported in GRAPH.items() if any(other.startswith("ops.commands.") for other in imported)
    }
    assert importers == {"ops.__main__"}


@pytest.mark.parametrize("package", SOURCES)
def test_no_two_modules_have_the_same_name(package):
    # A command is named for what users type, also where a module beside the commands has that name.
    names = Counter(
        module.rpartition(".")[2]
        for module in GRAPH
        if module.startswith(f"{package}.") and not module.startswith("ops.commands.")
    )
    assert {name for name, count in names.items() if count > 1} - SHARED_NAMES == set()
