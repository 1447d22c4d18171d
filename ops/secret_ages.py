"""How old each secret is, by the time of its file: a rotation writes the file when clients change to the new value."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, TypedDict

from ops import rotation_state, secrets_store

if TYPE_CHECKING:
    from ops.project import Project


class SecretAge(TypedDict):
    """One secret: its file's name, the time of its last change (seconds since the epoch), and its age in days.

    `rotation` is the step of its rotation; empty if it is not being rotated.
    """

    name: str
    changed: float
    days: float
    rotation: str


def ages(project: Project) -> list[SecretAge]:
    """Return the age of each generated secret that exists, the oldest first; none if this user may not read them."""
    now = time.time()
    files = {name: project.secrets / name for name in secrets_store.GENERATORS}
    try:
        steps = rotation_state.read(project).steps
        changed = {name: path.stat().st_mtime for name, path in files.items() if path.exists()}
    except PermissionError:
        return []
    return [
        SecretAge(name=name, changed=at, days=round((now - at) / 86400, 1), rotation=steps.get(name, ""))
        for name, at in sorted(changed.items(), key=lambda each: (each[1], each[0]))
    ]
