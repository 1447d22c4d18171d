"""What would become of each patch in this installation, as JSON: `python -m airflow_ha.patches`.

By default for every component, by the files that are installed; exit code 1 if a patch would be skipped.

    --running       what the main process of this container has noted; exit code 1 if it has noted nothing
    --digests       the digest of each source that patches replace
    --root FOLDER   look at the packages in a folder, such as those of another version, before the installed ones
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
    """Print what the arguments ask for."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    what = parser.add_mutually_exclusive_group()
    what.add_argument("--running", action="store_true")
    what.add_argument("--digests", action="store_true")
    parser.add_argument("--root", type=Path)
    asked = parser.parse_args()
    guard = Guard([asked.root, *installed_roots()] if asked.root else None)
    if asked.running:
        try:
            print(state_file().read_text())
        except FileNotFoundError:
            sys.exit("cannot read the state of the patches: no main process of Airflow has started in this container")
    elif asked.digests:
        targets = [target for patch in registry.PATCHES for target in patch.replaces]
        print(json.dumps(guard.digests(targets), indent=1, sort_keys=True))
    else:
        found = installed(guard)
        print(json.dumps(found, indent=1))
        states = [one for patches in found["components"].values() for one in patches.values()]
        sys.exit(any(one["state"] == SKIPPED for one in states))


def installed(guard: Guard) -> dict[str, Any]:
    """Return what would become of each patch, by component.

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
