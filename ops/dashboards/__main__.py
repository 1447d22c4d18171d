"""`python -m ops.dashboards`: generate Grafana's JSON."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ops.dashboards.all_boards import DASHBOARDS
from ops.dashboards.grafana_json import to_json
from ops.observability.metric_contract import DASHBOARDS as GENERATED
from ops.project import ROOT

if TYPE_CHECKING:
    from pathlib import Path


def generate(folder: Path) -> None:
    """Write a JSON file for every dashboard, and remove the files of dashboards that no longer exist."""
    for path in folder.glob("*.json"):
        if path.stem not in DASHBOARDS:
            path.unlink()
    for name, dashboard in DASHBOARDS.items():
        (folder / f"{name}.json").write_text(to_json(dashboard), encoding="utf-8")


if __name__ == "__main__":
    generate(ROOT / GENERATED)
