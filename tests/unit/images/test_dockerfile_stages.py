"""A target's inputs are the stages that it needs, and what they copy."""

from __future__ import annotations

import pytest

from ops.images.dockerfile_stages import parse_stages, target_inputs

DOCKERFILE = """\
# syntax comment
ARG BASE

FROM ${BASE} AS shared
# a comment
RUN --mount=type=secret,id=ca \\
    # a comment within
    make \\
      all

FROM shared AS unused
COPY unused /

from --platform=linux/amd64 shared as tool
COPY --chmod=0755 tool/run tool/other /bin/

FROM scratch AS one
COPY --from=tool /bin/run /
RUN --mount=type=bind,from=shared,source=/x,target=/x cp /x /y

FROM scratch
ADD last /
"""


@pytest.fixture
def dockerfile(tmp_path):
    (tmp_path / "tool").mkdir()
    for name in ("unused", "last", "tool/run", "tool/other"):
        (tmp_path / name).write_text(name)
    path = tmp_path / "Dockerfile"
    path.write_text(DOCKERFILE)
    return path


def test_a_targets_inputs_are_the_stages_that_it_needs(dockerfile):
    inputs = target_inputs(dockerfile, "one")
    assert inputs.instructions[:3] == (
        "ARG BASE",
        "FROM ${BASE} AS shared",
        "RUN --mount=type=secret,id=ca make all",
    )
    assert [line.split()[-1] for line in inputs.instructions if line.lower().startswith("from")] == [
        "shared",
        "tool",
        "one",
    ]


def test_a_targets_files_are_those_that_its_stages_copy(dockerfile):
    names = [path.relative_to(dockerfile.parent).as_posix() for path in target_inputs(dockerfile, "one").files]
    assert names == ["tool/other", "tool/run"]


def test_a_stage_without_a_name_has_its_number(dockerfile):
    _, stages = parse_stages(DOCKERFILE)
    assert list(stages) == ["shared", "unused", "tool", "one", "4"]
    assert [path.name for path in target_inputs(dockerfile, "4").files] == ["last"]


def test_comments_and_indentation_do_not_change_the_inputs(dockerfile):
    before = target_inputs(dockerfile, "one")
    dockerfile.write_text(DOCKERFILE.replace("a comment", "another").replace("      all", "  all"))
    assert target_inputs(dockerfile, "one") == before


def test_an_unknown_target_is_refused(dockerfile):
    with pytest.raises(ValueError, match="no stage"):
        target_inputs(dockerfile, "other")


@pytest.mark.parametrize(
    "line",
    [
        "RUN <<EOF",
        'COPY ["a b", "/"]',
        "RUN --mount=type=bind,source=x,target=/x true",
    ],
)
def test_an_input_that_the_parser_does_not_read_is_refused(line):
    with pytest.raises(ValueError, match="cannot read the Dockerfile"):
        parse_stages(f"FROM scratch\n{line}\n")


def test_a_here_string_is_no_heredoc():
    parse_stages("FROM scratch\nRUN cat <<<x\n")
