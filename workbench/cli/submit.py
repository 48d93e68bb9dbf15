"""`workbench submit` and `run-one`: a suite as an array of jobs of Slurm, and one of its tasks."""

from __future__ import annotations

import os
import shutil
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from workbench.cli import options, start
from workbench.exit_codes import ExitCode

if TYPE_CHECKING:
    from engines.protocol import RunSpec
    from workbench.planning.plan import SuitePlan
    from workbench.slurm.script import ScriptOptions, ScriptPaths, TaskGroup
    from workbench.slurm.submission import Submission

Cluster = Annotated[
    str | None,
    typer.Option(help="Settings from ~/.config/workbench/clusters/NAME.toml; default: default."),
]
ArrayParallel = Annotated[
    int | None, typer.Option("--array-parallel", min=0, help="Runs at once; 0: no limit of ours.")
]
JobTime = Annotated[
    str | None,
    typer.Option("--time", help="Time limit of a run: 24:00:00, 2-00:00:00, 11h30m."),
]
Sbatch = Annotated[
    list[str] | None,
    typer.Option("--sbatch", metavar="OPTION", help="An option for sbatch, verbatim; repeatable."),
]
PrintOnly = Annotated[
    bool, typer.Option("--print", help="Write the script, print it, submit nothing.")
]


def register(app: typer.Typer) -> None:
    """Add the commands."""
    app.command("submit")(submit)
    app.command("run-one")(run_one)


def submit(  # noqa: PLR0913, PLR0917 - options of a command
    plan_file: options.PlanFile = None,
    preset: options.Preset = None,
    engine: options.Engines = None,
    subset: options.Subsets = None,
    model: options.Models = None,
    setting: options.Settings = None,
    seed: options.Seeds = None,
    repeats: options.Repeats = None,
    cpu: options.NoGpu = False,
    task: options.TaskName = None,
    name: options.Name = None,
    label: options.Label = None,
    gpu: options.GpuName = "",
    log_root: options.LogRoot = None,
    cluster: Cluster = None,
    array_parallel: ArrayParallel = None,
    time_limit: JobTime = None,
    sbatch: Sbatch = None,
    print_only: PrintOnly = False,
    force: options.Force = False,
) -> None:
    """Submit a plan to Slurm: an array of jobs, one for each run."""
    from datasets_mm.strict_toml import TomlError
    from workbench import paths
    from workbench.cli import build
    from workbench.slurm import settings, submission
    from workbench.suites import array_tasks, suite

    cluster_name, cluster_settings = settings.load_cluster(cluster)
    script_options = settings.merge_options(
        cluster_settings, time_limit, array_parallel, tuple(sbatch or ())
    )
    flags = {
        "engine": engine, "subsets": subset, "models": model, "seeds": seed, "repeats": repeats,
        "task": task, "name": name, "label": label, "gpu": gpu,
    }  # fmt: skip
    suite_plan = start.load_plan(plan_file, preset, flags, setting, cpu=cpu)
    if cluster_settings.gpu and not suite_plan.gpu:
        suite_plan = suite_plan.model_copy(update={"gpu": cluster_settings.gpu})
    if problems := find_problems(suite_plan, print_only=print_only):
        raise TomlError(problems)
    root = paths.log_root(log_root)
    suite_plan, specs, remarks = start.prepare_runs(suite_plan, setting or (), root, force=force)
    for remark in remarks:
        start.print_progress(remark)
    start.check_surroundings(root)
    if not build.build_strict_subsets(specs):
        raise typer.Exit(ExitCode.USAGE)
    folder = suite.create_suite(root, suite_plan, specs)
    submitted = submission.Submission(
        user=array_tasks.user_name(), cluster=cluster_name, time=time_limit or "",
        array_parallel=script_options.array_parallel, sbatch=tuple(sbatch or ()),
    )  # fmt: skip
    try:
        submit_suite(folder, specs, script_options, submitted, print_only=print_only)
    except suite.SuiteError:
        if not (noted := submission.read_submission(folder)) or not noted.jobs:
            shutil.rmtree(folder)  # nothing was submitted
        raise


def find_problems(suite_plan: SuitePlan, *, print_only: bool) -> list[str]:
    """Why a plan cannot be submitted; one sentence each."""
    from workbench.slurm import commands

    problems = []
    if suite_plan.search is not None:
        problems.append(
            "search: its trials are chosen one after the other; put `workbench search` into one "
            "job of your own, with a time limit that is long enough"
        )
    if suite_plan.devices:
        problems.append("devices: Slurm chooses the GPUs of a job; leave them out")
    if not print_only and not commands.is_installed("sbatch"):
        problems.append(
            "sbatch is not on this machine; submit from a login node, or write the script with "
            "--print"
        )
    return problems


