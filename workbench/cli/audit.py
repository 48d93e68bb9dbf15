"""`workbench audit`: faults of a plan, a suite or a run, with evidence and remedy."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from workbench.cli import options, start
from workbench.exit_codes import ExitCode

if TYPE_CHECKING:
    from collections.abc import Sequence

    from engines.protocol import RunSpec
    from results.records.schema import Identity
    from results.records.suite_view import AuditRow
    from results.text.table import Table
    from workbench.planning.plan import SuitePlan

Target = Annotated[
    str | None,
    typer.Argument(
        metavar="[PLAN.toml|SUITE|RUN]", help="A plan file, or a suite or run of the log root."
    ),
]
AllRules = Annotated[bool, typer.Option("--all", help="The rules without a fault, too.")]


def register(app: typer.Typer) -> None:
    """Add the command to `workbench`."""
    app.command("audit")(audit_command)


def audit_command(  # noqa: PLR0913, PLR0917 - one parameter for each option
    target: Target = None,
    preset: options.Preset = None,
    engine: options.Engines = None,
    subset: options.Subsets = None,
    model: options.Models = None,
    setting: options.Settings = None,
    device: options.Devices = None,
    gpu: options.GpuName = "",
    cpu: options.NoGpu = False,
    rows: options.Rows = None,
    log_root: options.LogRoot = None,
    every: AllRules = False,
    markdown: options.AsMarkdown = False,
    lang: options.Language = "en",
    as_json: options.AsJson = False,
) -> None:
    """Name the faults of a plan, a suite or a run; exit code 1: there is one beside notes."""
    from workbench import paths

    logs = paths.log_root(log_root)
    flags = {"engine": engine, "subsets": subset, "models": model, "devices": device, "gpu": gpu}
    plan_file = Path(target) if target and target.endswith(".toml") else None
    if plan_file or preset or model or subset:
        plan = start.load_plan(plan_file, preset, flags, setting, cpu=cpu)
        shown = _audit_plan(plan, setting or (), logs, rows)
    else:
        shown = _audit_records(logs, target)
    if as_json:
        _print_json(shown, every=every)
    else:
        _print_tables(shown, lang, every=every, markdown=markdown)
    faults = [row for row in shown if row.standing == "fault" and row.severity != "note"]
    raise typer.Exit(ExitCode.FAILED if faults else ExitCode.COMPLETED)


def _audit_plan(
    plan: SuitePlan, settings: Sequence[str], logs: Path, rows: int | None
) -> Sequence[AuditRow]:
    from workbench.audit import audit
    from workbench.memory_estimate import memory_check
    from workbench.planning import plan as planning

    plan = planning.resolve_model_names(plan, logs)
    device = memory_check.locate_device(plan.gpu, plan.devices, cpu=plan.cpu)
    plan = start.apply_automatic_settings(plan, settings, device)
    return audit.audit_plan(plan, _expand(plan, logs), device, rows)


def _expand(plan: SuitePlan, logs: Path) -> list[RunSpec]:
    """The runs of a plan; where data or weights are not here, those of its settings alone."""
    from workbench import paths
    from workbench.memory_estimate import plan_estimate
    from workbench.planning import expand
    from workbench.planning.plan import PlanError

    try:
        return expand.expand(plan, paths.cache_root(), logs)
    except PlanError:
        return plan_estimate.expand_runs(plan, paths.cache_root(), logs)


def _audit_records(logs: Path, name: str | None) -> Sequence[AuditRow]:
    """The audit of a suite, or of one run of a suite; imported ones have no folder.

    Raises:
        SuiteError: no suite and no run, or several, have the name.
    """
    from workbench.reporting import suite_audit, suite_view
    from workbench.suites import suite, suite_reader

    run_id, log_records = "", suite_view.read_records(logs)
    try:
        folder = suite.find_suite(logs, name)
    except suite.SuiteError:
        matches = [r for r in log_records if name in _names(r.identity)]
        suite_name, _, run_id = (name or "").partition("/")
        if matches:
            suite_name, run_id = matches[-1].identity.suite, matches[-1].identity.run_id
        elif not run_id or not (logs / suite_name / "runs" / run_id).is_dir():
            raise
        folder = logs / suite_name
        if not folder.is_dir():
            imported = [r for r in matches if r.identity.suite == folder.name]
            noted = suite_view.read_suite_notes(logs, folder.name)
            return suite_audit.audit_imported(logs, imported, noted)
    runs = [
        run for run in suite_reader.SuiteReader(folder).poll().runs
        if run_id in ("", run.spec.run_id)
    ]  # fmt: skip
    noted = suite_view.read_suite_notes(logs, folder.name)
    return suite_audit.audit_suite(folder, runs, log_records, noted)


def _names(identity: Identity) -> tuple[str, ...]:
    """What a run is asked for by: its id, its label, its suite and id, or its suite."""
    run_id, suite = identity.run_id, identity.suite
    return run_id, identity.label, f"{suite}/{run_id}", suite


def _print_json(rows: Sequence[AuditRow], *, every: bool) -> None:
    from results.text.sanitize import escape_json

    for row in rows:
        if every or row.standing == "fault":
            typer.echo(escape_json(json.dumps(row.model_dump(mode="json"), ensure_ascii=False)))


def _print_tables(rows: Sequence[AuditRow], lang: str, *, every: bool, markdown: bool) -> None:
    from results.tables import audit as audit_tables
    from results.text.table import render_markdown
    from results.text.translations import translate

    tables = [audit_tables.fault_table(rows, lang)]
    tables += [audit_tables.rule_table(rows, lang)] if every else []
    if markdown:
        typer.echo(f"## {translate('audit.heading', lang)}\n")
    for table in tables:
        if markdown:
            typer.echo(render_markdown(table))
        else:
            _print_blocks(table)


def _print_blocks(table: Table) -> None:
    """Print a table of sentences as a block for each row, wrapped to the terminal's width."""
    from rich.console import Console
    from rich.table import Table as RichTable
    from rich.text import Text

    from results.text.table import plain_text

    console, grid = Console(highlight=False), RichTable.grid(padding=(0, 2, 0, 0))
    for row in table.rows:
        for column, cell in zip(table.columns, row, strict=True):
            if text := plain_text(cell):
                grid.add_row(Text(column.title), Text(text))
        grid.add_row("", "")
    console.print(grid)
    for remark in table.remarks:
        console.print(Text(plain_text(remark)))
