"""The state of the patches in an image and in running containers, and the table in README.md.

`python -m ops.patch_report --write` writes src/airflow_ha/patches/README.md from the registry; a test compares both.
"""

from __future__ import annotations

import json
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any, Final, TypedDict

from airflow_ha.patches import registry
from ops import time_limits
from ops.child_process import run_limited
from ops.errors import StackError
from ops.project import ROOT

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from ops.compose import Instance

README: Final = ROOT / "src/airflow_ha/patches/README.md"
PARALLEL_QUERIES: Final = 8
QUERY_TIMEOUT_SECONDS: Final = 10.0
UNKNOWN: Final = "unknown"
INTRODUCTION: Final = """\
# Patches

<!-- Written by `python -m ops.patch_report --write` from registry.py. -->

The image patches private code of Airflow, Celery and their libraries at run time. Installed files do not change. Each
patch is one file here and one row of [registry.py](registry.py). A **safety** patch keeps a guarantee of the stack in
a failure. A **speed** patch only saves CPU or latency.

- **Show the state:** `./ops/stack patches` shows the state of each patch in the running containers. Each process logs
  one summary line when it starts.
- **Switch off:** set `PATCHES=safety`, `PATCHES=none` or `PATCHES_DISABLED=name,name` in `compose/.env`, then run
  `./ops/stack up`. A patch that requires another is switched off with it.
- **Guard:** a patch is applied only to the versions that it was written for, and only if the source that it replaces
  is unchanged. Otherwise it is skipped, with an error in the log and the alert
  [AirflowPatchSkipped](../../../alerting/runbooks/AirflowPatchSkipped.md). `./ops/stack up` checks the image before it
  starts a container.
- **Loading:** Airflow imports [airflow_local_settings](../../airflow_local_settings.py) in each process, and that
  module calls [loader.py](loader.py). Your own `airflow_local_settings` (in `$AIRFLOW_HOME/config` or the plugins
  folder) still works. So do `sql_alchemy_connect_args`, `celery_config_options` and `extra_celery_config`.

"""


class State(TypedDict):
    """The state of a patch (applied, skipped, off or unknown) and its reason."""

    state: str
    reason: str


def check_images(model: Mapping[str, Any], settings: Mapping[str, str]) -> None:
    """Refuse each Airflow image in which a patch would be skipped.

    Args:
        model: Output of `docker compose config`, with the worker services of the override file.
        settings: Settings of .env.

    Raises:
        StackError: A patch would be skipped, or the image cannot be checked.
    """
    images = {
        service["image"]
        for service in model["services"].values()
        if registry.service_of(service.get("environment", {}).get("AIRFLOW_HA_COMPONENT", "")) in registry.SERVICES
    }
    for image in sorted(images):
        check_image(image, settings)


def check_image(image: str, settings: Mapping[str, str]) -> None:
    """Refuse an image in which a patch would be skipped.

    Raises:
        StackError: A patch would be skipped, or the image cannot be checked.
    """
    command = [
        *("docker", "run", "--rm", "--network=none", "--entrypoint=python"),
        f"--env=AIRFLOW_HA_PATCHES={settings.get('PATCHES', '')}",
        f"--env=AIRFLOW_HA_PATCHES_DISABLED={settings.get('PATCHES_DISABLED', '')}",
        *(image, "-m", "airflow_ha.patches"),
    ]
    process = run_limited(command, time_limits.COMMAND, "check the patches of the Airflow image")
    try:
        components: dict[str, dict[str, State]] = json.loads(process.stdout)["components"]
    except (ValueError, KeyError) as error:
        raise StackError(
            f"cannot check the patches of the Airflow image: {process.stderr.strip()[-500:]}",
            where=image,
            hint="rebuild the image with ./ops/stack up",
        ) from error
    skipped = {
        name: state["reason"]
        for states in components.values()
        for name, state in states.items()
        if state["state"] == "skipped"
    }
    if skipped:
        raise StackError(
            f"cannot apply {len(skipped)} patch(es): "
            + "; ".join(f"{name}: {reason}" for name, reason in skipped.items()),
            where=image,
            hint=f"install the versions of uv.lock, or set PATCHES_DISABLED={','.join(skipped)} in compose/.env",
        )


def running_states(instances: Mapping[str, Iterable[Instance]]) -> dict[str, dict[str, State]]:
    """Return the state of each patch in the running containers, by component.

    If the containers of a component differ, as during a rolling update, the state that is not "applied" is returned.
    """
    queries = [
        (service, container.id)
        for service, containers in instances.items()
        if registry.service_of(service) in set(registry.SERVICES) - {"migrate"}
        for container in containers
        if container.state == "running"
    ]
    by_component: dict[str, dict[str, State]] = {}
    with ThreadPoolExecutor(PARALLEL_QUERIES) as pool:
        answers = pool.map(lambda query: container_states(*query), queries)
        for (service, _), states in zip(queries, answers, strict=True):
            known = by_component.setdefault(service, {})
            known |= {name: state for name, state in states.items() if state["state"] != "applied" or name not in known}
    return by_component


def container_states(service: str, container: str) -> dict[str, State]:
    """Return the state of each patch in a container; UNKNOWN if the container does not answer."""
    try:
        process = subprocess.run(
            ["docker", "exec", container, "python", "-m", "airflow_ha.patches", "--running"],
            capture_output=True,
            text=True,
            check=True,
            timeout=QUERY_TIMEOUT_SECONDS,
        )
        states: dict[str, State] = json.loads(process.stdout)["patches"]
    except (subprocess.SubprocessError, ValueError, KeyError):
        unknown = State(state=UNKNOWN, reason="the container does not answer or is starting")
        return {patch.name: unknown for patch in registry.component_patches(service)}
    return states


def unapplied_patches(components: Mapping[str, Mapping[str, State]]) -> list[dict[str, str]]:
    """Return the patches that are not applied, each with its state, reason and components."""
    by_patch: dict[tuple[str, str, str], list[str]] = {}
    for component, states in components.items():
        for name, state in states.items():
            if state["state"] != "applied":
                by_patch.setdefault((name, state["state"], state["reason"]), []).append(component)
    return [
        {"patch": name, "state": state, "reason": reason, "components": ", ".join(names)}
        for (name, state, reason), names in by_patch.items()
    ]


def render_readme() -> str:
    """Return the text of README.md."""
    lines = [INTRODUCTION]
    for kind in ("safety", "speed"):
        rows = [patch for patch in registry.PATCHES if patch.kind == kind]
        lines.append(f"## {kind.capitalize()} ({len(rows)})\n\n")
        lines.append("| patch | benefit | cost | components | upstream issue |\n|---|---|---|---|---|\n")
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
        README.write_text(render_readme(), encoding="utf-8")
    else:
        print(render_readme(), end="")
