"""Writing of reports: a child process, `python -m results.report`, renders each document.

Figures need matplotlib, which the workbench does not load.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from results.comparison.document_view import DocumentView
from results.records import published_runs
from results.records.suite_view import DataComparison, SubsetChart, SubsetCheck, SuiteView
from workbench import paths
from workbench.data_profile import profile_process, report_charts, report_checks
from workbench.data_profile.report_checks import ReadProfiles
from workbench.exit_codes import ExitCode
from workbench.reporting import caption_examples
from workbench.reporting.suite_view import print_message
from workbench.suites.suite import SuiteError


@dataclass(frozen=True)
class ReportOptions:
    """Optional parts of a report."""

    appendix: bool = False
    """Counters and trained tensors of each run."""
    data: bool = False
    """The full check of each subset."""
    compare: tuple[str, str] | None = None
    """Two subsets, side by side."""
    eda: bool = False
    """Charts of its subsets."""
    forms: tuple[str, ...] = ()
    """Beside the Markdown: `html`, `tex`."""
    brief: bool = False
    """Print title and first section only: what came out."""
    github: Path | None = None
    """The step summary to which the report is appended, instead of being printed."""


def write_reports(
    documents: Sequence[DocumentView], lang: str, out: Path | None, options: ReportOptions
) -> ExitCode:
    """Print the reports, or write them with their figures into `out`, each of several in a folder.

    `documents`: with the data of their subsets, see `add_data`.
    """
    for document in documents:
        runs = document.parts[0].runs if document.parts else ()
        folder = out / runs[0] if out is not None and len(documents) > 1 and runs else out
        code = _write_report(document, lang, folder, options)
        if code is not ExitCode.COMPLETED:
            return code
    return ExitCode.COMPLETED


def _write_report(
    document: DocumentView, lang: str, out: Path | None, options: ReportOptions
) -> ExitCode:
    command = [sys.executable, "-m", "results.report", "-", "--lang", lang]
    command += ["--appendix"] if options.appendix else []
    command += [f"--form={form}" for form in options.forms]
    command += ["--github", str(options.github)] if options.github else []
    suite = document.suite
    if out is not None:
        command += ["--out", str(out)]
        suite = _add_contact_sheets(suite)
    view = document.model_copy(update={"suite": suite})
    is_printed = out is None and options.github is None
    done = subprocess.run(
        command, input=view.model_dump_json().encode(), check=False,
        stdout=subprocess.PIPE if is_printed else None,
    )  # fmt: skip
    if is_printed:
        print_document((done.stdout or b"").decode(), brief=options.brief)
    return ExitCode.COMPLETED if done.returncode == 0 else ExitCode.FAILED


def is_terminal() -> bool:
    """Whether stdout is one."""
    return sys.stdout.isatty()


def print_document(markdown: str, *, brief: bool = False) -> None:
    """Print a document: Markdown, or text drawn for it where stdout is a terminal."""
    from results.text.terminal_document import first_section, render_document

    text = first_section(markdown) if brief else markdown
    if is_terminal():  # in the terminal's encoding; what it lacks becomes plain characters
        styled = "NO_COLOR" not in os.environ and os.environ.get("TERM") != "dumb"
        width = shutil.get_terminal_size().columns
        sys.stdout.write(render_document(text, width, styled=styled))
        return
    sys.stdout.flush()
    sys.stdout.buffer.write(text.encode())  # UTF-8 whatever the locale, as a file would have it
    sys.stdout.flush()


def add_data(
    build: Callable[[], Sequence[DocumentView]], options: ReportOptions
) -> list[DocumentView]:
    """The documents that `build` gives, with the requested scans of their subsets.

    A scan builds a subset, whose rows and captions the audit then knows: the documents are built
    again after one, so that the first report has what every later one has.

    Raises:
        SuiteError: data that was asked for cannot be scanned.
    """
    documents, read = build(), ReadProfiles()
    scanned = [_scan_data(document, options, read) for document in documents]
    if read.has_scanned:
        documents = build()
    return [
        document.model_copy(update={"suite": _join_published(document.suite, *data)})
        for document, data in zip(documents, scanned, strict=True)
    ]


def _scan_data(
    document: DocumentView, options: ReportOptions, read: ReadProfiles
) -> tuple[Sequence[SubsetCheck], Sequence[DataComparison], Sequence[SubsetChart]]:
    """Checks, comparisons and charts of the subsets of a document.

    A weekly report has the comparison of selected subsets with their originals, for which it scans
    what is here, and the checks of all subsets that are described then. Imported runs read other
    data than this machine's: their figures are those that were published with them.
    """
    view = document.suite
    runs = [*(record.identity for record in view.records), *view.planned]
    imported = {r.identity.run_id for r in view.records if published_runs.is_imported(r)}
    imported |= view.planned_facts.keys()
    own_runs = [run for run in runs if run.run_id not in imported]
    is_weekly = document.kind == "weekly"
    drawn = report_charts.charts_of_runs(runs, print_message) if options.eda else ()
    try:
        compared: tuple[DataComparison, ...] = ()
        if options.compare:
            compared = (report_checks.compare_subsets(*options.compare, runs),)
        elif is_weekly:  # before the checks, which then have what was scanned here
            compared = report_checks.compare_originals(own_runs, print_message, read)
        checks = (
            report_checks.check_subsets(own_runs, print_message, read, cached=not options.data)
            if options.data or is_weekly
            else ()
        )
    except profile_process.ProfileError as error:
        raise SuiteError(str(error)) from None
    read.has_scanned |= bool(drawn or options.compare)
    return checks, compared, drawn


def _join_published(
    view: SuiteView,
    checks: Sequence[SubsetCheck],
    compared: Sequence[DataComparison],
    charts: Sequence[SubsetChart] = (),
) -> SuiteView:
    """The view with what was scanned here, and of its published figures those that it lacks."""
    checked = {check.subset for check in checks}
    scanned = {(c.first, c.second): c for c in compared if not c.problem}
    published = {(c.first, c.second): c for c in view.comparisons}
    failed = {(c.first, c.second): c for c in compared if c.problem}
    update = {
        "checks": (*checks, *(c for c in view.checks if c.subset not in checked)),
        "comparisons": tuple((failed | published | scanned).values()),
        "charts": tuple(charts),
    }
    return view.model_copy(update=update)


def _add_contact_sheets(view: SuiteView) -> SuiteView:
    """The view with contact sheets for the videos among its examples."""
    frames = {r.identity.run_id: r.identity.params.get("frames") or 8 for r in view.records}
    shown = {
        run: caption_examples.add_contact_sheets(many, frames[run], paths.cache_root())
        for run, many in view.captions.items()
    }
    return view.model_copy(update={"captions": shown})
