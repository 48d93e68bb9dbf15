"""A suite that is suspended: by its time limit, by a scheduler's signal, and continued later."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest
import typer

from tests.fixtures.wardens import Sandbox, until
from workbench.cli.options import parse_duration
from workbench.exit_codes import ExitCode
from workbench.headless.follow import exit_status
from workbench.suites import control, suite_reader, warden_file
from workbench.suites.control import Command
from workbench.supervisor import resume


@pytest.fixture
def sandbox(tmp_path: Path) -> Iterator[Sandbox]:
    with Sandbox(tmp_path) as sandbox:
        yield sandbox


def causes(folder: Path) -> list[str]:
    return [run.state.cause for run in suite_reader.SuiteReader(folder).poll().runs]


def test_at_the_time_limit_the_step_ends_and_the_suite_is_continued_later(sandbox: Sandbox) -> None:
    """Also on another machine, to which its log root was copied."""
    folder = sandbox.suite("polite", "ok")
    for again in (False, True):
        sandbox.start(folder, resume=again, time_limit=2.0)
        state = sandbox.finish(folder)
        assert causes(folder) == ["stopped", "stopped"]
        assert "time limit of 2 s; `workbench resume` goes on" in state.detail
        assert exit_status(state) is ExitCode.TO_BE_CONTINUED
        sandbox.logs = sandbox.logs.rename(sandbox.root / f"copy {again}")
        folder = sandbox.logs / folder.name
        warden = warden_file.read_warden(folder)
        assert warden is not None
        elsewhere = {"host": "elsewhere", "place": "elsewhere"}
        warden_file.write_warden(folder, warden.model_copy(update=elsewhere))
        assert len(resume.prepare_resume(folder)) == 2


def test_a_schedulers_signal_suspends_and_the_next_warden_forgets_it(sandbox: Sandbox) -> None:
    """SIGUSR2: `test_run_warden.py`."""
    number = signal.SIGUSR1
    folder = sandbox.suite("polite", "ok")
    warden = sandbox.start(folder)
    sandbox.until_step(folder)
    reader = suite_reader.SuiteReader(folder)
    os.kill(reader.poll().warden_pid or warden.pid, number)
    state = sandbox.finish(folder)
    assert causes(folder) == ["stopped", "stopped"]
    assert number.name in state.detail
    assert exit_status(state) is ExitCode.TO_BE_CONTINUED
    sandbox.start(folder, resume=True)
    sandbox.until_step(folder)
    control.send_command(folder, Command(do="stop"))
    assert exit_status(sandbox.finish(folder)) is ExitCode.INTERRUPTED


def test_a_suite_that_ends_before_its_limit_has_completed(sandbox: Sandbox) -> None:
    folder = sandbox.suite("ok")
    sandbox.start(folder, time_limit=300.0)
    assert exit_status(sandbox.finish(folder)) is ExitCode.COMPLETED


def test_a_stop_by_a_person_is_no_suspension(sandbox: Sandbox) -> None:
    folder = sandbox.suite("polite")
    sandbox.start(folder)
    sandbox.until_step(folder)
    control.send_command(folder, Command(do="stop"))
    until(lambda: suite_reader.SuiteReader(folder).poll().warden != "running", "stopping")
    control.send_command(folder, Command(do="suspend"))
    assert exit_status(sandbox.finish(folder)) is ExitCode.INTERRUPTED


@pytest.mark.parametrize(
    ("text", "seconds"), [("11h30m", 41_400), ("90m", 5400), ("45s", 45), ("11:30:00", 41_400)]
)
def test_a_duration_is_written_as_people_and_slurm_write_it(text: str, seconds: float) -> None:
    assert parse_duration(text) == seconds


@pytest.mark.parametrize("text", ["", "0m", "2%", "11.5h", "1:2", "-1h"])
def test_other_durations_are_refused(text: str) -> None:
    with pytest.raises(typer.BadParameter, match="write 11h30m, 90m or 11:30:00"):
        parse_duration(text)
