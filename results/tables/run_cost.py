"""Tables of the weekly report: cost of an epoch, last training metrics, failures.

Headless output and the results screen show the same tables. Pure functions of records; a row is
never left out because its run failed.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Final

from results.records import (
    cost_forecasts,
    epoch_time,
    published_runs,
)
from results.records.schema import RunRecord
from results.tables import retrieval_cost, run_cells
from results.text import formats
from results.text.table import Table, TableCell, TableColumn
from results.text.translations import cause, translate

EVALUATION_PHASES: Final = frozenset({"eval", "encode", "search", "generate"})
"""Phases that belong to evaluation."""

MAX_PARTS: Final = 12
"""The total line names this many times one by one."""


def cost_table(records: Sequence[RunRecord], lang: str = "en") -> Table:
    """Subset, loaded samples, steps, wall-clock, max RSS, exit; then the training steps alone."""
    fields = run_cells.distinguishing_fields(records)
    single = run_cells.is_one_epoch(records)
    middle = [] if single else [TableColumn(translate("epochs", lang), right=True)]
    columns = (
        *run_cells.name_columns(fields, lang),
        TableColumn(translate("loaded samples", lang), right=True),
        TableColumn(translate("steps", lang), right=True),
        *middle,
        TableColumn(translate("1 epoch wall-clock" if single else "wall-clock", lang), right=True),
        TableColumn(translate("max RSS", lang), right=True),
        TableColumn(translate("exit", lang), right=True),
        TableColumn(translate("epoch steps", lang), right=True),
    )
    body = tuple(_cost_row(r, fields, lang, with_epochs=not single) for r in records)
    table = Table(columns, body, _cost_remarks(records, lang))
    return run_cells.drop_unknown_columns(table, len(fields) + 1, fixed=len(columns) - 1)


def _cost_row(
    record: RunRecord, fields: Sequence[str], lang: str, *, with_epochs: bool
) -> tuple[TableCell, ...]:
    done = run_cells.epochs_done(record)
    count = TableCell(f"{done:g}", "value") if done is not None else TableCell("", "value")
    wall = cost_forecasts.wall_reading(record)

    return (
        *run_cells.name_cells(record, fields, lang),
        samples_cell(record, lang),
        _steps(record, lang),
        *([count] if with_epochs else []),
        run_cells.reading_cell(
            wall, lambda _: cost_forecasts.format_seconds(wall), "strong", lang=lang
        ),
        run_cells.reading_cell(record.memory.rss_main_peak, formats.size, prefix="~"),
        run_cells.exit_cell(record, lang),
        run_cells.reading_cell(
            epoch_time.training_reading(record),
            lambda _: epoch_time.cell_text(record),
            lang=lang,
        ),
    )


def samples_cell(record: RunRecord, lang: str) -> TableCell:
    """Training samples that were loaded."""
    if not record.samples and published_runs.is_imported(record):
        return run_cells.missing_cell(record, lang)
    if record.samples == 0 and record.exit.cause != "completed":
        return TableCell(translate("not reached", lang), "unknown")
    return TableCell(formats.count(record.samples), "value")


def _steps(record: RunRecord, lang: str) -> TableCell:
    done, planned = formats.count(record.steps), formats.count(record.planned_steps)
    if not record.steps and published_runs.is_imported(record):
        return run_cells.missing_cell(record, lang)
    if not record.planned_steps and record.evaluations:
        return TableCell(
            translate("batches", lang).format(formats.count(retrieval_cost.count_batches(record))),
            "value",
        )
    if record.steps == record.planned_steps or not record.planned_steps:
        return TableCell(done, "value")
    return TableCell(translate("of", lang).format(done, planned), "value")


def _cost_remarks(records: Sequence[RunRecord], lang: str) -> tuple[TableCell, ...]:
    remarks = [TableCell(translate("remark.wall", lang), "value")]
    if any(epoch_time.training_reading(r).method == epoch_time.AT_MOST for r in records):
        remarks.append(TableCell(translate("remark.at most", lang), "value"))
    if any(r.evaluations and r.identity.task == "evaluate" for r in records):
        remarks.append(TableCell(translate("remark.evaluation rows", lang), "value"))
    if any(map(cost_forecasts.is_cost_probe, records)):
        remarks.append(TableCell(translate("remark.forecast", lang), "value"))
    inside = sum(bool(EVALUATION_PHASES & r.timing.phases.keys()) for r in records)
    if inside:
        text = translate("remark.evaluation inside", lang).format(inside, len(records))
        remarks.append(TableCell(text, "value"))
    return (*remarks, *flag_remarks(records, lang))


def flag_remarks(records: Sequence[RunRecord], lang: str = "en") -> tuple[TableCell, ...]:
    """Remarks that explain the flags of these rows."""
    flags = {flag for r in records for flag in run_cells.flags(r, lang)}
    kinds = (
        "imported", "forecast", "cost probe", "stub", "contaminated", "shared host", "oom",
    )  # fmt: skip
    shown_kinds = [k for k in kinds if any(f.startswith(translate(k, lang)) for f in flags)]
    return tuple(TableCell(translate(f"flag.{kind}", lang), "value") for kind in shown_kinds)


def training_table(
    records: Sequence[RunRecord], lang: str = "en", notes: Mapping[str, Sequence[str]] | None = None
) -> Table:
    """Last logged loss and in-batch r@1 of the training runs, with notes by run id."""
    trained = [r for r in records if r.identity.task == "train"]
    fields = run_cells.distinguishing_fields(trained)
    logged_runs = [r for r in trained if {"loss", "epoch_loss"} & r.train.keys()]
    epoch_title = _epoch_title({run_cells.epochs_done(r) for r in logged_runs}, lang)
    ends = {_logged_epoch(r) for r in trained if "loss" in r.train}
    logged, differ = _epoch_title(ends, lang), len(ends) > 1
    means = any("epoch_loss" in r.train for r in trained)
    windows = any("loss" in r.train for r in trained) or not means
    batches = {r.train["batch"] for r in trained if "batch" in r.train and "r@1" in r.train}
    batch = _single_value(batches)
    r_at_1 = any("r@1" in r.train for r in trained)
    heading = f"train r@1 ({logged}{_batch_clause(batch, lang) if batch else ''})"
    loss_title = (
        translate("last window", lang).format(logged) if means else f"train_loss ({logged})"
    )
    columns = (
        *run_cells.name_columns(fields, lang),
        *(
            [TableColumn(translate("epoch mean", lang).format(epoch_title), right=True)]
            if means
            else []
        ),
        *([TableColumn(loss_title, right=True)] if windows else []),
        *([TableColumn(heading, right=True)] if r_at_1 else []),
        TableColumn(translate("note", lang)),
    )
    body = tuple(
        (
            *run_cells.name_cells(r, fields, lang),
            *([_logged_cell(r, "epoch_loss", lang)] if means else []),
            *([_logged_cell(r, "loss", lang, with_epoch=differ)] if windows else []),
            *(
                [_logged_cell(r, "r@1", lang, with_batch=batch is None, with_epoch=differ)]
                if r_at_1
                else []
            ),
            TableCell(_note_text(r, lang, (notes or {}).get(r.identity.run_id, ())), "prose"),
        )
        for r in trained
    )
    remarks = [TableCell(translate("remark.losses", lang), "value")] if means else []
    remarks += [TableCell(translate("remark.r@1", lang), "value")] if r_at_1 else []
    return Table(columns, body, tuple(remarks))


def _epoch_title(epochs: set[float | None], lang: str) -> str:
    """`epoch=1`, or that it is the last log where rows differ."""
    only = _single_value(epochs)
    return translate("last log", lang) if only is None else f"epoch={only:g}"


def _logged_epoch(record: RunRecord) -> float | None:
    """The epoch at which the window ended that was logged last without a short batch."""
    ended = record.train.get("epoch")
    return run_cells.epochs_done(record) if ended is None else math.floor(ended * 100 + 0.5) / 100


def _single_value(values: set[float] | set[float | None]) -> float | None:
    return next(iter(values)) if len(values) == 1 else None


def _batch_clause(batch: float, lang: str) -> str:
    return f", batch {batch:g}, {translate('chance', lang)} {formats.number(1 / batch)}"


def _logged_cell(
    record: RunRecord, name: str, lang: str, *, with_batch: bool = False, with_epoch: bool = False
) -> TableCell:
    if name not in record.train:
        if record.exit.cause == "completed":
            return TableCell(translate("not logged", lang), "unknown")
        return TableCell(cause(record.exit.cause, lang), "unknown")
    batch = record.train.get("batch") if with_batch else None
    at = _logged_epoch(record) if with_epoch else None
    details = [
        *([f"epoch={at:g}"] if at is not None else []),
        *([_batch_clause(batch, lang)[2:]] if batch else []),
    ]
    tail = f" ({', '.join(details)})" if details else ""
    return TableCell(formats.number(record.train[name]) + tail, "value")


def _note_text(record: RunRecord, lang: str, findings: Sequence[str]) -> str:
    parts = [*findings, record.facts.get("note", "")]
    if record.steps < record.planned_steps:
        done, planned = formats.count(record.steps), formats.count(record.planned_steps)
        parts.append(translate("stopped at", lang).format(done, planned))
    return "; ".join(part for part in parts if part)


def total_line(records: Sequence[RunRecord], lang: str = "en") -> str:
    """`Total, sequential: **about 14 min 59 s** (8:01 + 2:06 + …)`, as one Markdown line.

    Forecasts are never added to measurements: they follow separately, or, if there is nothing else,
    make a total that says what it is. Imported runs are never added to own ones: theirs is the
    total where there are no others. Empty: no time is known.
    """
    measured_here = [r for r in records if not published_runs.is_imported(r)]
    records = measured_here or [r for r in records if r.timing.end_to_end_seconds.value is not None]
    counted = [r for r in records if not cost_forecasts.is_cost_probe(r)]
    expected = [r for r in records if cost_forecasts.is_cost_probe(r)]
    forecast_total = _forecast_total(expected, lang) if expected else ""
    if not records:
        return ""
    if not counted and expected:
        return f"{translate('total line', lang)}: {forecast_total}"
    line = _measured_total(counted, lang)
    return translate("joint", lang).join(filter(None, (line, forecast_total)))


def _forecast_total(records: Sequence[RunRecord], lang: str) -> str:
    seconds = [s for r in records if (s := cost_forecasts.wall_reading(r).value) is not None]
    total = (
        translate("about", lang).format(formats.duration_in_words(sum(seconds), lang))
        if seconds
        else "n/a"
    )
    missing = len(records) - len(seconds)
    details = (
        [_sum_text([f"~{formats.clock(value)}" for value in seconds], lang)] if seconds else []
    )
    details += [translate("runs not measured", lang).format(missing)] if missing else []
    return translate("forecast total", lang).format(
        f"**{total}**", translate("joint", lang).join(details)
    )


def _measured_total(records: Sequence[RunRecord], lang: str) -> str:
    readings = [r.timing.end_to_end_seconds.value for r in records]
    seconds = [value for value in readings if value is not None]
    duration = formats.duration_in_words(sum(seconds), lang)
    total = translate("about", lang).format(duration) if seconds else "n/a"
    sum_text = _sum_text([formats.clock(value) for value in seconds], lang)
    counts = {
        "runs not measured": len(readings) - len(seconds),
        "runs not completed": sum(r.exit.cause != "completed" for r in records),
    }
    counts_of_runs = [translate(key, lang).format(n) for key, n in counts.items() if n]
    details = translate("joint", lang).join(filter(None, [sum_text, *counts_of_runs]))
    return f"{translate('total line', lang)}: **{total}** ({details})"


def _sum_text(parts: Sequence[str], lang: str) -> str:
    """`8:01 + 2:06`; of many the first ones and the last, with their number."""
    if len(parts) <= MAX_PARTS:
        return " + ".join(parts)
    runs = translate("runs in all", lang).format(len(parts))
    ends = " + ".join([*parts[: MAX_PARTS - 1], "…", parts[-1]])
    return translate("joint", lang).join((ends, runs))


def failure_table(records: Sequence[RunRecord], lang: str = "en") -> Table:
    """Every run that did not complete: cause, position and detail."""
    failed = [r for r in records if r.exit.cause != "completed"]
    fields = run_cells.distinguishing_fields(records)
    columns = (
        *run_cells.name_columns(fields, lang),
        TableColumn(translate("exit", lang)),
        TableColumn(translate("where", lang)),
        TableColumn(translate("detail", lang)),
    )
    return Table(columns, tuple(_failure_cells(r, fields, lang) for r in failed))


def _failure_cells(record: RunRecord, fields: Sequence[str], lang: str) -> tuple[TableCell, ...]:
    run_exit = record.exit
    step = f"step {formats.count(run_exit.step)}" if run_exit.step else ""
    position = ", ".join(part for part in (run_exit.phase, step) if part)
    return (
        *run_cells.name_cells(record, fields, lang),
        run_cells.exit_cell(record, lang),
        TableCell(position),
        TableCell(run_exit.detail, "sentence"),
    )
