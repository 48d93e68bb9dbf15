"""`workbench plan --explain` and `--schema`: a plan in words, and the JSON schema of plans."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, NoReturn

import typer

from workbench.exit_codes import ExitCode
from workbench.output_language import translate, translate_table

if TYPE_CHECKING:
    from workbench.planning.plan import SuitePlan

Explain = Annotated[
    bool, typer.Option("--explain", help="In words: runs, settings, where each comes from.")
]
Schema = Annotated[
    bool, typer.Option("--schema", help="The JSON schema of plan files, for an editor.")
]
DIFFERENCES = "Settings that differ from the engine's defaults"
PlanSource = tuple[Path | None, str | None, Sequence[str]]
"""Plan file, preset and `--set` options of the command line."""


def print_schema() -> NoReturn:
    """Print the JSON schema of plans; ends the command."""
    from workbench.planning import plan_schema

    typer.echo(plan_schema.render_schema(), nl=False)
    raise typer.Exit(ExitCode.COMPLETED)


def print_explanation(suite_plan: SuitePlan, source: PlanSource, log_root: Path) -> NoReturn:
    """Print the plan in words; ends the command."""
    from results.text.sanitize import clean
    from results.text.table import render_terminal
    from workbench import paths
    from workbench.cli.set_options import parse_settings
    from workbench.memory_estimate import plan_estimate
    from workbench.planning import explanation

    plan_file, preset, set_options = source
    runs = plan_estimate.expand_cells(suite_plan, paths.cache_root(), log_root)
    name = str(plan_file) if plan_file else f"preset {preset}" if preset else "--set"
    sources = explanation.SettingSources(suite_plan, name, parse_settings(set_options))
    for paragraph in map(translate, explanation.explain_lines(suite_plan, runs)):
        for line in explanation.wrap(paragraph):
            typer.echo(clean(line))
    typer.echo(f"\n{translate(DIFFERENCES)}:\n")
    table = explanation.differences_table(runs, sources)
    typer.echo(render_terminal(translate_table(table)))
    argument = str(plan_file) if plan_file else f"-p {preset}" if preset else "…"
    for line in explanation.closing_lines(argument):
        typer.echo(clean(translate(line)))
    raise typer.Exit(ExitCode.COMPLETED)
