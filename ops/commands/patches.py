"""`patches`: what the image changes in Airflow and Celery, and where it is applied."""

from __future__ import annotations

from typing import TYPE_CHECKING

from rich.table import Table

from airflow_ha.patches import registry
from ops import compose, settings_file
from ops import patch_report as stack_patches
from ops.project import current_project
from ops.screen import console, escape
from ops.status_tables import PATCH_COLOURS, print_not_applied

if TYPE_CHECKING:
    from collections.abc import Mapping


def patches() -> None:
    """Show each patch of Airflow and Celery, with its state in every running component.

    Example: `./ops/stack patches`. PATCHES and PATCHES_DISABLED in compose/.env switch them off.
    """
    settings = settings_file.read(current_project())
    found = stack_patches.running(compose.instances(settings["COMPOSE_PROJECT_NAME"]))
    table = Table("patch", "kind", "what for", "state")
    for patch in registry.PATCHES:
        table.add_row(patch.name, patch.kind, escape(patch.benefit), states_of(patch.name, found))
    console.print(table)
    print_not_applied(stack_patches.exceptions(found))


def states_of(name: str, found: Mapping[str, Mapping[str, stack_patches.State]]) -> str:
    """Return a line for each state of a patch, with the components that have it."""
    by_state: dict[str, list[str]] = {}
    for component, states in found.items():
        if name in states:
            by_state.setdefault(states[name]["state"], []).append(component)
    return (
        "\n".join(f"[{PATCH_COLOURS[state]}]{state}[/]: {', '.join(where)}" for state, where in by_state.items()) or "-"
    )
