"""Questions before a suite is stopped, held, resumed or loses a run."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from tests.workbench.tui import sample_suites
from workbench.suites.orders import Orders
from workbench.suites.state import SuiteState
from workbench.tui.system import cli_commands
from workbench.tui.view_models import control_actions, suite_feed


def busy_suite(log_root: Path) -> SuiteState:
    """One run completed, one failed, one training, one queued."""
    return suite_feed.SuiteFeed(sample_suites.busy_root(log_root)).poll(None).suite


@pytest.mark.parametrize(
    ("do", "refused"),
    [
        ("stop", False), ("skip", False), ("cancel", True), ("pause", False), ("resume", True),
    ],
)  # fmt: skip
def test_questions_of_a_running_suite(
    log_root: Path, do: control_actions.ControlAction, refused: bool
) -> None:
    state = busy_suite(log_root)
    request = control_actions.make_question(do, state, state.current)
    assert bool(request.refusal) is refused
    if not refused:
        assert request.text
        assert request.yes


def test_only_a_queued_run_is_cancelled(log_root: Path) -> None:
    state = busy_suite(log_root)
    request = control_actions.make_question("cancel", state, state.runs[3])
    assert request.run == "04-retrieval-oven_train-tinyclip-61m"
    assert "its record says stopped" in request.text, "as Orders ends it"
    assert request.title == "Cancel oven_train × tinyclip-61m?"
    ordered = replace(state, orders=Orders(removed={state.runs[3].spec.run_id: "cancel"}))
    assert control_actions.make_question("cancel", ordered, state.runs[3]).refusal
    assert control_actions.make_question("restore", ordered, state.runs[3]).run == request.run
    assert control_actions.make_question("restore", state, state.runs[3]).refusal


def test_the_key_of_a_pause_takes_it_back_before_it_holds(log_root: Path) -> None:
    state = busy_suite(log_root)
    ordered = replace(state, orders=Orders(paused=True))
    request = control_actions.make_question("pause", ordered, None)
    assert (request.do, "taken back" in request.text) == ("resume", True)
    paused = replace(state, warden="paused")
    assert control_actions.make_question("pause", paused, None).do == "resume"


def test_stop_counts_what_is_not_started(log_root: Path) -> None:
    state = busy_suite(log_root)
    assert "1 queued run is not started" in control_actions.make_question("stop", state, None).text


@pytest.mark.parametrize("state", ["ended", "lost"])
def test_a_suite_that_is_over_can_go_on(log_root: Path, state: str) -> None:
    over = replace(busy_suite(log_root), warden=state)
    request = control_actions.make_question("resume", over, None)
    assert request.text.startswith("3 runs start again")
    cancelled = replace(over, orders=Orders(removed={over.runs[3].spec.run_id: "cancel"}))
    request = control_actions.make_question("resume", cancelled, None)
    assert request.text.startswith("2 runs start again")
    assert "1 cancelled" in request.text
    done = replace(over, runs=tuple(r for r in over.runs if r.state.cause == "completed"))
    assert "All runs" in control_actions.make_question("resume", done, None).refusal
    words = cli_commands.resume_arguments(over.name, log_root)
    assert words[:3] == ["resume", over.name, "--detach"]


@pytest.mark.parametrize("state", ["ended", "lost"])
def test_nothing_is_asked_of_a_suite_that_is_over(log_root: Path, state: str) -> None:
    folder = sample_suites.make_suite(log_root, [("emoji_train", "clip-nano")], state="ended")
    shown = suite_feed.SuiteFeed(folder).poll(None).suite
    request = control_actions.make_question("stop", replace(shown, warden=state), None)
    assert request.refusal


def test_a_search_can_be_resumed_for_the_trials_to_come() -> None:
    request = control_actions.make_question(
        "resume", sample_suites.search_state("completed", "pruned"), None
    )
    assert request.refusal == ""
    assert request.text == "The search goes on with 18 trials. Completed ones are kept."
    done = control_actions.make_question(
        "resume", sample_suites.search_state("completed", trials=1), None
    )
    assert done.refusal.startswith("All runs of this suite are completed")
