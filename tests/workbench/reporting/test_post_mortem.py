"""The black box tells of the right attempt, and of whatever is there."""

from __future__ import annotations

from pathlib import Path

from engines import messages
from workbench.reporting import post_mortem
from workbench.suites.journal import Journal

FAILED = messages.Failed(t=2.0, error="KeyError: 'x'", traceback="Traceback:\n  line 7\nKeyError")


def write(run: Path) -> None:
    run.mkdir()
    with Journal.open(run / "events.jsonl") as journal:
        for number in (1, 2):
            journal.write("warden", messages.Attempt(number=number, pid=100 + number))
            journal.write("engine", messages.Phase(t=1.0, name="train"))
            sample = messages.Sample(t=1.5, rss_main=3 << 20, processes=2, gpu_reason="no NVML")
            journal.write("warden", sample)
            if number == 2:
                journal.write("engine", FAILED)
            journal.write("warden", messages.End(t=3.0, cause="failed", exit_code=number))
    (run / "engine.log").write_text("first\n" * 50 + "last words\n")


def test_one_attempt_with_its_memory_traceback_and_log(tmp_path: Path) -> None:
    write(tmp_path / "run")
    text = "\n".join(post_mortem.post_mortem_lines(tmp_path / "run", 2))
    assert "number=2 pid=102" in text
    assert "pid=101" not in text
    assert "1.00 s  engine phase     name=train" in text
    assert "RSS main 3 MiB, no GPU (no NVML); 2 processes, 1.50 s after the start" in text
    assert "    Traceback:\n      line 7" in text
    assert text.endswith("    last words")
    assert text.count("first") == post_mortem.MAX_LOG_LINES - 1
    assert "traceback:" not in "\n".join(post_mortem.post_mortem_lines(tmp_path / "run", 1))


def test_a_run_folder_that_is_gone_is_said(tmp_path: Path) -> None:
    text = "\n".join(post_mortem.post_mortem_lines(tmp_path / "gone", 1))
    assert "the journal is gone" in text
    assert "no sample" in text
    assert "(empty)" in text
