"""Records of tasks are collected once, whatever was there before."""

from __future__ import annotations

import json
import os
import time
from pathlib import Path

import pytest

from workbench.slurm import collector


def line(suite: str, run: str, attempt: int, ended: float = 1.5) -> str:
    identity = {"suite": suite, "run_id": run, "attempt": attempt}
    return json.dumps({"identity": identity, "ended_wall": ended}) + "\n"


@pytest.fixture
def logs(tmp_path: Path) -> Path:
    (tmp_path / "s/slurm").mkdir(parents=True)
    for run in ("01-a", "02-b"):
        (tmp_path / "s/runs" / run).mkdir(parents=True)
        (tmp_path / "s/runs" / run / "records.jsonl").write_text(line("s", run, 1))
    return tmp_path


def read(logs: Path) -> str:
    return (logs / "results.jsonl").read_text()


def test_collecting_is_idempotent_and_adds_what_is_new(logs: Path) -> None:
    (logs / "results.jsonl").write_text(line("here", "01-x", 1))
    assert collector.collect_records(logs) == 2
    assert collector.collect_records(logs) == 0
    with (logs / "s/runs/01-a/records.jsonl").open("a") as file:
        file.write(line("s", "01-a", 2))
        file.write(line("s", "01-a", 3)[:10])  # torn: its writer is at work
    assert collector.collect_records(logs) == 1
    assert read(logs) == "".join(
        [line("here", "01-x", 1), line("s", "01-a", 1), line("s", "02-b", 1), line("s", "01-a", 2)]
    )
    (logs / "results.jsonl").unlink()
    assert collector.collect_records(logs) == 3, "what was deleted is derived again"


def test_a_record_in_other_words_counts_as_there(logs: Path) -> None:
    (logs / "results.jsonl").write_text(line("s", "01-a", 1).replace(" ", ""))
    assert collector.collect_records(logs) == 1


def test_the_first_attempt_of_a_run_that_was_stopped_before_it_is_no_copy(logs: Path) -> None:
    assert collector.collect_records(logs) == 2
    with (logs / "s/runs/01-a/records.jsonl").open("a") as file:
        file.write(line("s", "01-a", 1, ended=2.5))
    assert collector.collect_records(logs) == 1
    assert collector.collect_records(logs) == 0


def test_nothing_is_written_without_jobs_or_while_another_one_collects(logs: Path) -> None:
    lock = logs / collector.LOCK
    lock.mkdir()
    assert collector.collect_records(logs) == 0
    assert not (logs / "results.jsonl").exists()
    old = time.time() - 2 * collector.LOCK_SECONDS
    os.utime(lock, (old, old))  # its process died
    assert collector.collect_records(logs) == 2
    assert not lock.exists()
    assert collector.collect_records(logs / "s") == 0
