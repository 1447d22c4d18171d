"""Draw a dashboard with its query results as one picture, with Grafana's layout and colours."""

from __future__ import annotations

import textwrap
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, Final

import matplotlib as mpl

mpl.use("Agg")  # no screen

import matplotlib.dates
from matplotlib.figure import Figure
from matplotlib.patches import FancyBboxPatch, Wedge

from ops.dashboards.panel import STATE_COLOURS

if TYPE_CHECKING:
    from collections.abc import Sequence

    from matplotlib.axes import Axes

    from ops.dashboards.query_results import Board, DrawnPanel, Series, Span

DATES: Final[Any] = matplotlib.dates  # untyped

COLOURS: Final = {
    "green": "#3f9d4b",
    "orange": "#e68a00",
    "red": "#d13c4b",
    "blue": "#3274d9",
    "grey": "#8a8f98",
    "purple": "#a352cc",
}
LINES: Final = (
    "#3274d9",
    "#e68a00",
    "#3f9d4b",
    "#a352cc",
    "#d13c4b",
    "#1fa3a3",
    "#b58900",
    "#7a869a",
    "#e377c2",
    "#8c564b",
)
INK: Final = "#1f2328"
COLUMN, ROW = 0.72, 0.46
"""Inches of one of Grafana's 24 columns, and of one of its rows."""
LEGEND_LIMIT: Final = 8


def format_value(value: float, unit: str) -> str:
    """Return a value with a readable unit.

    Args:
        value: The value.
        unit: Grafana's name of its unit.
    """
    match unit:
        case "s" if abs(value) >= 3600:
            return f"{value / 3600:.1f} h"
        case "s" if abs(value) >= 120:
            return f"{value / 60:.1f} min"
        case "s" if abs(value) >= 1:
            return f"{value:.2f} s" if abs(value) < 10 else f"{value:.0f} s"
        case "s":
            return f"{value * 1000:.0f} ms"
        case "bytes":
            for name in ("B", "KiB", "MiB", "GiB"):
                if abs(value) < 1024:
                    return f"{value:.0f} {name}"
                value /= 1024
            return f"{value:.1f} TiB"
        case "percentunit":
            return f"{value * 100:.1f}%" if value not in (0, 1) else f"{value * 100:.0f}%"
        case "ops":
            return f"{_short(value)}/s"
        case "cpm":
            return f"{_short(value)}/min"
        case _:
            return _short(value)


def _short(value: float) -> str:
    for limit, name in ((1e9, "G"), (1e6, "M"), (1e4, "k")):
        if abs(value) >= limit:
            return f"{value / (1e3 if name == 'k' else limit):.1f}{name}"
    return f"{value:.0f}" if value == round(value) or abs(value) >= 100 else f"{value:.2g}"


def colour_of(value: float, steps: Sequence[tuple[float | None, str]]) -> str:
    """Return the colour of the highest threshold that the value reaches."""
    reached = [colour for at, colour in steps if at is None or value >= at]
    return COLOURS.get(reached[-1], COLOURS["grey"]) if reached else COLOURS["grey"]


def draw_board(board: Board, span: Span) -> Figure:
    """Return the picture of a dashboard.

    Args:
        board: The dashboard with its query results.
        span: The time range of the results.
    """
    rows = max(panel.top + panel.height for panel in board.panels)
    header = 0.8
    width, height = 24 * COLUMN, rows * ROW + header
    figure = Figure(figsize=(width, height), facecolor="#f4f5f7")
    figure.text(0.012, 1 - 0.32 / height, board.title, fontsize=17, weight="bold", color=INK, va="center")
    times = " to ".join(f"{datetime.fromtimestamp(time, UTC):%Y-%m-%d %H:%M}" for time in (span.start, span.end))
    figure.text(0.012, 1 - 0.6 / height, f"{board.question}   {times} UTC", fontsize=9.5, color="#57606a", va="center")
    for panel in board.panels:
        left = panel.left / 24
        bottom = (rows - panel.top - panel.height) * ROW / height
        _draw_panel(figure, panel, (left, bottom, panel.width / 24, panel.height * ROW / height), span)
    return figure


