"""Sums of metrics, and the traces of the collector, for the observability tests."""

from __future__ import annotations

import io
import json
import subprocess
import tarfile
from typing import Any

from tests.stack import Stack


def total(stack: Stack, expression: str) -> float:
    """Return the sum of an expression; 0 while it has no series."""
    return stack.prometheus.value(f"sum({expression})") or 0.0


def spans(stack: Stack) -> list[dict[str, Any]]:
    """Return every span in the collector's traces file; the image has no shell, so Docker copies the file out."""
    (collector,) = stack.containers("otel-collector")
    path = f"{collector.id}:/var/lib/otelcol/traces.json"
    copied = subprocess.run(["docker", "cp", path, "-"], check=True, capture_output=True).stdout
    with tarfile.open(fileobj=io.BytesIO(copied)) as archive:
        file = archive.extractfile("traces.json")
        assert file
        lines = file.read().decode().splitlines()
    collected = []
    for line in lines:
        for resource in json.loads(line)["resourceSpans"]:
            service = next(
                value["value"]["stringValue"]
                for value in resource["resource"]["attributes"]
                if value["key"] == "service.name"
            )
            for scope in resource["scopeSpans"]:
                collected += [{**span, "service": service} for span in scope["spans"]]
    return collected


def attributes(span: dict[str, Any]) -> dict[str, str]:
    """Return a span's attributes as text."""
    return {entry["key"]: str(next(iter(entry["value"].values()))) for entry in span.get("attributes", [])}
