"""What observability tests read beside the stack's clients: sums, and the traces that its collector keeps."""

from __future__ import annotations

import io
import json
import subprocess
import tarfile
from typing import Any

from tests.stack import Stack


def total(stack: Stack, expression: str) -> float:
    """The sum of an expression; 0 while it returns nothing."""
    return stack.prometheus.value(f"sum({expression})") or 0.0


def spans(stack: Stack) -> list[dict[str, Any]]:
    """Every span in the collector's traces file; the image has no shell, so Docker copies the file out."""
    (collector,) = stack.containers("otel-collector")
    path = f"{collector.id}:/var/lib/otelcol/traces.json"
    copied = subprocess.run(["docker", "cp", path, "-"], check=True, capture_output=True).stdout
    with tarfile.open(fileobj=io.BytesIO(copied)) as archive:
        file = archive.extractfile("traces.json")
        assert file
        lines = file.read().decode().splitlines()
    found = []
    for line in lines:
        for resource in json.loads(line)["resourceSpans"]:
            service = next(
                value["value"]["stringValue"]
                for value in resource["resource"]["attributes"]
                if value["key"] == "service.name"
            )
            for scope in resource["scopeSpans"]:
                found += [{**span, "service": service} for span in scope["spans"]]
    return found


def attributes(span: dict[str, Any]) -> dict[str, str]:
    """A span's attributes as text."""
    return {one["key"]: str(next(iter(one["value"].values()))) for one in span.get("attributes", [])}
