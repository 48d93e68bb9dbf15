"""`workbench pause`, `skip`, `cancel`, `restore`, `logs` on suites as a warden leaves them."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest
from typer.testing import CliRunner, Result

from engines import messages
from tests.workbench.tui import sample_suites
from workbench.cli.main import app
from workbench.suites import control, suite

CELLS = [("emoji_train", "clip-nano"), ("emoji_train", "effnet-minilm"), ("emoji_val", "clip-nano")]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A suite at work: its first run trains, two are queued."""
    made = sample_suites.make_suite(tmp_path, CELLS, state="running", pid=os.getpid())
    run, _ = suite.read_runs(made)[0]
    journal = sample_suites.Journal(run / "events.jsonl", 1_795_000_000.0)
    journal.put(messages.Attempt(t=0.0, number=1, pid=os.getpid()))
    (run / "engine.log").write_text("".join(f"line {n}\n" for n in range(300)) + "evil \x1b[2J\n")
    return made


def workbench(folder: Path, *words: str) -> Result:
    return CliRunner().invoke(app, [*words, "--log-root", str(folder.parent)])


def orders(folder: Path) -> list[tuple[str, str | None]]:
    return [(command.do, command.run) for command in control.read_commands(folder, 0)[0]]


def test_orders_are_written_and_say_when_they_take_effect(folder: Path) -> None:
    first, second, third = (spec.run_id for _, spec in suite.read_runs(folder))
    assert "after the run at work" in workbench(folder, "pause").stderr
    assert "after its step" in workbench(folder, "skip").stderr
    row = json.loads(workbench(folder, "cancel", "effnet", "--json").stdout)
    assert row == {
        "suite": folder.name, "do": "cancel", "run": second, "effect": "when its turn comes",
    }  # fmt: skip
    workbench(folder, "cancel", "emoji_val", "--suite", "weekly")
    workbench(folder, "restore", "emoji_val")
    assert orders(folder) == [
        ("pause", None), ("skip", first), ("cancel", second), ("cancel", third),
        ("restore", third),
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (["cancel", "clip-nano", "--suite", "nope"], "no suite 'nope'"),
        (["cancel", "nope"], "'nope' is no run that is queued: 02-"),
        (["cancel", "emoji"], "'emoji' fits 2 runs: 02-"),
        (["restore", "effnet"], "'effnet' is no run that is queued and cancelled"),
        (["skip", "effnet"], "'effnet' is no run that is at work: 01-"),
        (["logs", "effnet"], "'effnet' is no run that is started"),
    ],
)
def test_what_cannot_be_ordered_is_a_sentence(
    folder: Path, words: list[str], sentence: str
) -> None:
    done = workbench(folder, *words)
    assert sentence in (done.stderr or str(done.exception))
    assert orders(folder) == []


def test_an_ended_suite_takes_no_orders(tmp_path: Path) -> None:
    ended = sample_suites.make_suite(tmp_path, CELLS, state="ended")
    for words in (["pause"], ["skip"], ["cancel", "clip"]):
        done = workbench(ended, *words)
        assert (done.exit_code, "has ended" in done.stderr) == (2, True)


def test_the_log_is_that_of_the_run_at_work_without_control_characters(folder: Path) -> None:
    lines = workbench(folder, "logs").stdout.splitlines()
    assert (len(lines), lines[0], lines[-1]) == (200, "line 101", "evil \\x1b[2J")
    assert len(workbench(folder, "logs", "-n", "0").stdout.splitlines()) == 301
    row = json.loads(workbench(folder, "logs", "clip", "-n", "1", "--json").stdout)
    assert row["run"].startswith("01-")
    (next(folder.glob("runs/01-*")) / "engine.log").unlink()
    assert (
        "01-retrieval-emoji_train-clip-nano has written nothing" in workbench(folder, "logs").stderr
    )


def test_a_log_is_followed_to_the_end_of_its_run(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from workbench.cli import control as commands

    run, _ = suite.read_runs(folder)[0]
    log = run / "engine.log"

    def write_more(_: float) -> None:
        journal = sample_suites.Journal(run / "events.jsonl", 1_795_000_000.0, seq=1)
        journal.put(messages.End(t=1.0, cause="completed", exit_code=0))
        log.write_text(log.read_text() + " a line\nthe end")

    log.write_text(log.read_text() + "half")
    monkeypatch.setattr(commands.time, "sleep", write_more)
    lines = workbench(folder, "logs", "--follow", "-n", "2").stdout.splitlines()
    assert lines == ["line 299", "evil \\x1b[2J", "half a line", "the end"]
