"""`workbench pause`, `skip`, `cancel`, `restore`, `logs`: what the keys of the Live screen do."""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Final, Literal

import typer

from workbench.cli import completion
from workbench.cli.options import AsJson, LogRoot, WorkingSuiteName, fail

if TYPE_CHECKING:
    from workbench.suites.state import RunView, SuiteState

FOLLOW_SECONDS: Final = 0.5
LOG_LINES: Final = 200

SuiteOption = Annotated[
    str | None,
    typer.Option(
        "--suite", metavar="SUITE", help="A suite's name or a part; default: the one at work.",
        autocompletion=completion.complete_suites,
    ),
]  # fmt: skip
RunNames = Annotated[
    list[str],
    typer.Argument(
        metavar="RUN...", help="Ids of queued runs, or parts of them.",
        autocompletion=completion.complete_suite_runs,
    ),
]  # fmt: skip
OptionalRun = Annotated[
    str | None,
    typer.Argument(
        metavar="[RUN]", help="An id or a part of it; default: the run at work.",
        autocompletion=completion.complete_suite_runs,
    ),
]  # fmt: skip


def register(app: typer.Typer) -> None:
    """Add the commands to `workbench`."""
    for command in (pause, skip, cancel, restore, logs):
        app.command(command.__name__)(command)


def pause(name: WorkingSuiteName = None, log_root: LogRoot = None, as_json: AsJson = False) -> None:
    """Pause a suite after the run at work; `workbench resume` starts the next one."""
    folder, state = _find_suite(log_root, name)
    _refuse_ended(state)
    if located := [view.location for view in state.runs if view.location]:
        fail(f"Slurm starts the runs of {state.name} ({located[0]}); use `scontrol hold`")
    _send(folder, "pause", None, "after the run at work; `workbench resume` goes on", as_json)


def skip(
    run: OptionalRun = None, suite: SuiteOption = None, log_root: LogRoot = None,
    as_json: AsJson = False,
) -> None:  # fmt: skip
    """End the run at work as skipped: it finishes its step and writes a checkpoint."""
    folder, state = _find_suite(log_root, suite)
    _refuse_ended(state)
    at_work = [view for view in state.runs if view.state.status in ("starting", "running")]
    if not at_work:
        fail(f"{state.name}: no run is at work; `workbench cancel RUN` is for a queued one")
    if run is None and len(at_work) > 1:  # on several lanes
        ids = ", ".join(view.spec.run_id for view in at_work)
        fail(f"{state.name}: {len(at_work)} runs are at work; name one of {ids}")
    view = at_work[0] if run is None else _find_run(at_work, run, "at work")
    _send(folder, "skip", view.spec.run_id, "after its step and a checkpoint", as_json)


def cancel(
    runs: RunNames, suite: SuiteOption = None, log_root: LogRoot = None, as_json: AsJson = False
) -> None:
    """Take queued runs out of a suite; `workbench restore` takes that back."""
    folder, state = _find_suite(log_root, suite)
    _refuse_ended(state)
    queued = [view for view in state.runs if view.state.status == "queued"]
    for view in [_find_run(queued, name, "queued") for name in runs]:
        _send(folder, "cancel", view.spec.run_id, "when its turn comes", as_json)


def restore(
    runs: RunNames, suite: SuiteOption = None, log_root: LogRoot = None, as_json: AsJson = False
) -> None:
    """Take back that queued runs are skipped or cancelled."""
    folder, state = _find_suite(log_root, suite)
    _refuse_ended(state)
    queued = [view for view in state.runs if view.state.status == "queued"]
    removed = [view for view in queued if view.spec.run_id in state.orders.removed]
    for view in [_find_run(removed, name, "queued and cancelled") for name in runs]:
        _send(folder, "restore", view.spec.run_id, "it runs when its turn comes", as_json)


