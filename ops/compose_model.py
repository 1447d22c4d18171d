"""The compose files as Docker Compose reads them, without Docker: for Kubernetes, and for tests."""

from __future__ import annotations

import json
import re
from typing import TYPE_CHECKING, Any, Final

import yaml

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping
    from pathlib import Path

ENTRY: Final = "compose.yaml"
VARIABLE: Final = re.compile(r"\$\{(?P<name>\w+)(?:(?P<operator>:-|:\?|:\+)(?P<word>[^}]*))?\}")
SECTIONS: Final = ("services", "secrets", "volumes", "networks")


def read(folder: Path, settings: Mapping[str, str]) -> dict[str, Any]:
    """Return all services, secrets, volumes and networks, with and without an active profile.

    Args:
        folder: compose/.
        settings: Of .env. A required variable that is missing has its own name as its value.
    """
    files: dict[str, Any] = {}

    def parsed(name: str) -> Any:
        if name not in files:
            content = yaml.safe_load((folder / name).read_text(encoding="utf-8"))
            # Through JSON: YAML anchors give several services the same object.
            files[name] = interpolated(json.loads(json.dumps(content)), settings)
        return files[name]

    def extended(service: Mapping[str, Any], file: str) -> Any:
        own = {key: value for key, value in service.items() if key != "extends"}
        if "extends" not in service:
            return own
        source = service["extends"].get("file", file)
        return merged(extended(parsed(source)["services"][service["extends"]["service"]], source), own)

    model: dict[str, Any] = {section: {} for section in SECTIONS}
    for name in (ENTRY, *included(parsed(ENTRY)["include"])):
        for section in SECTIONS[1:]:
            model[section].update(parsed(name).get(section) or {})
        for service, own in (parsed(name).get("services") or {}).items():
            model["services"][service] = merged(model["services"].get(service, {}), extended(own, name))
    return model


def included(entries: Iterable[str | Mapping[str, list[str]]]) -> Iterator[str]:
    """Yield the names of the included files: those of one entry are merged in their order."""
    for entry in entries:
        yield from [entry] if isinstance(entry, str) else entry["path"]


def interpolated(value: Any, settings: Mapping[str, str]) -> Any:
    """Return a value of a compose file with the variables in its texts replaced.

    https://docs.docker.com/reference/compose-file/interpolation/
    """
    if isinstance(value, dict):
        return {key: interpolated(each, settings) for key, each in value.items()}
    if isinstance(value, list):
        return [interpolated(each, settings) for each in value]
    return VARIABLE.sub(lambda match: _value(match, settings), value) if isinstance(value, str) else value


def _value(variable: re.Match[str], settings: Mapping[str, str]) -> str:
    value = settings.get(variable["name"], "")
    match variable["operator"]:
        case ":-":
            return value or variable["word"]
        case ":+":
            return variable["word"] if value else ""
        case ":?":
            return value or variable["name"]
    return value


def merged(base: Any, override: Any) -> Any:
    """Return two values joined as compose joins a service with the one that it extends."""
    if isinstance(base, dict) and isinstance(override, dict):
        return base | {key: merged(base[key], value) if key in base else value for key, value in override.items()}
    if isinstance(base, list) and isinstance(override, list):
        return base + override
    return override
