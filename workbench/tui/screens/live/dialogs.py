"""Dialogs of the Live screen: control actions on a suite, curves, earlier runs behind them."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from results.text.sanitize import clean_line
from workbench.tui.screens.dialogs import ChoiceDialog, ConfirmDialog, MessageDialog
from workbench.tui.system import cli_commands, idle_loop
from workbench.tui.view_models import control_actions, suite_feed
from workbench.tui.view_models.live import charts as live_charts
from workbench.tui.view_models.live import lines as live_lines
from workbench.tui.view_models.live import rows as live_rows

if TYPE_CHECKING:
    from workbench.suites.state import RunView
    from workbench.tui.app import WorkbenchApp
    from workbench.tui.view_models.suite_feed import SuiteSnapshot
    from workbench.tui.widgets.charts.chart_panel import ChartPanel


def ask_action(
    app: WorkbenchApp,
    do: control_actions.ControlAction,
    snapshot: SuiteSnapshot,
    view: RunView | None,
    on_sent: Callable[[], object],
) -> None:
    """Ask about an action on the suite or the run `view`; `on_sent` is called after a yes."""
    question = control_actions.make_question(do, snapshot.suite, view)
    if question.refusal:
        app.notify(question.refusal, timeout=6)
        return

    async def send() -> None:
        if question.do == "resume" and snapshot.suite.ended:
            app.notify(question.confirmation)
            await _resume_suite(app, snapshot.folder)
        else:
            await _send_command(app, snapshot.folder, question)
        on_sent()

    def on_answer(yes: bool | None) -> None:
        if yes:
            app.run_worker(send(), group="steer")

    app.push_screen(ConfirmDialog(question.title, question.text, question.yes), on_answer)


async def _send_command(
    app: WorkbenchApp, folder: Path, question: control_actions.Question
) -> None:
    from workbench.suites import control

    command = control.Command(do=question.do, run=question.run)
    try:
        await asyncio.to_thread(control.send_command, folder, command)
    except OSError as error:
        app.notify(f"The warden cannot be told: {error.strerror}", severity="error")
        return
    app.notify(question.confirmation)


async def _resume_suite(app: WorkbenchApp, folder: Path) -> None:
    done = await cli_commands.run_workbench(
        cli_commands.resume_arguments(folder.name, folder.parent)
    )
    if done.code:
        app.notify(clean_line(done.error.strip()), severity="error", timeout=10)
    else:
        app.notify(f"{folder.name} goes on.")


def show_audit(app: WorkbenchApp, run: str) -> None:
    """Show the faults of a run, with evidence and remedy."""

    screen = app.screen

    async def show() -> None:
        app.notify("Judging the run …")
        done = await cli_commands.run_workbench(cli_commands.audit_arguments(run, app.log_root))
        if text := done.output.strip():
            app.open_late(screen, MessageDialog(f"Audit of {run}", text), lambda _: None)
        elif done.code:
            app.notify(clean_line(done.problem, 400), severity="error", timeout=10)
        else:
            app.notify("No rule names a fault of this run.")

    app.run_worker(show(), group="audit", exclusive=True)


def ask_experiment(app: WorkbenchApp, run: str) -> None:
    """Ask for an experiment on a run, those that its faults ask for first, and start it."""

    screen = app.screen

    async def ask() -> None:
        app.notify("Looking for experiments …")
        listing = cli_commands.experiment_arguments(run, app.log_root)
        done = await cli_commands.run_workbench([*listing, "--json"])
        if done.code:
            app.notify(clean_line(done.problem, 400), severity="error", timeout=10)
            return
        proposals = [json.loads(line) for line in done.output.split("\n") if line]
        rows = [live_lines.experiment_row(proposal) for proposal in proposals]

        def on_choice(chosen: str | None) -> None:
            proposal = next((p for p in proposals if p["experiment"] == chosen), None)
            if proposal is not None and proposal["problem"]:
                app.notify(clean_line(proposal["problem"], 400), title="Impossible", timeout=10)
            elif proposal is not None:
                app.run_worker(_start_experiment(app, run, proposal["experiment"]), group="steer")

        keys = [proposal["experiment"] for proposal in proposals]
        title = "Experiments on this run; the finding is noted on it"
        dialog = ChoiceDialog(title, live_lines.EXPERIMENTS, rows, keys)
        app.open_late(screen, dialog, on_choice)

    app.run_worker(ask(), group="experiment", exclusive=True)


async def _start_experiment(app: WorkbenchApp, run: str, code: str) -> None:
    app.notify(f"Starting {code} …")
    done = await cli_commands.run_workbench(
        cli_commands.experiment_arguments(run, app.log_root, code)
    )
    if done.code:
        app.notify(clean_line(done.problem, 400), title=code, severity="error", timeout=10)
    else:
        app.notify("o shows its suite; Results have the finding.", title=f"{code} has started")


def ask_curve(
    app: WorkbenchApp, panel: ChartPanel, view: RunView | None, on_chosen: Callable[[], object]
) -> None:
    """Ask for the curve of the chart that is shown alone, else of the first one."""
    rows = live_charts.curve_rows(view.state if view else None)

    def on_choice(chosen: str | None) -> None:
        if chosen is not None:
            panel.set_curve(chosen)
            on_chosen()

    cells = [(title, last) for _, title, last in rows]
    keys = [name for name, _, _ in rows]
    here = panel.options.curves.get(panel.chosen, panel.chosen)
    dialog = ChoiceDialog("Curve", live_rows.CURVES, cells, keys, here=here, empty="No curve yet.")
    app.push_screen(dialog, on_choice)


def ask_reference(
    app: WorkbenchApp,
    panel: ChartPanel,
    folder: Path,
    view: RunView,
    on_shown: Callable[[], object],
) -> None:
    """Ask for an earlier run, and draw its curves behind those of `view`, a run of `folder`."""

    async def read(run: Path) -> None:
        try:
            reading = asyncio.to_thread(suite_feed.read_run, run, idle_loop.give_way)
            panel.set_reference(await reading)
        except (OSError, ValueError) as error:
            app.notify(clean_line(str(error)), title="Not readable", severity="error")
        on_shown()

    screen = app.screen

    async def ask() -> None:
        runs = await asyncio.to_thread(suite_feed.list_references, app.log_root, folder, view)
        rows = [(clean_line(run.name), clean_line(run.parent.parent.name)) for run in runs]

        def on_choice(chosen: str | None) -> None:
            if chosen is not None:
                app.run_worker(read(Path(chosen)), group="reference")

        dialog = ChoiceDialog(
            "Earlier run behind the curves", live_rows.CURVES, rows, list(map(str, runs)),
            empty="No other run of this subset or model has curves.",
        )  # fmt: skip
        app.open_late(screen, dialog, on_choice)

    app.run_worker(ask(), group="reference")
