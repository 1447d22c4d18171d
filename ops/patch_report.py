"""The patches of Airflow and Celery as the host sees them: in an image, in running containers, and as a table.

`python -m ops.patch_report --write` writes src/airflow_ha/patches/README.md from the registry; a test compares the two.
"""

from __future__ import annotations

import json
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any, Final, TypedDict

from airflow_ha.patches import registry
from ops.errors import StackError
from ops.project import ROOT

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from ops.compose import Instance

README: Final = ROOT / "src/airflow_ha/patches/README.md"
ASKED_AT_ONCE: Final = 8
ANSWER_SECONDS: Final = 10.0
UNKNOWN: Final = "unknown"
INTRODUCTION: Final = """\
# Patches

<!-- Written by `python -m ops.patch_report --write` from registry.py. -->

The image changes private code of Airflow, Celery and their libraries while a process runs: no installed file is
changed. Each patch is one file here, and one row of [registry.py](registry.py). A **safety** patch keeps a promise of
the stack in a failure; a **speed** patch saves CPU or latency and nothing else.

- **Which are applied:** `./ops/stack patches` shows the state of each in the running containers, and each process logs
  one line at its start.
- **Switch off:** `PATCHES=safety` or `PATCHES=none`, or `PATCHES_DISABLED=name,name`, in `compose/.env`; then
  `./ops/stack up`. A patch that requires another goes off with it.
- **Guard:** a patch is applied only to the versions it was written for, and only if the source of what it replaces is
  the one that it was written for. Else it is skipped with an error line and the alert
  [AirflowPatchSkipped](../../../alerting/runbooks/AirflowPatchSkipped.md). `./ops/stack up` asks the image before it
  starts it.
- **How it is loaded:** [airflow_local_settings](../../airflow_local_settings.py), which Airflow imports in each
  process, calls [loader.py](loader.py). An `airflow_local_settings` of your own (in `$AIRFLOW_HOME/config` or the
  plugins folder) works as before, and so do `sql_alchemy_connect_args`, `celery_config_options` and
  `extra_celery_config`.

"""


class State(TypedDict):
    """What became of a patch: applied, skipped, off or unknown, and why."""

    state: str
    reason: str


def check_images(model: Mapping[str, Any], settings: Mapping[str, str]) -> None:
    """Refuse an image of a component of Airflow in which patches would be skipped.

    Args:
        model: What `docker compose config` says, with the worker services of the override file.
        settings: Of .env.

    Raises:
        StackError: An image would skip patches, or cannot be asked.
    """
    images = {
        service["image"]
        for service in model["services"].values()
        if registry.service_of(service.get("environment", {}).get("AIRFLOW_HA_COMPONENT", "")) in registry.SERVICES
    }
    for image in sorted(images):
        check_image(image, settings)


def check_image(image: str, settings: Mapping[str, str]) -> None:
    """Refuse an image in which patches would be skipped.

    Raises:
        StackError: It would skip patches, or cannot be asked.
    """
    asked = subprocess.run(
        [
            *("docker", "run", "--rm", "--network=none", "--entrypoint=python"),
            f"--env=AIRFLOW_HA_PATCHES={settings.get('PATCHES', '')}",
            f"--env=AIRFLOW_HA_PATCHES_DISABLED={settings.get('PATCHES_DISABLED', '')}",
            *(image, "-m", "airflow_ha.patches"),
        ],
        capture_output=True,
        text=True,
        check=False,
    )
    try:
        components: dict[str, dict[str, State]] = json.loads(asked.stdout)["components"]
    except (ValueError, KeyError) as error:
        raise StackError(
            f"cannot ask the Airflow image for its patches: {asked.stderr.strip()[-500:]}",
            where=image,
            hint="build it again: ./ops/stack up",
        ) from error
    skipped = {
        name: found["reason"]
        for states in components.values()
        for name, found in states.items()
        if found["state"] == "skipped"
    }
    if skipped:
        raise StackError(
            f"cannot apply {len(skipped)} patch(es): "
            + "; ".join(f"{name}: {reason}" for name, reason in skipped.items()),
            where=image,
            hint=f"install the versions of uv.lock, or set PATCHES_DISABLED={','.join(skipped)} in compose/.env",
        )


def running(instances: Mapping[str, Iterable[Instance]]) -> dict[str, dict[str, State]]:
    """Return what became of each patch in the running containers of each component, by component.

    Where containers of a component differ, as while a release is rolled out, what is not applied is shown.
    """
    asked = [
        (service, container.id)
        for service, containers in instances.items()
        if registry.service_of(service) in set(registry.SERVICES) - {"migrate"}
        for container in containers
        if container.state == "running"
    ]
    found: dict[str, dict[str, State]] = {}
    with ThreadPoolExecutor(ASKED_AT_ONCE) as pool:
        for (service, _), states in zip(asked, pool.map(lambda one: states_in(*one), asked), strict=True):
            known = found.setdefault(service, {})
            known |= {name: state for name, state in states.items() if state["state"] != "applied" or name not in known}
    return found


def states_in(service: str, container: str) -> dict[str, State]:
    """Return what became of each patch in a container; UNKNOWN if it does not answer."""
    try:
        asked = subprocess.run(
            ["docker", "exec", container, "python", "-m", "airflow_ha.patches", "--running"],
            capture_output=True,
            text=True,
            check=True,
            timeout=ANSWER_SECONDS,
        )
        states: dict[str, State] = json.loads(asked.stdout)["patches"]
    except (subprocess.SubprocessError, ValueError, KeyError):
        unknown = State(state=UNKNOWN, reason="a container does not answer, or is starting")
        return {patch.name: unknown for patch in registry.of_component(service)}
    return states


def exceptions(components: Mapping[str, Mapping[str, State]]) -> list[dict[str, str]]:
    """Return the patches that are not applied, with their state, reason and components."""
    by_patch: dict[tuple[str, str, str], list[str]] = {}
    for component, states in components.items():
        for name, found in states.items():
            if found["state"] != "applied":
                by_patch.setdefault((name, found["state"], found["reason"]), []).append(component)
    return [
        {"patch": name, "state": state, "reason": reason, "components": ", ".join(where)}
        for (name, state, reason), where in by_patch.items()
    ]


def readme() -> str:
    """Return the text of README."""
    lines = [INTRODUCTION]
    for kind in ("safety", "speed"):
        rows = [patch for patch in registry.PATCHES if patch.kind == kind]
        lines.append(f"## {kind.capitalize()} ({len(rows)})\n\n")
        lines.append("| patch | what for | cost | components | upstream issue |\n|---|---|---|---|---|\n")
        for patch in rows:
            components = ", ".join(service for service in registry.SERVICES if service in patch.components)
            name = f"[{patch.name}]({patch.name}.py)"
            lines.append(f"| {name} | {patch.benefit} | {patch.cost} | {components} | {patch.issue} |\n")
        lines.append("\n")
    lines.append("## Versions\n\nWritten for: ")
    versions = {name: version for patch in registry.PATCHES for name, version in patch.written_for.items()}
    lines.append(", ".join(f"{name} {version}" for name, version in sorted(versions.items())) + ".\n")
    return "".join(lines)


if __name__ == "__main__":
    if sys.argv[1:] == ["--write"]:
        README.write_text(readme(), encoding="utf-8")
    else:
        print(readme(), end="")
