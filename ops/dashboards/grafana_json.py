"""Convert a dashboard to Grafana's JSON with Grafana's SDK, which has every valid field."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any, Final

from grafana_foundation_sdk.builders import bargauge, gauge, prometheus, stat, statetimeline, timeseries
from grafana_foundation_sdk.builders.common import (
    ReduceDataOptions,
    StackingConfig,
    VizLegendOptions,
    VizTooltipOptions,
)
from grafana_foundation_sdk.builders.dashboard import Dashboard as DashboardBuilder
from grafana_foundation_sdk.builders.dashboard import DashboardLink, TextBoxVariable, ThresholdsConfig
from grafana_foundation_sdk.cog.encoder import JSONEncoder
from grafana_foundation_sdk.models.common import (
    BarGaugeDisplayMode,
    BigValueColorMode,
    BigValueGraphMode,
    BigValueTextMode,
    DataSourceRef,
    GraphDrawStyle,
    LegendDisplayMode,
    LegendPlacement,
    SortOrder,
    StackingMode,
    TooltipDisplayMode,
    VisibilityMode,
    VizOrientation,
)
from grafana_foundation_sdk.models.dashboard import (
    DashboardCursorSync,
    DashboardLinkType,
    DynamicConfigValue,
    GridPos,
    Threshold,
    ThresholdsMode,
    ValueMap,
    ValueMappingResult,
)

from ops.dashboards.panel import STATE_COLOURS
from ops.project import ROOT

if TYPE_CHECKING:
    from ops.dashboards.panel import Dashboard, Panel, Query

PROMETHEUS: Final = DataSourceRef(type_val="prometheus", uid="prometheus")
"""The data source that compose/grafana provisions."""

RUNBOOKS: Final = "alerting/runbooks"
TAG: Final = "airflow-ha"


def to_json(dashboard: Dashboard) -> str:
    """Return the dashboard's JSON, which depends on the dashboard only."""
    builder = (
        DashboardBuilder(dashboard.title)
        .uid(dashboard.uid)
        .description(dashboard.question)
        .tags([TAG])
        .readonly()
        .time("now-1h", "now")
        .refresh("30s")
        .timezone("browser")
        .tooltip(DashboardCursorSync.CROSSHAIR)
        .link(
            DashboardLink("Dashboards").type(DashboardLinkType.DASHBOARDS).tags([TAG]).as_dropdown(True).keep_time(True)
        )
        .link(DashboardLink("Airflow").type(DashboardLinkType.LINK).url("${airflow}").target_blank(True))
        .with_variable(TextBoxVariable("airflow").label("Airflow").default_value("http://localhost:8080"))
        .with_variable(TextBoxVariable("runbooks").label("Runbooks").default_value(RUNBOOKS))
    )
    top = 0
    for row in dashboard.rows:
        left = 0
        for panel in row:
            builder = builder.with_panel(_panel(panel, GridPos(h=panel.height, w=panel.width, x=left, y=top)))
            left += panel.width
        top += max(panel.height for panel in row)
    document = json.loads(json.dumps(builder.build(), cls=JSONEncoder))
    for link in document["links"]:
        del link["placement"]  # the SDK's default moves the links into a menu
    for number, panel in enumerate(document["panels"], start=1):
        panel["id"] = number
    return json.dumps(document, indent=1, sort_keys=True, ensure_ascii=False) + "\n"


