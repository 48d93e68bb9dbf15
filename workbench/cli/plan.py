"""`workbench plan`: how many steps, how much memory, does it fit, and what to lower if not.

Beside `cli.py`, which registers it. Needs neither the data nor the weights: a number of rows and
the model's sizes are enough.
"""

from __future__ import annotations

import json
import os
import textwrap
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from workbench.cli.options import (
    AsJson,
    Engines,
    Language,
    LogRoot,
    Models,
    NoGpu,
    PlanFile,
    Preset,
    Settings,
    Subsets,
    TaskName,
    asked_plan,
)
from workbench.cli.output_language import set_language, translate, translate_table
from workbench.exit_codes import ExitStatus

if TYPE_CHECKING:
    from engines.memory_query import Need
    from engines.protocol import RunSpec
    from workbench.memory_estimate.estimate import Place
    from workbench.memory_estimate.fit_check import Host
    from workbench.memory_estimate.gpus import Gpu
    from workbench.memory_estimate.plan_estimate import Steps
    from workbench.planning.plan import SuitePlan

GpuName = Annotated[
    str,
    typer.Option(
        "--gpu", help="T4, A10G, L4, A100-80, …, or 24GiB@8.6 (capability); default: this one."
    ),
]
Anyway = Annotated[bool, typer.Option("--anyway", help="Start even what will not fit.")]
Rows = Annotated[int | None, typer.Option("--rows", min=2, help="Rows; default: the subset's.")]
HostMemory = Annotated[
    float | None,
    typer.Option("--host-gib", min=1, help="Host memory; default: 16, or what is free here."),
]
AsMarkdown = Annotated[bool, typer.Option("--markdown", help="Markdown on stdout.")]
NO_SUBSET = "rows"
AUDIT_HOST_GIB = 16.0
"""The audit's machine (g5.xlarge)."""


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
    host_gib: HostMemory = None,
    log_root: LogRoot = None,
    markdown: AsMarkdown = False,
    lang: Language = "en",
    as_json: AsJson = False,
) -> None:
    """Steps, GPU memory by part and host memory of a plan's runs; exit code 1: does not fit."""
    set_language(lang)
    from results.text.sanitize import clean
    from workbench import paths
    from workbench.memory_estimate import (
        checklist,
        estimate,
        estimator_process,
        gpu_support,
        plan_estimate,
    )
    from workbench.planning import plan

    flags: dict[str, Any] = {"engine": engine, "subsets": subset, "models": model, "task": task}
    if not (plan_file or preset):
        flags["subsets"] = subset or ([NO_SUBSET] if rows else None)
    logs = paths.log_root(log_root)
    asked = plan.name_models(asked_plan(plan_file, preset, flags, setting, cpu=cpu), logs)
    where = _sized(estimate.locate(gpu or asked.gpu, asked.devices, cpu=asked.cpu), host_gib)
    asked = with_rules(asked, setting, where)
    cache_root, fits = paths.cache_root(), True
    host = int((host_gib or AUDIT_HOST_GIB) * (1 << 30))
    specs = plan_estimate.runs(asked, cache_root, logs)
    for problem in gpu_support.problems(specs, where):
        typer.echo(f"workbench: {clean(problem)}", err=True)
        fits = False
    needs: list[Need | None] = [None] * len(specs)
    with estimator_process.kept_open(_talk):
        if not isinstance(where, estimate.Unknown):
            needs[:] = estimator_process.ask(
                [estimate.want(spec, where) for spec in specs], cache_root
            )
        for spec, need in zip(specs, needs, strict=True):
            count = rows or plan_estimate.rows_of(spec.subset, cache_root)
            shown = _Shown(spec, asked.origins, count, where, host)
            fits &= shown.tell(need, markdown=markdown, as_json=as_json)
    if specs and not as_json:
        again = _command(plan_file, preset, flags, setting, cpu=cpu, log_root=log_root)
        _say_list("To run it elsewhere", checklist.lines(specs, again), markdown=markdown)
    raise typer.Exit(ExitStatus.COMPLETED if fits else ExitStatus.FAILED)


def with_rules(asked: SuitePlan, settings: list[str] | None, where: Place) -> SuitePlan:
    """The plan with what the environment and the GPU's rule make of it."""
    from workbench.cli import set_options
    from workbench.memory_estimate import automatic_settings
    from workbench.memory_estimate.gpus import Gpu

    flagged = dict(map(set_options.read_setting, settings or ()))
    gpu = where if isinstance(where, Gpu) else None
    return automatic_settings.applied(asked, flagged, gpu, os.environ)


