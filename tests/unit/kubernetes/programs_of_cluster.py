"""Fake `kubectl` and `helm` for tests: they record their arguments and answer like a cluster."""

from __future__ import annotations

import json
import sys
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from pathlib import Path

PROGRAM = """\
#!{python}
import json, pathlib, sys
folder = pathlib.Path({folder!r})
name, arguments = pathlib.Path(sys.argv[0]).name, sys.argv[1:]
text = "" if sys.stdin.isatty() or "--filename=-" not in arguments else sys.stdin.read()
with (folder / "calls").open("a") as calls:
    calls.write(json.dumps([name, *arguments, text]) + "\\n")
answers = json.loads((folder / "answers").read_text())
for words, answer in answers.items():
    if all(word in [name, *arguments] for word in words.split()):
        if answer is None:
            sys.exit("refused")
        print(answer if isinstance(answer, str) else json.dumps(answer))
        break
"""

READY = {"status": {"conditions": [{"type": "Ready", "status": "True"}]}}
ANSWERS = {
    "helm version": "v3.19.4",
    "kubectl version": "Client Version: v1.34.4\nServer Version: v1.34.4",
    "kubectl nodes": {"items": [READY, READY, READY]},
    "kubectl storageclasses": {"items": [{"metadata": {"name": "local"}}, {"metadata": {"name": "shared"}}]},
    "kubectl crd": None,
    "kubectl get": {"items": []},
}
"""What a cluster of three nodes answers, by words of the command: the first that match."""


def install_programs(folder: Path, answers: dict[str, Any]) -> None:
    """Write the programs into a folder; `answers` go before ANSWERS."""
    (folder / "answers").write_text(json.dumps(answers | {k: v for k, v in ANSWERS.items() if k not in answers}))
    for name in ("kubectl", "helm"):
        path = folder / name
        path.write_text(PROGRAM.format(python=sys.executable, folder=str(folder)))
        path.chmod(0o755)


def calls(folder: Path) -> list[list[str]]:
    """Return the recorded calls: the program, its arguments and its standard input."""
    path = folder / "calls"
    return [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []
