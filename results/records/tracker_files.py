"""Runs that another program logged, as records: files of HF Trainer, W&B, and tables of epochs.

Read are `trainer_state.json` of HF Trainer (or a folder with it), a CSV exported from W&B (columns
`RUN - METRIC`, one record a run), event files of TensorBoard (one record a folder, by its own
reader), and a CSV with a column `step` or `epoch`; a `final_metrics.json` beside it has the final
metrics. What a file does not say is a reading without a value. Nothing of
such a record was measured here, and no metric has an interval.
"""

from __future__ import annotations

import codecs
import csv
import io
import json
import math
import re
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from statistics import fmean
from typing import Any, Final, NamedTuple

from results.records import imported_ids
from results.records.published_runs import IMPORT_MARK, PublishedError, unmeasured_parts
from results.records.schema import (
    Environment,
    EpochRecord,
    Exit,
    Identity,
    MetricRecord,
    Reading,
    RunRecord,
)

UNKNOWN: Final = "the imported file does not say"
STATE_FILE: Final = "trainer_state.json"
EVENTS: Final = "tfevents"
"""Part of the names of TensorBoard's event files."""
FINAL_FILE: Final = "final_metrics.json"
MAX_BYTES: Final = 512 << 20
LOSSES: Final = ("loss", "train_loss", "train/loss", "training_loss", "train/train_loss")
VALIDATION: Final = re.compile(r"(?:eval|val|valid|validation|test)[_/](.+)")
POSITIONS: Final = ("step", "_step", "global_step", "train/global_step", "epoch", "train/epoch")
RATES: Final = re.compile(
    r".*(?:runtime|preparation_time|compilation_time|per_second|learning_rate|grad_norm"
    r"|total_flos|_timestamp)$"
)
NO_METRICS: Final = re.compile(
    r".*(?:loss|lr|rate|norm|time|second|step|epoch|batch|sample|token|memory|vram|gpu|param).*"
    r"|stage|seed|fold|note"
)
"""Columns of a table of epochs that are no validation metric; others with numbers are."""
LOWER_IS_BETTER: Final = re.compile(
    r"(?:.*[_/])?(?:loss|perplexity|ppl|nll|wer|cer|ter|eer|error|error_rate|rank|mae|mse|rmse|mape"
    r"|fid|ece|distance|divergence)$",
    re.IGNORECASE,
)


OTHER_NUMBER: Final = re.compile(r"[-+]?\d[\d.]*(?:,\d+)+(?:\.\d+)?\s*%?|[-+]?\d[\d.]*\s*%")
"""A number with a decimal comma, with commas between thousands, or in per cent."""


class ImportedRun(NamedTuple):
    """What the person who imports says of the run."""

    engine: str
    subset: str
    model: str
    label: str = ""
    split: str = ""
    """Split of validation metrics; empty: the subset's name and `validation`."""
    n: int = 0
    """Items that the metrics are means over; 0: not known."""


def read_runs(path: Path, facts: ImportedRun) -> list[RunRecord]:
    """The records of a file, one for each run in it.

    Raises:
        PublishedError: the file cannot be read, or is none of the forms.
    """
    if path.is_dir():
        path = _find_in_folder(path)
    return imported_ids.separate_ids(_read_file(path, facts))


def _read_file(path: Path, facts: ImportedRun) -> list[RunRecord]:
    if path.is_dir() or EVENTS in path.name:
        return list(_from_events(path, facts))
    try:
        if path.stat().st_size > MAX_BYTES:
            raise PublishedError(
                f"{path}: larger than {MAX_BYTES >> 20} MiB; give a log of one run"
            )
        text = _decode(path)
    except OSError as error:
        raise PublishedError(f"{path}: cannot be read ({error}); check the path") from None
    if path.suffix == ".json":
        return [_from_trainer_state(path, text, facts)]
    if path.suffix in (".csv", ".tsv"):
        return list(_from_table(path, text, facts))
    raise PublishedError(
        f"{path}: not a form that can be imported; give {STATE_FILE}, a CSV with a column step or "
        "epoch, event files of TensorBoard, or a TOML file of published results"
    )


def _decode(path: Path) -> str:
    """The text of a file in UTF-8, or in UTF-16 with its mark, as Excel saves "Unicode text"."""
    data = path.read_bytes()
    marked = data.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE))
    try:
        return data.decode("utf-16" if marked else "utf-8-sig")
    except UnicodeDecodeError as error:
        raise PublishedError(f"{path}: not UTF-8 ({error}); save it as CSV UTF-8") from None


