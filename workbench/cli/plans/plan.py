"""`workbench plan`: step counts, memory estimates and memory reductions of a plan's runs.

Needs neither data nor weights: a number of rows and the model's configuration suffice.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from workbench.cli import options, start
from workbench.cli.plans import budget, explanation, output
from workbench.cli.plans.run_report import NO_SUBSET, RunReport
from workbench.exit_codes import ExitCode
from workbench.output_language import set_language

if TYPE_CHECKING:
    from engines.memory_query import MemoryEstimate
    from engines.protocol import RunSpec
    from workbench.memory_estimate.memory_check import TargetDevice
    from workbench.planning.plan import SuitePlan

HostGib = Annotated[
    float | None,
    typer.Option("--host-gib", min=1, help="Host memory; default: 16, or what is free here."),
]
AUDIT_HOST_GIB = 16.0
"""Host memory of the audit's machine (g5.xlarge)."""


def register(app: typer.Typer) -> None:
    """Add the command to `workbench`."""
    app.command("plan")(plan_command)


def plan_command(  # noqa: PLR0913, PLR0917 - one parameter for each option
    plan_file: options.PlanFile = None,
    preset: options.Preset = None,
    engine: options.Engines = None,
    subset: options.Subsets = None,
    model: options.Models = None,
    setting: options.Settings = None,
    task: options.TaskName = None,
    gpu: options.GpuName = "",
    cpu: options.NoGpu = False,
    rows: options.Rows = None,
    host_gib: HostGib = None,
    log_root: options.LogRoot = None,
    markdown: options.AsMarkdown = False,
    lang: options.Language = "en",
    explain: explanation.Explain = False,
    schema: explanation.Schema = False,
    as_json: options.AsJson = False,
    by: budget.By = "",
    vram: budget.Vram = "",
    write: budget.Write = None,
) -> None:
    """Steps, GPU memory by part and host memory of a plan's runs; exit code 1: does not fit.

    With --by or --vram: the runs that fit.
    """
    set_language(lang)
    from workbench import paths
    from workbench.memory_estimate import memory_check, plan_estimate
    from workbench.planning import plan

    if schema:
        explanation.print_schema()

    flags: dict[str, Any] = {"engine": engine, "subsets": subset, "models": model, "task": task}
    if not (plan_file or preset):
        flags["subsets"] = subset or ([NO_SUBSET] if rows else None)
    logs = paths.log_root(log_root)
    suite_plan = plan.resolve_model_names(
        start.load_plan(plan_file, preset, flags, setting, cpu=cpu), logs
    )
    if request := budget.read_request(by, vram, write, setting or (), as_json=as_json, gpu=gpu):
        now = datetime.now().astimezone()
        raise typer.Exit(budget.print_fitted_plan(suite_plan, request, logs, now))
    device = _with_host_memory(
        memory_check.locate_device(gpu or suite_plan.gpu, suite_plan.devices, cpu=suite_plan.cpu),
        host_gib,
    )
    suite_plan = start.apply_automatic_settings(suite_plan, setting or (), device)
    if explain and as_json:
        raise typer.BadParameter("is text; leave out --json", param_hint="--explain")
    if explain:
        source = (plan_file, preset, setting or ())
        explanation.print_explanation(suite_plan, source, logs)
    specs = plan_estimate.expand_runs(suite_plan, paths.cache_root(), logs)
    reports = _make_reports(suite_plan, specs, rows, device, host_gib)
    fits = _print_gpu_problems(specs, device)
    fits &= _print_reports(reports, device, markdown=markdown, as_json=as_json)
    if specs and not as_json:
        command = _run_command(plan_file, preset, flags, setting, cpu=cpu, log_root=log_root)
        _print_checklist(specs, command, markdown=markdown)
    raise typer.Exit(ExitCode.COMPLETED if fits else ExitCode.FAILED)


def _make_reports(
    suite_plan: SuitePlan,
    specs: Sequence[RunSpec],
    rows: int | None,
    device: TargetDevice,
    host_gib: float | None,
) -> list[RunReport]:
    from workbench.memory_estimate.gpus import GpuModel

    rented = device.instances.get(device.instance) if isinstance(device, GpuModel) else None
    host_bytes = int((host_gib or rented or AUDIT_HOST_GIB) * (1 << 30))
    return [
        RunReport(spec, suite_plan.origins, _count_rows(spec, rows), device, host_bytes)
        for spec in specs
    ]


def _count_rows(spec: RunSpec, rows: int | None) -> int | None:
    """`rows` where it is given, else those of the run's subset; None: not known here."""
    from workbench import paths
    from workbench.memory_estimate import plan_estimate

    return rows or plan_estimate.count_rows(spec.subset, paths.cache_root())


def _print_gpu_problems(specs: Sequence[RunSpec], device: TargetDevice) -> bool:
    """Print why the device cannot run the plan at all; returns whether it can."""
    from results.text.sanitize import clean
    from workbench.memory_estimate import memory_check

    problems = memory_check.find_gpu_problems(specs, device)
    for problem in problems:
        typer.echo(f"workbench: {clean(problem)}", err=True)
    return not problems


def _print_reports(
    reports: Sequence[RunReport], device: TargetDevice, *, markdown: bool, as_json: bool
) -> bool:
    """Estimate the memory of all runs, then print each; returns whether all fit."""
    from workbench import paths
    from workbench.memory_estimate import estimator_process, memory_check

    memory_estimates: list[MemoryEstimate | None] = [None] * len(reports)
    with estimator_process.share_process(start.print_progress):
        if not isinstance(device, memory_check.UnknownDevice):
            memory_estimates[:] = estimator_process.request_estimates(
                [memory_check.build_query(report.spec, device) for report in reports],
                paths.cache_root(),
            )
        fits = True
        for report, memory_estimate in zip(reports, memory_estimates, strict=True):
            fits &= report.print(memory_estimate, markdown=markdown, as_json=as_json)
    return fits


def _print_checklist(specs: Sequence[RunSpec], command: list[str], *, markdown: bool) -> None:
    """Print what to do to run the plan on another machine."""
    from workbench.memory_estimate import checklist

    lines = checklist.checklist_lines(specs, command)
    output.print_list("To run it elsewhere", lines, markdown=markdown)


def _with_host_memory(device: TargetDevice, host_gib: float | None) -> TargetDevice:
    """The device; if it is the host, with `host_gib` of memory where that is given."""
    from workbench.memory_estimate.fit_check import HostMemory

    if isinstance(device, HostMemory) and host_gib:
        return HostMemory(int(host_gib * (1 << 30)), "the host")
    return device


def _run_command(
    plan_file: Path | None,
    preset: str | None,
    flags: dict[str, Any],
    settings: list[str] | None,
    *,
    cpu: bool,
    log_root: Path | None,
) -> list[str]:
    """The `workbench run` command of the same plan, as a list of arguments."""
    arguments = [str(plan_file)] if plan_file else ["-p", preset] if preset else []
    option_names = {"engine": "-e", "subsets": "-d", "models": "-m"}
    for key, flag in option_names.items():
        for value in flags[key] or ():
            arguments += [flag, "SUBSET" if value == NO_SUBSET else value]
    arguments += ["--task", flags["task"]] if flags["task"] else []
    for setting in settings or ():
        arguments += ["--set", setting]
    arguments += ["--log-root", str(log_root)] if log_root else []
    return ["workbench", "run", *arguments, *(["--cpu"] if cpu else []), "--headless"]
