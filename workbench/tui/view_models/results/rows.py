"""Rows of the Results screen: runs of results.jsonl, selected, sorted, grouped, as cells.

Reading happens in a thread. Cells are made for the lines on screen only.
"""

from __future__ import annotations

import json
import math
import statistics
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Final, NamedTuple, overload

from results.listing import run_filter
from results.listing.run_filter import ListedRun
from results.listing.summary import RecordSummary, last_attempts, summarize_record
from results.listing.views import ResultView
from workbench.suites import quantities as q
from workbench.tui.view_models.cells import GridCell, GridColumn, GridRow
from workbench.tui.view_models.results import columns as result_columns
from workbench.tui.view_models.results.columns import MetricScale, ResultColumn

if TYPE_CHECKING:
    from results.records.notes import RunNotes
    from results.records.schema import RunRecord

TAIL_BYTES: Final = 262_144
"""Bytes read first from the end of a long file, so that the screen opens at once."""
INDEXED_BYTES: Final = 8 << 20
"""Records of less than this are parsed in the screen's process; of more in one of its own."""
MARK: Final = GridColumn("mark", "", 1)
LETTERS: Final = "ABCD"
"""Marked runs in the order in which they were marked."""
RunKey = tuple[str, str]
"""Suite and run id."""


@dataclass(frozen=True, slots=True)
class RunBatch:
    """Runs read so far, newest first; `complete`: all of them."""

    runs: tuple[ListedRun, ...] = ()
    complete: bool = False
    trouble: str = ""
    names: Mapping[str, None] = field(default_factory=dict)
    """Settings and metrics that they have."""


class GroupEntry(NamedTuple):
    """Heading of a group of runs."""

    name: str
    runs: tuple[ListedRun, ...]
    folded: bool


Entry = ListedRun | GroupEntry


class ResultTable(NamedTuple):
    """What the screen shows."""

    entries: list[Entry]
    columns: tuple[ResultColumn, ...]
    scale: MetricScale
    shown: int
    """Runs that the filter selects."""
    never_started: int
    """Runs that are left out since they never started."""
    problem: str = ""
    """Why the filter is none; the entries are those of all runs then."""


def read_newest(path: Path) -> RunBatch | None:
    """The newest runs of a long file; None: it is short.

    Raises:
        NewerSchemaError, OSError: see `read_all`.
    """
    from workbench.reporting import run_listing

    if _bytes(path) <= TAIL_BYTES:
        return None
    return _make_batch(_read_tail(path), run_listing.read_notes(path.parent))


def is_indexed(path: Path, cache: Path) -> bool:
    """Whether the cache file has nearly all records, so that `read_all` is fast."""
    from results.listing import index

    return index.count_new_bytes(path, cache) < INDEXED_BYTES


def read_all(path: Path, cache: Path | None) -> RunBatch:
    """All runs.

    Raises:
        NewerSchemaError: the file is of a later workbench; a sentence.
        OSError: it cannot be read.
    """
    from results.listing import index
    from workbench.reporting import run_listing
    from workbench.slurm import collector

    collector.collect_records(path.parent)
    record_index = index.read_index(path, cache)
    batch = _make_batch(record_index.summaries, run_listing.read_notes(path.parent))
    return replace(batch, complete=True, trouble=record_index.trouble)


def _make_batch(
    summaries: Sequence[RecordSummary], notes_of_run: Mapping[RunKey, RunNotes]
) -> RunBatch:
    runs = [ListedRun(s, notes_of_run.get(s.key)) for s in reversed(last_attempts(summaries))]
    return RunBatch(tuple(runs), names=run_filter.collect_names(run.summary for run in runs))


def find_record(path: Path, key: RunKey, offset: int = -1) -> RunRecord | None:
    """The last record of a run, read again; `offset`: byte at which its line may begin."""
    from results.records import store

    hinted = store.read_record(path, offset) if offset >= 0 else None
    if hinted and (hinted.identity.suite, hinted.identity.run_id) == key:
        return hinted
    needles = [json.dumps(part, ensure_ascii=False).encode() for part in key]
    match, offset = None, 0
    with path.open("rb") as file:
        for line in file:
            if all(needle in line for needle in needles):
                record = store.read_record(path, offset)
                if record and (record.identity.suite, record.identity.run_id) == key:
                    match = record
            offset += len(line)
    return match


