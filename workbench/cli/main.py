"""The commands of `workbench`; each imports its modules when it is called, for a fast `--help`.

Data go to stdout, messages to stderr; exit codes are those of `exit_codes.ExitCode`.
"""

from __future__ import annotations

import errno
import math
import os
import sys
from typing import Annotated, Final, NoReturn

import typer

from workbench.cli import audit, control, data, init, options, search, serve, start, submit
from workbench.cli.plans import experiment
from workbench.cli.plans import plan as plan_command
from workbench.cli.reports import (
    compare,
    gate,
    imports,
    listing,
    pack,
    predictions,
    report,
    results,
    track,
)  # fmt: skip
from workbench.exit_codes import ExitCode

NO_SPACE: Final = (errno.ENOSPC, errno.EDQUOT)

app = typer.Typer(
    help="A terminal workbench for multimodal models: what an epoch costs, whether it fits, "
    "how good it gets. Without a command it opens the screen.",
    context_settings={"help_option_names": ["-h", "--help"]},
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
)
results_app = typer.Typer(
    help="Look at the records that runs left, and note what was found.", no_args_is_help=True
)
views_app = typer.Typer(help="Saved views of Results: list, save, remove.")
data_app = typer.Typer(help="List, build, describe and check subsets.", no_args_is_help=True)
app.add_typer(results_app, name="results")
app.add_typer(data_app, name="data")
app.add_typer(views_app, name="views")
data.register(data_app)
listing.register(results_app)
listing.register_views(views_app)
results.register(results_app)
imports.register(results_app)
track.register(results_app)
compare.register(results_app)
predictions.register(results_app)
search.register(app)
init.register(app)
plan_command.register(app)
audit.register(app)
experiment.register(app)
report.register(app)
control.register(app)
gate.register(app)
pack.register(app)
serve.register(app)
submit.register(app)


def main() -> NoReturn:
    """Entry point: turns expected errors into one-sentence messages and exit codes."""
    try:
        _run_app()
    except BrokenPipeError:
        _discard_stdout()  # the reader, such as `| head`, has closed the pipe
        raise SystemExit(ExitCode.COMPLETED) from None
    except Exception as error:
        if isinstance(error, OSError) and error.errno in NO_SPACE:
            _discard_stdout()
            target = error.filename or "output"
            entries = ", or file entries" if error.filename else ""
            print_message(
                f"{target} cannot be written ({error.strerror}); free some space{entries}"
            )
            raise SystemExit(ExitCode.FAILED) from None
        problems = _error_sentences(error)
        if not problems:
            raise
        for problem in problems:
            print_message(problem)
        raise SystemExit(ExitCode.USAGE) from None


def _run_app() -> NoReturn:
    """Run the command and flush stdout, while an error of writing can still be reported."""
    from workbench.cli import renamed_options

    renamed_options.print_renamed_words(print_message)
    try:
        app()
    except SystemExit as ending:
        if isinstance(ending.__context__, BrokenPipeError):  # typer makes it exit code 1
            raise ending.__context__ from None
        sys.stdout.flush()
        raise
    raise SystemExit(ExitCode.COMPLETED)


