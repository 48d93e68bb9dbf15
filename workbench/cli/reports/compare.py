"""`workbench results compare` and `explain`: what differs between runs, and what it did."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Final

import typer

from results.text.sanitize import dump_json
from workbench.cli import completion
from workbench.cli.options import AsJson, AsMarkdown, Language, LogRoot

if TYPE_CHECKING:
    from results.comparison.cases import CaseComparison
    from results.comparison.differences import FieldDifference
    from results.comparison.groups import GroupComparison, RunGroup
    from results.text.table import Table

MOST_GROUPS: Final = 6

RunNames = Annotated[
    list[str],
    typer.Argument(
        metavar="RUN RUN...",
        help="Ids, suite/id, or labels; runs of a label that differ by their seed are one side.",
        autocompletion=completion.complete_runs,
    ),
]
Cases = Annotated[
    int,
    typer.Option(
        "--cases", min=0, help="So many single items of each kind: where which run is better."
    ),
]
CaseMetric = Annotated[
    str,
    typer.Option("--case-metric", help="Of --cases: recall@1@emoji_val; default: the main."),
]
EveryMetric = Annotated[
    bool, typer.Option("--all-metrics", help="Variants and every cutoff, not only those of tables.")
]


def register(app: typer.Typer) -> None:
    """Add the commands to `workbench results`."""
    app.command("compare")(compare_runs)
    app.command("explain")(explain_runs)


def compare_runs(  # noqa: PLR0913, PLR0917 - one parameter for each option
    names: RunNames,
    log_root: LogRoot = None,
    every_metric: EveryMetric = False,
    cases: Cases = 0,
    case_metric: CaseMetric = "",
    lang: Language = "en",
    markdown: AsMarkdown = False,
    as_json: AsJson = False,
) -> None:
    """Compare runs with the first: metrics and costs with intervals, and all that differs."""
    from results.comparison import differences, groups
    from results.tables import comparison as tables
    from results.text.translations import translate

    root, sides = _find_sides(names, log_root)
    comparisons = [groups.compare_groups(sides[0], b, root, every_metric) for b in sides[1:]]
    unequal = differences.find_differences(sides)
    if as_json:
        for comparison in comparisons:
            pair = [comparison.a, comparison.b]
            row = _to_json(comparison, differences.find_differences(pair))
            if cases:
                compared = _find_cases(comparison, root, cases, case_metric)
                row["cases"] = compared.as_row() if compared else None
            typer.echo(dump_json(row))
        return
    _print_table("", tables.groups_table(sides, lang), markdown)
    for at, comparison in enumerate(comparisons, 1):
        other = tables.letter(at)
        titles = (
            f"{translate(f'compare.{key}', lang)}: {other} − A" for key in ("metrics", "costs")
        )
        _print_table(next(titles), tables.metrics_table(comparison, lang, other), markdown)
        _print_table(next(titles), tables.costs_table(comparison, lang, other), markdown)
        if cases:
            compared = _find_cases(comparison, root, cases, case_metric)
            title = f"{translate('compare.cases', lang)}: A, {other}"
            _print_table(title, tables.cases_table(compared, lang, other), markdown)
    title = translate("compare.differences", lang)
    _print_table(title, tables.differences_table(unequal, sides, lang), markdown)


def explain_runs(
    a: Annotated[
        str,
        typer.Argument(
            metavar="RUN",
            help="The reference: id, suite/id, label.",
            autocompletion=completion.complete_runs,
        ),
    ],
    b: Annotated[
        str,
        typer.Argument(
            metavar="RUN", help="What is compared with it.", autocompletion=completion.complete_runs
        ),
    ],
    log_root: LogRoot = None,
    lang: Language = "en",
    as_json: AsJson = False,
) -> None:
    """Say in sentences how two runs differ, what changed, and whether that is the cause."""
    from results.comparison import differences, groups
    from results.tables import comparison as tables
    from results.text.sanitize import clean_line

    root, sides = _find_sides([a, b], log_root)
    comparison = groups.compare_groups(sides[0], sides[1], root)
    unequal = differences.find_differences(sides)
    if as_json:
        typer.echo(dump_json(_to_json(comparison, unequal)))
        return
    for line in tables.explain(comparison, unequal, lang):
        typer.echo(clean_line(line, 1000))


def _find_sides(names: list[str], log_root: Path | None) -> tuple[Path, list[RunGroup]]:
    from workbench import paths
    from workbench.reporting import run_groups

    if not 2 <= len(names) <= MOST_GROUPS:
        raise typer.BadParameter(f"give 2 to {MOST_GROUPS} runs")
    root = paths.log_root(log_root)
    return root, run_groups.find_groups(root, names)


def _find_cases(
    comparison: GroupComparison, root: Path, limit: int, metric: str
) -> CaseComparison | None:
    from results.comparison.cases import compare_cases

    first, second = (side.records[0] for side in (comparison.a, comparison.b))
    return compare_cases(first, second, root, limit, metric)


def _print_table(title: str, table: Table, markdown: bool) -> None:
    from results.text.table import render_markdown, render_terminal

    if title:
        typer.echo(f"\n## {title}\n" if markdown else f"\n{title}")
    typer.echo((render_markdown if markdown else render_terminal)(table), nl=False)


def _to_json(comparison: GroupComparison, unequal: list[FieldDifference]) -> dict[str, Any]:
    return {
        "a": [record.identity.run_id for record in comparison.a.records],
        "b": [record.identity.run_id for record in comparison.b.records],
        "metrics": [change.as_row() for change in comparison.metrics],
        "costs": [change.as_row() for change in comparison.costs],
        "unmeasured": [cost._asdict() for cost in comparison.unmeasured],
        "differences": [
            {"kind": d.kind, "name": d.name, "a": d.values[0], "b": d.values[1]} for d in unequal
        ],
    }
