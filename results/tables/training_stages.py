"""Tables of a training's stages and of its epochs."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from results.records.message_translations import localize
from results.records.schema import EpochRecord, RunRecord, StageRecord
from results.tables import run_cells
from results.text import formats
from results.text.metric_names import LAST_EPOCH, split_name
from results.text.table import Table, TableCell, TableColumn
from results.text.translations import translate

RATES: Final = ("projector_lr", "lr")


def stages(records: Sequence[RunRecord], lang: str = "en", *, named: bool = True) -> Table:
    """One row for each completed stage: what it trains, its rates, batch, length and times.

    `named`: with the run's name in each row.
    """
    staged = [record for record in records if record.stages]
    fields = run_cells.distinguishing_fields(staged)
    names = (
        "stage", "trained", "params", "lr", "batch", "epochs", "steps", "wall-clock", "epoch",
        "median step",
    )  # fmt: skip
    columns = [
        TableColumn(translate(f"stages.{name}", lang), right=n > 1) for n, name in enumerate(names)
    ]
    body = tuple(
        (
            *(run_cells.name_cells(record, fields, lang) if named else ()),
            *_stage_cells(record, stage),
        )
        for record in staged
        for stage in record.stages
    )
    remarks = (TableCell(translate("stages.remark", lang), "value"),) if body else ()
    names_of_run = run_cells.name_columns(fields, lang) if named else ()
    table = Table((*names_of_run, *columns), body, remarks)
    return run_cells.drop_unknown_columns(table, len(names_of_run))


def epochs(records: Sequence[RunRecord], lang: str = "en", *, named: bool = True) -> Table:
    """One row an epoch, of runs that have stages or validate: loss, time, validation, note.

    `named`: with the run's name in each row; without, every run with epochs is shown.
    """
    shown = [
        r for r in records if not named or r.stages or any(e.validation for e in r.training_epochs)
    ]
    rows = [(record, epoch) for record in shown for epoch in record.training_epochs]
    fields = run_cells.distinguishing_fields(shown)
    metrics = list(dict.fromkeys(name for _, epoch in rows for name in epoch.validation))
    has_stages = any(epoch.stage for _, epoch in rows)
    columns = [
        *(run_cells.name_columns(fields, lang) if named else ()),
        *([TableColumn(translate("stages.stage", lang))] if has_stages else []),
        TableColumn(translate("stages.epoch number", lang), right=True),
        TableColumn(translate("stages.loss", lang), right=True),
        TableColumn(translate("stages.time", lang), right=True),
        *(TableColumn(name.replace("_", " "), right=True) for name in metrics),
        TableColumn(translate("stages.note", lang)),
    ]
    body = []
    for record, epoch in rows:
        stage = [TableCell(_stage_title(record, epoch.stage), "value")] if has_stages else []
        loss, seconds = _number(epoch.loss, "{:.4f}"), TableCell("–", "value")
        if epoch.seconds is not None:
            seconds = TableCell(formats.duration(epoch.seconds), "value")
        values = [_number(epoch.validation.get(name), "{:.4f}") for name in metrics]
        number, note = TableCell(str(epoch.epoch), "value"), TableCell(_note(epoch, lang), "value")
        name_cells = run_cells.name_cells(record, fields, lang) if named else ()
        body.append((*name_cells, *stage, number, loss, seconds, *values, note))
    return Table(tuple(columns), tuple(body), ())


def best_and_last(records: Sequence[RunRecord], lang: str = "en") -> Table:
    """Validation of the best and of the last epoch of each monitored training, a row each.

    The metrics are those of the split that chooses the epoch. Where no epoch fulfils the run's
    condition there is no best one.
    """
    pairs = [pair for record in records for pair in _monitored_stages(record)]
    shown = [r for r in records if any(record is r for record, _ in pairs)]
    fields = run_cells.distinguishing_fields(shown)
    metrics = list(dict.fromkeys(name for _, row in pairs for e in row for name in e.validation))
    has_stages = any(epochs[-1].stage for _, epochs in pairs)
    columns = [
        *run_cells.name_columns(fields, lang),
        *([TableColumn(translate("stages.stage", lang))] if has_stages else []),
        TableColumn(translate("stages.weights", lang)),
        TableColumn(translate("stages.epoch number", lang), right=True),
        *(TableColumn(name.replace("_", " "), right=True) for name in metrics),
        TableColumn(translate("stages.chosen by", lang)),
    ]
    body = []
    for record, epochs in pairs:
        stage = [TableCell(_stage_title(record, epochs[-1].stage), "value")] if has_stages else []
        rows = _best_and_last(epochs)
        for name, epoch in rows:
            body.append(
                (
                    *run_cells.name_cells(record, fields, lang),
                    *stage,
                    TableCell(_weights_title(record, name, len(rows), lang), "value"),
                    TableCell(str(epoch.epoch), "value"),
                    *(_number(epoch.validation.get(metric), "{:.4f}") for metric in metrics),
                    TableCell(localize(record.facts.get("monitor", "–"), lang)),
                )
            )
    remarks = (TableCell(translate("stages.best remark", lang), "value"),) if body else ()
    return Table(tuple(columns), tuple(body), remarks)


def best_and_last_scores(records: Sequence[RunRecord], lang: str = "en") -> Table:
    """Scores of the evaluated subsets by the best and by the last epoch's weights, a row a metric.

    Of runs that evaluated both (`evaluate_last`).
    """
    measured = [(r, m) for r in records for m in r.metrics]
    last = {
        (r.identity.run_id, m.split, split_name(m.name).base): m
        for r, m in measured
        if split_name(m.name).variant == LAST_EPOCH
    }
    pairs = [
        (r, m, other) for r, m in measured
        if (other := last.get((r.identity.run_id, m.split, m.name))) is not None
    ]  # fmt: skip
    fields = run_cells.distinguishing_fields([r for r in records if any(r is p[0] for p in pairs)])
    columns = (
        *run_cells.name_columns(fields, lang),
        TableColumn(translate("stages.split", lang)),
        TableColumn(translate("metric", lang)),
        TableColumn(translate("n", lang), right=True),
        TableColumn(
            f"{translate('stages.best', lang)}, {translate('stages.kept', lang)}", right=True
        ),
        TableColumn(translate("stages.last", lang), right=True),
    )
    body = tuple(
        (
            *run_cells.name_cells(record, fields, lang),
            TableCell(metric.split, "code"),
            TableCell(metric.name),
            TableCell(formats.count(metric.n), "value"),
            *(
                TableCell(formats.interval(m.value, m.low, m.high), "value")
                for m in (metric, other)
            ),
        )
        for record, metric, other in pairs
    )
    return Table(columns, body, ())


def _monitored_stages(record: RunRecord) -> list[tuple[RunRecord, list[EpochRecord]]]:
    """The record with the monitored epochs of each of its stages."""
    stages: dict[int, list[EpochRecord]] = {}
    for epoch in record.training_epochs:
        if epoch.since_best is not None and epoch.validation:
            stages.setdefault(epoch.stage, []).append(epoch)
    return [(record, epochs) for epochs in stages.values()]


def _best_and_last(epochs: Sequence[EpochRecord]) -> list[tuple[str, EpochRecord]]:
    """The best epoch, if there is one, and the last; one row where they are the same."""
    bests = [epoch for epoch in epochs if not epoch.since_best]
    if bests and bests[-1] is epochs[-1]:
        return [("both", epochs[-1])]
    return [*(("best", epoch) for epoch in bests[-1:]), ("last", epochs[-1])]


def _weights_title(record: RunRecord, name: str, rows: int, lang: str) -> str:
    """`best, kept`: which weights the run ended with, where its facts say so. `rows`: of 1 or 2."""
    title = translate(f"stages.{name}", lang)
    loads_best = record.facts.get("load_best", "").startswith("yes")
    chosen = (name == "best") == loads_best or rows == 1
    kept = "load_best" in record.facts and name != "both" and chosen
    return f"{title}, {translate('stages.kept', lang)}" if kept else title


def _stage_cells(record: RunRecord, stage: StageRecord) -> tuple[TableCell, ...]:
    settings = {**record.identity.params, **stage.settings}
    rates = [f"{settings[name]:g}" for name in RATES if settings.get(name)]
    batch = f"{settings.get('batch', '–')} × {settings.get('gradient_accumulation_steps', 1)}"
    done, planned = (f"{number:.3g}" for number in (stage.epochs, stage.planned_epochs))
    texts = (
        _stage_title(record, stage.stage),
        ", ".join(settings.get("trainable") or ()) or "–",
        formats.parameters(stage.trainable_parameters),
        " / ".join(rates),
        batch,
        done if done == planned else f"{done} / {planned}",
        formats.count(stage.steps),
    )
    return (
        *(TableCell(text, "value") for text in texts),
        run_cells.reading_cell(stage.wall_seconds, formats.duration),
        run_cells.reading_cell(stage.epoch_wall_seconds, formats.duration),
        run_cells.reading_cell(stage.step_median, formats.duration),
    )


def _stage_title(record: RunRecord, number: int) -> str:
    """`2 (align)`; a dash for a run without stages."""
    name = next((stage.name for stage in record.stages if stage.stage == number), "")
    return (f"{number} ({name})" if name else str(number)) if number else "–"


def _number(value: float | None, form: str) -> TableCell:
    return TableCell("–" if value is None else form.format(value), "value")


def _note(epoch: EpochRecord, lang: str) -> str:
    """`new best`, `no improvement 1/3`, `early stop`."""
    if epoch.since_best is None:
        return ""
    if not epoch.since_best:
        return translate("stages.new best", lang)
    patience = f"/{epoch.patience}" if epoch.patience else ""
    note = f"{translate('stages.no improvement', lang)} {epoch.since_best}{patience}"
    return f"{note}, {translate('stages.early stop', lang)}" if epoch.stopped else note
