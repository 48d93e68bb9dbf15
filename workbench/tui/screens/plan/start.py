"""Starting a plan: the question with what it costs, the command, and what became of it."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Final

from results.text import formats
from workbench.pricing import costs
from workbench.tui.screens.dialogs import ConfirmDialog
from workbench.tui.system import cli_commands
from workbench.tui.system.cli_commands import command_line
from workbench.tui.view_models.plan_draft import PlanDraft, PlanPreview, save_draft

if TYPE_CHECKING:
    from collections.abc import Callable

    from workbench.tui.app import WorkbenchApp

PROBE_STEPS: Final = 200
"""Timed steps of a cost probe started from the screen."""


def start_arguments(
    preview: PlanPreview, log_root: Path, *, keep: bool, probe: bool = False, after: str = ""
) -> list[str]:
    """Arguments of `workbench` that start the plan; `keep`: without runs that are done; `after`:
    suite that is to end first."""
    arguments = cli_commands.run_arguments(preview.file or Path(), log_root)
    if keep and any(run.cost.done for run in preview.runs) and not probe:
        arguments.append("--keep-done")
    arguments += ["--after", after] if after else []
    return [*arguments, *(["--cost-probe", str(PROBE_STEPS)] if probe else [])]


def ask_start(
    app: WorkbenchApp,
    preview: PlanPreview,
    arguments: list[str],
    on_yes: Callable[[], object],
) -> None:
    """Ask whether to start, with count, time, queue and command."""
    probe = "--cost-probe" in arguments
    kept = sum(bool(run.cost.done) for run in preview.runs) if "--keep-done" in arguments else 0
    count = len(preview.runs) - kept
    runs = f"{count} runs, one after the other. They go on" if count != 1 else "1 run. It goes on"
    parts = [f"{runs} when you leave this screen or the connection drops."]
    if probe:
        probes = formats.count_noun(count, "cost probe")
        parts = [f"{probes} of {PROBE_STEPS} steps, to forecast time and disk."]
    if kept:
        parts.append(f"{kept} done with equal settings are kept and not run again.")
    total, unknown = costs.sum_times([run.cost for run in preview.runs])
    if total is not None and not unknown and not probe:
        parts.append(f"About {costs.format_time(total)}.")
    if "--after" in arguments:
        parts.append(f"It starts when {arguments[arguments.index('--after') + 1]} has ended.")
    elif preview.machine.busy:
        parts.append(f"The device is {preview.machine.busy}.")
    if preview.equal_suite:
        parts.append(f"The same plan was started as {preview.equal_suite}.")
    text = f"{' '.join(parts)}\n\n{command_line(arguments)}"
    title = "Start these cost probes?" if probe else "Start this suite?"

    def on_answer(yes: bool | None) -> None:
        if yes:
            on_yes()

    app.push_screen(ConfirmDialog(title, text, "Start", "Not yet"), on_answer)


async def start_suite(app: WorkbenchApp, draft: PlanDraft, arguments: list[str]) -> None:
    """Write the plan file, run the command, open the suite or say why it was not started.

    Whoever has left the Plan screen meanwhile stays where they are.
    """
    from results.text.sanitize import clean

    screen = app.screen
    try:
        save_draft(draft, app.log_root)
        outcome = await cli_commands.run_workbench(arguments)
    except (OSError, ValueError) as error:
        outcome = cli_commands.CommandResult(-1, "", str(error))
    name = outcome.output.strip().splitlines()[-1:] or [""]
    if outcome.code != 0 or not name[0]:
        reason = clean(outcome.error).strip() or f"it ended with code {outcome.code}"
        title = "Nothing was started" if outcome.code == 0 else "The suite was not started"
        app.notify(reason, title=title, severity="error", timeout=20)
        return
    folder = app.log_root / name[0].strip()
    if app.screen is screen:
        app.show_suite(folder)
    else:
        app.chosen_suite = folder
        app.notify("2 shows it.", title=f"{folder.name} has started")
