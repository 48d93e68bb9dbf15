"""Control actions on a suite: confirmation questions, or why an action is impossible. Pure."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from results.text.sanitize import clean_line
from workbench.planning import fold_runs
from workbench.suites import run_summary

if TYPE_CHECKING:
    from workbench.suites.state import RunView, SuiteState

ControlAction = Literal["stop", "skip", "cancel", "restore", "pause", "resume"]


@dataclass(frozen=True, slots=True)
class Question:
    """A confirmation question, or the refusal of an action."""

    do: ControlAction
    title: str = ""
    text: str = ""
    yes: str = ""
    confirmation: str = ""
    """Shown after the command was sent."""
    run: str | None = None
    refusal: str = ""


def make_question(do: ControlAction, suite: SuiteState, view: RunView | None) -> Question:
    """The question for an action on a suite and the run under the cursor."""
    if do == "restore":
        return _restore(suite, view)
    if do == "resume":
        return _resume_paused(suite) if is_paused(suite) else _resume(suite)
    if suite.warden == "lost":
        return Question(do, refusal="Nobody is there to ask: the warden of this suite is gone.")
    if suite.ended:
        return Question(do, refusal="This suite has ended.")
    if do == "pause" and any(view.location for view in suite.runs):
        return Question(do, refusal="Slurm starts these runs: `scontrol hold` keeps them waiting.")
    if (suite.warden == "stopping" or suite.orders.stopped) and do != "stop":
        return Question(do, refusal="This suite is being stopped already.")
    match do:
        case "stop":
            return _stop(suite)
        case "skip":
            return _skip(suite, view)
        case "cancel":
            return _cancel(suite, view)
        case _:
            return _resume_paused(suite) if is_paused(suite) else _pause(suite)


def is_paused(suite: SuiteState) -> bool:
    """Whether no further run starts, or is to start."""
    ordered = suite.orders.paused
    return not suite.ended and (suite.warden == "paused" if ordered is None else ordered)


def name_run(view: RunView) -> str:
    """Subset, model and what else tells the run from its neighbours: `emoji_train × clip-nano`."""
    spec = view.spec
    parts = [f"{spec.subset} × {spec.base_model or spec.model}", fold_runs.fold_label(spec)]
    return clean_line(" · ".join(part for part in (*parts, spec.label) if part), 120)


def _resume(suite: SuiteState) -> Question:
    from workbench.suites.state import is_unfinished

    if not suite.ended:
        return Question("resume", refusal="This suite is at work; s stops it.")
    unfinished = [view for view in suite.runs if is_unfinished(view.state)]
    removed = [view for view in unfinished if view.spec.run_id in suite.orders.removed]
    count = len(unfinished) - len(removed)
    if not count and not suite.to_come:
        refusal = "All runs of this suite are completed or were skipped."
        if removed:
            refusal = f"Nothing is left but {len(removed)} cancelled; u takes that back for a run."
        return Question("resume", refusal=refusal)
    runs = "1 run starts" if count == 1 else f"{count} runs start"
    text = f"{runs} again, from the last checkpoint where there is one. Completed runs are kept."
    if removed:
        text += f" {len(removed)} cancelled or skipped before stay so; u takes that back for a run."
    if suite.to_come:
        trials = "1 trial" if suite.to_come == 1 else f"{suite.to_come} trials"
        rest = text if count else "Completed ones are kept."
        text = f"The search goes on with {trials}. {rest}"
    return Question(
        "resume", f"Resume {suite.name}?", text, "Go on with it", "The suite is being resumed …"
    )


def _stop(suite: SuiteState) -> Question:
    waiting = sum(r.state.status == "queued" for r in suite.runs)
    to_come = f" The search keeps {suite.to_come} trials for later." if suite.to_come else ""
    text = "No run is at work."
    if (count := len(suite.working)) > 1:
        text = f"{count} runs finish their step, write a checkpoint and end as stopped."
    elif suite.current is not None:
        text = (
            f"{name_run(suite.current)} finishes its step, writes a checkpoint and ends as stopped."
        )
    if waiting:
        runs = "1 queued run is" if waiting == 1 else f"{waiting} queued runs are"
        text += f" {runs} not started."
    text += f"{to_come} This cannot be taken back, but r resumes the suite later."
    return Question("stop", f"Stop {suite.name}?", text, "Stop the suite", "The suite is stopping.")


def _skip(suite: SuiteState, view: RunView | None) -> Question:
    """About the chosen run if it is at work, else about the first that is."""
    view = view if view in suite.working else suite.current
    if view is None:
        return Question("skip", refusal="No run is at work; c cancels a queued one.")
    return Question(
        "skip",
        f"Skip {name_run(view)}?",
        f"Run {view.spec.run_id} finishes its step, writes a checkpoint and ends as skipped. "
        "The next run starts.",
        "Skip this run",
        f"{name_run(view)} is being skipped.",
        view.spec.run_id,
    )


def _cancel(suite: SuiteState, view: RunView | None) -> Question:
    if view is None or view.state.status != "queued":
        refusal = "Only a queued run can be cancelled; k skips the one at work."
        return Question("cancel", refusal=refusal)
    if run_summary.describe_order(suite, view):
        return Question("cancel", refusal="This run is cancelled already; u takes it back.")
    return Question(
        "cancel",
        f"Cancel {name_run(view)}?",
        f"When its turn comes run {view.spec.run_id} is not started and its record says stopped; "
        "until then u takes it back. The other runs stay as they are.",
        "Cancel this run",
        f"{name_run(view)} is cancelled; u takes it back.",
        view.spec.run_id,
    )


def _restore(suite: SuiteState, view: RunView | None) -> Question:
    """Take back that a run is cancelled or skipped."""
    if view is None or view.spec.run_id not in suite.orders.removed:
        return Question("restore", refusal="Nothing was ordered of this run that could be undone.")
    if view.state.status in ("starting", "running"):
        return Question("restore", refusal="This run is ending already; r resumes it afterwards.")
    when = "It starts when its turn comes."
    if view.state.status == "ended":
        when = "It has ended; the next resume of the suite (r) starts it again."
    return Question(
        "restore", f"Run {name_run(view)} after all?", when, "Take the order back",
        f"{name_run(view)} is in the queue again.", view.spec.run_id,
    )  # fmt: skip


def _pause(suite: SuiteState) -> Question:
    several = len(suite.working) > 1
    runs = (
        "The runs at work go on to their end" if several else "The run at work goes on to its end"
    )
    return Question(
        "pause",
        f"Pause {suite.name}?",
        f"{runs}; no further run starts until you press p again.",
        "Pause the suite",
        f"The suite pauses after the run{'s' if several else ''} at work; p takes it back.",
    )


def _resume_paused(suite: SuiteState) -> Question:
    waiting = "The next queued run starts."
    if suite.warden != "paused":
        waiting = "The pause after the run at work is taken back."
    return Question(
        "resume", f"Resume {suite.name}?", waiting, "Resume the suite", "The suite resumes."
    )
