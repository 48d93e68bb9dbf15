"""Rows of the Results screen: reading, sorting, filtering."""

from __future__ import annotations

import random
from pathlib import Path

from tests.workbench.tui import sample_suites
from workbench.tui.view_models import (
    result_rows,
)


def test_the_last_attempt_of_a_run_is_its_row(log_root: Path) -> None:
    built = sample_suites.record("s", 1, random.Random(1))
    identity = built.identity.model_copy(update={"attempt": 2})
    sample_suites.append_record(
        log_root, built.model_copy(update={"identity": identity, "steps": 9})
    )
    sample_suites.append_record(log_root, built)
    (batch,) = result_rows.read_batches(log_root / "results.jsonl")
    assert [row.attempt for row in batch.rows] == [2]
    assert batch.complete


def test_a_long_file_shows_its_newest_records_first(log_root: Path) -> None:
    sample_suites.write_records(log_root, 400)
    path = log_root / "results.jsonl"
    assert path.stat().st_size > result_rows.TAIL_BYTES
    first, last = result_rows.read_batches(path)
    assert 0 < len(first.rows) < 400
    assert not first.complete
    assert last.complete
    assert len(last.rows) == 400
    assert last.rows[: len(first.rows)] == first.rows


def test_unreadable_lines_are_counted_and_the_rest_is_shown(log_root: Path) -> None:
    sample_suites.write_records(log_root, 3)
    path = log_root / "results.jsonl"
    path.write_bytes(b"{torn\n" + path.read_bytes())
    (batch,) = result_rows.read_batches(path)
    assert len(batch.rows) == 3
    assert "1 line is unreadable" in batch.trouble


def test_find_reads_one_record_again(log_root: Path) -> None:
    sample_suites.write_records(log_root, 30)
    path = log_root / "results.jsonl"
    *_, batch = result_rows.read_batches(path)
    found = result_rows.find_record(path, batch.rows[7].key)
    assert found is not None
    assert (found.identity.suite, found.identity.run_id) == batch.rows[7].key
    assert result_rows.find_record(path, ("no", "such")) is None


def rows_of(*losses: float | None) -> tuple[result_rows.ResultRow, ...]:
    built = sample_suites.record("s", 1, random.Random(1))
    return tuple(
        result_rows.make_row(built.model_copy(update={"train": {} if x is None else {"loss": x}}))
        for x in losses
    )


LOSS = next(i for i, c in enumerate(result_rows.COLUMNS) if c.key == "loss")


def test_unmeasured_numbers_sort_last_both_ways() -> None:
    rows = rows_of(2.0, None, 1.0, 3.0)

    def order(descending: bool) -> list[float]:
        return [
            r.order[LOSS] for r in result_rows.select_rows(rows, "", LOSS, descending=descending)
        ]

    assert order(descending=False)[:3] == [1.0, 2.0, 3.0]
    assert order(descending=True)[:3] == [3.0, 2.0, 1.0]


def test_a_filter_needs_all_its_words() -> None:
    rows = rows_of(1.0)
    subset = str(rows[0].cells[4])
    assert result_rows.select_rows(rows, subset.upper(), None, descending=True)
    assert result_rows.select_rows(rows, f"{subset} retrieval", None, descending=True)
    assert not result_rows.select_rows(rows, f"{subset} nothing", None, descending=True)
