"""Kinds of reports: which sections each has, in which order, and what is folded at its end.

A report begins with its result: a summary of at most five lines, and a ranking. Settings, machine
and measurements that a reader looks up are folded behind it. The report of one suite alone keeps
the order of the users' weekly report, settings before results.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Final, NamedTuple

from results.comparison.document_view import DocumentView, Kind
from results.records import message_translations
from results.records.suite_view import SuiteView
from results.report import optimizations, suite_sections
from results.report.documents import changes, experiments, overview, summary
from results.report.suite_sections import ReportInput, Section
from results.text.translations import translate


class ReportKind(NamedTuple):
    """Sections of a kind of report."""

    shown: tuple[Section, ...]
    folded: tuple[Section, ...] = ()
    """Behind a heading that opens them, at the end."""


SUITE: Final[tuple[Section, ...]] = (
    suite_sections.render_head,
    summary.render_summary,
    suite_sections.render_background,
    suite_sections.render_subsets,
    suite_sections.render_data,
    suite_sections.render_architecture,
    suite_sections.render_setup,
    suite_sections.render_method,
    suite_sections.render_costs,
    suite_sections.render_forecasts,
    suite_sections.render_failures,
    suite_sections.render_search,
    suite_sections.render_evaluation,
    suite_sections.render_stages,
    suite_sections.render_caption_scores,
    suite_sections.render_caption_examples,
    suite_sections.render_answer_scores,
    suite_sections.render_answer_errors,
    suite_sections.render_findings,
    suite_sections.render_audit,
    optimizations.render_optimizations,
    optimizations.render_code_changes,
    suite_sections.render_retrieval_cost,
    suite_sections.render_steps_and_memory,
    suite_sections.render_memory_estimates,
    suite_sections.render_figures,
    suite_sections.render_outputs,
    suite_sections.render_notices,
    suite_sections.render_notes,
    suite_sections.render_end,
    suite_sections.render_repetition,
)
IN_SUMMARY: Final[frozenset[Section]] = frozenset({
    suite_sections.render_costs,
    suite_sections.render_forecasts,
    suite_sections.render_failures,
    suite_sections.render_search,
    suite_sections.render_evaluation,
    suite_sections.render_stages,
    suite_sections.render_caption_scores,
    suite_sections.render_answer_scores,
    suite_sections.render_retrieval_cost,
    suite_sections.render_memory_estimates,
    suite_sections.render_outputs,
})  # fmt: skip
"""Sections with which a headless run ends."""

COSTS: Final[tuple[Section, ...]] = (
    suite_sections.render_method,
    suite_sections.render_costs,
    suite_sections.render_forecasts,
)
SCORES: Final[tuple[Section, ...]] = (
    suite_sections.render_search,
    suite_sections.render_evaluation,
    suite_sections.render_caption_scores,
    suite_sections.render_answer_scores,
)
MEASUREMENTS: Final[tuple[Section, ...]] = (
    suite_sections.render_setup,
    suite_sections.render_retrieval_cost,
    suite_sections.render_steps_and_memory,
    suite_sections.render_memory_estimates,
    suite_sections.render_notices,
    suite_sections.render_outputs,
    suite_sections.render_repetition,
)
END: Final[tuple[Section, ...]] = (
    suite_sections.render_notes,
    overview.render_timeline,
    overview.render_conclusion,
    overview.render_next,
)

REPORT_KINDS: Final[Mapping[Kind, ReportKind]] = {
    "suite": ReportKind(SUITE),
    "weekly": ReportKind(
        (
            overview.render_head,
            summary.render_summary,
            suite_sections.render_background,
            overview.render_suites,
            suite_sections.render_subsets,
            suite_sections.render_data,
            overview.render_profile_hint,
            *COSTS,
            *SCORES,
            overview.render_experiments,
            changes.render_changes,
            overview.render_failures,
            optimizations.render_optimizations,
            suite_sections.render_faults,
            suite_sections.render_figures,
            *END,
        ),
        (
            suite_sections.render_architecture, suite_sections.render_stages,
            suite_sections.render_rules, optimizations.render_code_changes, *MEASUREMENTS,
        ),
    ),
    "study": ReportKind(
        (
            overview.render_head,
            summary.render_summary,
            suite_sections.render_background,
            overview.render_experiments,
            *SCORES,
            suite_sections.render_architecture,
            experiments.render_experiments,
            optimizations.render_optimizations,
            overview.render_failures,
            suite_sections.render_faults,
            suite_sections.render_figures,
            *END,
        ),
        (
            overview.render_suites, suite_sections.render_subsets, suite_sections.render_data,
            *COSTS, optimizations.render_code_changes, suite_sections.render_rules, *MEASUREMENTS,
        ),
    ),
    "audit": ReportKind(
        (
            overview.render_head,
            summary.render_summary,
            suite_sections.render_background,
            suite_sections.render_audit,
            overview.render_estimates,
            overview.render_failures,
            *END,
        ),
        (
            overview.render_suites, suite_sections.render_subsets, suite_sections.render_data,
            *(s for s in MEASUREMENTS if s is not suite_sections.render_memory_estimates),
        ),
    ),
    "challenge": ReportKind(
        (
            overview.render_head,
            summary.render_summary,
            suite_sections.render_background,
            overview.render_submissions,
            suite_sections.render_answer_scores,
            suite_sections.render_answer_errors,
            experiments.render_experiments,
            suite_sections.render_evaluation,
            suite_sections.render_caption_scores,
            overview.render_failures,
            suite_sections.render_faults,
            suite_sections.render_figures,
            *END,
        ),
        (
            overview.render_suites, suite_sections.render_subsets, suite_sections.render_data,
            suite_sections.render_architecture, *COSTS, suite_sections.render_rules,
            optimizations.render_code_changes, *MEASUREMENTS,
        ),
    ),
    "run": ReportKind(
        (
            overview.render_head,
            summary.render_summary,
            suite_sections.render_background,
            experiments.render_single,
            suite_sections.render_figures,
            suite_sections.render_notes,
        ),
        (
            suite_sections.render_subsets, suite_sections.render_data,
            suite_sections.render_architecture, *COSTS, *MEASUREMENTS,
        ),
    ),
}  # fmt: skip
"""Every kind by its name."""


def render(
    document: DocumentView,
    lang: str = "en",
    figures: Mapping[str, str] | None = None,
    pictures: Mapping[str, str] | None = None,
    *,
    appendix: bool = False,
) -> str:
    """The whole report; parameters as in `ReportInput`."""
    suite = document.suite
    suite = suite.model_copy(
        update={
            "records": message_translations.localize_records(suite.records, lang),
            "forecasts": message_translations.localize_records(suite.forecasts, lang),
            "notes": message_translations.localize_findings(suite.notes, lang),
        }
    )
    document = document.model_copy(update={"suite": suite})
    page = ReportInput(document, lang, figures or {}, pictures or {}, appendix)
    kind = REPORT_KINDS[document.kind]
    text = _join(part for section in kind.shown for part in section(page))
    if kind.folded:
        folded = _join(part for section in kind.folded for part in section(page))
        title = translate("document.folded", lang)
        text += f"\n<details>\n<summary>{title}</summary>\n\n{folded}\n</details>\n"
    appended = _join(suite_sections.render_appendix(page))
    return f"{text}\n{appended}" if appended else text


def render_tables(view: SuiteView, log_root: str = "") -> str:
    """Costs, scores, memory estimates and outputs of a suite: the end of a headless run."""
    page = ReportInput(DocumentView(suite=view), log_root=log_root)
    return _join(part for section in SUITE if section in IN_SUMMARY for part in section(page))


def _join(parts: Iterator[str]) -> str:
    return "\n".join(part if part.endswith("\n") else f"{part}\n" for part in parts)