def _draw_panel(figure: Figure, panel: DrawnPanel, box: tuple[float, float, float, float], span: Span) -> None:
    left, bottom, width, height = box
    inches = (figure.get_figwidth(), figure.get_figheight())
    gap = (0.05 / inches[0], 0.05 / inches[1])
    figure.patches.append(
        FancyBboxPatch(
            (left + gap[0], bottom + gap[1]),
            width - 2 * gap[0],
            height - 2 * gap[1],
            boxstyle="square,pad=0",
            transform=figure.transFigure,
            facecolor="white",
            edgecolor="#d8dee4",
            linewidth=0.8,
            zorder=-1,
        )
    )
    top = bottom + height
    figure.text(
        left + 0.14 / inches[0], top - 0.2 / inches[1], panel.title, fontsize=10, weight="bold", color=INK, va="center"
    )
    side = 0.62 if panel.kind in {"timeseries"} else 0.16
    axes = figure.add_axes(
        (
            left + side / inches[0],
            bottom + 0.12 / inches[1],
            width - (side + 0.16) / inches[0],
            height - 0.5 / inches[1],
        )
    )
    if panel.is_empty:
        axes.set_axis_off()
        text = f"Nothing to show: {panel.empty_reason}" if panel.empty_reason else "No data"
        axes.text(
            0.5,
            0.5,
            "\n".join(textwrap.wrap(text, 34)),
            ha="center",
            va="center",
            fontsize=10,
            color="#57606a" if panel.empty_reason else COLOURS["red"],
        )
        return
    _DRAW_FUNCTIONS[panel.kind](axes, panel, span)