def logs(
    run: OptionalRun = None,
    suite: SuiteOption = None,
    lines: Annotated[
        int, typer.Option("--lines", "-n", min=0, help="So many of the last lines; 0: all.")
    ] = LOG_LINES,
    follow: Annotated[
        bool, typer.Option("--follow", "-f", help="Go on until the run has ended.")
    ] = False,
    log_root: LogRoot = None,
    as_json: AsJson = False,
) -> None:
    """Print engine.log of the run at work, else of the one that ended last."""
    from results.text.sanitize import clean

    folder, state = _find_suite(log_root, suite)
    started = [view for view in state.runs if view.state.status != "queued"]
    if not started:
        fail(f"{state.name}: no run has started")
    view = _find_run(started, run, "started") if run else state.current or started[-1]
    path = folder / "runs" / view.folder / "engine.log"
    is_empty = True
    for line in _follow_lines(folder, view, path, lines) if follow else _last_lines(path, lines):
        text, is_empty = clean(line), False
        row = json.dumps({"run": view.spec.run_id, "line": text}) if as_json else text
        sys.stdout.write(f"{row}\n")  # in the terminal's encoding; click would write UTF-8
        sys.stdout.flush()
    if is_empty and not as_json:
        typer.echo(f"workbench: {view.spec.run_id} has written nothing", err=True)


def _last_lines(path: Path, count: int, *, whole: bool = False) -> list[str]:
    """The last lines, or all for 0; `whole`: without one that is still being written."""
    try:
        content = path.read_bytes()
    except FileNotFoundError:
        return []
    if whole:
        content = content[: max(content.rfind(b"\n"), content.rfind(b"\r")) + 1]
    return content.decode("utf-8", "replace").splitlines()[-count:]


def _follow_lines(folder: Path, view: RunView, path: Path, count: int) -> Iterator[str]:
    """The last lines and all that come until the run has ended; an unfinished line at the end."""
    from workbench.suites.suite_reader import SuiteReader

    reader, shown, ended = SuiteReader(folder), -count if count else 0, False
    while True:
        lines = _last_lines(path, 0, whole=not ended)
        yield from lines[shown:]
        shown = len(lines)
        if ended:
            return
        time.sleep(FOLLOW_SECONDS)
        state = reader.poll()
        ended = state.ended or any(
            v.folder == view.folder and v.state.status == "ended" for v in state.runs
        )


def _find_suite(log_root: Path | None, name: str | None) -> tuple[Path, SuiteState]:
    """The suite of that name; without one the one at work, else the newest."""
    from workbench import paths
    from workbench.suites import suite, warden_file
    from workbench.suites.suite_reader import SuiteReader

    root = paths.log_root(log_root)
    folder = warden_file.choose_suite_at_work(root, name) or suite.find_suite(root, None)
    return folder, SuiteReader(folder).poll()


def _refuse_ended(state: SuiteState) -> None:
    if state.ended:
        fail(f"{state.name} has ended; `workbench ps` lists the suites at work")


def _find_run(views: list[RunView], name: str, kind: str) -> RunView:
    """The one run whose id is or holds the name."""
    exact = [view for view in views if view.spec.run_id == name]
    fitting = exact or [view for view in views if name in view.spec.run_id]
    if len(fitting) != 1:
        listed = ", ".join(view.spec.run_id for view in fitting or views)
        count = f"fits {len(fitting)} runs" if fitting else f"is no run that is {kind}"
        fail(f"'{name}' {count}" + (f": {listed}" if listed else ""))
    return fitting[0]


def _send(
    folder: Path, do: Literal["pause", "skip", "cancel", "restore"], run: str | None, effect: str,
    as_json: bool,
) -> None:  # fmt: skip
    from workbench.suites import control

    control.send_command(folder, control.Command(do=do, run=run))
    if as_json:
        typer.echo(json.dumps({"suite": folder.name, "do": do, "run": run, "effect": effect}))
    else:
        typer.echo(f"workbench: {do} {run or folder.name}: {effect}", err=True)
