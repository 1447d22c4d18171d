"""Whether a patch fits what is installed: by the version of each distribution, and by the source of what it replaces.

Nothing is imported: the source is found as a file and parsed, so that an image, or a folder of another version, can be
asked before anything runs in it.
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
    """Judges patches by the packages in some folders; each source file is parsed once, and not kept.

    Args:
        roots: The folders, in the order of an import; those of this interpreter by default.
    """

    def __init__(self, roots: Sequence[Path] | None = None) -> None:
        self._roots = installed_roots() if roots is None else list(roots)
        self._versions: dict[str, str | None] = {}

    def misfits(self, patches: Iterable[Patch]) -> dict[str, str]:
        """Return why patches cannot be applied, by the name of each that does not fit."""
        patches = list(patches)
        digests = self.digests(target for patch in patches for target in patch.replaces)
        reasons = {}
        for patch in patches:
            if reason := self._other_version(patch.written_for) or changed_source(patch.replaces, digests):
                reasons[patch.name] = reason
        return reasons

    def digests(self, targets: Iterable[str]) -> dict[str, str]:
        """Return the digest of each `module:Qualified.name` that is there."""
        names: dict[str, set[str]] = {}
        for target in targets:
            module, _, name = target.partition(":")
            names.setdefault(module, set()).add(name)
        return {
            f"{module}:{name}": digest
            for module, wanted in names.items()
            for name, digest in self._digests_in(module, wanted)
        }

    def _digests_in(self, module: str, names: Iterable[str]) -> Iterator[tuple[str, str]]:
        path = self._source_of(module)
        if path is None:
            return
        text = path.read_text(encoding="utf-8")
        lines, tree = text.splitlines(), ast.parse(text)
        for name in names:
            if found := definitions(tree, name.split(".")):
                yield name, digest("\n".join(source(lines, node) for node in found))

    def _source_of(self, module: str) -> Path | None:
        relative = Path(*module.split("."))
        candidates = (root / path for root in self._roots for path in (f"{relative}.py", relative / "__init__.py"))
        return next((path for path in candidates if path.is_file()), None)

    def _other_version(self, written_for: Mapping[str, str]) -> str:
        for distribution, version in written_for.items():
            if distribution not in self._versions:
                self._versions[distribution] = self._version(distribution)
            installed = self._versions[distribution]
            if installed != version:
                return f"{distribution} is {installed or 'not installed'}; the patch was written for {version}"
        return ""

    def _version(self, distribution: str) -> str | None:
        found = metadata.distributions(name=distribution, path=[str(root) for root in self._roots])
        return next((one.version for one in found), None)


def installed_roots() -> list[Path]:
    """Return the folders from which this interpreter imports."""
    return [Path(entry or ".") for entry in sys.path]


def changed_source(replaces: Mapping[str, str], digests: Mapping[str, str]) -> str:
    """Return which source is not the one that a patch was written for; empty if none."""
    for target, written_for in replaces.items():
        if target not in digests:
            return f"{target} does not exist"
        if digests[target] != written_for:
            return f"the source of {target} changed: {digests[target]}; the patch was written for {written_for}"
    return ""


def definitions(scope: ast.AST, path: Sequence[str]) -> list[ast.stmt]:
    """Return the functions, classes or assignments of a qualified name: several if it is defined again."""
    found = [node for node in statements(scope) if path[0] in names_of(node)]
    return found if len(path) == 1 else [inner for node in found for inner in definitions(node, path[1:])]


def statements(scope: ast.AST) -> Iterator[ast.stmt]:
    """Yield the statements of a module, class or function, with those in its conditions."""
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
    """Return the lines of a definition, from its first decorator to its end, without indentation."""
    first = min([node.lineno, *(decorator.lineno for decorator in getattr(node, "decorator_list", ()))])
    return textwrap.dedent("\n".join(line.rstrip() for line in lines[first - 1 : node.end_lineno]))


def digest(text: str) -> str:
    """Return the first 12 digits of a text's SHA-256."""
    return hashlib.sha256(text.encode()).hexdigest()[:12]
