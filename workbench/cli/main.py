"""The commands. Each imports what it needs when it is called, so that `--help` stays fast.

stdout is data, stderr is talk; exit codes are those of `exits.ExitStatus`.
"""

from __future__ import annotations

import errno
import os
import sys
from pathlib import Path
from typing import Annotated, Any, Final, NoReturn

import typer
import typer.core

from workbench.cli import data, plan, results, search, start
from workbench.cli.options import (
    FOLDER,
    AsJson,
    CostProbe,
    Detach,
    Devices,
    DryRun,
    Engines,
    Headless,
    Label,
    Language,
    LogRoot,
    Models,
    Name,
    NoGpu,
    PlanFile,
    Preset,
    Repeats,
    Seeds,
    Settings,
    Share,
    Subsets,
    SuiteName,
    TaskName,
    Until,
    asked_plan,
)
from workbench.exit_codes import ExitStatus

NO_SPACE: Final = (errno.ENOSPC, errno.EDQUOT)

app = typer.Typer(
    help="A terminal workbench for multimodal models: what an epoch costs, whether it fits, "
    "how good it gets. Without a command it opens the screen.",
    add_completion=False,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
)
results_app = typer.Typer(
    help="Look at the records that runs left, and note what was found.", no_args_is_help=True
)
data_app = typer.Typer(help="List, build, describe and check subsets.", no_args_is_help=True)
app.add_typer(results_app, name="results")
app.add_typer(data_app, name="data")
data.register(data_app)
results.register(results_app)
search.register(app)
plan.register(app)


class RunCommand(typer.core.TyperCommand):
    """`run`, whose `--cost-probe` may stand without its number."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        """Give a bare `--cost-probe` the usual number; what follows it may be the plan's file."""
        bare = "--cost-probe"
        for place, word in enumerate(args):
            following = args[place + 1] if place + 1 < len(args) else ""
            if word == bare and not following.lstrip("+-").replace(".", "").isdigit():
                from engines.protocol import Probe

                args[place] = f"{bare}={Probe().steps}"
        return super().parse_args(ctx, args)


def main() -> NoReturn:
    """Entry point: one-sentence errors, exit codes as promised."""
    try:
        _invoke()
    except BrokenPipeError:
        _discard_stdout()  # `| head` has enough
        raise SystemExit(ExitStatus.COMPLETED) from None
    except Exception as error:
        if isinstance(error, OSError) and error.errno in NO_SPACE:
            _discard_stdout()
            what = error.filename or "output"
            entries = ", or file entries" if error.filename else ""
            say(f"{what} cannot be written ({error.strerror}); free some space{entries}")
            raise SystemExit(ExitStatus.FAILED) from None
        problems = _problems(error)
        if not problems:
            raise
        for problem in problems:
            say(problem)
        raise SystemExit(ExitStatus.USAGE) from None


def _invoke() -> NoReturn:
    """Run the command, and write out what it printed while an error can still be told."""
    try:
        app()
    except SystemExit as ending:
        if isinstance(ending.__context__, BrokenPipeError):  # typer makes it exit code 1
            raise ending.__context__ from None
        sys.stdout.flush()
        raise
    raise SystemExit(ExitStatus.COMPLETED)


