"""Resuming a suite: which suite, which of its runs, and the recovery of a dead warden first."""

from __future__ import annotations

from pathlib import Path

from pydantic import TypeAdapter, ValidationError

from workbench.planning import plan
from workbench.processes.lanes import LaneChoice, LanePlan
from workbench.slurm import submission
from workbench.suites import array_tasks, control, suite, suite_reader, warden_file
from workbench.suites.state import RunView, is_unfinished
from workbench.supervisor import recovery


def choose_suite(log_root: Path, name: str | None) -> Path:
    """The suite of that name; without one the newest that is unfinished and not at work.

    Raises:
        SuiteError: there is none, or more than one fits.
    """
    if name is not None:
        return suite.find_suite(log_root, name)
    for folder in suite.list_suites(log_root):
        try:
            working = is_at_work(folder)
            if is_paused(folder) or (
                not working and (unfinished_runs(folder) or count_pending_trials(folder))
            ):
                return folder
        except suite.SuiteError:
            continue  # a colleague's, or broken; by its name it is refused with the reason
    suite.find_suite(log_root, None)  # no suites at all has a sentence of its own
    raise suite.SuiteError(f"{log_root}: every suite is at work or has nothing left to do")


def is_at_work(folder: Path) -> bool:
    """Whether a warden of the suite is alive, or jobs of it wait or run."""
    if (submitted := submission.read_submission(folder)) is not None:
        return array_tasks.is_at_work(folder, submitted)
    warden = warden_file.read_warden(folder)
    return warden is not None and warden_file.is_alive(warden)


def is_paused(folder: Path) -> bool:
    """Whether the suite's warden is alive and starts no further run."""
    warden = warden_file.read_warden(folder)
    return warden is not None and warden.state == "paused" and warden_file.is_alive(warden)


def unfinished_runs(folder: Path) -> list[RunView]:
    """The runs to be started or repeated, in their order."""
    out = control.read_removed_runs(folder)
    views = suite_reader.SuiteReader(folder).poll().runs
    return [v for v in views if v.spec.run_id not in out and is_unfinished(v.state)]


def count_pending_trials(folder: Path) -> int:
    """How many trials of a search are not chosen yet."""
    return suite_reader.SuiteReader(folder).poll().to_come


def read_lane_plan(folder: Path, stated: str | None) -> LanePlan:
    """The lanes of a suite's plan, or those `stated` instead, on another machine say.

    Raises:
        PlanError: `stated` names no lanes.
    """
    try:
        suite_plan = plan.load(folder / "plan.toml")
    except plan.PlanError:  # of an earlier version
        suite_plan = None
    if stated is None:
        return suite_plan.lane_plan if suite_plan else LanePlan()
    try:
        choice = TypeAdapter(LaneChoice).validate_python(stated)
    except ValidationError:
        sentence = f"lanes: '{stated}' is not all, a number, or GPUs as 0,1,3"
        raise plan.PlanError([sentence]) from None
    return LanePlan(choice, suite_plan.gpus_per_run if suite_plan else 0)


def prepare_resume(folder: Path) -> list[RunView]:
    """Recover the suite of a dead warden; returns its unfinished runs.

    Raises:
        SuiteError: the suite is at work.
    """
    if submission.read_submission(folder) is not None:
        recovery.recover_tasks(folder)
        if is_at_work(folder):
            raise suite.SuiteError(
                f"{folder.name} is at work in Slurm; `workbench attach {folder.name}` shows it, "
                f"`workbench stop {folder.name}` ends it"
            )
        return unfinished_runs(folder)
    warden = warden_file.read_warden(folder)
    if warden is not None and warden_file.is_alive(warden):
        owner = f"warden {warden.pid} on {warden.host}"
        raise suite.SuiteError(
            f"{folder.name} is at work ({warden.state}, {owner}); `workbench attach {folder.name}` "
            f"shows it, `workbench stop {folder.name}` ends it"
        )
    recovery.recover_dead_suite(folder, elsewhere=True)
    return unfinished_runs(folder)


def describe_resume(folder: Path, views: list[RunView], trials: int) -> str:
    """One line: how many runs are left, and which is the first."""
    if not views:
        return f"{folder.name}: the search goes on; trials to come: {trials}"
    count = "1 run is" if len(views) == 1 else f"{len(views)} runs are"
    first = views[0]
    last = f", which ended as {first.state.cause}" if first.state.end is not None else ""
    search = f"; trials to come: {trials}" if trials else ""
    return f"{folder.name}: {count} left; first {first.spec.run_id}{last}{search}"