def _checkpoint_order(state: Path) -> tuple[int, int, float]:
    """Sorts the state of the whole run first, then those of checkpoints, the last step first;
    times tell nothing after a copy."""
    number = re.search(r"^checkpoint-(\d+)$", state.parent.name)
    return (len(state.parts), -int(number[1]) if number else 0, -state.stat().st_mtime)


def _find_in_folder(folder: Path) -> Path:
    """The state of the last checkpoint, the one CSV, or the folder, if it has event files."""
    states = sorted(folder.rglob(STATE_FILE), key=_checkpoint_order)
    tables = sorted(folder.glob("*.csv"))
    if states:
        return states[0]
    if not tables and next(folder.rglob(f"*{EVENTS}*"), None):
        return folder
    if len(tables) != 1:
        missing = f"neither {STATE_FILE} nor a CSV nor event files of TensorBoard"
        reason = f"{len(tables)} CSV files" if tables else missing
        raise PublishedError(f"{folder}: has {reason}; name the file")
    return tables[0]


def _from_trainer_state(path: Path, text: str, facts: ImportedRun) -> RunRecord:
    try:
        state = json.loads(text)
        rows = [row for row in state["log_history"] if isinstance(row, dict)]
    except (ValueError, KeyError, TypeError):
        raise PublishedError(f"{path}: no log_history; is it {STATE_FILE} of HF Trainer?") from None
    ending = next((row for row in reversed(rows) if "train_runtime" in row), {})
    steps = int(_number(state.get("global_step")) or 0)
    record = _build_record(path, facts, rows, steps)
    times = {"end_to_end_seconds": _reading(ending.get("train_runtime"), "train_runtime"),
             "samples_per_second": _reading(ending.get("train_samples_per_second"),
                                            "train_samples_per_second")}  # fmt: skip
    batch = _number(state.get("train_batch_size"))
    named = {name: f"{value:,.0f}" for name in ("total_flos", "num_input_tokens_seen")
             if (value := _number(state.get(name)))}  # fmt: skip
    return record.model_copy(update={
        "timing": record.timing.model_copy(update=times),
        "planned_steps": int(_number(state.get("max_steps")) or steps),
        "epochs": _number(state.get("epoch")) or record.epochs,
        "train": record.train | ({"batch": batch} if batch else {}),
        "facts": record.facts | named,
    })  # fmt: skip


def _from_events(path: Path, facts: ImportedRun) -> Iterator[RunRecord]:
    """A record of each folder of event files; values of one step are one row."""
    try:
        from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
        from tensorboard.util.tensor_util import make_ndarray
    except ImportError:
        raise PublishedError(f"{path}: needs a package; pip install tensorboard") from None
    folders = sorted({file.parent for file in path.rglob(f"*{EVENTS}*")}) or [path]
    for folder in folders:
        log = EventAccumulator(str(folder), size_guidance={"scalars": 0, "tensors": 0}).Reload()
        tags = log.Tags()
        values = [(e.step, tag, e.value, e.wall_time) for tag in tags["scalars"]
                  for e in log.Scalars(tag)]  # fmt: skip
        values += [(e.step, tag, number, e.wall_time) for tag in tags["tensors"]
                   for e in log.Tensors(tag)
                   if (number := _scalar(make_ndarray(e.tensor_proto))) is not None]  # fmt: skip
        rows: dict[int, dict[str, Any]] = {}
        for step, tag, value, _ in sorted(values, key=lambda row: (row[0], row[3])):
            rows.setdefault(step, {"step": step})[tag] = value
        label = facts.label or folder.name
        if len(folders) > 1:
            is_unique = sum(other.name == folder.name for other in folders) == 1
            is_named = is_unique or folder == path
            label = folder.name if is_named else folder.relative_to(path).as_posix()
        file = folder if folder.is_file() else folder / EVENTS
        record = _build_record(file, facts._replace(label=label), list(rows.values()),
                               max(rows, default=0))  # fmt: skip
        walls = [wall for *_, wall in values]
        yield record.model_copy(update={"started_wall": min(walls), "ended_wall": max(walls)})


def _scalar(array: Any) -> float | None:
    return float(array) if array.size == 1 and array.dtype.kind in "fiu" else None


