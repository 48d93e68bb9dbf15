"""The runs of a log root for lists: summaries and notes, through the index of results.jsonl."""

from __future__ import annotations

import difflib
import hashlib
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from results.listing import index, run_filter, values
from results.listing.run_filter import ListedRun
from results.listing.summary import last_attempts
from results.listing.views import ResultView
from results.text import formats
from results.text.sanitize import clean_line
from workbench.slurm import collector

if TYPE_CHECKING:
    from results.records.notes import RunNotes


def index_cache(results_file: Path, cache_root: Path) -> Path:
    """The cache file of the index of a results.jsonl."""
    digest = hashlib.blake2b(str(results_file).encode(), digest_size=8).hexdigest()
    return cache_root / "run-lists" / f"{digest}.json"


def read_runs(log_root: Path, cache_root: Path) -> tuple[list[ListedRun], str]:
    """The last attempt of each run with its notes, oldest first; and what could not be read.

    Records of jobs are collected before.

    Raises:
        NewerSchemaError: records or notes of a later workbench; a sentence.
        OSError: they cannot be read.
    """
    collector.collect_records(log_root)
    path = log_root / "results.jsonl"
    listed = index.read_index(path, index_cache(path, cache_root))
    notes_of_run = read_notes(log_root)
    runs = [ListedRun(s, notes_of_run.get(s.key)) for s in last_attempts(listed.summaries)]
    return runs, listed.trouble


def read_notes(log_root: Path) -> dict[tuple[str, str], RunNotes]:
    """The standing notes by (suite, run id)."""
    path = log_root / "notes.jsonl"
    if not path.exists():
        return {}  # pydantic stays unloaded
    from results.records import notes

    return notes.reduce_notes(notes.read_notes(path))


def extend_view(  # noqa: PLR0913 - one for each option of the command
    view: ResultView | None,
    terms: list[str],
    *,
    suite: str | None = None,
    metric: str | None = None,
    columns: list[str] | None = None,
    sort: str | None = None,
    descending: bool | None = None,
) -> ResultView:
    """The view with further filter terms; what is given replaces what it has."""
    view = view or ResultView(descending=False)
    terms = [*filter(None, [view.filter]), *terms, *([f'suite:"{suite}"'] if suite else [])]
    changes = {
        "metric": metric, "columns": tuple(columns) if columns else None, "sort": sort,
        "descending": descending,
    }  # fmt: skip
    options: dict[str, Any] = {name: value for name, value in changes.items() if value is not None}
    return replace(view, filter=" ".join(terms), **options)


def select_view(runs: list[ListedRun], view: ResultView) -> list[ListedRun]:
    """The runs that a view selects, in its order; without one as they are.

    Raises:
        ValueError: the filter or a name in it or of a column is wrong; a sentence.
    """
    names = run_filter.collect_names(run.summary for run in runs)
    chosen = run_filter.parse_filter(view.filter, names, metric=view.metric)
    keys = {*values.list_keys(), *names}
    for key in (*view.columns, *filter(None, [view.sort])):
        if key not in keys and runs:
            close = difflib.get_close_matches(key, keys, n=3, cutoff=0.6)
            guess = f"; did you mean {' or '.join(close)}?" if close else ""
            raise ValueError(f"no column '{key}'{guess}")
    selected = run_filter.select_runs(runs, chosen)
    if not view.sort:
        return selected
    keyed = [(values.read_value(run, view.sort, view.metric), run) for run in selected]
    measured = [pair for pair in keyed if pair[0] is not None]
    measured.sort(key=lambda pair: (isinstance(pair[0], str), pair[0]), reverse=view.descending)
    return [run for value, run in keyed if value is None] + [run for _, run in measured]


def cut_page(runs: list[ListedRun], size: int, page: int) -> list[ListedRun]:
    """Page 1 is the end of the list, 2 what is before it."""
    end = max(0, len(runs) - size * (page - 1))
    return runs[max(0, end - size) : end]


def describe_run(run: ListedRun, metric: str = "") -> str:
    """A run in one line: names, end, steps, time, memory, score."""
    summary = run.summary
    numbers, prefixes = summary.numbers, summary.prefixes
    times = {
        name: prefixes.get(name, "") + formats.duration(numbers[name]) if name in numbers else "n/a"
        for name in ("wall", "epoch")
    }
    rss = formats.size(numbers["rss"]) if "rss" in numbers else "n/a"
    guess = "" if summary.measured else "  forecast"
    chosen = summary.find_metric(metric)
    score = f"{chosen.name} {formats.number(chosen.value)} on {chosen.split}" if chosen else ""
    cells = [
        f"{summary.suite:<32}", f"{summary.run_id:<44}", f"seed {summary.seed:<5}",
        f"{summary.cause:<11}", f"{formats.count(summary.steps):>8} steps",
        f"{times['wall']:>10} wall-clock", f"{times['epoch']:>10} training of 1 epoch",
        f"{rss:>9} max RSS{guess}", score,
    ]  # fmt: skip
    return clean_line("  ".join(cells).rstrip())


def read_record_lines(log_root: Path, runs: Sequence[ListedRun]) -> Iterator[str]:
    """The whole records of runs as JSON, one a line."""
    from results.records import store
    from results.text.sanitize import escape_json

    path = log_root / "results.jsonl"
    for run in runs:
        if (record := store.read_record(path, run.summary.offset)) is not None:
            yield escape_json(record.model_dump_json())
