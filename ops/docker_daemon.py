"""Advice on the settings of the Docker daemon, which belong to the machine and not to the stack: ops/README.md."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any, Final

from ops import compose

if TYPE_CHECKING:
    from collections.abc import Mapping

UNBOUNDED_LOG: Final = "json-file"
"""Docker's default log driver: without options of the container or the daemon, its files grow without limit."""
ICC: Final = "com.docker.network.bridge.enable_icc"


def advice() -> str | None:
    """Return what an operator should know of the daemon's settings, in one line; None if nothing."""
    info = json.loads(compose.docker("info", "--format", "{{json .}}") or "{}")
    bridge = json.loads(compose.docker("network", "inspect", "--format", "{{json .Options}}", "bridge") or "{}")
    return advice_on(info, bridge) if info else None


def advice_on(info: Mapping[str, Any], bridge: Mapping[str, str]) -> str | None:
    """Return the advice.

    Args:
        info: The output of `docker info`.
        bridge: The options of the default network, which the containers of the stack do not use.
    """
    options = {option.partition(",")[0] for option in info.get("SecurityOptions") or []}
    unset = [
        setting
        for setting, is_set in {
            "live-restore": info.get("LiveRestoreEnabled"),
            "no-new-privileges": "name=no-new-privileges" in options,
            "icc=false": bridge.get(ICC) == "false",
            "log-driver=local": info.get("LoggingDriver") != UNBOUNDED_LOG,
        }.items()
        if not is_set
    ]
    parts = [f"not set: {', '.join(unset)}"] if unset else []
    if "name=userns" in options:
        parts.append("userns-remap is on, with which containers may not read the stack's secret files")
    return "; ".join(parts) or None