def _bytes(path: Path) -> int:
    try:
        return path.stat().st_size
    except FileNotFoundError:
        return 0


def _read_tail(path: Path) -> list[RecordSummary]:
    """Summaries of the last lines; those that cannot be read are left to the whole reading."""
    from results.records import store

    with path.open("rb") as file:
        file.seek(-TAIL_BYTES, 2)
        file.readline()
        offset = file.tell()
    lines = store.read_lines(path, offset)
    return [summarize_record(line.record, line.offset) for line in lines if line.record]


def make_table(
    batch: RunBatch, view: ResultView, folded: frozenset[str] = frozenset()
) -> ResultTable:
    """The table of a view; `folded`: names of the groups whose runs are hidden."""
    try:
        chosen = run_filter.parse_filter(view.filter, batch.names, metric=view.metric)
        problem = ""
    except run_filter.FilterError as error:
        chosen, problem = run_filter.parse_filter(""), str(error)
    selected = run_filter.select_runs(batch.runs, chosen)
    shown = [r for r in selected if "end" in chosen.fields or not r.summary.never_started]
    scale = result_columns.fit_scale(shown, view.metric)
    columns = tuple(_choose_columns(shown, view, scale))
    ordered = sort_runs(shown, view, scale)
    entries: list[Entry] = list(ordered)
    if view.group:
        entries = list(_group_runs(ordered, view.group, folded))
    return ResultTable(entries, columns, scale, len(shown), len(selected) - len(shown), problem)


def sort_runs(runs: Sequence[ListedRun], view: ResultView, scale: MetricScale) -> list[ListedRun]:
    """The runs by the view's column; unmeasured ones last both ways, newest first without one."""
    if not view.sort:
        return list(runs)
    (column,) = result_columns.list_columns([view.sort])
    keyed = [(column.read_order(run, scale), run) for run in runs]
    measured = [pair for pair in keyed if not _is_nan(pair[0])]
    measured.sort(key=lambda pair: (isinstance(pair[0], str), pair[0]), reverse=view.descending)
    return [run for _, run in measured] + [run for order, run in keyed if _is_nan(order)]


def _is_nan(value: float | str) -> bool:
    return isinstance(value, float) and math.isnan(value)


def _choose_columns(
    runs: Sequence[ListedRun], view: ResultView, scale: MetricScale
) -> Iterator[ResultColumn]:
    """The chosen columns, or the default ones that have a value; ranked by their order."""
    if view.columns:
        keys: Sequence[str] = view.columns
    else:
        keys = [key for key in result_columns.DEFAULTS if _has_value(key, runs, scale)]
    for rank, column in enumerate(result_columns.list_columns(keys)):
        grid = replace(column.grid, rank=_RANKS.get(column.grid.key, rank))
        if view.columns:
            grid = replace(grid, rank=rank)
        if grid.key == "interval" and scale.metric:
            grid = replace(grid, title=_scale_title(scale))
        yield replace(column, grid=grid)


_RANKS: Final = {
    key: rank
    for rank, key in enumerate((
        "subset", "model", "score", "end", "wall", "when", "interval", "metric", "rss", "label",
        "notes", "seed", "epoch", "loss", "vram", "step", "suite", "rate", "steps", "r@1",
        "engine",
    ))
}  # fmt: skip
"""Default columns -> when they are dropped; the highest first."""


def _has_value(key: str, runs: Sequence[ListedRun], scale: MetricScale) -> bool:
    """Whether a default column tells anything of these runs."""
    match key:
        case "label":
            return any(r.summary.label or r.summary.task == "ensemble" for r in runs)
        case "vram" | "loss" | "r@1" | "step" | "epoch" | "rate":
            return any(key in r.summary.numbers for r in runs)
        case "interval":
            return bool(scale.metric)
        case "metric":
            return not scale.metric
        case "notes":
            return any(r.notes for r in runs)
        case _:
            return True


