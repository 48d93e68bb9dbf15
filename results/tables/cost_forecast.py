"""The tables of costing runs: what each expects, and how measured runs came out beside it.

Apart from `forecasts`, which decides what is a forecast and knows no table.
"""

from __future__ import annotations

from collections.abc import Sequence

from results.records import cost_forecasts
from results.records.cost_forecasts import Comparison
from results.records.schema import Reading, RunRecord
from results.tables import run_cells
from results.tables.table import Cell, Column, Table
from results.text import formats
from results.text.translations import say


def expected(records: Sequence[RunRecord], lang: str = "en") -> Table:
    """One row for each costing run that came to a forecast; no rows when there is none."""
    shown = [r for r in records if r.forecast is not None]
    fields = run_cells.distinguishing(shown)
    named = run_cells.name_columns(fields, lang)
    keys = ("steps", "read", "epoch", "share", "run", "start", "disk")
    columns = (*named, *(Column(say(f"forecast.{key}", lang), right=True) for key in keys))
    body = tuple((*run_cells.name_cells(r, fields, lang), *_expected(r, lang)) for r in shown)
    methods = dict.fromkeys(
        r.forecast.epoch_seconds.method
        for r in shown
        if r.forecast and r.forecast.epoch_seconds.low
    )
    remarks = [Cell(say("forecast.remark", lang), "value")]
    remarks += [Cell(say("remark.intervals", lang).format("; ".join(methods)))] if methods else []
    return run_cells.without_unknown(Table(columns, body, tuple(remarks)), len(named))


def _expected(record: RunRecord, lang: str) -> tuple[Cell, ...]:
    forecast = record.forecast
    if forecast is None:
        return ()
    read = say("of", lang).format(formats.count(forecast.samples), formats.count(record.samples))
    return (
        Cell(formats.count(forecast.steps), "value"),
        Cell(read, "value"),
        _seconds(forecast.epoch_seconds, forecast.epoch_steps),
        _share(forecast.epoch_seconds),
        _seconds(cost_forecasts.wall(record), forecast.run_steps),
        run_cells.reading(forecast.start_seconds, formats.duration),
        Cell(_disk(forecast.disk)) if forecast.disk else Cell("the engine named none", "unknown"),
    )


def _seconds(found: Reading, steps: int) -> Cell:
    return run_cells.reading(
        found, lambda _: f"{cost_forecasts.seconds(found)} ({formats.count(steps)})"
    )


def _share(found: Reading) -> Cell:
    half = cost_forecasts.share(found)
    if half is None:
        return Cell(found.method or found.reason, "unknown")
    return Cell(formats.percent(half), "value")


def _disk(sizes: dict[str, int]) -> str:
    return ", ".join(f"{name} {formats.size(size)}" for name, size in sizes.items())


def compared(found: Sequence[Comparison], lang: str = "en") -> Table:
    """Two rows for each full run that a costing run foretold: its epoch, and the whole run."""
    records = list({id(c.run): c.run for c in found}.values())
    fields = run_cells.distinguishing(records)
    keys = ("what", "epoch", "measured", "difference", "inside", "made")
    titles = {**{k: say(f"forecast.{k}", lang) for k in keys}, "epoch": say("forecast", lang)}
    columns = (
        *run_cells.name_columns(fields, lang),
        *(Column(titles[key], key not in ("what", "made")) for key in keys),
    )
    body = tuple((*run_cells.name_cells(c.run, fields, lang), *_compared(c, lang)) for c in found)
    return Table(columns, body, (Cell(say("forecast.remark compared", lang), "value"),))


def _compared(found: Comparison, lang: str) -> tuple[Cell, ...]:
    what = say(f"forecast.this {found.what}", lang)
    inside = {True: say("yes", lang), False: say("no", lang)}
    source = found.source.identity
    return (
        Cell(what.format(formats.count(found.run.timing.epoch_steps)), "value"),
        run_cells.reading(found.forecast, lambda _: cost_forecasts.seconds(found.forecast)),
        Cell(formats.duration(found.measured), "value"),
        Cell(f"{found.error * 100:+.1f} %", "value"),
        Cell("no interval", "unknown")
        if found.covered is None
        else Cell(inside[found.covered], "value" if found.covered else "strong"),
        Cell(f"{source.suite}/{source.run_id}", "code"),
    )
