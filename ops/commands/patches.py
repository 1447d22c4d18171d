"""`patches`: the patches of Airflow and Celery in the image, and their state in the running components."""

from __future__ import annotations

from typing import TYPE_CHECKING

from rich.table import Table

from airflow_ha.patches import registry
from ops import compose, patch_report, settings_file
from ops.project import current_project
from ops.screen import console, escape
from ops.status_tables import PATCH_COLOURS, print_not_applied

if TYPE_CHECKING:
    from collections.abc import Mapping


def patches() -> None:
    """Show each patch of Airflow and Celery with its state in the running components.

    Example: `./ops/stack patches`. To switch patches off, set PATCHES or PATCHES_DISABLED in compose/.env.
    """
    settings = settings_file.read(current_project())
    states = patch_report.running_states(compose.instances(settings["COMPOSE_PROJECT_NAME"]))
    table = Table("patch", "kind", "benefit", "state")
    for patch in registry.PATCHES:
        table.add_row(patch.name, patch.kind, escape(patch.benefit), format_states(patch.name, states))
    console.print(table)
    print_not_applied(patch_report.unapplied_patches(states))


def format_states(name: str, components: Mapping[str, Mapping[str, patch_report.State]]) -> str:
    """Return one line per state of a patch, with the components in that state."""
    by_state: dict[str, list[str]] = {}
    for component, states in components.items():
        if name in states:
            by_state.setdefault(states[name]["state"], []).append(component)
    return (
        "\n".join(f"[{PATCH_COLOURS[state]}]{state}[/]: {', '.join(names)}" for state, names in by_state.items()) or "-"
    )
