"""`workbench plan`: step counts, memory estimates and memory reductions of a plan's runs.

Needs neither data nor weights: a number of rows and the model's configuration suffice.
"""

from __future__ import annotations

import json
import textwrap
from collections.abc import Sequence
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from workbench.cli import start
from workbench.cli.options import (
    AsJson,
    AsMarkdown,
    Engines,
    GpuName,
    Language,
    LogRoot,
    Models,
    NoGpu,
    PlanFile,
    Preset,
    Rows,
    Settings,
    Subsets,
    TaskName,
    load_plan,
)
from workbench.cli.plans import budget, explanation
from workbench.exit_codes import ExitCode
from workbench.output_language import set_language, translate, translate_table

if TYPE_CHECKING:
    from engines.memory_query import MemoryEstimate
    from engines.protocol import RunSpec
    from workbench.memory_estimate.fit_check import HostMemory
    from workbench.memory_estimate.gpus import GpuModel
    from workbench.memory_estimate.memory_check import TargetDevice
    from workbench.memory_estimate.plan_estimate import StepCounts
    from workbench.planning.plan import SuitePlan

HostGib = Annotated[
    float | None,
    typer.Option("--host-gib", min=1, help="Host memory; default: 16, or what is free here."),
]
NO_SUBSET = "rows"
AUDIT_HOST_GIB = 16.0
"""Host memory of the audit's machine (g5.xlarge)."""


def register(app: typer.Typer) -> None:
    """Add the command to `workbench`."""
    app.command("plan")(plan_command)


