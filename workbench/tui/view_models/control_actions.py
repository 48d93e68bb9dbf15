"""Control actions on a suite: confirmation questions, or why an action is impossible. Pure."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    from workbench.suites.state import RunView, SuiteState

ControlAction = Literal["stop", "skip", "cancel", "pause", "resume"]


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
    """The question for an action on a suite and its current run."""
    if do == "resume":
        return _resume_paused(suite) if suite.warden == "paused" else _resume(suite)
    if suite.warden == "lost":
        return Question(do, refusal="Nobody is there to ask: the warden of this suite is gone.")
    if suite.ended:
        return Question(do, refusal="This suite has ended.")
    if suite.warden == "stopping" and do != "stop":
        return Question(do, refusal="This suite is being stopped already.")
    match do:
        case "stop":
            return _stop(suite)
        case "skip":
            return _skip(suite)
        case "cancel":
            return _cancel(view)
        case _:
            return _resume_paused(suite) if suite.warden == "paused" else _pause(suite)


def _resume(suite: SuiteState) -> Question:
    from workbench.suites.state import is_unfinished

    if not suite.ended:
        return Question("resume", refusal="This suite is at work; s stops it.")
    unfinished = sum(is_unfinished(view.state) for view in suite.runs)
    if not unfinished and not suite.to_come:
        return Question("resume", refusal="All runs of this suite are completed or were skipped.")
    runs = "1 run starts" if unfinished == 1 else f"{unfinished} runs start"
    text = f"{runs} again, from the last checkpoint where there is one. Completed runs are kept."
    if suite.to_come:
        trials = "1 trial" if suite.to_come == 1 else f"{suite.to_come} trials"
        rest = text if unfinished else "Completed ones are kept."
        text = f"The search goes on with {trials}. {rest}"
    return Question("resume", f"Resume {suite.name}?", text, "Go on with it", "The suite goes on.")


def _stop(suite: SuiteState) -> Question:
    waiting = sum(r.state.status == "queued" for r in suite.runs)
    to_come = f" The search keeps {suite.to_come} trials for later." if suite.to_come else ""
    text = "The run at work finishes its step, writes a checkpoint and ends as stopped."
    if suite.current is None:
        text = "No run is at work."
    if waiting:
        runs = "1 queued run is" if waiting == 1 else f"{waiting} queued runs are"
        text += f" {runs} not started."
    text += to_come
    return Question("stop", f"Stop {suite.name}?", text, "Stop the suite", "The suite is stopping.")


def _skip(suite: SuiteState) -> Question:
    view = suite.current
    if view is None:
        return Question("skip", refusal="No run is at work; c cancels a queued one.")
    return Question(
        "skip",
        f"Skip {view.spec.run_id}?",
        "It finishes its step, writes a checkpoint and ends as skipped. The next run starts.",
        "Skip this run",
        f"{view.spec.run_id} is being skipped.",
        view.spec.run_id,
    )


def _cancel(view: RunView | None) -> Question:
    if view is None or view.state.status != "queued":
        refusal = "Only a queued run can be cancelled; k skips the one at work."
        return Question("cancel", refusal=refusal)
    return Question(
        "cancel",
        f"Cancel {view.spec.run_id}?",
        "It will not be started and its record says stopped. The other runs stay as they are.",
        "Cancel this run",
        f"{view.spec.run_id} is cancelled.",
        view.spec.run_id,
    )


def _pause(suite: SuiteState) -> Question:
    return Question(
        "pause",
        f"Pause {suite.name}?",
        "The run at work goes on to its end; no further run starts until you press p again.",
        "Pause the suite",
        "The suite pauses after the run at work.",
    )


def _resume_paused(suite: SuiteState) -> Question:
    return Question(
        "resume",
        f"Resume {suite.name}?",
        "The next queued run starts.",
        "Resume the suite",
        "The suite resumes.",
    )
