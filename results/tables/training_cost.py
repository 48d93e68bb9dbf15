"""The tables of the weekly report: what an epoch cost, how training ended, what failed.

Apart from the report around them, because headless output and the results screen show the same
tables. Pure functions of records; a row is never left out because its run failed.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Final

from results.records import cost_forecasts, epoch_time
from results.records.schema import RunRecord
from results.tables import retrieval_cost, run_cells
from results.tables.table import Cell, Column, Table
from results.text import formats
from results.text.translations import cause, say

EVALUATING: Final = frozenset({"eval", "encode", "search", "generate"})
"""Phases that belong to evaluation."""

PARTS: Final = 12
"""The total line names this many times one by one."""


def cost(records: Sequence[RunRecord], lang: str = "en") -> Table:
    """Subset, loaded samples, steps, wall-clock, max RSS, exit; then the training steps alone."""
    fields = run_cells.distinguishing(records)
    single = run_cells.one_epoch(records)
    middle = [] if single else [Column(say("epochs", lang), right=True)]
    columns = (
        *run_cells.name_columns(fields, lang),
        Column(say("loaded samples", lang), right=True),
        Column(say("steps", lang), right=True),
        *middle,
        Column(say("1 epoch wall-clock" if single else "wall-clock", lang), right=True),
        Column(say("max RSS", lang), right=True),
        Column(say("exit", lang), right=True),
        Column(say("epoch steps", lang), right=True),
    )
    body = tuple(_cost_row(r, fields, lang, with_epochs=not single) for r in records)
    table = Table(columns, body, _cost_remarks(records, lang))
    return run_cells.without_unknown(table, len(fields) + 1, fixed=len(columns) - 1)


def _cost_row(
    record: RunRecord, fields: Sequence[str], lang: str, *, with_epochs: bool
) -> tuple[Cell, ...]:
    done = run_cells.epochs(record)
    count = Cell(f"{done:g}", "value") if done is not None else Cell("", "value")
    wall = cost_forecasts.wall(record)

    return (
        *run_cells.name_cells(record, fields, lang),
        _samples(record, lang),
        _steps(record, lang),
        *([count] if with_epochs else []),
        run_cells.reading(wall, lambda _: cost_forecasts.seconds(wall), "strong"),
        run_cells.reading(record.memory.rss_main_peak, formats.size, prefix="~"),
        run_cells.exit_cell(record, lang),
        run_cells.reading(epoch_time.training(record), lambda _: epoch_time.cell_text(record)),
    )


def _samples(record: RunRecord, lang: str) -> Cell:
    if record.samples == 0 and record.exit.cause != "completed":
        return Cell(say("not reached", lang), "unknown")
    return Cell(formats.count(record.samples), "value")


def _steps(record: RunRecord, lang: str) -> Cell:
    done, planned = formats.count(record.steps), formats.count(record.planned_steps)
    if not record.planned_steps and record.evaluations:
        return Cell(
            say("batches", lang).format(formats.count(retrieval_cost.batches(record))), "value"
        )
    if record.steps == record.planned_steps or not record.planned_steps:
        return Cell(done, "value")
    return Cell(say("of", lang).format(done, planned), "value")


def _cost_remarks(records: Sequence[RunRecord], lang: str) -> tuple[Cell, ...]:
    remarks = [Cell(say("remark.wall", lang), "value")]
    if any(epoch_time.training(r).method == epoch_time.AT_MOST for r in records):
        remarks.append(Cell(say("remark.at most", lang), "value"))
    if any(r.evaluations and r.identity.task == "evaluate" for r in records):
        remarks.append(Cell(say("remark.evaluation rows", lang), "value"))
    if any(map(cost_forecasts.costing, records)):
        remarks.append(Cell(say("remark.forecast", lang), "value"))
    inside = sum(bool(EVALUATING & r.timing.phases.keys()) for r in records)
    if inside:
        text = say("remark.evaluation inside", lang).format(inside, len(records))
        remarks.append(Cell(text, "value"))
    return (*remarks, *flag_remarks(records, lang))


def flag_remarks(records: Sequence[RunRecord], lang: str = "en") -> tuple[Cell, ...]:
    """What the flags of these rows mean."""
    shown = {flag for r in records for flag in run_cells.flags(r, lang)}
    kinds = ("forecast", "costing run", "stub", "contaminated", "oom")
    used = [k for k in kinds if any(f.startswith(say(k, lang)) for f in shown)]
    return tuple(Cell(say(f"flag.{kind}", lang), "value") for kind in used)


def train(
    records: Sequence[RunRecord], lang: str = "en", notes: Mapping[str, Sequence[str]] | None = None
) -> Table:
    """Last logged loss and in-batch r@1 of the training runs, with people's notes by run id."""
    trained = [r for r in records if r.identity.task == "train"]
    fields = run_cells.distinguishing(trained)
    at = _at({run_cells.epochs(r) for r in trained if "loss" in r.train}, lang)
    ends = {_logged_at(r) for r in trained if "loss" in r.train}
    logged, differ = _at(ends, lang), len(ends) > 1
    means = any("epoch_loss" in r.train for r in trained)
    batches = {r.train["batch"] for r in trained if "batch" in r.train and "r@1" in r.train}
    batch = _only(batches)
    r_at_1 = any("r@1" in r.train for r in trained)
    heading = f"train r@1 ({logged}{_batch(batch) if batch else ''})"
    last = say("last window", lang).format(logged) if means else f"train_loss ({logged})"
    columns = (
        *run_cells.name_columns(fields, lang),
        *([Column(say("epoch mean", lang).format(at), right=True)] if means else []),
        Column(last, right=True),
        *([Column(heading, right=True)] if r_at_1 else []),
        Column(say("note", lang)),
    )
    body = tuple(
        (
            *run_cells.name_cells(r, fields, lang),
            *([_logged(r, "epoch_loss", lang)] if means else []),
            _logged(r, "loss", lang, with_epoch=differ),
            *(
                [_logged(r, "r@1", lang, with_batch=batch is None, with_epoch=differ)]
                if r_at_1
                else []
            ),
            Cell(_note(r, lang, (notes or {}).get(r.identity.run_id, ())), "prose"),
        )
        for r in trained
    )
    remarks = [Cell(say("remark.losses", lang), "value")] if means else []
    remarks += [Cell(say("remark.r@1", lang), "value")] if r_at_1 else []
    return Table(columns, body, tuple(remarks))