def _discard_stdout() -> None:
    """Let Python's last flush of stdout succeed."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), 1)


def _problems(error: Exception) -> list[str]:
    """The sentences of an error that a person made; none for a mistake of ours."""
    from datasets_mm.strict_toml import TomlError
    from results.records.store import NewerSchema
    from workbench.planning.plan import PlanError
    from workbench.suites.suite import SuiteError
    from workbench.supervisor.launch import LaunchError

    if isinstance(error, PlanError | TomlError):
        return error.problems
    if isinstance(error, OSError):  # a fault of the surroundings: a disk, a mode, a missing program
        return [": ".join(str(part) for part in (error.filename, error.strerror or error) if part)]
    known = isinstance(error, SuiteError | NewerSchema | LaunchError)
    return str(error).splitlines() if known else []


def say(text: str) -> None:
    """One line of talk on stderr, cleaned."""
    from results.text.sanitize import clean
    from results.text.secrets import mask

    typer.echo(f"workbench: {clean(mask(text))}", err=True)


@app.callback(invoke_without_command=True)
def screen(
    context: typer.Context,
    log_root: LogRoot = None,
    version: Annotated[bool, typer.Option("--version", help="Print the version.")] = False,
) -> None:
    """Open the screen when no command is given."""
    if version:
        from importlib import metadata

        typer.echo(metadata.version("workbench-mm"))
        raise typer.Exit
    if log_root is not None:
        os.environ["WORKBENCH_LOG_ROOT"] = str(log_root)  # for the command that follows
    if context.invoked_subcommand is None:
        from workbench import paths
        from workbench.tui.app import main as open_screen

        raise typer.Exit(open_screen(paths.log_root(log_root)))


@app.command(cls=RunCommand)
def run(
    plan_file: PlanFile = None,
    preset: Preset = None,
    engine: Engines = None,
    subset: Subsets = None,
    model: Models = None,
    setting: Settings = None,
    seed: Seeds = None,
    repeats: Repeats = None,
    device: Devices = None,
    cpu: NoGpu = False,
    task: TaskName = None,
    name: Name = None,
    label: Label = None,
    log_root: LogRoot = None,
    headless: Headless = False,
    detach: Detach = False,
    cost_probe: CostProbe = None,
    until: Until = None,
    share: Share = False,
    gpu: plan.GpuName = "",
    anyway: plan.Anyway = False,
    dry_run: DryRun = False,
    as_json: AsJson = False,
) -> None:
    """Train and evaluate: a plan file, a preset, or flags; flags overrule the other two."""
    from results.text.sanitize import escape_json
    from workbench import paths
    from workbench.headless.renderers import Mode

    flags = {
        "engine": engine, "subsets": subset, "models": model, "seeds": seed, "repeats": repeats,
        "devices": device, "task": task, "name": name, "label": label, "cost_probe": cost_probe,
        "until": until, "gpu": gpu,
    }  # fmt: skip
    asked = asked_plan(plan_file, preset, flags, setting, cpu=cpu)
    start.check_devices(asked)
    asked, specs, lines = plan.forecast_runs(
        asked, setting, anyway=anyway, log_root=paths.log_root(log_root)
    )
    for line in lines:
        say(line)
    if dry_run:
        for spec in specs:
            typer.echo(escape_json(spec.model_dump_json()) if as_json else spec.run_id)
        return
    mode = Mode.of(headless=headless, as_json=as_json)
    start.start(asked, specs, log_root, mode, detach=detach, share=share)


@app.command()
def presets() -> None:
    """List the presets, and what a document expects of them: time and accuracy."""
    from results.text.sanitize import clean_line
    from workbench import paths
    from workbench.memory_estimate import expectations
    from workbench.planning import plan

    for name in plan.preset_files():
        asked = plan.preset(name)
        typer.echo(clean_line(f"{name:<24} {asked.about}"))
        if sentence := expectations.sentence(asked, paths.cache_root()):
            typer.echo(f"{'':<24} {clean_line(sentence)}")


@app.command()
def attach(name: SuiteName = None, log_root: LogRoot = None, as_json: AsJson = False) -> None:
    """Watch a suite; Ctrl-C only detaches."""
    from workbench import paths
    from workbench.headless import follow as front
    from workbench.headless.renderers import Mode
    from workbench.suites import suite

    folder = suite.find(paths.log_root(log_root), name)
    raise typer.Exit(front.attach(folder, Mode.of(headless=False, as_json=as_json)))


@app.command()
def resume(
    name: Annotated[
        str | None,
        typer.Argument(metavar="[SUITE]", help="A name or a part of it; default: the newest left."),
    ] = None,
    log_root: LogRoot = None,
    headless: Headless = False,
    detach: Detach = False,
    share: Share = False,
    as_json: AsJson = False,
) -> None:
    """Go on with a suite that was stopped, killed or failed: completed runs are kept."""
    from workbench import paths
    from workbench.headless import follow as front
    from workbench.headless.renderers import Mode
    from workbench.supervisor import resume

    folder = resume.choose(paths.log_root(log_root), name)
    start.check_surroundings(folder.parent)
    runs, trials = resume.prepare(folder), resume.to_come(folder)
    if not runs and not trials:
        say(f"{folder.name}: nothing is left to do")
        raise typer.Exit(ExitStatus.COMPLETED)
    say(resume.announcement(folder, runs, trials))
    mode = Mode.of(headless=headless, as_json=as_json)
    go = front.detach if detach else front.foreground
    raise typer.Exit(go(folder, mode, share=share, resume=True))


@app.command()
def ps(
    log_root: LogRoot = None,
    all_: Annotated[bool, typer.Option("--all", help="Ended suites too.")] = False,
    as_json: AsJson = False,
) -> None:
    """List the suites at work."""
    from workbench import paths
    from workbench.headless import follow as front

    front.list_suites(paths.log_root(log_root), everything=all_, as_json=as_json)


@app.command()
def stop(
    name: SuiteName = None,
    log_root: LogRoot = None,
    timeout: Annotated[float, typer.Option(help="Seconds to wait for the end.")] = 60.0,
) -> None:
    """Stop a suite: its engine finishes the step, saves, and ends."""
    from workbench import paths
    from workbench.headless import follow as front
    from workbench.suites import suite

    raise typer.Exit(front.stop(suite.find(paths.log_root(log_root), name), timeout))


@app.command()
def report(
    name: SuiteName = None,
    log_root: LogRoot = None,
    lang: Language = "en",
    out: Annotated[
        Path | None,
        typer.Option(help="Write report.md and figures into this folder.", **FOLDER),
    ] = None,
    appendix: Annotated[
        bool, typer.Option("--appendix", help="Counters and trained tensors by run, at the end.")
    ] = False,
    eda: Annotated[
        bool, typer.Option("--eda", help="With --out: a figure of what the subsets hold, too.")
    ] = False,
    data: Annotated[
        bool, typer.Option("--data", help="With the full check of every subset; scans them.")
    ] = False,
    compare_data: Annotated[
        tuple[str, str] | None,
        typer.Option(metavar="SUBSET SUBSET", help="With two subsets side by side; scans them."),
    ] = None,
) -> None:
    """The weekly report of a suite as Markdown."""
    from workbench import paths
    from workbench.reporting import suite_view
    from workbench.suites import suite

    folder = suite.find(paths.log_root(log_root), name)
    if eda and out is None:
        say("--eda draws a figure; give the folder for it with --out")
        raise typer.Exit(ExitStatus.USAGE)
    wanted = suite_view.Wanted(appendix, data, compare_data, eda)
    raise typer.Exit(suite_view.report(folder, lang, out, wanted))


@app.command()
def doctor(
    log_root: LogRoot = None,
    overhead: Annotated[
        bool, typer.Option("--overhead", help="Measure what watching costs; half a minute.")
    ] = False,
    as_json: AsJson = False,
) -> None:
    """What this machine has, what is missing, and what to do about it."""
    from workbench import doctor as examiner
    from workbench import paths

    status = examiner.run(paths.log_root(log_root), paths.cache_root(), as_json=as_json)
    if overhead:
        from workbench.doctor import overhead as meter

        meter.run(paths.cache_root(), as_json=as_json)
    raise typer.Exit(status)


@app.command("models")
def models_list(as_json: AsJson = False) -> None:
    """List the model catalogue."""
    from workbench.cli import catalogs

    catalogs.models(as_json=as_json)


if __name__ == "__main__":
    main()
