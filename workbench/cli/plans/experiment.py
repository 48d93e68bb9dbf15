"""`workbench experiment`: a small bounded run that tells what ails a run; it notes the finding."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Final, NamedTuple

import typer

from workbench.cli import completion, start
from workbench.cli.options import AsJson, Detach, DryRun, Headless, LogRoot
from workbench.exit_codes import ExitCode

if TYPE_CHECKING:
    from collections.abc import Iterator

    from workbench.audit.experiments import Experiment
    from workbench.headless.renderers import OutputMode
    from workbench.suites.state import RunView
    from workbench.supervisor.warden_options import WardenOptions

POLL_SECONDS: Final = 1.0

Target = Annotated[
    str,
    typer.Argument(
        metavar="RUN|SUITE",
        help="A run: its id, its label or a part of suite/id. The suite of an experiment: waits "
        "for its end and notes its finding.",
        autocompletion=completion.complete_runs,
    ),
]
Code = Annotated[
    str | None,
    typer.Argument(
        metavar="[EXPERIMENT]",
        help="loader-threads, tenth-rate or shuffled-images; default: list what is possible.",
    ),
]
Steps = Annotated[
    int | None,
    typer.Option(min=5, max=100_000, help="Timed steps of each side of an experiment that trains."),
]


class Proposal(NamedTuple):
    """An experiment on a run."""

    experiment: Experiment
    asked_by: tuple[str, ...]
    """Codes of faults and notices of the run that ask for it; empty: none does."""
    problem: str
    """Why it is impossible on this run; empty: it is possible."""


def register(app: typer.Typer) -> None:
    """Add the command to `workbench`."""
    app.command("experiment")(experiment_command)


def experiment_command(  # noqa: PLR0913, PLR0917 - one parameter for each option
    target: Target,
    code: Code = None,
    steps: Steps = None,
    log_root: LogRoot = None,
    headless: Headless = False,
    detach: Detach = False,
    dry_run: DryRun = False,
    as_json: AsJson = False,
) -> None:
    """Run the small experiment that tells what ails a run, and note the finding on it."""
    from workbench import paths
    from workbench.headless.renderers import OutputMode
    from workbench.reporting import note_writer

    root = paths.log_root(log_root)
    suite_name, run_id = note_writer.find_target(root, target)
    if not run_id:
        _print_finding(_await_finding(root / suite_name), root / suite_name, as_json=as_json)
        return
    view = _find_view(root / suite_name, run_id)
    if code is None:
        _print_proposals(list(_list_proposals(root / suite_name, view)), as_json=as_json)
        return
    experiment = _choose(code, view, root / suite_name)
    if detach:
        start.check_detach()
    mode = OutputMode.choose(headless=headless, as_json=as_json)
    if (folder := _create(experiment, view, steps, root, dry_run=dry_run, as_json=as_json)) is None:
        return
    options = start.make_options(root, share=False, time_limit=None, after=None)
    if detach:
        raise typer.Exit(_run_detached(folder, mode, options))
    from workbench.headless import follow

    status = follow.run_foreground(folder, mode, options)
    _print_finding(_await_finding(folder), folder, as_json=as_json)
    raise typer.Exit(status)


def _find_view(folder: Path, run_id: str) -> RunView:
    """The run with its state.

    Raises:
        SuiteError: its folder is gone, as that of an imported run is.
    """
    from workbench.suites import suite, suite_reader

    if folder.is_dir():
        for view in suite_reader.SuiteReader(folder).poll().runs:
            if view.spec.run_id == run_id:
                return view
    raise suite.SuiteError(f"{folder.name}/{run_id} has no folder here: only its record is known")


def _choose(code: str, view: RunView, folder: Path) -> Experiment:
    """The experiment of that code, which is possible on the run.

    Raises:
        SuiteError: there is none, or it is impossible.
    """
    from datasets_mm.strict_toml import suggest_nearest
    from workbench.audit import experiments
    from workbench.suites import suite

    experiment = experiments.find_experiment(code)
    if experiment is None:
        codes = [each.code for each in experiments.EXPERIMENTS]
        near = suggest_nearest(code, codes) or f"; there are {', '.join(codes)}"
        raise suite.SuiteError(f"no experiment '{code}'{near}")
    if problem := experiment.find_problem(view.spec, folder / "runs" / view.folder):
        raise suite.SuiteError(f"{code} is impossible on {view.spec.run_id}: {problem}")
    return experiment


def _list_proposals(folder: Path, view: RunView) -> Iterator[Proposal]:
    """All experiments, those that faults and notices of the run ask for first."""
    from workbench.audit import experiments
    from workbench.reporting import suite_audit, suite_view

    noted = suite_view.read_suite_notes(folder.parent, folder.name)
    rows = suite_audit.audit_suite(folder, [view], suite_view.read_records(folder.parent), noted)
    codes = {row.code for row in rows if row.standing == "fault"} | {*view.state.notice_counts}
    for experiment in sorted(experiments.EXPERIMENTS, key=lambda each: not each.asked_by & codes):
        problem = experiment.find_problem(view.spec, folder / "runs" / view.folder)
        yield Proposal(experiment, tuple(sorted(experiment.asked_by & codes)), problem)


def _print_proposals(proposals: list[Proposal], *, as_json: bool) -> None:
    from results.text.table import Table, TableCell, TableColumn, render_terminal

    if as_json:
        for experiment, asked_by, problem in proposals:
            row = {"experiment": experiment.code, "change": experiment.change,
                   "answers": experiment.answers, "asked_by": asked_by,
                   "problem": problem}  # fmt: skip
            typer.echo(json.dumps(row, ensure_ascii=False))
        return
    rows = tuple(
        (
            TableCell(each.experiment.code), TableCell(each.experiment.change),
            TableCell(each.experiment.answers), TableCell(", ".join(each.asked_by) or "–"),
            TableCell(f"no: {each.problem}" if each.problem else "yes"),
        )
        for each in proposals
    )  # fmt: skip
    titles = ("experiment", "change", "answers", "asked for by", "possible")
    table = Table(tuple(map(TableColumn, titles)), rows)
    typer.echo(render_terminal(table), nl=False)


def _create(
    experiment: Experiment, view: RunView, steps: int | None, root: Path, *, dry_run: bool,
    as_json: bool,
) -> Path | None:  # fmt: skip
    """The new suite of an experiment; None: it was only shown.

    Raises:
        PlanError, SuiteError: it cannot run here.
    """
    from results.text.sanitize import escape_json
    from workbench.audit import experiments
    from workbench.reporting import experiment_findings

    plan = experiments.make_plan(experiment, view.spec, steps or experiments.STEPS)
    prepared = start.prepare_runs(plan, (), root, force=False)
    if dry_run:
        for spec in prepared.specs:
            typer.echo(escape_json(spec.model_dump_json()) if as_json else spec.run_id)
        return None
    folder = start.create_suite(prepared.suite_plan, prepared.specs, root)
    link = experiment_findings.ExperimentLink(
        code=experiment.code, suite=view.spec.suite, run_id=view.spec.run_id
    )
    experiment_findings.write_link(folder, link)
    return folder


def _run_detached(folder: Path, mode: OutputMode, options: WardenOptions) -> ExitCode:
    """Start the suite, and a process that notes its finding when it has ended."""
    from workbench.headless import follow

    status = follow.run_detached(folder, mode, options)
    subprocess.Popen(
        [sys.executable, "-m", "workbench", "experiment", folder.name,
         "--log-root", str(folder.parent.absolute())],
        stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
        start_new_session=True,
    )  # fmt: skip
    return status


def _await_finding(folder: Path) -> str:
    """The finding of an experiment, noted on its run when its suite has ended."""
    from workbench.reporting import experiment_findings
    from workbench.suites import suite_reader

    reader = suite_reader.SuiteReader(folder)
    while not reader.poll().ended:
        time.sleep(POLL_SECONDS)
    return experiment_findings.note_finding(folder)


def _print_finding(finding: str, folder: Path, *, as_json: bool) -> None:
    from results.text.sanitize import clean_line

    row = json.dumps({"kind": "finding", "suite": folder.name, "finding": finding})
    typer.echo(row if as_json else clean_line(finding, 2000))
