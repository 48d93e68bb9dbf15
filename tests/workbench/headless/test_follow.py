"""Following and listing suites without a screen."""

from __future__ import annotations

import errno
import json
import os
import signal
import subprocess
from pathlib import Path

import pytest

from tests.workbench.tui import sample_suites
from workbench.exit_codes import ExitCode
from workbench.headless import follow
from workbench.headless.renderers import OutputMode
from workbench.suites import warden_file
from workbench.suites.state import SuiteState
from workbench.supervisor import launch, recovery
from workbench.supervisor.warden_options import WardenOptions

CELLS = [("emoji_train", "clip-nano")]


@pytest.fixture
def dead_suite(tmp_path: Path) -> Path:
    """A suite whose warden died."""
    folder = sample_suites.make_suite(tmp_path, CELLS, state="running")
    warden = warden_file.read_warden(folder)
    assert warden is not None
    warden_file.write_warden(folder, warden.model_copy(update={"start_ticks": 1}))
    return folder


def test_the_last_row_has_the_exit_code_of_the_process(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Ctrl-C just before a suite completes."""

    def interrupt(folder: Path, *_: object) -> SuiteState:
        os.kill(os.getpid(), signal.SIGINT)
        return SuiteState(folder.name, "ended")

    warden = subprocess.Popen(["true"])
    launched = launch.LaunchedWarden(warden.pid, None, warden)
    monkeypatch.setattr(launch, "start_warden", lambda *_, **__: launched)
    monkeypatch.setattr(follow, "_follow_suite", interrupt)
    monkeypatch.setattr(follow, "_print_results", lambda *_: None)
    status = follow.run_foreground(tmp_path, OutputMode.JSON, WardenOptions())
    warden.wait()
    last = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert (last["exit"], status) == (ExitCode.INTERRUPTED, ExitCode.INTERRUPTED)


def test_a_suite_that_cannot_be_completed_is_listed(
    dead_suite: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def refuse(_: Path) -> None:
        raise OSError(errno.EROFS, "Read-only file system")

    monkeypatch.setattr(recovery, "recover_dead_suite", refuse)
    follow.list_suites(dead_suite.parent, everything=True, as_json=True)
    captured = capsys.readouterr()
    assert json.loads(captured.out)["state"] == "lost"
    assert "cannot be completed (Read-only file system)" in captured.err


def test_a_suite_that_went_on_meanwhile_is_not_marked_as_lost(
    dead_suite: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """`workbench resume` of another terminal, while the lock is waited for."""
    acquire, before = recovery._acquire_lock, warden_file.read_warden(dead_suite)
    assert before is not None

    def acquire_late(lock: Path, seconds: float) -> int | None:
        resumed = before.model_copy(update={"token": "another", "state": "ended"})
        warden_file.write_warden(dead_suite, resumed)
        return acquire(lock, seconds)

    monkeypatch.setattr(recovery, "_acquire_lock", acquire_late)
    assert recovery.recover_dead_suite(dead_suite) == []
    now = warden_file.read_warden(dead_suite)
    assert now is not None
    assert now.state == "ended"