def submit_suite(
    folder: Path, specs: Sequence[RunSpec], script_options: ScriptOptions, submitted: Submission,
    *, print_only: bool, run_ids: frozenset[str] | None = None,
) -> None:  # fmt: skip
    """Write the script of a suite and submit its groups. `run_ids`: the runs to submit; None: all.

    Raises:
        SuiteError: sbatch refused it.
    """
    from datasets_mm.atomic_files import write_atomic
    from engines import catalog
    from workbench.slurm import script, submission

    numbers = {spec.run_id: number for number, spec in enumerate(specs, 1)}
    chosen = frozenset(numbers) if run_ids is None else run_ids
    needs = [[numbers[need] for need in spec.needs] for spec in specs]
    submitted_numbers = {numbers[run] for run in chosen}
    nodes = [catalog.count_nodes(spec) for spec in specs]
    restricted = (_restrict_group(g, submitted_numbers) for g in script.group_tasks(needs, nodes))
    groups = [group for group in restricted if group.numbers]
    control_file = folder / "control.jsonl"
    offset = control_file.stat().st_size if control_file.exists() else 0
    submitted = submitted.model_copy(
        update={"control_offset": offset, "submitted_wall": 0.0, "jobs": {}}
    )
    submission.write_submission(folder, submitted)
    count = "1 run" if len(chosen) == 1 else f"{len(chosen)} runs"
    text = script.write_script(
        _script_paths(folder), groups, script_options, f"{folder.name}: {count}"
    )
    path = submission.script_path(folder)
    write_atomic(path, text)
    if print_only:
        sys.stdout.write(text)
        start.print_progress(f"{folder.name}: {count}, nothing submitted; sbatch {path}")
        return
    _submit_groups(
        folder, groups, script_options, submitted, {n: run for run, n in numbers.items()}
    )


def _restrict_group(group: TaskGroup, chosen: set[int]) -> TaskGroup:
    """The group's tasks among the chosen ones, without needs that are not."""
    numbers = tuple(number for number in group.numbers if number in chosen)
    return group._replace(numbers=numbers, needs=tuple(n for n in group.needs if n in chosen))


def _script_paths(folder: Path) -> ScriptPaths:
    from workbench import paths
    from workbench.slurm import script

    moved = {name: os.environ[name] for name in paths.FOLDER_VARIABLES if name in os.environ}
    moved.pop("WORKBENCH_LOG_ROOT", None)  # the suite's path says it
    checkout = paths.module_path({}).get("PYTHONPATH")
    return script.ScriptPaths(
        Path(sys.executable), folder, {**moved, **({"PYTHONPATH": checkout} if checkout else {})}
    )


def _submit_groups(
    folder: Path, groups: Sequence[TaskGroup], script_options: ScriptOptions, submitted: Submission,
    run_ids: dict[int, str],
) -> None:  # fmt: skip
    """Submit each group after those that it needs, and note every job at once."""
    from workbench.slurm import commands, script, submission
    from workbench.suites import suite

    path, jobs = submission.script_path(folder), dict[int, str]()
    for group in groups:
        words = script.group_options(group, script_options.array_parallel, jobs)
        submitted_wall = time.time()
        try:
            array = commands.submit_script(path, words)
        except commands.SlurmError as error:
            rest = f" after {len(jobs)} runs; `workbench resume {folder.name}` submits the others"
            rest = rest if jobs else "; change --sbatch, --time or the cluster's settings"
            raise suite.SuiteError(f"{error}{rest}") from None
        jobs |= {number: f"{array}_{number}" for number in group.numbers}
        noted = {run_ids[number]: job for number, job in jobs.items()}
        submitted = submitted.model_copy(update={"jobs": noted, "submitted_wall": submitted_wall})
        submission.write_submission(folder, submitted)
        waiting = f", after {len(group.needs)} others" if group.needs else ""
        start.print_progress(f"job {array}: {len(group.numbers)} runs{waiting}")
    print_name(folder)


def print_name(folder: Path) -> None:
    """The suite's name on stdout, and how to watch it."""
    typer.echo(folder.name)
    start.print_progress(f"`workbench attach {folder.name}` shows it, `workbench stop` ends it")


def resume_submitted(folder: Path) -> bool:
    """Submit the unfinished runs of a suite again. False: it has no jobs, or Slurm is not here.

    Without Slurm here the suite goes on here, like any other.

    Raises:
        SuiteError: it is at work.
    """
    from workbench.slurm import commands, settings, submission
    from workbench.suites import suite
    from workbench.supervisor import resume

    if (submitted := submission.read_submission(folder)) is None:
        return False
    runs = resume.prepare_resume(folder)
    if not commands.is_installed("sbatch"):
        submission.withdraw_submission(folder)
        return False
    if not runs:
        start.print_progress(f"{folder.name}: nothing is left to do")
        return True
    _, cluster_settings = settings.load_cluster(submitted.cluster or None)
    script_options = settings.merge_options(
        cluster_settings, submitted.time or None, submitted.array_parallel, submitted.sbatch
    )
    specs = [spec for _, spec in suite.read_runs(folder)]
    unfinished = frozenset(view.spec.run_id for view in runs)
    submit_suite(folder, specs, script_options, submitted, print_only=False, run_ids=unfinished)
    return True


def run_one(
    name: Annotated[str, typer.Argument(metavar="SUITE", help="A suite's name or folder.")],
    number: Annotated[int, typer.Argument(min=1, help="Number of the run, from 1.")],
    share: options.Share = False,
) -> None:
    """Execute one run of a suite: a task of Slurm or of any queue; exit code 75: try again."""
    from workbench import paths
    from workbench.headless import array_task
    from workbench.suites import suite

    folder = suite.find_suite(paths.log_root(None), name)
    raise typer.Exit(array_task.execute_run(folder, number, share=share))