def plan_command(  # noqa: PLR0913, PLR0917 - one parameter for each option
    plan_file: PlanFile = None,
    preset: Preset = None,
    engine: Engines = None,
    subset: Subsets = None,
    model: Models = None,
    setting: Settings = None,
    task: TaskName = None,
    gpu: GpuName = "",
    cpu: NoGpu = False,
    rows: Rows = None,
    host_gib: HostGib = None,
    log_root: LogRoot = None,
    markdown: AsMarkdown = False,
    lang: Language = "en",
    explain: explanation.Explain = False,
    schema: explanation.Schema = False,
    as_json: AsJson = False,
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
        load_plan(plan_file, preset, flags, setting, cpu=cpu), logs
    )
    if request := budget.read_request(by, vram, write, as_json=as_json, gpu=gpu):
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
) -> list[_RunReport]:
    host_bytes = int((host_gib or AUDIT_HOST_GIB) * (1 << 30))
    return [
        _RunReport(spec, suite_plan.origins, _count_rows(spec, rows), device, host_bytes)
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
    from workbench.memory_estimate import gpu_support

    problems = gpu_support.find_problems(specs, device)
    for problem in problems:
        typer.echo(f"workbench: {clean(problem)}", err=True)
    return not problems


def _print_reports(
    reports: Sequence[_RunReport], device: TargetDevice, *, markdown: bool, as_json: bool
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
    _print_list("To run it elsewhere", lines, markdown=markdown)


def _with_host_memory(device: TargetDevice, host_gib: float | None) -> TargetDevice:
    """The device; if it is the host, with `host_gib` of memory where that is given."""
    from workbench.memory_estimate.fit_check import HostMemory

    if isinstance(device, HostMemory) and host_gib:
        return HostMemory(int(host_gib * (1 << 30)), "the host")
    return device


class _RunReport:
    """Output about one run of a plan: tables or a JSON line."""

    def __init__(
        self,
        spec: RunSpec,
        origins: dict[str, str],
        rows: int | None,
        device: TargetDevice,
        host_bytes: int,
    ) -> None:
        self.spec, self.origins, self.rows = spec, origins, rows
        self.device, self.host_bytes = device, host_bytes

    def print(
        self, memory_estimate: MemoryEstimate | None, *, markdown: bool, as_json: bool
    ) -> bool:
        """Print the run; whether it fits, as far as is known. `memory_estimate` None: unknown."""
        from workbench.memory_estimate import plan_estimate

        params = self.spec.params
        steps = None
        if self._trains and self.rows and "batch" in params:
            steps = plan_estimate.count_steps(params, self.rows)
        if as_json:
            self._print_json(steps, memory_estimate)
        else:
            self._print_tables(steps, memory_estimate, markdown=markdown)
        return self._fits(memory_estimate)

    @property
    def _stage_steps(self) -> dict[str, StepCounts]:
        """Steps by stage, where the run has stages and its rows are known."""
        from workbench.memory_estimate import plan_estimate

        if not (self._trains and self.rows):
            return {}
        return plan_estimate.count_stage_steps(self.spec.params, self.rows)

    @property
    def _trains(self) -> bool:
        return self.spec.task in ("train", "probe")

    def _fits(self, memory_estimate: MemoryEstimate | None) -> bool:
        from workbench.memory_estimate import fit_check, memory_check
        from workbench.memory_estimate.fit_check import HostMemory

        if (
            memory_estimate is None
            or isinstance(self.device, memory_check.UnknownDevice)
            or memory_estimate.problem
        ):
            return True
        on_host = isinstance(self.device, HostMemory)
        host_fits = on_host or sum(memory_estimate.host.values()) <= self.host_bytes
        return host_fits and fit_check.peak_phase(memory_estimate, self.device).fits

    def _print_tables(
        self, steps: StepCounts | None, memory_estimate: MemoryEstimate | None, *, markdown: bool
    ) -> None:
        from workbench.memory_estimate import checklist, memory_check, table
        from workbench.memory_estimate.fit_check import HostMemory

        spec, device = self.spec, self.device
        subset = "" if spec.subset == NO_SUBSET else spec.subset
        title = " · ".join(part for part in (spec.engine, spec.model, subset, spec.label) if part)
        _print_text(f"## {title}\n" if markdown else f"{title}\n", markdown=markdown)
        if self._stage_steps:
            _print_table(table.stages_table(self._stage_steps, spec.params), markdown=markdown)
        elif steps:
            _print_table(table.steps_table(steps, self.origins), markdown=markdown)
        elif not self._trains:
            row_count = f"rows: {self.rows:,}; " if self.rows else ""
            _print_text(f"{row_count}task {spec.task} trains nothing", markdown=markdown)
        else:
            _print_text(
                "steps: the subset's rows are not known here; give --rows", markdown=markdown
            )
        if setting_lines := checklist.setting_lines(spec.params):
            _print_list("Settings of training and prediction", setting_lines, markdown=markdown)
        if isinstance(device, HostMemory):
            _print_text(
                "no GPU here and none named: memory is the host's; --gpu A10G asks about a GPU",
                markdown=markdown,
            )
        if isinstance(device, memory_check.UnknownDevice):
            _print_text(
                f"memory: n/a ({device.reason}); give --gpu, as --gpu A10G", markdown=markdown
            )
        elif memory_estimate is None:
            _print_text("memory: n/a (not asked)", markdown=markdown)
        elif memory_estimate.problem:
            _print_text(f"memory: n/a ({memory_estimate.problem})", markdown=markdown)
        else:
            self._print_memory(memory_estimate, device, markdown=markdown)

    def _print_memory(
        self, memory_estimate: MemoryEstimate, device: GpuModel | HostMemory, *, markdown: bool
    ) -> None:
        from workbench import paths
        from workbench.memory_estimate import checklist, fit_check, plan_estimate, table
        from workbench.memory_estimate.fit_check import HostMemory

        _print_table(table.memory_table(memory_estimate, device), markdown=markdown)
        if not isinstance(device, HostMemory):
            _print_table(table.host_table(memory_estimate, self.host_bytes), markdown=markdown)
        peak = fit_check.peak_phase(memory_estimate, device)
        _print_text(fit_check.describe_fit(peak, device), markdown=markdown)
        if not isinstance(device, HostMemory):
            _print_audit_estimate(self.spec, memory_estimate, device, markdown=markdown)
        if not peak.fits:
            reductions = plan_estimate.estimate_reductions(
                self.spec, device, paths.cache_root(), peak.phase
            )
            _print_table(table.reductions_table(reductions), markdown=markdown)
        elif not isinstance(device, HostMemory):
            remedies = checklist.remedy_lines(self.spec, peak.phase)
            _print_list("If memory does not suffice all the same", remedies, markdown=markdown)
        if (
            not isinstance(device, HostMemory)
            and sum(memory_estimate.host.values()) > self.host_bytes
        ):
            _print_text("host memory does not suffice: close other programs, or lower num_workers",
                 markdown=markdown)  # fmt: skip

    def _print_json(self, steps: StepCounts | None, memory_estimate: MemoryEstimate | None) -> None:
        from results.text.sanitize import escape_json
        from workbench.memory_estimate import fit_check, memory_check
        from workbench.memory_estimate.fit_check import HostMemory

        device = self.device
        report: dict[str, Any] = {"engine": self.spec.engine, "model": self.spec.model}
        report["subset"] = self.spec.subset
        report["params"], report["origins"] = self.spec.params, self.origins
        report["steps"] = steps._asdict() if steps and not self._stage_steps else None
        if self._stage_steps:
            report["stages"] = {name: row._asdict() for name, row in self._stage_steps.items()}
        if memory_estimate is not None and not isinstance(device, memory_check.UnknownDevice):
            report["need"] = memory_estimate.model_dump()
            if isinstance(device, HostMemory):
                report["host"] = device._asdict()
            else:
                report["gpu"] = device.model_dump()
            if not memory_estimate.problem:
                peak = fit_check.peak_phase(memory_estimate, device)
                report["verdict"] = {**peak._asdict(), "fits": peak.fits}
        typer.echo(escape_json(json.dumps(report)))


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


def _print_audit_estimate(
    spec: RunSpec, memory_estimate: MemoryEstimate, device: GpuModel, *, markdown: bool
) -> None:
    from workbench.memory_estimate import checklist

    if sentence := checklist.audit_estimate(spec, memory_estimate, device):
        translated = translate(sentence)
        _print_text(translated if markdown else _wrap(translated), markdown=markdown)


def _print_list(title: str, lines: Sequence[str], *, markdown: bool) -> None:
    heading = translate(title)
    _print_text(f"### {heading}" if markdown else f"\n{heading}:", markdown=markdown)
    for line in map(translate, lines):
        text = line if line[:1].isdigit() else f"- {line}"
        _print_text(text if markdown else _wrap(text), markdown=False)
    _print_text("", markdown=False)


def _wrap(line: str) -> str:
    """The line wrapped at 80 columns without cutting words, so that commands can be copied."""
    indent = " " * (line.index(" ") + 1)
    return textwrap.fill(
        line, 80, subsequent_indent=indent, break_long_words=False, break_on_hyphens=False
    )


def _print_text(text: str, *, markdown: bool) -> None:
    from results.text.sanitize import clean

    typer.echo(clean(translate(text)) + ("\n" if markdown else ""))


def _print_table(table: Any, *, markdown: bool) -> None:
    from results.text.table import render_markdown, render_terminal

    typer.echo((render_markdown if markdown else render_terminal)(translate_table(table)))