def _scale_title(scale: MetricScale) -> str:
    """`0.33├─── 95 % ───┤0.98`: the range in which the intervals are drawn."""
    low, high = f"{scale.low:.2f}", f"{scale.high:.2f}"
    line = " 95 % ".center(result_columns.INTERVAL_CELLS - len(low) - len(high) - 2, "─")
    return f"{low}├{line}┤{high}"


def _group_runs(runs: Sequence[ListedRun], group: str, folded: frozenset[str]) -> Iterator[Entry]:
    """Group headings and the runs below them; groups in the order of their first runs."""
    groups: dict[str, list[ListedRun]] = {}
    for run in runs:
        groups.setdefault(getattr(run.summary, group), []).append(run)
    for name, members in groups.items():
        yield GroupEntry(name, tuple(members), name in folded)
        if name not in folded:
            yield from members


def entry_key(entry: Entry) -> str:
    """Key of a row: `suite/run`, or `group NAME`."""
    return f"group {entry.name}" if isinstance(entry, GroupEntry) else "/".join(entry.summary.key)


def group_text(entry: GroupEntry, scale: MetricScale, unit: str) -> str:
    """`▾ suite demo-2ba0 · 4 runs · best 0.958 [0.943, 0.972] · median 0.900`."""
    arrow = "▸" if entry.folded else "▾"
    name = result_columns.short_suite_name(entry.name) if unit == "suite" else entry.name
    count = f"{len(entry.runs)} run" + ("s" if len(entry.runs) != 1 else "")
    parts = [f"{arrow} {unit} {name or '(none)'}", count]
    metrics = [m for run in entry.runs if (m := scale.find_metric(run.summary)) is not None]
    if scale.metric and metrics:
        pick = max if metrics[0].higher_is_better else min
        best = pick(metrics, key=lambda m: m.value)
        interval = "" if best.low is None else f" [{q.score(best.low)}, {q.score(best.high)}]"
        median = statistics.median(m.value for m in metrics)
        parts += [f"best {q.score(best.value)}{interval}", f"median {q.score(median)}"]
    return " · ".join(parts)


class TableRows(Sequence[GridRow]):
    """Grid rows of a table, made when they are read."""

    def __init__(self, table: ResultTable, marked: Sequence[RunKey], group: str) -> None:
        self._table, self._group = table, group
        self._letters = dict(zip(marked, LETTERS, strict=False))
        self._cells: dict[int, GridRow] = {}
        self._labels = distinguishing_labels(table.entries)

    def __len__(self) -> int:
        return len(self._table.entries)

    @overload
    def __getitem__(self, index: int) -> GridRow: ...

    @overload
    def __getitem__(self, index: slice) -> list[GridRow]: ...

    def __getitem__(self, index: int | slice) -> GridRow | list[GridRow]:
        if isinstance(index, slice):
            return [self[i] for i in range(*index.indices(len(self)))]
        if index not in self._cells:
            self._cells[index] = self._make_row(self._table.entries[index])
        return self._cells[index]

    def _make_row(self, entry: Entry) -> GridRow:
        table = self._table
        if isinstance(entry, GroupEntry):
            return (GridCell(group_text(entry, table.scale, self._group), "strong"),)
        letter = GridCell(self._letters.get(entry.summary.key, ""), "accent")
        cells = [column.make_cell(entry, table.scale) for column in table.columns]
        if label := self._labels.get(entry.summary.key):
            keys = [column.grid.key for column in table.columns]
            cells = [
                f"{label} {cell}" if key == "subset" else cell
                for key, cell in zip(keys, cells, strict=True)
            ]
        return (letter, *cells)


def distinguishing_labels(entries: Sequence[Entry]) -> dict[RunKey, str]:
    """Label or fold of runs whose suite, subset, model and seed are those of another run.

    The column of labels is hidden on small screens.
    """
    alike: dict[tuple[object, ...], list[RecordSummary]] = {}
    for entry in entries:
        if not isinstance(entry, GroupEntry):
            run = entry.summary
            alike.setdefault((run.suite, run.subset, run.model, run.seed), []).append(run)
    labels: dict[RunKey, str] = {}
    for runs in alike.values():
        names = [result_columns.label_text(run) for run in runs]
        if len(set(names)) > 1:
            labels |= {run.key: name for run, name in zip(runs, names, strict=True)}
    return labels
