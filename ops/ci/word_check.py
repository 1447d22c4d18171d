"""`python -m ops.ci.word_check`: words that the glossary replaces by the field's own term.

Checked are names, comments, messages and prose in every file of the repository; the report names the term to use.
"""

from __future__ import annotations

import re
import subprocess
import sys
from typing import TYPE_CHECKING, Final, NamedTuple

from ops.project import ROOT

if TYPE_CHECKING:
    from collections.abc import Iterator

GLOSSARY: Final = {
    r"work-?\s?rounds?": "patch",
    r"(mend|cure)(s|d|ed|ing)?|to do:": "fix; hint:",
    r"strikes?|struck|striking|victims?|heal(s|ed|ing)?|(take|takes|taken|taking|took) back": (
        "inject a fault; target; revert"
    ),
    r"(is|are|be|was|were|been|all) (whole|well)|whole again|(get|gets|getting|got) well|as (it|they) should( be)?": (
        "ready, healthy, in sync"
    ),
    r"anew": "recreated, restarted",
    r"attempts?|attempted": "try, retry",
    r"rounds?": "scheduler loop, scheduling decision",
    r"the end of a task": "terminal state, completion",
    r"tells?|told|telling|says?|said|saying|hears?|heard": "notify, emit, report, log",
    r"people": "users, on-call engineers, UI traffic",
    r"stand-?\s?ins?": "fallback image",
    r"(is|are|be|was|were|been|being) away|being (lost|cut off)": "outage, failover, partition, stall",
    r"journeys?": "round trip",
    r"laden|much to load": "high load, large AOF",
    r"wanted instances": "expected replicas",
    r"looks?|looked|looking": "check, probe",
}
"""The words, as a regular expression over plain lower-case words, and the term to write instead."""


class Allowed(NamedTuple):
    """A use that stays: in files whose path matches `files`, where `text` matches around the word."""

    files: str
    text: str
    reason: str


ALLOWED: Final = (
    Allowed(r"ops/ci/word_check\.py|tests/unit/ci/test_word_check\.py", r".*", "the glossary itself"),
    Allowed(r".*", r"round trips?|round ?\(|round[- ]robin", "the field's terms, and Python's function"),
    Allowed(r"ops/(bench|commands/bench)|tests/unit/bench|\.github|README", r"rounds?", "a bench's repetitions"),
    Allowed(
        r"src/airflow_ha/monitoring/check_state\.py|tests/unit/monitoring/test_check_state\.py",
        r"[\"']told[\"']",
        "a key of the stored Variable monitoring_memory",
    ),
    Allowed(r".*", r"last heartbeat attempt|connection (retry )?attempt", "names of upstream attributes"),
    Allowed(
        r"compose/statsd-exporter/mapping\.yaml", r"reconnect attempt|emit[. ]attempts", "names of Airflow's metrics"
    ),
    Allowed(r".*", r"attempt=", "Airflow's paths of task logs"),
    Allowed(r".*", r"attempts? lost|lost attempts?", "the column of the drills' tables"),
)
"""At most MOST_ALLOWED of them."""
MOST_ALLOWED: Final = 20
SKIPPED: Final = re.compile(r"^(LICENSE|uv\.lock)$|\.(png|svg)$|(^|/)(results\.json|generated/)")
"""Files that are generated, or that others wrote."""


class Finding(NamedTuple):
    """One use of a word."""

    path: str
    line: int
    word: str
    instead: str


def plain(line: str) -> str:
    """Return a line with snake_case and camelCase names split into words, in lower case."""
    return re.sub(r"(?<=[a-z0-9])(?=[A-Z])|_", " ", line).lower()


def findings(path: str, text: str) -> Iterator[Finding]:
    """Yield the uses in one file that the allow-list does not cover."""
    allowed = [re.compile(entry.text) for entry in ALLOWED if re.match(entry.files, path)]
    for number, line in enumerate(text.splitlines(), 1):
        words = plain(line)
        spans = [match.span() for pattern in allowed for match in pattern.finditer(words)]
        for pattern, instead in GLOSSARY.items():
            for match in re.finditer(rf"(?<![\w-])(?:{pattern})(?![\w])", words):
                if not any(start <= match.start() and match.end() <= end for start, end in spans):
                    yield Finding(path, number, match[0], instead)


def main() -> None:
    """Check the files named on the command line, or every tracked file; exit with 1 if there is a finding."""
    listed = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, text=True, check=True).stdout
    names = [name for name in sys.argv[1:] or listed.split("\0") if name and not SKIPPED.search(name)]
    uses = [
        finding
        for name in names
        if (path := ROOT / name).is_file()
        for finding in findings(name, path.read_text(encoding="utf-8"))
    ]
    for finding in uses:
        print(f"{finding.path}:{finding.line}: {finding.word!r}; write: {finding.instead}")
    if uses:
        sys.exit(f"{len(uses)} words to replace, in {len({finding.path for finding in uses})} files")


if __name__ == "__main__":
    main()
