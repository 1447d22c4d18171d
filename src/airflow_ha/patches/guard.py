"""The guard: checks that a patch fits the installed packages.

It compares the version of each distribution and the source of what the patch replaces. It parses the source files and
imports nothing, so that it can check an image, or a folder of another version, before anything runs.
"""

from __future__ import annotations

import ast
import hashlib
import sys
import textwrap
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping, Sequence

    from airflow_ha.patches.registry import Patch


class Guard:
    """Checks patches against the packages in some folders. Each source file is parsed once and not kept.

    Args:
        roots: The folders, in import order; by default those of this interpreter.
    """

    def __init__(self, roots: Sequence[Path] | None = None) -> None:
        self._roots = installed_roots() if roots is None else list(roots)
        self._versions: dict[str, str | None] = {}

    def misfits(self, patches: Iterable[Patch]) -> dict[str, str]:
        """Return the reason, by name, for each patch that cannot be applied."""
        patches = list(patches)
        digests = self.digests(target for patch in patches for target in patch.replaces)
        reasons = {}
        for patch in patches:
            if reason := self._version_mismatch(patch.written_for) or source_mismatch(patch.replaces, digests):
                reasons[patch.name] = reason
        return reasons

    def digests(self, targets: Iterable[str]) -> dict[str, str]:
        """Return the digest of each `module:Qualified.name` that exists."""
        names: dict[str, set[str]] = {}
        for target in targets:
            module, _, name = target.partition(":")
            names.setdefault(module, set()).add(name)
        return {
            f"{module}:{name}": digest
            for module, qualified in names.items()
            for name, digest in self._digests_in(module, qualified)
        }

    def _digests_in(self, module: str, names: Iterable[str]) -> Iterator[tuple[str, str]]:
        path = self._source_of(module)
        if path is None:
            return
        text = path.read_text(encoding="utf-8")
        lines, tree = text.splitlines(), ast.parse(text)
        for name in names:
            if nodes := definitions(tree, name.split(".")):
                yield name, digest("\n".join(source(lines, node) for node in nodes))

    def _source_of(self, module: str) -> Path | None:
        relative = Path(*module.split("."))
        candidates = (root / path for root in self._roots for path in (f"{relative}.py", relative / "__init__.py"))
        return next((path for path in candidates if path.is_file()), None)

    def _version_mismatch(self, written_for: Mapping[str, str]) -> str:
        for distribution, version in written_for.items():
            if distribution not in self._versions:
                self._versions[distribution] = self._version(distribution)
            installed = self._versions[distribution]
            if installed != version:
                return f"{distribution} is {installed or 'not installed'}; the patch was written for {version}"
        return ""

    def _version(self, distribution: str) -> str | None:
        installed = metadata.distributions(name=distribution, path=[str(root) for root in self._roots])
        return next((candidate.version for candidate in installed), None)


def installed_roots() -> list[Path]:
    """Return the folders that this interpreter imports from."""
    return [Path(entry or ".") for entry in sys.path]


def source_mismatch(replaces: Mapping[str, str], digests: Mapping[str, str]) -> str:
    """Return the first source that differs from the one that a patch was written for; empty if none does."""
    for target, written_for in replaces.items():
        if target not in digests:
            return f"{target} does not exist"
        if digests[target] != written_for:
            return f"the source of {target} changed: {digests[target]}; the patch was written for {written_for}"
    return ""


def definitions(scope: ast.AST, path: Sequence[str]) -> list[ast.stmt]:
    """Return the functions, classes or assignments with a qualified name; several if it is redefined."""
    nodes = [node for node in statements(scope) if path[0] in names_of(node)]
    return nodes if len(path) == 1 else [inner for node in nodes for inner in definitions(node, path[1:])]


def statements(scope: ast.AST) -> Iterator[ast.stmt]:
    """Yield the statements of a module, class or function, including those inside conditions."""
    for node in ast.iter_child_nodes(scope):
        if isinstance(node, ast.stmt):
            yield node
        if isinstance(node, (ast.If, ast.Try, ast.With, ast.ExceptHandler)):
            yield from statements(node)


def names_of(node: ast.stmt) -> set[str]:
    """Return the names that a statement defines."""
    if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)):
        return {node.name}
    targets = node.targets if isinstance(node, ast.Assign) else [node.target] if isinstance(node, ast.AnnAssign) else []
    return {target.id for target in targets if isinstance(target, ast.Name)}


def source(lines: Sequence[str], node: ast.stmt) -> str:
    """Return the unindented lines of a definition, including its decorators."""
    first = min([node.lineno, *(decorator.lineno for decorator in getattr(node, "decorator_list", ()))])
    return textwrap.dedent("\n".join(line.rstrip() for line in lines[first - 1 : node.end_lineno]))


def digest(text: str) -> str:
    """Return the first 12 hexadecimal digits of a text's SHA-256."""
    return hashlib.sha256(text.encode()).hexdigest()[:12]
