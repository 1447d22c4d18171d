"""On a terminal the images are one table, elsewhere they are lines."""

from __future__ import annotations

import io

import pytest
from rich.console import Console

from ops.images.progress import LineProgress
from ops.images.progress_table import TableProgress, image_progress


@pytest.fixture
def terminal():
    return Console(force_terminal=True, file=io.StringIO(), width=80, _environ={})


def screen_text(console: Console) -> str:
    """Everything that was written, without colours."""
    return console.file.getvalue()  # type: ignore[attr-defined]


def lines_of(progress: TableProgress) -> list[str]:
    """The table as text."""
    console = Console(width=60, file=io.StringIO())
    console.print(progress.render())
    return console.file.getvalue().splitlines()  # type: ignore[attr-defined]


def test_each_image_is_a_line_with_state_and_seconds(terminal):
    with image_progress(print, terminal) as progress:
        progress.expect(["redis", "postgres"])
        progress.reporter("redis")("pulling, 3 of 10 layers")
        assert [line.split() for line in lines_of(progress)[1:]] == [
            ["redis", "pulling,", "3", "of", "10", "layers", "0"],
            ["postgres", "waiting"],
        ]


def test_a_long_state_stays_in_its_line(terminal):
    with image_progress(print, terminal) as progress:
        progress.reporter("redis")("building, redis 2/4: " + "x" * 200)
        assert len(lines_of(progress)) == 2


def test_a_finished_table_stays_on_the_screen(terminal):
    with image_progress(print, terminal) as progress:
        progress.expect(["redis"])
        progress.reporter("redis")("pulling")
        assert progress.live
        progress.finish("redis", "ready")
        assert progress.live is None
    assert "ready" in screen_text(terminal)


def test_a_second_wave_has_a_table_of_its_own(terminal):
    with image_progress(print, terminal) as progress:
        for name in ("redis", "grafana"):
            progress.expect([name])
            progress.reporter(name)("pulling")
            assert [line.split()[0] for line in lines_of(progress)[1:]] == [name]
            progress.finish(name, "ready")


def test_a_dropped_image_leaves_no_table(terminal):
    with image_progress(print, terminal) as progress:
        progress.reporter("redis")("asking the registry")
        progress.drop("redis")
        assert progress.live is None
        assert progress.rows == {}


def test_an_error_restores_the_terminal(terminal):
    def fail() -> None:
        with image_progress(print, terminal) as progress:
            progress.expect(["redis"])
            raise RuntimeError

    with pytest.raises(RuntimeError):
        fail()
    assert screen_text(terminal).rstrip().endswith("\x1b[?25h"), "the cursor is shown again"


def test_without_a_terminal_each_state_is_a_line():
    lines: list[str] = []
    with image_progress(lines.append, Console(file=io.StringIO())) as progress:
        assert isinstance(progress, LineProgress)
        progress.expect(["redis"])
        progress.reporter("redis")("pulling, 3 of 10 layers")
        progress.finish("redis", "ready")
    assert lines == ["redis: pulling, 3 of 10 layers"]