def _panel(panel: Panel, position: GridPos) -> Any:
    builder = (
        _KINDS[panel.kind](panel)
        .title(panel.title)
        .description(panel.question)
        .datasource(PROMETHEUS)
        .grid_pos(position)
        .unit(panel.unit)
        .min(0)
        .thresholds(
            ThresholdsConfig()
            .mode(ThresholdsMode.ABSOLUTE)
            .steps([Threshold(value=value, color=colour) for value, colour in panel.steps])
        )
        .links(_links(panel))
    )
    if panel.maximum is not None:
        builder = builder.max(panel.maximum)
    if panel.value_texts:
        results = {str(value): ValueMappingResult(text=text, color=colour) for value, text, colour in panel.value_texts}
        builder = builder.mappings([ValueMap(options=results)])
    if panel.kind == "columns":
        builder = builder.interval("1m")  # one column a minute, so that a rate times 60 is its count
    for name in _states_in(panel):
        colour = DynamicConfigValue(id_val="color", value={"mode": "fixed", "fixedColor": STATE_COLOURS[name]})
        builder = builder.override_by_name(name, [colour])
    for number, query in enumerate(panel.queries):
        builder = builder.with_target(_query(query, chr(ord("A") + number), is_instant=panel.kind == "bars"))
    return builder


def _query(query: Query, name: str, *, is_instant: bool) -> prometheus.Dataquery:
    target = (
        prometheus.Dataquery().expr(query.expression).legend_format(query.legend).ref_id(name).datasource(PROMETHEUS)
    )
    return target.instant() if is_instant else target.range()


def _states_in(panel: Panel) -> list[str]:
    legends = {query.legend for query in panel.queries}
    return [state for state in STATE_COLOURS if state in legends or "{{state}}" in legends]


def _links(panel: Panel) -> list[Any]:
    links = []
    if panel.airflow_path:
        links.append(DashboardLink("Open in Airflow").url("${airflow}" + panel.airflow_path).target_blank(True))
    # A runbook that does not exist yet gets no link.
    if panel.runbook and (ROOT / RUNBOOKS / f"{panel.runbook}.md").is_file():
        links.append(DashboardLink("Runbook").url("${runbooks}/" + f"{panel.runbook}.md").target_blank(True))
    return links


def _last() -> ReduceDataOptions:
    return ReduceDataOptions().calcs(["lastNotNull"])


def _value(panel: Panel) -> Any:
    has_several_values = len(panel.queries) > 1 or "{{" in panel.queries[0].legend
    return (
        stat.Panel()
        .reduce_options(_last())
        .color_mode(BigValueColorMode.BACKGROUND_SOLID if has_several_values else BigValueColorMode.VALUE)
        .graph_mode(BigValueGraphMode.NONE if has_several_values else BigValueGraphMode.AREA)
        .text_mode(BigValueTextMode.VALUE_AND_NAME if has_several_values else BigValueTextMode.VALUE)
    )


def _dial(_: Panel) -> Any:
    return gauge.Panel().reduce_options(_last()).show_threshold_markers(True)


def _lines(_: Panel) -> Any:
    return (
        timeseries.Panel()
        .draw_style(GraphDrawStyle.LINE)
        .line_width(2)
        .fill_opacity(8)
        .show_points(VisibilityMode.NEVER)
        .legend(_legend())
        .tooltip(VizTooltipOptions().mode(TooltipDisplayMode.MULTI).sort(SortOrder.DESCENDING))
    )


def _columns(_: Panel) -> Any:
    return (
        timeseries.Panel()
        .draw_style(GraphDrawStyle.BARS)
        .fill_opacity(80)
        .line_width(0)
        .stacking(StackingConfig().mode(StackingMode.NORMAL))
        .legend(_legend())
        .tooltip(VizTooltipOptions().mode(TooltipDisplayMode.MULTI))
    )


def _bars(_: Panel) -> Any:
    return (
        bargauge.Panel()
        .reduce_options(_last())
        .orientation(VizOrientation.HORIZONTAL)
        .display_mode(BarGaugeDisplayMode.BASIC)
    )


def _states(_: Panel) -> Any:
    return statetimeline.Panel().show_value(VisibilityMode.NEVER).row_height(0.8).legend(_legend())


def _legend() -> VizLegendOptions:
    return VizLegendOptions().display_mode(LegendDisplayMode.LIST).placement(LegendPlacement.BOTTOM).show_legend(True)


_KINDS: Final = {
    "value": _value,
    "gauge": _dial,
    "lines": _lines,
    "columns": _columns,
    "bars": _bars,
    "states": _states,
}
