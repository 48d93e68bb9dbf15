"""Start, follow, list and stop suites without the TUI; exit codes of the commands.

Following only reads the suite's folder. A foreground run also holds the life pipe: the warden ends
the suite when the other end closes, so a foreground process that dies leaves nothing behind.
"""

from __future__ import annotations

import json
import signal
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType
from typing import Any, Final

from results.text.sanitize import clean
from workbench.exit_codes import ExitCode
from workbench.headless.renderers import (
    OutputMode,
    make_renderer,
    print_event,
    print_json,
    print_log_line,
)  # fmt: skip
from workbench.processes import logout
from workbench.suites import control, suite, suite_reader
from workbench.suites.run_summary import format_outcomes
from workbench.suites.state import CLEAN_CAUSES, SuiteState
from workbench.supervisor import launch, recovery
from workbench.supervisor.warden_options import WardenOptions

POLL_SECONDS: Final = 0.5
Handler = Callable[[int, FrameType | None], Any]


@contextmanager
def handle_signals(numbers: tuple[signal.Signals, ...], handler: Handler) -> Iterator[None]:
    """Handle signals for the duration of a block.

    A signal that is ignored stays ignored: `nohup` ignores SIGHUP so that the command outlives its
    terminal, and a shell script ignores SIGINT for what it starts with `&`.
    """
    previous = {number: signal.getsignal(number) for number in numbers}
    handled = [number for number in numbers if previous[number] is not signal.SIG_IGN]
    for number in handled:
        signal.signal(number, handler)
    try:
        yield
    finally:
        for number in handled:
            signal.signal(number, previous[number] or signal.SIG_DFL)


def run_foreground(
    folder: Path, mode: OutputMode, options: WardenOptions, interval: float | None = None
) -> ExitCode:
    """Start the warden and follow the suite to its end; `interval`: of `make_renderer`.

    Ctrl-C stops the suite after a step and its checkpoint; a second one ends it at once. SIGUSR1
    and SIGUSR2 suspend it: stopped in the same way, exit code 75, to be continued.
    """
    launched = launch.start_warden(folder, foreground=True, options=options)
    print_event(
        mode, {"kind": "launch", "suite": folder.name, "pid": launched.pid}, f"suite {folder.name}"
    )
    presses = 0

    def on_signal(number: int, _frame: object) -> None:
        nonlocal presses
        presses += 1
        if presses == 1 and number == signal.SIGINT:
            control.send_command(folder, control.Command(do="stop"))
            print_log_line(
                "stopping after this step and its checkpoint; Ctrl-C again ends it at once"
            )
        elif launched.life_fd is not None:
            launch.close_life_pipe(launched)  # the warden sees the end of its life pipe
            print_log_line("ending the engine now")

    def on_suspend(number: int, _frame: object) -> None:
        control.send_command(folder, control.Command(do="suspend"))
        name = signal.Signals(number).name
        print_log_line(f"{name}: stopping after this step and its checkpoint, to be continued")

    with (
        handle_signals((signal.SIGINT, signal.SIGTERM, signal.SIGHUP), on_signal),
        handle_signals((signal.SIGUSR1, signal.SIGUSR2), on_suspend),
    ):
        state = _follow_suite(folder, mode, interval)
    _print_unfinished(state)
    _print_results(folder, mode)
    status = ExitCode.INTERRUPTED if presses else exit_status(state)
    print_event(mode, {"kind": "done", "suite": folder.name, "exit": int(status)}, "")
    return status


def run_detached(folder: Path, mode: OutputMode, options: WardenOptions) -> ExitCode:
    """Start the warden and return; prints the suite's name to stdout."""
    launched = launch.start_warden(folder, foreground=False, options=options)
    if mode is OutputMode.JSON:
        print_event(mode, {"kind": "launch", "suite": folder.name, "pid": launched.pid}, "")
    else:
        print(folder.name)
        print_log_line(f"runs on by itself; `workbench attach {folder.name}` shows it")
    if sentence := logout.find_problem():
        print_log_line(sentence)
    return ExitCode.COMPLETED


def attach_suite(folder: Path, mode: OutputMode, interval: float | None = None) -> ExitCode:
    """Follow a running or ended suite; Ctrl-C detaches and stops nothing."""
    try:
        state = _follow_suite(folder, mode, interval)
    except KeyboardInterrupt:
        print_log_line(f"detached; {folder.name} goes on")
        return ExitCode.COMPLETED
    _print_unfinished(state)
    _print_results(folder, mode)
    return exit_status(state)


