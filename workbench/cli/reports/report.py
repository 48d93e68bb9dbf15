"""`workbench report`: a report of suites and runs, and the check of its options."""

from __future__ import annotations

import os
import sys
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, cast

import typer

from workbench.cli import completion, start
from workbench.cli.options import FOLDER, Language, LogRoot
from workbench.exit_codes import ExitCode

if TYPE_CHECKING:
    from results.comparison.document_view import Kind
    from results.records.schema import RunRecord
    from workbench.reporting.document import DocumentRequest

Names = Annotated[
    list[str] | None,
    typer.Argument(
        metavar="[RUN|SUITE]...",
        help="Suites by a part of the name, runs by id or label; default: the newest suite.",
        autocompletion=completion.complete_suites_and_runs,
    ),
]
KindName = Annotated[
    str | None,
    typer.Option(
        help="suite, weekly, study, audit, challenge or run; default: by what is named.",
        metavar="KIND",
        autocompletion=completion.complete_report_kinds,
    ),
]
Since = Annotated[
    str | None,
    typer.Option(metavar="DAY", help="Runs that ended since monday, 2026-11-23, 7d (UTC)."),
]
LastDay = Annotated[
    str | None,
    typer.Option("--to", metavar="DATE", help="With --since: the last day; default: today."),
]
OutFolder = Annotated[
    Path | None,
    typer.Option(help="Write report.md and figures into this folder.", **FOLDER),
]
Appendix = Annotated[
    bool, typer.Option("--appendix", help="Counters and trained tensors by run, at the end.")
]
Eda = Annotated[
    bool, typer.Option("--eda", help="With --out: a figure of what the subsets hold, too.")
]
DataCheck = Annotated[
    bool, typer.Option("--data", help="With the full check of every subset; scans them.")
]
ComparedData = Annotated[
    tuple[str, str] | None,
    typer.Option(metavar="SUBSET SUBSET", help="With two subsets side by side; scans them."),
]
Brief = Annotated[
    bool, typer.Option("--brief", help="Print only title and first section: what came out.")
]
Forms = Annotated[
    list[str] | None,
    typer.Option(
        "--form",
        help="With --out, beside the Markdown: html (one file), tex, notion (ZIP), csv or parquet.",
    ),
]
StepSummary = Annotated[
    bool, typer.Option("--github", help="Append it to the file of GITHUB_STEP_SUMMARY.")
]


def register(app: typer.Typer) -> None:
    """Add the command to `workbench`."""
    app.command("report")(report)


def report(  # noqa: PLR0913, PLR0917 - one parameter for each option
    names: Names = None,
    log_root: LogRoot = None,
    kind: KindName = None,
    since: Since = None,
    last: LastDay = None,
    lang: Language = "en",
    out: OutFolder = None,
    appendix: Appendix = False,
    eda: Eda = False,
    data: DataCheck = False,
    compare_data: ComparedData = None,
    brief: Brief = False,
    form: Forms = None,
    github: StepSummary = False,
) -> None:
    """A report of runs of one or several suites as Markdown, HTML or LaTeX."""
    from workbench.reporting import document, report_process

    summary = os.environ.get("GITHUB_STEP_SUMMARY", "") if github else ""
    problem = find_report_problem(form or [], summary, eda=eda, github=github, out=out)
    problem = problem or find_kind_problem(kind, since, last)
    if brief and (out is not None or github):
        problem = problem or "--brief prints to the terminal; leave out --out and --github"
    if problem:
        start.print_progress(problem)
        raise typer.Exit(ExitCode.USAGE)
    options = report_process.ReportOptions(
        appendix, data, compare_data, eda, tuple(form or ()), brief,
        Path(summary) if summary else None,
    )  # fmt: skip
    request, log_records = _select(names or [], log_root, kind, since, last)
    documents = report_process.add_data(
        lambda: document.build_documents(request, log_records), options
    )
    code = report_process.write_reports(documents, lang, out, options)
    if code is ExitCode.COMPLETED and out is None and (brief or report_process.is_terminal()):
        sys.stdout.flush()
        _print_next_steps(names or [])
    raise typer.Exit(code)


def _print_next_steps(names: list[str]) -> None:
    """Say how to go on, below a report on a terminal and the summary of a demo."""
    typer.echo("Next:", err=True)
    for command, purpose in (
        (
            " ".join(["workbench report", *names, "--out report/"]),
            "all of it with figures, as a file",
        ),
        ("workbench", "the screens; in 3 Results: Space, Space, C compares"),
        ("workbench results list", "`results compare RUN RUN`: is one better?"),
    ):
        typer.echo(f"  {command:<40} {purpose}", err=True)


def _select(
    names: list[str], log_root: Path | None, kind: str | None, since: str | None, last: str | None
) -> tuple[DocumentRequest, list[RunRecord]]:
    """What the report is of, and all records of its log root."""
    from workbench import paths
    from workbench.reporting import document, period, selection, suite_view
    from workbench.suites import suite

    root = selection.find_log_root(paths.log_root(log_root), names)
    if not names and since is None:
        names = [str(suite.find_suite(root, None))]
    days = None if since is None else period.parse_period(since, last, datetime.now(UTC))
    log_records = suite_view.read_records(root)
    chosen = selection.select_by_names(root, names, log_records, several=days is not None)
    if days is not None:
        chosen = selection.select_by_period(root, days, log_records, chosen)
    return document.DocumentRequest(root, chosen, cast("Kind | None", kind), days), log_records


def find_kind_problem(kind: str | None, since: str | None, last: str | None) -> str:
    """What is wrong with kind and days of a report; empty: nothing."""
    from results.comparison.document_view import KINDS

    if kind is not None and kind not in KINDS:
        return f"--kind: '{kind}' is not known; use {', '.join(KINDS)}"
    if last is not None and since is None:
        return "--to is the last day of a report since a day; give --since, too"
    return ""


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
