"""One squeue at a time, and what its answer may be taken for."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path

import pytest

from workbench.slurm import queue

SQUEUE = """#!/bin/sh
echo "$@" >>{calls}
mkdir {once} 2>/dev/null && exec sleep 60
echo "7_1|PENDING|Priority|(null)|suite"
"""


@pytest.fixture
def calls(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A squeue whose first call hangs; the file that lists its calls."""
    script = tmp_path / "squeue"
    script.write_text(SQUEUE.format(calls=tmp_path / "calls", once=tmp_path / "once"), "utf-8")
    script.chmod(0o700)
    monkeypatch.setenv("PATH", str(tmp_path), prepend=":")
    return tmp_path / "calls"


@pytest.fixture
def watch(calls: Path, monkeypatch: pytest.MonkeyPatch) -> queue.QueueWatch:
    """A watch whose first squeue is under way."""
    watch = queue.QueueWatch()
    with monkeypatch.context() as patch:
        patch.setattr(queue, "FIRST_SECONDS", 0.0)
        assert watch.read("me") == queue.QueueAnswer()
    _wait_until(calls.with_name("once").exists)
    return watch


def _wait_until(true: Callable[[], object]) -> None:
    end = time.monotonic() + 60
    while not true():
        assert time.monotonic() < end
        time.sleep(0.01)


def test_a_question_from_before_a_submission_is_no_answer_to_it(
    watch: queue.QueueWatch, calls: Path
) -> None:
    """Its rows lack the new job, and a job that the queue lacks would be over."""
    submitted = time.time()
    answer = watch.read("me", submitted)
    assert answer.wall >= submitted
    assert list(answer.rows) == ["7_1"]
    assert watch.read("me", submitted) is answer  # one call answers them both
    assert len(calls.read_text("utf-8").splitlines()) == 2


def test_a_question_about_others_is_no_answer_about_a_user(
    watch: queue.QueueWatch, calls: Path
) -> None:
    assert watch.read("you").rows
    assert calls.read_text("utf-8").splitlines()[1].count("--user=me,you ") == 1


def test_a_squeue_that_hangs_is_killed_and_nobody_waits_for_it(
    watch: queue.QueueWatch, calls: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert not watch.read("me").wall
    assert len(calls.read_text("utf-8").splitlines()) == 1, "asked once in its time"
    with monkeypatch.context() as patch:
        patch.setattr(queue, "HANG_SECONDS", 0.0)
        watch.read("me")
    _wait_until(lambda: watch.read("me").rows)
