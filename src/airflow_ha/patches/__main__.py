"""`python -m airflow_ha.patches`: print the state of each patch as JSON.

By default, check the installed sources for every component. Exit with 1 if a patch would be skipped.

    --running       print the state that the container's main process recorded; exit with 1 if there is none
    --digests       print the digest of each source that patches replace
    --root FOLDER   check the packages in a folder first, such as those of another version
"""

from __future__ import annotations

import argparse
import json
import os
import sys
from pathlib import Path
from typing import Any

from airflow_ha.patches import registry
from airflow_ha.patches.guard import Guard, installed_roots
from airflow_ha.patches.loader import decide, state_file
from airflow_ha.patches.patch_state import SKIPPED


def main() -> None:
    """Run the command."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    exclusive = parser.add_mutually_exclusive_group()
    exclusive.add_argument("--running", action="store_true")
    exclusive.add_argument("--digests", action="store_true")
    parser.add_argument("--root", type=Path)
    arguments = parser.parse_args()
    guard = Guard([arguments.root, *installed_roots()] if arguments.root else None)
    if arguments.running:
        try:
            print(state_file().read_text())
        except FileNotFoundError:
            sys.exit("cannot read the patch state: no main process of Airflow has started in this container")
    elif arguments.digests:
        targets = [target for patch in registry.PATCHES for target in patch.replaces]
        print(json.dumps(guard.digests(targets), indent=1, sort_keys=True))
    else:
        report = decide_all(guard)
        print(json.dumps(report, indent=1))
        states = [state for patches in report["components"].values() for state in patches.values()]
        sys.exit(any(state["state"] == SKIPPED for state in states))


def decide_all(guard: Guard) -> dict[str, Any]:
    """Return the mode, and the state that each patch would have, by component.

    Raises:
        ValueError: AIRFLOW_HA_PATCHES or AIRFLOW_HA_PATCHES_DISABLED has an unknown value.
    """
    mode = os.environ.get("AIRFLOW_HA_PATCHES") or "all"
    disabled = os.environ.get("AIRFLOW_HA_PATCHES_DISABLED", "")
    registry.validate(mode, disabled)
    states = decide(registry.PATCHES, registry.switched_off(mode, disabled), guard)
    return {
        "mode": mode,
        "components": {
            service: {patch.name: states[patch.name]._asdict() for patch in registry.component_patches(service)}
            for service in registry.SERVICES
        },
    }


if __name__ == "__main__":
    main()
