"""Control actions on a suite: ask for confirmation, send the command, tell what became of it."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from results.text.sanitize import clean_line
from workbench.tui.screens.dialogs import ConfirmDialog
from workbench.tui.system import cli_commands
from workbench.tui.view_models import control_actions

if TYPE_CHECKING:
    from workbench.suites.state import RunView
    from workbench.tui.app import WorkbenchApp
    from workbench.tui.view_models.suite_feed import SuiteSnapshot


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