def _at(found: set[float | None], lang: str) -> str:
    """`epoch=1`, or that it is the last log where rows differ."""
    only = _only(found)
    return say("last log", lang) if only is None else f"epoch={only:g}"


def _logged_at(record: RunRecord) -> float | None:
    """The epoch at which the window ended that was logged last without a short batch."""
    ended = record.train.get("epoch")
    return run_cells.epochs(record) if ended is None else math.floor(ended * 100 + 0.5) / 100


def _only(values: set[float] | set[float | None]) -> float | None:
    return next(iter(values)) if len(values) == 1 else None


def _batch(batch: float) -> str:
    return f", batch {batch:g}, chance {formats.number(1 / batch)}"


def _logged(
    record: RunRecord, name: str, lang: str, *, with_batch: bool = False, with_epoch: bool = False
) -> Cell:
    if name not in record.train:
        ended = record.exit.cause
        known = say("not logged", lang) if ended == "completed" else cause(ended, lang)
        return Cell(known, "unknown")
    batch = record.train.get("batch") if with_batch else None
    at = _logged_at(record) if with_epoch else None
    beside = [
        *([f"epoch={at:g}"] if at is not None else []),
        *([_batch(batch)[2:]] if batch else []),
    ]
    tail = f" ({', '.join(beside)})" if beside else ""
    return Cell(formats.number(record.train[name]) + tail, "value")


def _note(record: RunRecord, lang: str, findings: Sequence[str]) -> str:
    parts = [*findings, record.facts.get("note", "")]
    if record.steps < record.planned_steps:
        done, planned = formats.count(record.steps), formats.count(record.planned_steps)
        parts.append(say("stopped at", lang).format(done, planned))
    return "; ".join(part for part in parts if part)


def total(records: Sequence[RunRecord], lang: str = "en") -> str:
    """`Total, sequential: **about 14 min 59 s** (8:01 + 2:06 + …)`, as one Markdown line.

    Forecasts are never added to measurements: they follow apart, or, when there is nothing else,
    make a total that says what it is.
    """
    counted = [r for r in records if not cost_forecasts.costing(r)]
    expected = [r for r in records if cost_forecasts.costing(r)]
    apart = _forecast_total(expected, lang) if expected else ""
    if not counted and expected:
        return f"{say('total line', lang)}: {apart}"
    line = _measured_total(counted, lang)
    return f"{line}; {apart}" if apart else line


def _forecast_total(records: Sequence[RunRecord], lang: str) -> str:
    known = [s for r in records if (s := cost_forecasts.wall(r).value) is not None]
    about = say("about", lang).format(formats.spoken(sum(known), lang)) if known else "n/a"
    parts = " + ".join(f"~{formats.clock(value)}" for value in known[:PARTS])
    more = " + …" if len(known) > PARTS else ""
    missing = len(records) - len(known)
    beside = [f"{parts}{more}"] if known else []
    beside += [say("runs not measured", lang).format(missing)] if missing else []
    return say("forecast total", lang).format(f"**{about}**", "; ".join(beside))


def _measured_total(records: Sequence[RunRecord], lang: str) -> str:
    readings = [r.timing.end_to_end_seconds.value for r in records]
    known = [value for value in readings if value is not None]
    about = say("about", lang).format(formats.spoken(sum(known), lang)) if known else "n/a"
    parts = [formats.clock(value) for value in known]
    if len(parts) > PARTS:
        runs = say("runs in all", lang).format(len(parts))
        shown = " + ".join([*parts[: PARTS - 1], "…", parts[-1]]) + f"; {runs}"
    else:
        shown = " + ".join(parts)
    counts = {
        "runs not measured": len(readings) - len(known),
        "runs not completed": sum(r.exit.cause != "completed" for r in records),
    }
    beside = [say(key, lang).format(n) for key, n in counts.items() if n]
    return f"{say('total line', lang)}: **{about}** ({'; '.join(filter(None, [shown, *beside]))})"


def failures(records: Sequence[RunRecord], lang: str = "en") -> Table:
    """Every run that did not complete: cause, where it was then, and what is known."""
    failed = [r for r in records if r.exit.cause != "completed"]
    fields = run_cells.distinguishing(records)
    columns = (
        *run_cells.name_columns(fields, lang),
        Column(say("exit", lang)),
        Column(say("where", lang)),
        Column(say("detail", lang)),
    )
    return Table(columns, tuple(_failure(r, fields, lang) for r in failed))


def _failure(record: RunRecord, fields: Sequence[str], lang: str) -> tuple[Cell, ...]:
    ended = record.exit
    step = f"step {formats.count(ended.step)}" if ended.step else ""
    where = ", ".join(part for part in (ended.phase, step) if part)
    return (
        *run_cells.name_cells(record, fields, lang),
        run_cells.exit_cell(record, lang),
        Cell(where),
        Cell(ended.detail),
    )
