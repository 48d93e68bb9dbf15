"""Rows of the Results screen: reading, selecting, sorting, grouping, choice of columns."""

from __future__ import annotations

import random
from dataclasses import replace
from pathlib import Path

import pytest

from results.listing.run_filter import ListedRun
from results.listing.summary import summarize_record
from results.listing.views import ResultView
from results.records.notes import RunNotes
from tests.workbench.tui import sample_suites
from workbench.tui.view_models.cells import GridCell
from workbench.tui.view_models.results import columns, rows


def read_runs(log_root: Path) -> rows.RunBatch:
    return rows.read_all(log_root / "results.jsonl", None)


def test_the_last_attempt_of_a_run_is_its_row(log_root: Path) -> None:
    built = sample_suites.record("s", 1, random.Random(1))
    identity = built.identity.model_copy(update={"attempt": 2})
    sample_suites.append_record(
        log_root, built.model_copy(update={"identity": identity, "steps": 9})
    )
    sample_suites.append_record(log_root, built)
    batch = read_runs(log_root)
    assert [(run.summary.attempt, run.summary.steps) for run in batch.runs] == [(2, 9)]
    assert batch.complete


def test_a_long_file_shows_its_newest_records_first(log_root: Path) -> None:
    sample_suites.write_records(log_root, 400)
    path = log_root / "results.jsonl"
    assert path.stat().st_size > rows.TAIL_BYTES
    first, last = rows.read_newest(path), rows.read_all(path, None)
    assert first is not None
    assert 0 < len(first.runs) < 400
    assert not first.complete
    assert last.complete
    assert len(last.runs) == 400
    assert last.runs[: len(first.runs)] == first.runs


def test_find_reads_one_record_again(log_root: Path) -> None:
    sample_suites.write_records(log_root, 30)
    path = log_root / "results.jsonl"
    run = read_runs(log_root).runs[7].summary
    for offset in (run.offset, -1, 0, 10**9):
        record = rows.find_record(path, run.key, offset)
        assert record is not None
        assert (record.identity.suite, record.identity.run_id) == run.key
    assert rows.find_record(path, ("no", "such")) is None


def listed(**changes: object) -> ListedRun:
    built = sample_suites.record("20261121-000001-weekly-1a2b", 1, random.Random(1))
    return ListedRun(summarize_record(built)._replace(**changes))


def losses(*values: float | None) -> rows.RunBatch:
    numbers = [{} if value is None else {"loss": value} for value in values]
    runs = [listed(run_id=f"r{i}", numbers=n) for i, n in enumerate(numbers)]
    return rows.RunBatch(tuple(runs))


@pytest.mark.parametrize(("descending", "order"), [(False, [1, 2, 3]), (True, [3, 2, 1])])
def test_unmeasured_numbers_sort_last_both_ways(descending: bool, order: list[int]) -> None:
    view = ResultView(sort="loss", descending=descending)
    table = rows.make_table(losses(2.0, None, 1.0, 3.0), view)
    shown = [entry.summary.numbers.get("loss") for entry in table.entries]
    assert shown == [*order, None]


def test_runs_that_never_started_are_counted_and_shown_on_request() -> None:
    never = listed(run_id="x", cause="stopped", started=None, steps=0, metrics=(), headline=-1)
    batch = rows.RunBatch((listed(), never))
    table = rows.make_table(batch, ResultView())
    assert (table.shown, table.never_started) == (1, 1)
    for text, count in (("end:never", 1), ("end:stopped", 1), ("end:ok", 1), ("end:*", 2)):
        assert rows.make_table(batch, ResultView(filter=text)).shown == count, text


def test_a_wrong_filter_names_its_fault_and_hides_nothing() -> None:
    table = rows.make_table(losses(1.0, 2.0), ResultView(filter="modle:clip"))
    assert table.shown == 2
    assert "did you mean model" in table.problem


def keys_of(*runs: ListedRun, **view: object) -> list[str]:
    table = rows.make_table(rows.RunBatch(runs), replace(ResultView(), **view))
    return [column.grid.key for column in table.columns]


def test_only_columns_that_tell_something_are_shown() -> None:
    plain = keys_of(listed(label=""))
    assert not {"vram", "label", "notes", "metric"} & {*plain}
    assert "interval" in plain
    other = listed(run_id="y", label="base", numbers={"vram": 1.0})
    noted = other._replace(notes=RunNotes(findings=("good",)))
    assert {"vram", "label", "notes"} <= {*keys_of(listed(), noted)}
    renamed = [m._replace(split="other") for m in listed().summary.metrics]
    mixed = keys_of(listed(), listed(run_id="z", metrics=tuple(renamed)))
    assert "metric" in mixed
    assert "interval" not in mixed
    assert keys_of(listed(), columns=("lr", "model")) == ["lr", "model"]


def test_a_suite_is_shown_by_its_name_and_a_setting_by_its_value() -> None:
    table = rows.make_table(
        rows.RunBatch((listed(),)), ResultView(columns=("suite", "epochs", "recall@1@okvqa_test"))
    )
    (row,) = rows.TableRows(table, [], "")
    texts = [cell.text if isinstance(cell, GridCell) else cell for cell in row]
    assert texts[1:3] == ["weekly-1a2b", "1"]
    assert texts[3].startswith("0.3842")


def test_marks_are_letters_in_their_order() -> None:
    batch = losses(1.0, 2.0, 3.0)
    table = rows.make_table(batch, ResultView())
    marked = [batch.runs[2].summary.key, batch.runs[0].summary.key]
    letters = [row[0].text for row in rows.TableRows(table, marked, "")]
    assert letters == ["B", "", "A"]


def test_groups_have_a_heading_with_their_best_and_fold() -> None:
    a, b = listed(label="a"), listed(label="b", run_id="r2")
    batch = rows.RunBatch((a, b, listed(label="a", run_id="r3")))
    table = rows.make_table(batch, ResultView(group="label"), frozenset({"b"}))
    names = [e.name if isinstance(e, rows.GroupEntry) else e.summary.label for e in table.entries]
    assert names == ["a", "a", "a", "b"]
    heading = rows.group_text(table.entries[0], table.scale, "label")
    assert heading.startswith("▾ label a · 2 runs · best 0.3842")
    assert rows.TableRows(table, [], "label")[3][0].text.startswith("▸ label b · 1 run ")
    assert len(rows.TableRows(table, [], "label")[3]) == 1


@pytest.mark.parametrize(
    ("value", "low", "high", "drawn"),
    [(0.5, 0.25, 0.75, "    ────█───    "), (0.0, None, None, "█               ")],
)
def test_an_interval_is_a_line_with_its_value(
    value: float, low: float | None, high: float | None, drawn: str
) -> None:
    metric = listed().summary.metrics[0]._replace(value=value, low=low, high=high)
    assert columns.draw_interval(metric, columns.MetricScale(metric.key, 0.0, 1.0)) == drawn
    assert columns.draw_interval(metric, columns.MetricScale("other@split")) == ""


def test_alike_runs_show_what_tells_them_apart() -> None:
    a, b, c = (listed(run_id=f"r{i}", label=label) for i, label in enumerate(("x", "y", "z")))
    other = c._replace(summary=c.summary._replace(seed=7))
    assert rows.distinguishing_labels([a, b, other]) == {
        a.summary.key: "x", b.summary.key: "y",
    }  # fmt: skip