def forecast_runs(
    asked: SuitePlan,
    settings: list[str] | None,
    *,
    anyway: bool,
    log_root: Path | None = None,
) -> tuple[SuitePlan, list[RunSpec], list[str]]:
    """Plan and specs with rules and forecasts, and lines for a person, before a suite starts.

    Trained models of the log root have their whole names in the plan.

    Raises:
        PlanError: something does not fit at all.
    """
    from workbench import paths
    from workbench.memory_estimate import estimate, estimator_process, gpu_support
    from workbench.planning import plan

    cache_root = paths.cache_root()
    where = estimate.locate(asked.gpu, asked.devices, cpu=asked.cpu)
    root = log_root or paths.log_root(None)
    asked = with_rules(plan.name_models(asked, root), settings, where)
    specs = plan.expand(asked, cache_root, root)
    lines = [f"{key} = {asked.settings.get(key)}, {why}" for key, why in asked.origins.items()]
    problems = list(dict.fromkeys(gpu_support.problems(specs, where)))
    if problems and not anyway:
        raise plan.PlanError(problems)
    lines += problems
    if isinstance(where, estimate.Unknown):
        return asked, specs, [*lines, f"memory forecast: n/a ({where.reason})"]
    with estimator_process.kept_open(_talk):
        specs, said = estimate.judged(specs, where, cache_root, anyway=anyway)
    return asked, specs, [*lines, *said]


def _sized(where: Place, host_gib: float | None) -> Place:
    """A host has the memory that was said, else what is free."""
    from workbench.memory_estimate.fit_check import Host

    if isinstance(where, Host) and host_gib:
        return Host(int(host_gib * (1 << 30)), "the host")
    return where


class _Shown:
    """One run of a plan, told."""

    def __init__(
        self,
        spec: RunSpec,
        origins: dict[str, str],
        rows: int | None,
        where: Place,
        host_bytes: int,
    ) -> None:
        self.spec, self.origins, self.rows = spec, origins, rows
        self.where, self.host_bytes = where, host_bytes

    def tell(self, need: Need | None, *, markdown: bool, as_json: bool) -> bool:
        """Print it; whether it fits as far as is known. `need`: None where nobody was asked."""
        from workbench.memory_estimate import plan_estimate

        params = self.spec.params
        steps = None
        if self._trains and self.rows and "batch" in params:
            steps = plan_estimate.steps(params, self.rows)
        if as_json:
            self._lines(steps, need)
        else:
            self._tables(steps, need, markdown=markdown)
        return self._fits(need)

    @property
    def _trains(self) -> bool:
        return self.spec.task in ("train", "probe")

    def _fits(self, need: Need | None) -> bool:
        from workbench.memory_estimate import estimate, fit_check
        from workbench.memory_estimate.fit_check import Host

        if need is None or isinstance(self.where, estimate.Unknown) or need.problem:
            return True
        here = isinstance(self.where, Host)
        roomy = here or sum(need.host.values()) <= self.host_bytes
        return roomy and fit_check.worst(need, self.where).fits

    def _tables(self, steps: Steps | None, need: Need | None, *, markdown: bool) -> None:
        from workbench.memory_estimate import checklist, estimate, table
        from workbench.memory_estimate.fit_check import Host

        spec, where = self.spec, self.where
        subset = "" if spec.subset == NO_SUBSET else spec.subset
        title = " · ".join(part for part in (spec.engine, spec.model, subset, spec.label) if part)
        _say(f"## {title}\n" if markdown else f"{title}\n", markdown=markdown)
        if steps:
            _print(table.of_steps(steps, self.origins), markdown=markdown)
        elif not self._trains:
            known = f"rows: {self.rows:,}; " if self.rows else ""
            _say(f"{known}task {spec.task} trains nothing", markdown=markdown)
        else:
            _say("steps: the subset's rows are not known here; give --rows", markdown=markdown)
        if kept := checklist.settings(spec.params):
            _say_list("Settings of training and prediction", kept, markdown=markdown)
        if isinstance(where, Host):
            _say("no GPU here and none named: memory is the host's; --gpu A10G asks about a GPU",
                 markdown=markdown)  # fmt: skip
        if isinstance(where, estimate.Unknown):
            _say(f"memory: n/a ({where.reason}); give --gpu, as --gpu A10G", markdown=markdown)
        elif need is None:
            _say("memory: n/a (not asked)", markdown=markdown)
        elif need.problem:
            _say(f"memory: n/a ({need.problem})", markdown=markdown)
        else:
            self._memory(need, where, markdown=markdown)

    def _memory(self, need: Need, where: Gpu | Host, *, markdown: bool) -> None:
        from workbench import paths
        from workbench.memory_estimate import checklist, fit_check, plan_estimate, table
        from workbench.memory_estimate.fit_check import Host

        _print(table.of_memory(need, where), markdown=markdown)
        if not isinstance(where, Host):
            _print(table.of_host(need, self.host_bytes), markdown=markdown)
        found = fit_check.worst(need, where)
        _say(fit_check.sentence(found, where), markdown=markdown)
        if not isinstance(where, Host):
            _say_estimate(self.spec, need, where, markdown=markdown)
        if not found.fits:
            lowered = plan_estimate.lowered(self.spec, where, paths.cache_root(), found.phase)
            _print(table.of_lowered(lowered), markdown=markdown)
        elif not isinstance(where, Host):
            ways = checklist.remedies(self.spec, found.phase)
            _say_list("If memory does not suffice all the same", ways, markdown=markdown)
        if not isinstance(where, Host) and sum(need.host.values()) > self.host_bytes:
            _say("host memory does not suffice: close other programs, or lower workers",
                 markdown=markdown)  # fmt: skip

    def _lines(self, steps: Steps | None, need: Need | None) -> None:
        from results.text.sanitize import escape_json
        from workbench.memory_estimate import estimate, fit_check
        from workbench.memory_estimate.fit_check import Host

        where = self.where
        said: dict[str, Any] = {"engine": self.spec.engine, "model": self.spec.model}
        said["subset"] = self.spec.subset
        said["params"], said["origins"] = self.spec.params, self.origins
        said["steps"] = steps._asdict() if steps else None
        if need is not None and not isinstance(where, estimate.Unknown):
            said["need"] = need.model_dump()
            if isinstance(where, Host):
                said["host"] = where._asdict()
            else:
                said["gpu"] = where.model_dump()
            if not need.problem:
                found = fit_check.worst(need, where)
                said["verdict"] = {**found._asdict(), "fits": found.fits}
        typer.echo(escape_json(json.dumps(said)))