def _from_table(path: Path, text: str, facts: ImportedRun) -> Iterator[RunRecord]:
    heading = text.partition("\n")[0]
    separator = max(",;\t", key=heading.count)
    try:
        table = csv.DictReader(io.StringIO(text, newline=""), delimiter=separator, strict=True)
        rows = list(table)
    except csv.Error as error:
        raise PublishedError(f"{path}: no table ({error})") from None
    names = [name for name in table.fieldnames or () if name]
    position = next((name for name in names if name.lower() in POSITIONS), None)
    if position is None:
        raise PublishedError(f"{path}: has no column step or epoch; its columns: "
                             f"{', '.join(names[:8]) or 'none'}")  # fmt: skip
    if not rows:
        raise PublishedError(f"{path}: has no row below its heading; nothing to import")
    _refuse_long_rows(path, rows)
    _refuse_other_numbers(path, rows)
    runs: dict[str, dict[str, str]] = {}
    for name in names:
        run, dash, metric = name.partition(" - ")
        if not re.search(r"__(?:MIN|MAX)$", name):
            runs.setdefault(run if dash else "", {})[name] = metric if dash else name
    several = len([run for run in runs if run]) > 1
    for run, columns in runs.items():
        if run or list(runs) == [""]:
            chosen = columns | runs.get("", {})
            log = [{chosen[name]: row[name] for name in chosen if row.get(name)} for row in rows]
            label = run if several or not facts.label else facts.label
            yield _table_record(path, facts._replace(label=label), log, position)


def _refuse_long_rows(path: Path, rows: list[dict[str, str]]) -> None:
    """Cells beyond the heading, as of `0,52` in a table with commas: which is which is unknown."""
    for number, row in enumerate(rows, 2):
        further: Any = row.pop(None, [])  # type: ignore[call-overload]
        if any(cell.strip() for cell in further):
            raise PublishedError(
                f"{path}: row {number} has more cells than the heading; write 0.52, not 0,52, and "
                "quote texts with separators"
            )


def _refuse_other_numbers(path: Path, rows: list[dict[str, str]]) -> None:
    """`12,5`, `55%` and `1,024` would be no number, and their metric absent without a word."""
    plain = {name: re.sub(r"\s+", "_", str(name).strip().lower()) for name in rows[0]}
    read = [name for name, text in plain.items()
            if "loss" in text or text in POSITIONS or not NO_METRICS.fullmatch(text)]  # fmt: skip
    for number, row in enumerate(rows, 2):
        for name in read:
            cell = row[name]
            if isinstance(cell, str) and OTHER_NUMBER.fullmatch(cell.strip()):
                raise PublishedError(
                    f"{path}: row {number}, {name}: {cell.strip()!r} is no number; write 0.125, "
                    "without commas and per cent signs"
                )


def _table_record(
    path: Path, facts: ImportedRun, log: list[dict[str, str]], position: str
) -> RunRecord:
    """A record of rows in any order: they are put into that of stages, then of positions."""
    by_epoch = "epoch" in position.lower()
    plain = {name: re.sub(r"\s+", "_", name.strip().lower()) for row in log for name in row}
    titles = {name: _title(text, by_epoch, set(plain.values())) for name, text in plain.items()}
    titles[position] = "epoch" if by_epoch else "step"
    rows: list[dict[str, Any]] = [
        {titles[name]: value for name, value in row.items()} for row in log
    ]
    rows.sort(key=lambda row: (_stage(row), _number(row.get(titles[position])) or 0.0))
    steps = max((int(_number(row.get("step")) or 0) for row in rows), default=0)
    return _build_record(path, facts, rows, steps)


def _title(plain: str, by_epoch: bool, columns: set[str]) -> str:
    """The name of a column as logs have it; `diversity` of a table of epochs is `val_diversity`,
    unless it is of training: called so, or beside a column of validation."""
    of_training = plain.startswith("train") or columns & {
        f"{prefix}_{plain}" for prefix in ("val", "eval", "valid", "validation", "test")
    }
    is_metric = by_epoch and not (NO_METRICS.fullmatch(plain) or VALIDATION.fullmatch(plain))
    return f"val_{plain}" if is_metric and not of_training else plain


def _count_epochs_from_one(rows: list[dict[str, Any]]) -> None:
    """Keras and Lightning call the first epoch 0: it has a loss of training there."""
    epochs = [_number(row.get("epoch")) for row in rows]
    whole = all(epoch is None or epoch.is_integer() for epoch in epochs)
    pairs = list(zip(epochs, rows, strict=True))
    if whole and any(epoch == 0 and _losses([row]) for epoch, row in pairs):
        for epoch, row in pairs:
            if epoch is not None:
                row["epoch"] = epoch + 1


