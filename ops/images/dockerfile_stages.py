"""The part of a multi-stage Dockerfile that one target is built from."""

from __future__ import annotations

import itertools
import re
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable
    from pathlib import Path

FROM = re.compile(r"FROM\s+(?:--\S+\s+)*(?P<base>\S+)(?:\s+AS\s+(?P<name>\S+))?", re.IGNORECASE)
# `COPY --from=busybox …` and `RUN --mount=type=bind,from=lists,…`.
OTHER_STAGE = re.compile(r"(?:--|,)from=([\w.-]+)")
COPY = re.compile(r"(?:COPY|ADD)\s+(?P<flags>(?:--\S+\s+)*)(?P<paths>.+)", re.IGNORECASE)
# This parser does not read these inputs; they are refused, because a tag must not miss an input.
UNSUPPORTED = {
    "a heredoc": re.compile(r"(?<!<)<<-?[\"']?[A-Za-z_]"),
    "a list of paths in brackets": re.compile(r"(?:COPY|ADD)\s+(?:--\S+\s+)*\[", re.IGNORECASE),
    "a mount of the build context": re.compile(r"--mount=(?!\S*from=)\S*type=bind"),
}


@dataclass(frozen=True)
class Stage:
    """One stage of a Dockerfile, without its comments."""

    instructions: tuple[str, ...]
    stages: frozenset[str]
    """The other stages that it is built on or takes files from."""
    paths: tuple[str, ...]
    """The paths that the stage copies from the build context."""


@dataclass(frozen=True)
class TargetInputs:
    """The inputs of a target's build."""

    instructions: tuple[str, ...]
    """The instructions before the first stage, then those of each stage that the target needs, in the file's order."""
    files: tuple[Path, ...]
    """The files and folders of the build context that these stages copy."""


def target_inputs(dockerfile: Path, target: str) -> TargetInputs:
    """Return the inputs of the build of `target`; the build context is the Dockerfile's folder.

    Raises:
        ValueError: The Dockerfile has no such stage, or uses an instruction that this parser does not read.
    """
    preamble, stages = parse_stages(dockerfile.read_text(encoding="utf-8"))
    if target not in stages:
        raise ValueError(f"cannot build the target {target}: {dockerfile} has no stage of this name")
    needed = {target}
    # A stage refers to earlier stages only.
    for name in reversed(stages):
        if name in needed:
            needed |= stages[name].stages
    instructions = [line for name, stage in stages.items() if name in needed for line in stage.instructions]
    paths = sorted({path for name in needed for path in stages[name].paths})
    files = [file for path in paths for file in dockerfile.parent.glob(path.removeprefix("/"))]
    return TargetInputs((*preamble, *instructions), tuple(files))


def parse_stages(text: str) -> tuple[list[str], dict[str, Stage]]:
    """Return the instructions before the first FROM, and the stages by name; a stage without a name has its number."""
    lines = logical_lines(text)
    starts = [(index, match["name"]) for index, line in enumerate(lines) if (match := FROM.fullmatch(line))]
    stages: dict[str, Stage] = {}
    for (begin, name), (end, _) in itertools.pairwise([*starts, (len(lines), None)]):
        stages[name or str(len(stages))] = parse_stage(lines[begin:end], stages.keys())
    return lines[: starts[0][0]] if starts else lines, stages


def parse_stage(lines: list[str], earlier: Iterable[str]) -> Stage:
    """Return a stage of these instructions, FROM first; `earlier` are the stages that it can refer to."""
    base = FROM.fullmatch(lines[0])
    names = {base["base"]} if base else set()
    paths: list[str] = []
    for line in lines:
        for feature, pattern in UNSUPPORTED.items():
            if pattern.search(line):
                raise ValueError(f"cannot read the Dockerfile: {feature} in `{line}`")
        others = OTHER_STAGE.findall(line)
        names.update(others)
        copy = COPY.fullmatch(line)
        if copy and not others:
            paths += copy["paths"].split()[:-1]
    return Stage(tuple(lines), frozenset(names.intersection(earlier)), tuple(paths))


def logical_lines(text: str) -> list[str]:
    """Return the instructions, each in one line, without comments and indentation."""
    lines = [line.strip() for line in text.splitlines() if line.strip() and not line.lstrip().startswith("#")]
    return "\n".join(lines).replace("\\\n", "").splitlines()
