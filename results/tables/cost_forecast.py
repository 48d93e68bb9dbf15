"""Tables of cost forecasts: what each probe run expects, and how measured runs compare with it."""

from __future__ import annotations

from collections.abc import Sequence

from results.records import cost_forecasts, message_translations
from results.records.cost_forecasts import ForecastComparison
from results.records.schema import Reading, RunRecord
from results.tables import run_cells
from results.text import formats
from results.text.table import Table, TableCell, TableColumn
from results.text.translations import translate


def forecast_table(records: Sequence[RunRecord], lang: str = "en") -> Table:
    """One row for each cost probe with a forecast; no rows when there is none."""
    runs = [r for r in records if r.forecast is not None]
    fields = run_cells.distinguishing_fields(runs)
    name_columns = run_cells.name_columns(fields, lang)
    keys = ("steps", "read", "epoch", "share", "run", "start", "disk")
    columns = (
        *name_columns,
        *(TableColumn(translate(f"forecast.{key}", lang), right=True) for key in keys),
    )
    body = tuple((*run_cells.name_cells(r, fields, lang), *_forecast_cells(r, lang)) for r in runs)
    methods = (
        r.forecast.epoch_seconds.method for r in runs if r.forecast and r.forecast.epoch_seconds.low
    )
    remarks = (
        TableCell(translate("forecast.remark", lang), "value"),
        *run_cells.interval_remarks(methods, lang),
    )
    return run_cells.drop_unknown_columns(Table(columns, body, remarks), len(name_columns))


def _forecast_cells(record: RunRecord, lang: str) -> tuple[TableCell, ...]:
    forecast = record.forecast
    if forecast is None:
        return ()
    samples = translate("of", lang).format(
        formats.count(forecast.samples), formats.count(record.samples)
    )
    return (
        TableCell(formats.count(forecast.steps), "value"),
        TableCell(samples, "value"),
        _seconds_cell(forecast.epoch_seconds, forecast.epoch_steps, lang),
        _interval_cell(forecast.epoch_seconds),
        _seconds_cell(cost_forecasts.wall_reading(record), forecast.run_steps, lang),
        run_cells.reading_cell(forecast.start_seconds, formats.duration),
        TableCell(_format_disk(forecast.disk, lang))
        if forecast.disk
        else TableCell(message_translations.localize("the engine named none", lang), "unknown"),
    )


def _seconds_cell(reading: Reading, steps: int, lang: str) -> TableCell:
    return run_cells.reading_cell(
        reading,
        lambda _: f"{cost_forecasts.format_seconds(reading)} ({formats.count(steps)})",
        lang=lang,
    )


def _interval_cell(reading: Reading) -> TableCell:
    half_width = cost_forecasts.relative_half_width(reading)
    if half_width is None:
        return TableCell(reading.method or reading.reason, "unknown")
    return TableCell(formats.percent(half_width), "value")


def _format_disk(sizes: dict[str, int], lang: str) -> str:
    return ", ".join(
        f"{message_translations.localize(name, lang)} {formats.size(size)}"
        for name, size in sizes.items()
    )


def comparison_table(comparisons: Sequence[ForecastComparison], lang: str = "en") -> Table:
    """Two rows for each full run with a forecast: its epoch, and the whole run."""
    records = list({id(c.run): c.run for c in comparisons}.values())
    fields = run_cells.distinguishing_fields(records)
    keys = ("what", "epoch", "measured", "difference", "inside", "made")
    titles = {
        **{k: translate(f"forecast.{k}", lang) for k in keys},
        "epoch": translate("forecast", lang),
    }
    columns = (
        *run_cells.name_columns(fields, lang),
        *(TableColumn(titles[key], key not in ("what", "made")) for key in keys),
    )
    body = tuple(
        (*run_cells.name_cells(c.run, fields, lang), *_comparison_cells(c, lang))
        for c in comparisons
    )
    return Table(columns, body, (TableCell(translate("forecast.remark compared", lang), "value"),))


def _comparison_cells(comparison: ForecastComparison, lang: str) -> tuple[TableCell, ...]:
    scope = translate(f"forecast.this {comparison.scope}", lang)
    inside = {True: translate("yes", lang), False: translate("no", lang)}
    source = comparison.source.identity
    return (
        TableCell(scope.format(formats.count(comparison.run.timing.epoch_steps)), "value"),
        run_cells.reading_cell(
            comparison.forecast,
            lambda _: cost_forecasts.format_seconds(comparison.forecast),
            lang=lang,
        ),
        TableCell(formats.duration(comparison.measured), "value"),
        TableCell(f"{comparison.error * 100:+.1f} %", "value"),
        TableCell(translate("document.no interval", lang), "unknown")
        if comparison.covered is None
        else TableCell(inside[comparison.covered], "value" if comparison.covered else "strong"),
        TableCell(f"{source.suite}/{source.run_id}", "code"),
    )
