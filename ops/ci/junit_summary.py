"""`python -m ops.ci.junit_summary FOLDER`: the JUnit files in a folder as Markdown, for a run's page on GitHub.

A table with a line for each file, then each failed test with the end of its output. It needs only the standard library,
so that it also reports a run that failed before its Python environment was installed.
"""

from __future__ import annotations

import sys
import xml.etree.ElementTree as ET
from dataclasses import dataclass
from pathlib import Path

# A run's page holds at most 1 MiB: https://docs.github.com/en/actions/reference/workflow-commands-for-github-actions
MOST_FAILURES = 50
MOST_LINES = 60


@dataclass(frozen=True)
class Failure:
    """A failed test, or a failed fixture of a test."""

    test: str
    text: str


@dataclass(frozen=True)
class Report:
    """One JUnit file."""

    name: str
    tests: int
    skipped: int
    seconds: float
    failures: tuple[Failure, ...]


def read(path: Path) -> Report:
    """Read one JUnit file that pytest wrote."""
    root = ET.parse(path).getroot()  # noqa: S314 (our own pytest wrote it)
    cases = list(root.iter("testcase"))
    failures = [
        Failure(f"{case.get('classname')}::{case.get('name')}", outcome.text or outcome.get("message") or "")
        for case in cases
        for outcome in case
        if outcome.tag in ("failure", "error")
    ]
    return Report(
        name=path.stem,
        tests=len(cases),
        skipped=sum(case.find("skipped") is not None for case in cases),
        seconds=sum(float(suite.get("time", 0)) for suite in root.iter("testsuite")),
        failures=tuple(failures),
    )


def markdown(reports: list[Report]) -> str:
    """Return the reports as a table, and below it the failures."""
    if not reports:
        return "No test has reported: the run ended before its tests.\n"
    lines = ["| tests | passed | failed | skipped | time |", "|---|---|---|---|---|"]
    for report in reports:
        failed = len({failure.test for failure in report.failures})
        passed = report.tests - failed - report.skipped
        lines.append(f"| {report.name} | {passed} | {failed} | {report.skipped} | {report.seconds:.0f} s |")
    failures = [failure for report in reports for failure in report.failures]
    for failure in failures[:MOST_FAILURES]:
        lines += [
            "",
            f"<details><summary>{escaped(failure.test)}</summary>",
            "",
            *indented(failure.text),
            "",
            "</details>",
        ]
    if len(failures) > MOST_FAILURES:
        lines += ["", f"… and {len(failures) - MOST_FAILURES} more, in the log."]
    return "\n".join(lines) + "\n"


def escaped(text: str) -> str:
    """Return the text for a place where HTML is allowed."""
    return text.replace("&", "&amp;").replace("<", "&lt;")


def indented(text: str) -> list[str]:
    """Return the last lines as a Markdown code block; a line of the text could end a fenced one."""
    return [f"    {line}" for line in text.splitlines()[-MOST_LINES:]]


def main() -> None:
    """Print the summary of the folder named on the command line."""
    folder = Path(sys.argv[1])
    print(markdown([read(path) for path in sorted(folder.glob("*.xml"))]))


if __name__ == "__main__":
    main()
