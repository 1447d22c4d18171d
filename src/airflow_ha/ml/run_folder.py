"""The folder of one run's artifacts: it depends on the run's parameters, not on the try."""

from __future__ import annotations

import hashlib
import re
from datetime import UTC
from typing import TYPE_CHECKING, TypedDict

from airflow_ha.ml.data_source import BUNDLED_DIGITS

if TYPE_CHECKING:
    from datetime import datetime

DEFAULT_ARTIFACTS_ROOT = "file:///opt/airflow/artifacts"


class Plan(TypedDict):
    """Parameters of one run that every step needs."""

    version: str
    source: str
    label_column: str
    run_directory: str
    registry_directory: str


def plan_run(
    *,
    logical_date: datetime | None,
    run_id: str,
    source: str | None,
    label_column: str,
    artifacts_root: str | None,
) -> Plan:
    """Return the paths that a run reads and writes.

    Args:
        logical_date: the run's logical date; None if it has none (a trigger through REST may send null).
        run_id: used in place of a missing logical date.
        source: `digits` for scikit-learn's bundled data, or the URL of a CSV file
            (`s3://connection@bucket/x.csv`); None or empty for the bundled data.
        label_column: the CSV column with the class.
        artifacts_root: URL of the directory that all runs share; None or empty for the shared volume.

    Raises:
        ValueError: the root is not a URL.
    """
    source = (source or "").strip() or BUNDLED_DIGITS
    root = (artifacts_root or "").strip().rstrip("/") or DEFAULT_ARTIFACTS_ROOT
    if "://" not in root:
        raise ValueError(f"cannot use the artifacts root: {root!r} is not a URL such as {DEFAULT_ARTIFACTS_ROOT}")
    version = run_version(logical_date, run_id, source, label_column)
    return Plan(
        version=version,
        source=source,
        label_column=label_column,
        run_directory=f"{root}/runs/{version}",
        registry_directory=f"{root}/registry",
    )


def run_version(logical_date: datetime | None, run_id: str, source: str, label_column: str) -> str:
    """Return a name for a run's artifacts: equal for the same logical date and data, and safe as a file name.

    The name includes the data, so that a repeated run with another source does not reuse the first run's artifacts.
    """
    moment = run_id if logical_date is None else logical_date.astimezone(UTC).strftime("%Y-%m-%dT%H%M%S.%fZ")
    digest = hashlib.sha256("\n".join((moment, source, label_column)).encode()).hexdigest()
    return f"{re.sub(r'[^A-Za-z0-9._-]', '-', moment)[:150]}-{digest[:8]}"