def stop_suite(folder: Path, timeout_seconds: float) -> ExitCode:
    """Ask the warden to stop, and wait until no process of the suite runs."""
    reader = suite_reader.SuiteReader(folder)
    if not reader.poll().ended:
        control.send_command(folder, control.Command(do="stop"))
        recovery.recover_tasks(folder, unsubmitted=True)
    deadline = time.monotonic() + timeout_seconds
    while not (state := reader.poll()).ended:
        if time.monotonic() > deadline:
            print_log_line(
                f"{folder.name} has not ended within {timeout_seconds:g} s; it is still stopping"
            )
            return ExitCode.FAILED
        time.sleep(POLL_SECONDS)
    if state.warden == "lost":
        _recover(folder)
    print_log_line(f"{folder.name} has ended")
    return ExitCode.COMPLETED


def _recover(folder: Path) -> None:
    """Complete the journals of a suite whose warden died, where its folder can be written."""
    try:
        recovery.recover_dead_suite(folder)
    except OSError as error:  # a full disk, or a log root that is mounted to be read only
        print_log_line(f"{folder.name}: its journals cannot be completed ({error.strerror})")


def list_suites(log_root: Path, *, everything: bool, as_json: bool) -> None:
    """Print one line per suite, newest first; completes the journals of suites that lost theirs."""
    shown = 0
    for folder in suite.list_suites(log_root):
        try:
            state = suite_reader.SuiteReader(folder).poll()
        except suite.SuiteError as error:  # of one suite; the others are still listed
            print_log_line(str(error))
            continue
        if state.warden == "lost":
            _recover(folder)
        if state.ended and not everything:
            continue
        shown += 1
        ended = sum(r.state.status == "ended" for r in state.runs)
        completed = sum(r.state.cause == "completed" for r in state.runs)
        row = {
            "suite": folder.name, "state": state.warden, "runs": state.total, "ended": ended,
            "completed": completed, "pid": state.warden_pid, "detail": state.detail,
        }  # fmt: skip
        if as_json:
            print(json.dumps(row))
        else:
            detail = f"  {clean(state.detail)}" if state.detail else ""
            print(f"{clean(folder.name):<40} {state.warden:<9} {format_outcomes(state)}{detail}")
    if not shown and not as_json:
        location = clean(str(log_root))
        message = (
            "no suites yet" if everything else "no suite is at work; --all lists the ended ones"
        )
        print(f"workbench: {location}: {message}", file=sys.stderr)


def exit_status(state: SuiteState) -> ExitCode:
    """The exit code of a suite, by its runs' causes, lost records and trials to come."""
    causes = [r.state.cause or "unknown" for r in state.runs]
    if state.records_lost or any(cause not in CLEAN_CAUSES for cause in causes):
        return ExitCode.FAILED
    if "stopped" in causes or (state.to_come and state.detail.startswith("stopped")):
        return ExitCode.TO_BE_CONTINUED if state.suspended else ExitCode.INTERRUPTED
    if state.to_come:  # the search was aborted; the detail has the reason
        return ExitCode.FAILED
    completed = [r for r in state.runs if r.state.cause == "completed"]
    probed = [r for r in completed if r.spec.probe is not None]
    if probed and len(probed) == len(completed) and not any(r.state.timed_steps for r in probed):
        return ExitCode.NOTHING_MEASURED
    return ExitCode.COMPLETED


def _follow_suite(folder: Path, mode: OutputMode, interval: float | None) -> SuiteState:
    reader = suite_reader.SuiteReader(folder)
    renderer = make_renderer(mode, folder, interval)
    try:
        while True:
            state = reader.poll()
            renderer.show(state)
            if state.ended:
                break
            time.sleep(POLL_SECONDS)
        if state.warden == "lost":
            _recover(folder)
            state = reader.poll()
            renderer.show(state)
        return state
    finally:
        renderer.close()


def _print_unfinished(state: SuiteState) -> None:
    """Print what is left of a suspended suite or a search, and records that were not written."""
    if state.suspended and exit_status(state) is ExitCode.TO_BE_CONTINUED:
        stopped = sum(run.state.cause == "stopped" for run in state.runs)
        print_log_line(
            f"to be continued: {stopped} of {len(state.runs)} runs are left; "
            f"`workbench resume {state.name}` goes on from their checkpoints"
        )
    if state.to_come:
        detail = f" ({state.detail})" if state.detail else ""
        unfinished = f"{state.to_come} of {state.trials} trials are left"
        print_log_line(f"{unfinished}{detail}; `workbench resume {state.name}` goes on")
    if state.records_lost:
        print_log_line(
            f"records that could not be written to results.jsonl: {state.records_lost}; warden.log "
            "says why, and each run's summary.json has its record"
        )


def _print_results(folder: Path, mode: OutputMode) -> None:
    """Print the suite's records as Markdown tables or JSON rows."""
    from workbench.reporting import report_process, suite_view

    if mode is OutputMode.JSON:
        for record in suite_view.read_suite_records(folder):
            print_json({"kind": "record", **json.loads(record.model_dump_json())})
    else:
        report_process.print_document(suite_view.format_summary(folder) + "\n")
        if sys.stdout.isatty():
            report = f"workbench report {folder.name}"
            print(f"Next: `{report}` has all of it, `workbench` the screens.", file=sys.stderr)
