"""Following a suite without the screen: lines, a live table or JSON, and the exit code.

Like the TUI this is only a reader. What makes `run` special is the life pipe: the warden ends the
suite when its other end closes, so a foreground run that dies leaves nothing behind.
"""

from __future__ import annotations

import json
import signal
import sys
import time
from pathlib import Path
from typing import Final

from results.text.sanitize import clean
from workbench.exit_codes import ExitStatus
from workbench.headless.renderers import Mode, emit, say, talk, view_of
from workbench.processes import logout
from workbench.processes.process_state import handle_signals
from workbench.suites import suite
from workbench.suites.state import GOOD, SuiteState
from workbench.supervisor import launch

POLL_SECONDS: Final = 0.5


def foreground(folder: Path, mode: Mode, *, share: bool, resume: bool = False) -> ExitStatus:
    """Start the warden, follow the suite to its end; Ctrl-C stops it, twice at once."""
    launched = launch.start_warden(folder, foreground=True, share=share, resume=resume)
    say(mode, {"kind": "launch", "suite": folder.name, "pid": launched.pid}, f"suite {folder.name}")
    presses = 0

    def on_signal(number: int, _frame: object) -> None:
        nonlocal presses
        presses += 1
        if presses == 1 and number == signal.SIGINT:
            suite.send(folder, suite.Command(do="stop"))
            talk("stopping after this step and its checkpoint; Ctrl-C again ends it at once")
        elif launched.life_fd is not None:
            launch.hang_up(launched)  # the warden sees the end of its life pipe
            talk("ending the engine now")

    with handle_signals((signal.SIGINT, signal.SIGTERM, signal.SIGHUP), on_signal):
        state = _follow(folder, mode)
    _say_what_is_left(state)
    _print_results(folder, mode)
    status = exit_status(state)
    say(mode, {"kind": "done", "suite": folder.name, "exit": int(status)}, "")
    return ExitStatus.INTERRUPTED if presses else status


def detach(folder: Path, mode: Mode, *, share: bool, resume: bool = False) -> ExitStatus:
    """Start the warden and return; the suite's name goes to stdout."""
    launched = launch.start_warden(folder, foreground=False, share=share, resume=resume)
    if mode is Mode.JSON:
        say(mode, {"kind": "launch", "suite": folder.name, "pid": launched.pid}, "")
    else:
        print(folder.name)
        talk(f"runs on by itself; `workbench attach {folder.name}` shows it")
    if sentence := logout.problem():
        talk(sentence)
    return ExitStatus.COMPLETED


def attach(folder: Path, mode: Mode) -> ExitStatus:
    """Follow a suite that runs or has ended; Ctrl-C detaches and stops nothing."""
    try:
        state = _follow(folder, mode)
    except KeyboardInterrupt:
        talk(f"detached; {folder.name} goes on")
        return ExitStatus.COMPLETED
    _say_what_is_left(state)
    _print_results(folder, mode)
    return exit_status(state)


def stop(folder: Path, timeout_seconds: float) -> ExitStatus:
    """Ask the warden to stop and wait until nothing of the suite runs any more."""
    reader = suite.Reader(folder)
    if not reader.poll().ended:
        suite.send(folder, suite.Command(do="stop"))
    deadline = time.monotonic() + timeout_seconds
    while not (state := reader.poll()).ended:
        if time.monotonic() > deadline:
            talk(f"{folder.name} has not ended within {timeout_seconds:g} s; it is still stopping")
            return ExitStatus.FAILED
        time.sleep(POLL_SECONDS)
    if state.warden == "lost":
        launch.reconcile(folder)
    talk(f"{folder.name} has ended")
    return ExitStatus.COMPLETED


def list_suites(log_root: Path, *, everything: bool, as_json: bool) -> None:
    """One line per suite, newest first. Suites without a warden get their last entries now."""
    shown = 0
    for folder in suite.suites(log_root):
        try:
            state = suite.Reader(folder).poll()
        except suite.SuiteError as error:  # of one suite; the others are listed all the same
            talk(str(error))
            continue
        if state.warden == "lost":
            launch.reconcile(folder)
        if state.ended and not everything:
            continue
        shown += 1
        ended = sum(r.state.status == "ended" for r in state.runs)
        row = {
            "suite": folder.name, "state": state.warden, "runs": state.total, "ended": ended,
            "pid": state.warden_pid, "detail": state.detail,
        }  # fmt: skip
        if as_json:
            print(json.dumps(row))
        else:
            detail = f"  {clean(state.detail)}" if state.detail else ""
            counted = f"{ended}/{state.total} {state.unit}"
            print(f"{clean(folder.name):<40} {state.warden:<9} {counted}{detail}")
    if not shown and not as_json:
        where = clean(str(log_root))
        idle = "no suites yet" if everything else "no suite is at work; --all lists the ended ones"
        print(f"workbench: {where}: {idle}", file=sys.stderr)


def exit_status(state: SuiteState) -> ExitStatus:
    """The exit code that a suite has earned."""
    causes = [r.state.cause or "unknown" for r in state.runs]
    if state.records_lost or any(cause not in GOOD for cause in causes):
        return ExitStatus.FAILED
    if "stopped" in causes or (state.to_come and state.detail.startswith("stopped")):
        return ExitStatus.INTERRUPTED
    if state.to_come:  # the search broke off; the detail says why
        return ExitStatus.FAILED
    completed = [r for r in state.runs if r.state.cause == "completed"]
    probed = [r for r in completed if r.spec.probe is not None]
    if probed and len(probed) == len(completed) and not any(r.state.timed_steps for r in probed):
        return ExitStatus.NOTHING_MEASURED
    return ExitStatus.COMPLETED


def _follow(folder: Path, mode: Mode) -> SuiteState:
    reader = suite.Reader(folder)
    view = view_of(mode, folder)
    try:
        while True:
            state = reader.poll()
            view.show(state)
            if state.ended:
                break
            time.sleep(POLL_SECONDS)
        if state.warden == "lost":
            launch.reconcile(folder)
            state = reader.poll()
            view.show(state)
        return state
    finally:
        view.close()


def _say_what_is_left(state: SuiteState) -> None:
    """Trials of a search that are still to come, and records that could not be written."""
    if state.to_come:
        why = f" ({state.detail})" if state.detail else ""
        left = f"{state.to_come} of {state.trials} trials are left"
        talk(f"{left}{why}; `workbench resume {state.name}` goes on")
    if state.records_lost:
        talk(
            f"records that could not be written to results.jsonl: {state.records_lost}; warden.log "
            "says why, and each run's summary.json has its record"
        )


def _print_results(folder: Path, mode: Mode) -> None:
    """The suite's records: Markdown tables, or JSON lines."""
    from workbench.reporting import suite_view

    if mode is Mode.JSON:
        for record in suite_view.suite_records(folder):
            emit({"kind": "record", **json.loads(record.model_dump_json())})
    else:
        print(suite_view.summary(folder))