def _values(axes: Axes, panel: DrawnPanel, _: Span) -> None:
    axes.set_axis_off()
    axes.set(xlim=(0, 1), ylim=(0, 1))
    texts = dict(panel.value_texts)
    if len(panel.series) == 1 and not panel.has_names:
        (series,) = panel.series
        colour = colour_of(series.last, panel.steps)
        axes.text(
            0.5,
            0.55,
            _text_of(series.last, texts, panel.unit),
            ha="center",
            va="center",
            fontsize=26,
            weight="bold",
            color=colour,
        )
        if len(series.points) > 2:
            below = axes.inset_axes((0.02, 0.0, 0.96, 0.26))
            below.set_axis_off()
            below.fill_between(*_columns_of(series), color=colour, alpha=0.25, linewidth=0)
            below.plot(*_columns_of(series), color=colour, linewidth=1)
            below.set_ylim(bottom=0)
        return
    across = min(len(panel.series), max(2, round(panel.width / 2)))
    down = -(-len(panel.series) // across)
    for number, series in enumerate(panel.series):
        x, y = (number % across) / across, 1 - (number // across + 1) / down
        axes.add_patch(
            FancyBboxPatch(
                (x + 0.006, y + 0.02),
                1 / across - 0.012,
                1 / down - 0.04,
                boxstyle="square,pad=0",
                facecolor=colour_of(series.last, panel.steps),
                edgecolor="none",
            )
        )
        axes.text(
            x + 0.5 / across,
            y + 0.6 / down,
            _text_of(series.last, texts, panel.unit),
            ha="center",
            va="center",
            fontsize=17,
            weight="bold",
            color="white",
        )
        axes.text(x + 0.5 / across, y + 0.22 / down, series.name, ha="center", va="center", fontsize=8.5, color="white")


def _text_of(value: float, texts: dict[float, tuple[str, str]], unit: str) -> str:
    return texts[value][0] if value in texts else format_value(value, unit)


def _dial(axes: Axes, panel: DrawnPanel, _: Span) -> None:
    axes.set_axis_off()
    axes.set(xlim=(-1.1, 1.1), ylim=(-0.25, 1.1), aspect="equal")
    value, full = panel.series[0].last, panel.maximum or max(panel.series[0].last, 1)
    edges = [at or 0 for at, __ in panel.steps] + [full]
    for (__, colour), start, end in zip(panel.steps, edges, edges[1:], strict=False):
        axes.add_patch(
            Wedge((0, 0), 1.06, 180 * (1 - end / full), 180 * (1 - start / full), width=0.05, color=COLOURS[colour])
        )
    axes.add_patch(Wedge((0, 0), 0.98, 0, 180, width=0.26, color="#e6e9ed"))
    share = min(max(value / full, 0), 1)
    axes.add_patch(Wedge((0, 0), 0.98, 180 * (1 - share), 180, width=0.26, color=colour_of(value, panel.steps)))
    axes.text(
        0,
        0.12,
        format_value(value, panel.unit),
        ha="center",
        va="center",
        fontsize=19,
        weight="bold",
        color=colour_of(value, panel.steps),
    )


def _over_time(axes: Axes, panel: DrawnPanel, span: Span) -> None:
    names = sorted({series.name for series in panel.series})
    colours = {
        name: COLOURS.get(STATE_COLOURS.get(name, ""), LINES[number % len(LINES)]) for number, name in enumerate(names)
    }
    if panel.is_stacked:
        floor: dict[float, float] = {}
        for series in panel.series:
            times, values = [time for time, _ in series.points], [value for _, value in series.points]
            axes.bar(
                [_moment(time) for time in times],
                values,
                width=panel.step / 86400,
                bottom=[floor.get(time, 0) for time in times],
                color=colours[series.name],
                label=series.name,
            )
            for time, value in series.points:
                floor[time] = floor.get(time, 0) + value
    else:
        for series in panel.series:
            axes.plot(
                *_columns_of(series, gap=panel.step * 2.5), color=colours[series.name], linewidth=1.5, label=series.name
            )
            if len(series.points) == 1:
                axes.plot(*_columns_of(series), "o", color=colours[series.name], markersize=3)
    top = max(value for series in panel.series for _, value in series.points)
    axes.set_ylim(0, panel.maximum or (top * 1.15 if top > 0 else 1))
    axes.set_xlim(_moment(span.start), _moment(span.end))
    axes.yaxis.set_major_formatter(lambda value, _: format_value(value, panel.unit))
    axes.yaxis.set_major_locator(mpl.ticker.MaxNLocator(4, integer=panel.unit == "short"))
    _time_axis(axes)
    axes.grid(color="#e6e9ed", linewidth=0.7)
    for edge in ("top", "right", "left"):
        axes.spines[edge].set_visible(False)
    if names != ["value"]:
        _legend(axes, panel, names, colours)
    else:
        _shrink(axes, 0.22)


def _legend(axes: Axes, panel: DrawnPanel, names: list[str], colours: dict[str, str]) -> None:
    shown, more = names[:LEGEND_LIMIT], len(names) - LEGEND_LIMIT
    longest = max(len(name) for name in shown)
    columns = max(1, min(len(shown), round(panel.width * COLUMN / (0.35 + 0.085 * longest))))
    lines = -(-len(shown) // columns) + (more > 0)
    _shrink(axes, 0.3 + 0.19 * lines)
    handles = [mpl.lines.Line2D([], [], color=colours[name], linewidth=2.5, label=name) for name in shown]
    if more > 0:
        handles.append(mpl.lines.Line2D([], [], color="none", label=f"and {more} more"))
    axes.legend(
        handles=handles,
        loc="upper left",
        bbox_to_anchor=(-0.02, -0.26 / _inches(axes)),
        ncols=columns,
        fontsize=8,
        frameon=False,
        handlelength=1.2,
        columnspacing=1.2,
        borderaxespad=0,
        labelspacing=0.25,
    )


def _shrink(axes: Axes, below: float) -> None:
    """Leave room below the axes for the times and the legend, in inches."""
    box, figure_height = axes.get_position(), axes.figure.get_figheight()  # type: ignore[union-attr]
    axes.set_position((box.x0, box.y0 + below / figure_height, box.width, box.height - below / figure_height))


def _inches(axes: Axes) -> float:
    return float(axes.get_position().height * axes.figure.get_figheight())  # type: ignore[union-attr]


def _bars(axes: Axes, panel: DrawnPanel, _: Span) -> None:
    axes.set_axis_off()
    shown = panel.series[:10]
    full = panel.maximum or max([series.last for series in shown if series.last > 0], default=1)
    axes.set(xlim=(0, 1), ylim=(len(shown) if len(shown) > 3 else 4, 0))
    for number, series in enumerate(shown):
        colour = colour_of(series.last, panel.steps)
        axes.text(0, number + 0.2, series.name, va="center", fontsize=8.5, color=INK)
        axes.barh(number + 0.62, 0.82, height=0.36, color="#eef0f3")
        axes.barh(number + 0.62, 0.82 * min(max(series.last / full, 0), 1), height=0.36, color=colour)
        axes.text(
            1,
            number + 0.62,
            format_value(series.last, panel.unit),
            va="center",
            ha="right",
            fontsize=9.5,
            weight="bold",
            color=colour,
        )


def _states(axes: Axes, panel: DrawnPanel, span: Span) -> None:
    ordered = sorted(panel.series, key=lambda series: series.name)
    for number, series in enumerate(ordered):
        for time, value in series.points:
            axes.broken_barh(
                [(_moment(time), panel.step / 86400 * 1.02)],
                (number - 0.38, 0.76),
                color=colour_of(value, panel.steps),
                linewidth=0,
            )
    axes.set_yticks(range(len(ordered)), [series.name for series in ordered], fontsize=8)
    axes.set_ylim(len(ordered) - 0.4, -0.6)
    axes.set_xlim(_moment(span.start), _moment(span.end))
    _time_axis(axes)
    for edge in ("top", "right", "left"):
        axes.spines[edge].set_visible(False)
    box, width = axes.get_position(), axes.figure.get_figwidth()  # type: ignore[union-attr]
    beside = 0.075 * max(len(series.name) for series in ordered) / width
    axes.set_position((box.x0 + beside, box.y0, box.width - beside, box.height))
    handles = [
        mpl.lines.Line2D([], [], color=COLOURS[colour], linewidth=5, label=text)
        for _, (text, colour) in panel.value_texts
    ]
    _shrink(axes, 0.48)
    axes.legend(
        handles=handles,
        loc="upper left",
        bbox_to_anchor=(0, -0.26 / _inches(axes)),
        ncols=4,
        fontsize=8,
        frameon=False,
        borderaxespad=0,
    )


def _time_axis(axes: Axes) -> None:
    locator = DATES.AutoDateLocator(minticks=3, maxticks=7)
    axes.xaxis.set_major_locator(locator)
    axes.xaxis.set_major_formatter(DATES.ConciseDateFormatter(locator, show_offset=False))
    axes.tick_params(labelsize=8, colors="#57606a", length=0)


def _moment(time: float) -> Any:
    return DATES.date2num(datetime.fromtimestamp(time, UTC))


def _columns_of(series: Series, gap: float | None = None) -> tuple[list[Any], list[float]]:
    """Return times and values as two lists, with NaN where two points are more than `gap` seconds apart."""
    times: list[Any] = []
    values: list[float] = []
    previous: float | None = None
    for time, value in series.points:
        if gap is not None and previous is not None and time - previous > gap:
            times.append(_moment(time))
            values.append(float("nan"))
        times.append(_moment(time))
        values.append(value)
        previous = time
    return times, values


_DRAW_FUNCTIONS: Final = {
    "stat": _values,
    "gauge": _dial,
    "timeseries": _over_time,
    "bargauge": _bars,
    "state-timeline": _states,
}
"""By Grafana's panel type."""