def _discard_stdout() -> None:
    """Redirect stdout to /dev/null, so that Python's last flush succeeds."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), 1)


def _error_sentences(error: Exception) -> list[str]:
    """The sentences of an expected error; empty list: an internal error."""
    from datasets_mm.strict_toml import TomlError
    from results.records.store import NewerSchemaError
    from workbench.planning.plan import PlanError
    from workbench.suites.suite import SuiteError
    from workbench.supervisor.launch import LaunchError

    if isinstance(error, PlanError | TomlError):
        return error.problems
    if isinstance(error, OSError):  # of the environment: a disk, a mode, a missing program
        return [": ".join(str(part) for part in (error.filename, error.strerror or error) if part)]
    has_sentences = isinstance(error, SuiteError | NewerSchemaError | LaunchError)
    return str(error).splitlines() if has_sentences else []


def print_message(text: str) -> None:
    """Print one line to stderr, without control characters and secrets."""
    from results.text.sanitize import clean
    from results.text.secrets import mask_secrets

    typer.echo(f"workbench: {clean(mask_secrets(text))}", err=True)


@app.callback(invoke_without_command=True)
def screen(
    context: typer.Context,
    log_root: options.LogRoot = None,
    lang: options.Language = "en",
    version: Annotated[bool, typer.Option("--version", help="Print the version.")] = False,
) -> None:
    """Open the screen when no command is given; --lang: of its notices, profiles, reports."""
    if version:
        from importlib import metadata

        typer.echo(metadata.version("workbench-mm"))
        raise typer.Exit
    if lang != "en" and context.invoked_subcommand is not None:
        context.default_map = options.language_defaults(context.command, lang)
    if log_root is not None:
        os.environ["WORKBENCH_LOG_ROOT"] = str(log_root)  # for the command that follows
    if context.invoked_subcommand is None:
        from workbench import paths
        from workbench.output_language import set_language
        from workbench.tui.app import main as open_screen

        set_language(lang)
        raise typer.Exit(open_screen(paths.log_root(log_root)))


@app.command(cls=options.RunCommand)
def run(
    plan_file: options.PlanFile = None,
    preset: options.Preset = None,
    engine: options.Engines = None,
    subset: options.Subsets = None,
    model: options.Models = None,
    setting: options.Settings = None,
    seed: options.Seeds = None,
    repeats: options.Repeats = None,
    device: options.Devices = None,
    lanes: options.Lanes = None,
    gpus_per_run: options.GpusPerRun = None,
    cpu: options.NoGpu = False,
    task: options.TaskName = None,
    name: options.Name = None,
    label: options.Label = None,
    log_root: options.LogRoot = None,
    headless: options.Headless = False,
    progress_interval: options.ProgressInterval = None,
    detach: options.Detach = False,
    cost_probe: options.CostProbe = None,
    max_uncertainty: options.MaxUncertainty = None,
    share: options.Share = False,
    time_limit: options.TimeLimit = None,
    gpu: options.GpuName = "",
    refuse_on: options.RefuseOn = None,
    force: options.Force = False,
    keep_done: options.KeepDone = False,
    after: options.After = None,
    dry_run: options.DryRun = False,
    as_json: options.AsJson = False,
) -> None:
    """Train and evaluate: a plan file, a preset, or flags; flags overrule the other two."""
    from results.text.sanitize import escape_json
    from workbench import paths
    from workbench.headless.renderers import OutputMode

    flags = {
        "engine": engine, "subsets": subset, "models": model, "seeds": seed, "repeats": repeats,
        "devices": device, "task": task, "name": name, "label": label, "cost_probe": cost_probe,
        "max_uncertainty": max_uncertainty, "gpu": gpu, "refuse_on": refuse_on, "lanes": lanes,
        "gpus_per_run": gpus_per_run,
    }  # fmt: skip
    if detach:
        start.check_detach()
    suite_plan = start.load_plan(plan_file, preset, flags, setting, cpu=cpu)
    root = paths.log_root(log_root)
    warden_options = start.make_options(root, share=share, time_limit=time_limit, after=after)
    prepared = start.prepare_runs(suite_plan, setting or (), root, force=force)
    if keep_done:
        prepared = start.leave_out_done(prepared, root)
    suite_plan, specs, remarks = prepared
    for remark in remarks:
        print_message(remark)
    if not specs:
        print_message("every run of this plan is done with equal settings; nothing is started")
        raise typer.Exit(ExitCode.COMPLETED)
    if dry_run:
        for spec in specs:
            typer.echo(escape_json(spec.model_dump_json()) if as_json else spec.run_id)
        return
    mode = OutputMode.choose(headless=headless, as_json=as_json)
    warden_options = warden_options.with_lanes(suite_plan.lane_plan)
    start.start_suite(
        suite_plan,
        specs,
        root,
        mode,
        detach=detach,
        options=warden_options,
        interval=progress_interval,
    )


@app.command()
def presets() -> None:
    """List the presets, and what a document expects of them: time and accuracy."""
    from workbench.cli import catalogs

    catalogs.print_presets()


@app.command()
def attach(
    name: options.WorkingSuiteName = None,
    log_root: options.LogRoot = None,
    progress_interval: options.ProgressInterval = None,
    as_json: options.AsJson = False,
) -> None:
    """Watch a suite, by default the one at work; Ctrl-C only detaches."""
    from workbench import paths
    from workbench.headless import follow
    from workbench.headless.renderers import OutputMode
    from workbench.suites import suite, warden_file

    root = paths.log_root(log_root)
    folder = warden_file.choose_suite_at_work(root, name)
    if folder is None:
        folder = suite.find_suite(root, None)
        print_message(f"no suite is at work; {folder.name} is the newest")
    raise typer.Exit(
        follow.attach_suite(
            folder, OutputMode.choose(headless=False, as_json=as_json), progress_interval
        )
    )


@app.command()
def resume(
    name: Annotated[
        str | None,
        typer.Argument(metavar="[SUITE]", help="A name or a part of it; default: the newest left."),
    ] = None,
    log_root: options.LogRoot = None,
    headless: options.Headless = False,
    progress_interval: options.ProgressInterval = None,
    detach: options.Detach = False,
    share: options.Share = False,
    lanes: options.Lanes = None,
    time_limit: options.TimeLimit = None,
    as_json: options.AsJson = False,
) -> None:
    """Go on with a suite that is paused, stopped, killed or failed; completed runs are kept."""
    from workbench import paths
    from workbench.headless import follow
    from workbench.headless.renderers import OutputMode
    from workbench.suites import control as suite_control
    from workbench.supervisor import resume
    from workbench.supervisor.warden_options import WardenOptions

    folder = resume.choose_suite(paths.log_root(log_root), name)
    if resume.is_paused(folder):
        suite_control.send_command(folder, suite_control.Command(do="resume"))
        print_message(f"{folder.name} resumes; `workbench attach {folder.name}` shows it")
        raise typer.Exit(ExitCode.COMPLETED)
    start.check_surroundings(folder.parent)
    if submit.resume_submitted(folder):
        raise typer.Exit(ExitCode.COMPLETED)
    if detach:
        start.check_detach()
    runs, trials = resume.prepare_resume(folder), resume.count_pending_trials(folder)
    if not runs and not trials:
        print_message(f"{folder.name}: nothing is left to do")
        raise typer.Exit(ExitCode.COMPLETED)
    print_message(resume.describe_resume(folder, runs, trials))
    mode = OutputMode.choose(headless=headless, as_json=as_json)
    warden_options = WardenOptions(share=share, resume=True, time_limit=time_limit or math.inf)
    warden_options = warden_options.with_lanes(resume.read_lane_plan(folder, lanes))
    if detach:
        raise typer.Exit(follow.run_detached(folder, mode, warden_options))
    raise typer.Exit(follow.run_foreground(folder, mode, warden_options, progress_interval))


@app.command()
def ps(
    log_root: options.LogRoot = None,
    all_: Annotated[bool, typer.Option("--all", help="Ended suites too.")] = False,
    as_json: options.AsJson = False,
) -> None:
    """List the suites at work."""
    from workbench import paths
    from workbench.headless import follow

    follow.list_suites(paths.log_root(log_root), everything=all_, as_json=as_json)


@app.command()
def stop(
    name: options.WorkingSuiteName = None,
    log_root: options.LogRoot = None,
    timeout: Annotated[float, typer.Option(help="Seconds to wait for the end.")] = 60.0,
) -> None:
    """Stop a suite, by default the one at work: its engine finishes the step, saves, and ends."""
    from workbench import paths
    from workbench.headless import follow
    from workbench.suites import warden_file

    root = paths.log_root(log_root)
    folder = warden_file.choose_suite_at_work(root, name)
    if folder is None:
        print_message(f"{root}: no suite is at work; `workbench ps --all` lists the ended ones")
        raise typer.Exit(ExitCode.COMPLETED)
    raise typer.Exit(follow.stop_suite(folder, timeout))


@app.command()
def doctor(
    log_root: options.LogRoot = None,
    as_json: options.AsJson = False,
) -> None:
    """What this machine has, what is missing, and what to do about it."""
    from workbench import doctor as machine_doctor
    from workbench import paths

    status = machine_doctor.print_report(
        paths.log_root(log_root), paths.cache_root(), as_json=as_json
    )
    raise typer.Exit(status)


@app.command("models")
def models_list(log_root: options.LogRoot = None, as_json: options.AsJson = False) -> None:
    """List the model catalog, then the models that runs have trained (run:LABEL)."""
    from workbench import paths
    from workbench.cli import catalogs

    catalogs.print_models(paths.log_root(log_root), as_json=as_json)


if __name__ == "__main__":
    main()
