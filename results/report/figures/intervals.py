"""Forest plots: metrics with their intervals, a row a group of runs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Final, NamedTuple

from matplotlib.ticker import MaxNLocator

from results.comparison.document_view import DocumentView, Ranking
from results.records.schema import MetricRecord, RunRecord
from results.records.suite_view import SuiteView
from results.report.figures import drawing
from results.report.figures.drawing import FigureText
from results.report.figures.run_groups import FigureGroup, group_runs, name_groups
from results.text import formats, metric_names

MAX_METRICS: Final = 3
"""Metrics of a split that are drawn, the headline first."""
PREFERRED: Final = (
    *metric_names.USUAL_HEADLINES, "recall", "pseudo_recall", "mrr", "diversity",
    *metric_names.RANKED_BY,
)  # fmt: skip
"""How the names of metrics begin that are drawn before others."""
MAX_SPLITS: Final = 6
MAX_ROWS: Final = 24
COLOURS: Final[Mapping[str, str]] = {
    "best": drawing.ACCENT, "not distinguishable": drawing.ACCENT, "worse": drawing.QUIET,
    "no interval": drawing.INK,
}  # fmt: skip


class ForestPanel(NamedTuple):
    """A metric of a split."""

    split: str
    metric: str
    groups: list[FigureGroup]
    verdicts: dict[str, str]
    """Against the best, by the group's first run; empty: they were not tested."""


def draw_intervals(document: DocumentView, text: FigureText) -> dict[str, bytes]:
    """A row of panels a split: its metrics beside each other, its runs below each other."""
    splits = list_panels(document)
    if not splits:
        return {}
    shown = splits[:MAX_SPLITS]
    tallest = max(len(panels[0].groups) for panels in shown)
    size = (3.3, max(1.5, 0.75 + 0.24 * tallest))
    figure, axes = drawing.make_panels(MAX_METRICS * len(shown), size)
    for at, panels in enumerate(shown):
        row = axes[MAX_METRICS * at : MAX_METRICS * (at + 1)]
        for number, (axis, panel) in enumerate(zip(row, panels, strict=False)):
            _draw_panel(axis, panel, text, named=number == 0)
        for axis in row[len(panels) :]:
            axis.set_visible(False)
    drawing.note_rest(figure, len(shown), len(splits), text)
    return drawing.encode_figure(figure)


def list_panels(document: DocumentView) -> list[list[ForestPanel]]:
    """Panels of each held-out split that has a metric with an interval, or ranked seeds."""
    view = document.suite
    rankings = {ranking.split: ranking for ranking in document.rankings}
    rows = []
    for split in dict.fromkeys(m.split for r in view.records for m in r.metrics):
        if split == metric_names.TRAIN_SPLIT:
            continue
        groups = _groups_of_split(view, split, rankings.get(split))
        panels = [
            ForestPanel(split, name, groups, _verdicts(rankings.get(split), name))
            for name in _select_metrics(groups, split)
        ]
        if panels:
            rows.append(panels)
    return rows


def _groups_of_split(view: SuiteView, split: str, ranking: Ranking | None) -> list[FigureGroup]:
    """Those of the ranking in its order, else all that have the split."""
    if ranking is not None:
        return [group_runs(view, entry.runs)[0] for entry in ranking.places]
    runs = [r.identity.run_id for r in view.records if any(m.split == split for m in r.metrics)]
    return group_runs(view, runs)[:MAX_ROWS]


def _verdicts(ranking: Ranking | None, metric: str) -> dict[str, str]:
    if ranking is None or ranking.metric != metric:
        return {}
    return {entry.runs[0]: entry.verdict for entry in ranking.places}


def _select_metrics(groups: Sequence[FigureGroup], split: str) -> list[str]:
    """The headline, then other shown metrics that have an interval or several seeds, those of
    quality before the rest.
    """
    metrics = [m for g in groups for r in g.records for m in r.metrics if m.split == split]
    seeds = any(len(group.runs) > 1 for group in groups)
    names = [
        m.name
        for m in metrics
        if metric_names.is_shown(m.name) and (m.low is not None or seeds)
    ]  # fmt: skip
    distinct = sorted(dict.fromkeys(names), key=lambda name: not name.startswith(PREFERRED))
    headline = metric_names.choose_headline(split, distinct)
    return [name for name in dict.fromkeys((headline, *distinct)) if name][:MAX_METRICS]


def _draw_panel(axis: Any, panel: ForestPanel, text: FigureText, *, named: bool) -> None:
    names = [text.clip(name, 30) for name in name_groups(panel.groups, text)]
    for at, group in enumerate(panel.groups):
        metrics = [m for r in group.records if (m := _find_metric(r, panel)) is not None]
        if metrics:
            verdict = panel.verdicts.get(group.runs[0], "no interval")
            _draw_row(axis, at, metrics, COLOURS[verdict], hollow=verdict == "worse")
    axis.set_yticks(range(len(names)), names if named else [""] * len(names))
    axis.set_ylim(len(names) - 0.4, -0.7)
    axis.grid(visible=False, axis="y")
    axis.xaxis.set_major_locator(MaxNLocator(4))
    axis.margins(x=0.12)
    metric = text.clip(panel.metric.partition(" (")[0], 30)
    axis.set_title(f"{text.clip(panel.split, 30)}\n{metric}" if named else f"\n{metric}",
                   color=drawing.INK)  # fmt: skip


def _find_metric(record: RunRecord, panel: ForestPanel) -> MetricRecord | None:
    keys = (panel.split, panel.metric)
    return next((m for m in record.metrics if (m.split, m.name) == keys), None)


def _draw_row(
    axis: Any, at: int, metrics: Sequence[MetricRecord], colour: str, *, hollow: bool
) -> None:
    """One run: its interval. Several seeds: each as a dot, and their mean."""
    mean = sum(m.value for m in metrics) / len(metrics)
    face = "white" if hollow else colour
    if len(metrics) > 1:
        values = [m.value for m in metrics]
        axis.plot(values, [at] * len(values), "o", markersize=3, color=colour, alpha=0.45)
        axis.plot(mean, at, marker="D", markersize=5, color=colour, markerfacecolor=face)
    else:
        if metrics[0].low is not None and metrics[0].high is not None:
            axis.plot([metrics[0].low, metrics[0].high], [at, at], color=colour, linewidth=1.4)
        axis.plot(mean, at, marker="s", markersize=5, color=colour, markerfacecolor=face)
    axis.annotate(
        formats.number(mean, 3), (mean, at), xytext=(0, 5), textcoords="offset points",
        ha="center", fontsize=6.5, color=drawing.INK,
    )  # fmt: skip