def _command(
    plan_file: Path | None,
    preset: str | None,
    flags: dict[str, Any],
    settings: list[str] | None,
    *,
    cpu: bool,
    log_root: Path | None,
) -> list[str]:
    """The `run` command of the same plan."""
    named = [str(plan_file)] if plan_file else ["-p", preset] if preset else []
    words = {"engine": "-e", "subsets": "-d", "models": "-m"}
    for key, flag in words.items():
        for value in flags[key] or ():
            named += [flag, "SUBSET" if value == NO_SUBSET else value]
    named += ["--task", flags["task"]] if flags["task"] else []
    for one in settings or ():
        named += ["--set", one]
    named += ["--log-root", str(log_root)] if log_root else []
    return ["workbench", "run", *named, *(["--cpu"] if cpu else []), "--headless"]


def _say_estimate(spec: RunSpec, need: Need, where: Gpu, *, markdown: bool) -> None:
    from workbench.memory_estimate import checklist

    if said := checklist.audit_estimate(spec, need, where):
        words = translate(said)
        _say(words if markdown else _wrapped(words), markdown=markdown)


def _say_list(title: str, lines: Sequence[str], *, markdown: bool) -> None:
    heading = translate(title)
    _say(f"### {heading}" if markdown else f"\n{heading}:", markdown=markdown)
    for line in map(translate, lines):
        text = line if line[:1].isdigit() else f"- {line}"
        _say(text if markdown else _wrapped(text), markdown=False)
    _say("", markdown=False)


def _wrapped(line: str) -> str:
    """Within 80 columns; words are not cut, so that a command can still be copied."""
    indent = " " * (line.index(" ") + 1)
    return textwrap.fill(
        line, 80, subsequent_indent=indent, break_long_words=False, break_on_hyphens=False
    )


def _talk(text: str) -> None:
    """How far it is, for a person who waits."""
    from results.text.sanitize import clean_line

    typer.echo(f"workbench: {clean_line(text)}", err=True)


def _say(text: str, *, markdown: bool) -> None:
    from results.text.sanitize import clean

    typer.echo(clean(translate(text)) + ("\n" if markdown else ""))


def _print(table: Any, *, markdown: bool) -> None:
    from results.tables.table import markdown as as_markdown
    from results.tables.table import terminal

    typer.echo((as_markdown if markdown else terminal)(translate_table(table)))
