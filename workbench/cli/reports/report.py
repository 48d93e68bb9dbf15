"""`workbench report`: the report of a suite, and the check of its options."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Annotated

import typer

from workbench.cli import start
from workbench.cli.options import FOLDER, Language, LogRoot, SuiteName
from workbench.exit_codes import ExitCode


def register(app: typer.Typer) -> None:
    """Add the command to `workbench`."""
    app.command("report")(report)


def report(  # noqa: PLR0913, PLR0917 - one parameter for each option
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
    form: Annotated[
        list[str] | None,
        typer.Option("--form", help="With --out, beside the Markdown: html (one file) or tex."),
    ] = None,
    github: Annotated[
        bool, typer.Option("--github", help="Append it to the file of GITHUB_STEP_SUMMARY.")
    ] = False,
) -> None:
    """The weekly report of a suite as Markdown, HTML or LaTeX."""
    from workbench import paths
    from workbench.reporting import suite_view
    from workbench.suites import suite

    folder = suite.find_suite(paths.log_root(log_root), name)
    summary = os.environ.get("GITHUB_STEP_SUMMARY", "") if github else ""
    if problem := find_report_problem(form or [], summary, eda=eda, github=github, out=out):
        start.print_progress(problem)
        raise typer.Exit(ExitCode.USAGE)
    options = suite_view.ReportOptions(
        appendix, data, compare_data, eda, tuple(form or ()), Path(summary) if summary else None
    )
    raise typer.Exit(suite_view.write_report(folder, lang, out, options))


def find_report_problem(
    forms: list[str], summary: str, *, eda: bool, github: bool, out: Path | None
) -> str:
    """What is wrong with the options of a report; empty: nothing."""
    from results.records.suite_view import REPORT_FORMS

    if not {*forms} <= {*REPORT_FORMS}:
        return f"--form: use {' or '.join(REPORT_FORMS)}"
    if eda and out is None:
        return "--eda draws a figure; give the folder for it with --out"
    if forms and out is None:
        return "--form writes files; give the folder for them with --out"
    if github and not summary:
        return "--github: GITHUB_STEP_SUMMARY is not set; a step of GitHub Actions has it"
    if github and out is not None:
        return "--github and --out are two places; give one"
    return ""