def _stage(row: Mapping[str, Any]) -> int:
    stage = re.search(r"\d+", str(row.get("stage", "")))
    return int(stage[0]) if stage else 0


def _build_record(
    path: Path, facts: ImportedRun, rows: list[dict[str, Any]], steps: int
) -> RunRecord:
    """A record of logged rows, oldest first."""
    _count_epochs_from_one(rows)
    epochs = tuple(_epochs(rows))
    losses = _losses(row for row in rows if "train_runtime" not in row)
    final = _final_metrics(path) or _last_validation(rows)
    split = facts.split or f"{facts.subset} validation"
    metrics = tuple(
        MetricRecord(name=name, value=value, split=split, n=facts.n, method="imported: no interval",
                     higher_is_better=not LOWER_IS_BETTER.fullmatch(name))
        for name, value in final.items()
    )  # fmt: skip
    if not epochs and not metrics and not losses:
        raise PublishedError(f"{path}: has no loss and no metric; nothing to import")
    run_id = f"imported-{imported_ids.slug(facts.label or path.resolve().parent.name)}"
    source = f"imported: {path.name} of {path.resolve().parent.name}"
    timing, memory = unmeasured_parts(UNKNOWN)
    return RunRecord(
        identity=Identity(
            suite=run_id, run_id=run_id, engine=facts.engine,
            task="train", subset=facts.subset, model=facts.model, label=facts.label,
        ),
        environment=Environment(),
        timing=timing, memory=memory, metrics=metrics, steps=steps, planned_steps=steps,
        epochs=_count_epochs(epochs), training_epochs=epochs,
        train={"loss": losses[-1]} if losses else {},
        exit=Exit(cause="completed", detail=f"{source}{IMPORT_MARK}", step=steps),
        notices=(f"{source}; nothing of this record was measured here",),
    )  # fmt: skip


def _epochs(rows: Iterable[Mapping[str, Any]]) -> Iterator[EpochRecord]:
    """Mean loss and last validation of each whole or begun epoch, of each stage."""
    by_epoch: dict[tuple[int, int], list[Mapping[str, Any]]] = {}
    for row in rows:
        epoch = _number(row.get("epoch", row.get("train/epoch", row.get("eval/epoch"))))
        if epoch is not None and epoch >= 0 and "train_runtime" not in row:
            key = (_stage(row), max(1, math.ceil(epoch)))
            by_epoch.setdefault(key, []).append(row)
    for (stage_number, number), logged in sorted(by_epoch.items()):
        losses = _losses(logged)
        yield EpochRecord(stage=stage_number, epoch=number,
                          loss=fmean(losses) if losses else None,
                          validation=_last_validation(logged))  # fmt: skip


def _count_epochs(epochs: Iterable[EpochRecord]) -> float | None:
    """Epochs of all stages; None: none was logged."""
    last = {epoch.stage: epoch.epoch for epoch in epochs}
    return float(sum(last.values())) if last else None


def _losses(rows: Iterable[Mapping[str, Any]]) -> list[float]:
    values = (_number(row.get(name)) for row in rows for name in LOSSES)
    return [value for value in values if value is not None]


def _last_validation(rows: Iterable[Mapping[str, Any]]) -> dict[str, float]:
    """The last value of each validation metric, without its prefix."""
    values: dict[str, float] = {}
    for row in rows:
        for name, text in row.items():
            match, value = VALIDATION.fullmatch(name.lower()), _number(text)
            if match and value is not None and not RATES.fullmatch(name.lower()):
                values[match[1]] = value
    return values


def _final_metrics(path: Path) -> dict[str, float]:
    """Numbers of the `final_metrics.json` beside a table; empty: there is none."""
    final = path.with_name(FINAL_FILE)
    if path.suffix == ".json" or not final.is_file():
        return {}
    try:
        table = json.loads(final.read_text("utf-8-sig"))
    except (OSError, ValueError) as error:
        raise PublishedError(f"{final}: cannot be read ({error})") from None
    pairs = table.items() if isinstance(table, dict) else ()
    return {str(name): value for name, text in pairs if (value := _number(text)) is not None}


def _reading(value: Any, method: str) -> Reading:
    number = _number(value)
    if number is None:
        return Reading(reason=UNKNOWN)
    return Reading(value=number, method=f"imported: {method} of HF Trainer")


def _number(value: Any) -> float | None:
    """A finite number; None: it is none."""
    if isinstance(value, bool):
        return None
    try:
        number = float(value)
    except (TypeError, ValueError):
        return None
    return number if math.isfinite(number) else None
