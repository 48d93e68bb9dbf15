"""The report of a suite as Markdown, in the order in which the users write theirs, and its summary.

`SECTIONS` is the one list of sections: the report has all of them, the summary those marked so. A
section without content is left out, so a weekly report, a captioning study and a VQA challenge have
the same order.

A pure function of the view: the same view gives the same bytes, on every machine and in every time
zone.
"""

from __future__ import annotations

import datetime
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Final, NamedTuple

from results.records import cost_forecasts, message_translations
from results.records.schema import RunRecord
from results.records.suite_view import SuiteView
from results.report import (
    answers,
    architecture,
    captions,
    data,
    sections,
    story,
)
from results.tables import (
    ablation,
    audit,
    captioning,
    cost_forecast,
    memory_estimate,
    metrics,
    retrieval_cost,
    run_cells,
    run_cost,
    run_outputs,
    search_trials,
    steps_and_memory,
    training_stages,
    vqa,
)
from results.text.table import Table, code, code_block, escape, render_markdown
from results.text.translations import cause, translate

OWN_TABLES = frozenset({captioning.ENGINE, vqa.ENGINE})
"""Engines whose metrics have tables of their own."""


class ReportInput(NamedTuple):
    """What sections are written from."""

    view: SuiteView
    lang: str = "en"
    figures: Mapping[str, str] = {}
    """Link by name (`loss`, `memory`), or under `""` the reason why there are none."""
    pictures: Mapping[str, str] = {}
    """Link by path, of the pictures that were copied beside the report."""
    appendix: bool = False
    """Add counters, every notice and the trained tensors of each run."""
    log_root: str = ""
    """Folder that paths of outputs begin with; empty: they are relative to the log root."""


class ReportSection(NamedTuple):
    """One part of a report, with its headings."""

    render: Callable[[ReportInput], Iterator[str]]
    in_summary: bool = False


def render(
    view: SuiteView,
    lang: str = "en",
    figures: Mapping[str, str] | None = None,
    pictures: Mapping[str, str] | None = None,
    *,
    appendix: bool = False,
) -> str:
    """The whole report; parameters as in `ReportInput`."""
    view = view.model_copy(
        update={
            "records": message_translations.localize_records(view.records, lang),
            "forecasts": message_translations.localize_records(view.forecasts, lang),
        }
    )
    page = ReportInput(view, lang, figures or {}, pictures or {}, appendix)
    return _join(part for section in SECTIONS for part in section.render(page))


def render_summary(view: SuiteView, log_root: str = "") -> str:
    """Tables of costs, scores, memory estimates and outputs: the end of a headless run."""
    page = ReportInput(view, log_root=log_root)
    return _join(
        part for section in SECTIONS if section.in_summary for part in section.render(page)
    )


def _join(parts: Iterator[str]) -> str:
    return "\n".join(part if part.endswith("\n") else f"{part}\n" for part in parts)


def _render_head(page: ReportInput) -> Iterator[str]:
    view, lang = page.view, page.lang
    yield f"# {story.title(view, lang)}"
    yield from story.goal_and_background(view, lang)
    started = _format_time(view.started_wall) or "n/a"
    lines = [f"suite: {code(view.name)}"] if view.words.title else []
    lines += [translate("report.started", lang).format(started, _format_state(view.state, lang))]
    failed = [r for r in view.records if r.exit.cause != "completed"]
    if failed:
        failures = ", ".join(
            f"{code(r.identity.run_id)} ({cause(r.exit.cause, lang)})" for r in failed
        )
        counts = (len(failed), len(view.records))
        lines.append(translate("report.not completed", lang).format(*counts, failures))
    elif view.records and not view.pending:
        counts = (len(view.records), len(view.records))
        lines.append(translate("report.all completed", lang).format(*counts))
    if view.pending:
        lines.append(translate("report.pending", lang).format(", ".join(map(code, view.pending))))
    yield "\n".join(f"- {line}" for line in lines)


def _format_state(state: str, lang: str) -> str:
    states = {"queued", "running", "paused", "stopping", "starting", "ended", "lost"}
    return translate(f"state.{state}", lang) if state in states else escape(state or "n/a")


def _format_time(wall: float | None) -> str:
    """A Unix time in UTC: local time would make the report depend on where it is written."""
    if wall is None:
        return ""
    return datetime.datetime.fromtimestamp(wall, datetime.UTC).strftime("%Y-%m-%d %H:%M UTC")


def _render_setup(page: ReportInput) -> Iterator[str]:
    view, lang, records = page.view, page.lang, page.view.records
    subsets = list(dict.fromkeys(i.subset for i in (*(r.identity for r in records), *view.planned)))
    subset_table, reasons = (
        sections.subsets(records, lang),
        story.subset_reasons(view, subsets, lang),
    )
    heading = "story.subsets" if reasons else "report.subsets"
    yield from _section("##", heading, "\n".join(filter(None, (subset_table, reasons))), lang)
    yield from _section("##", "story.choices", story.other_reasons(view, subsets), lang)
    yield from data.render(view, lang)
    yield from _section("##", "architecture.heading", architecture.render(view, lang), lang)
    yield f"## {translate('report.setup', lang)}"
    yield from _section("###", "report.models", sections.models(records, lang), lang)
    yield from _section("###", "report.environment", sections.environment(records, lang), lang)
    yield from _section("###", "report.fixed", sections.fixed_settings(records, lang), lang)
    yield from _section("###", "report.differing", sections.differing_settings(records, lang), lang)


def _render_method(page: ReportInput) -> Iterator[str]:
    """Heading of the results, and how they were measured."""
    if records := page.view.records:
        yield f"## {translate('report.results', page.lang)}"
        remarks = (
            translate("report.sequential", page.lang), *_training_remarks(records, page.lang)
        )  # fmt: skip
        yield f"{translate('report.method', page.lang)}\n" + "\n".join(f"- {r}" for r in remarks)


def _render_costs(page: ReportInput) -> Iterator[str]:
    """Cost, training, total, forecasts, and runs that did not complete."""
    view, lang, records = page.view, page.lang, page.view.records
    if not records:
        return
    yield from _table_section("###", "report.cost", run_cost.cost_table(records, lang), lang)
    trained = run_cost.training_table(records, lang, view.notes)
    if trained.rows:
        yield f"### {translate('report.training', lang)}"
        evaluated = "with evaluation" if metrics.splits(records) else "no evaluation"
        yield translate(f"report.{evaluated}", lang)
        yield render_markdown(trained)
    yield from _section("###", "report.total", f"- {run_cost.total_line(records, lang)}", lang)
    expected = cost_forecast.forecast_table(records, lang)
    yield from _table_section("###", "report.forecasts", expected, lang)
    if comparisons := cost_forecasts.compare_suite(records, view.forecasts):
        compared = cost_forecast.comparison_table(comparisons, lang)
        yield from _table_section("###", "report.compared", compared, lang)
    yield from _table_section("###", "report.failures", run_cost.failure_table(records, lang), lang)


def _render_search(page: ReportInput) -> Iterator[str]:
    """Of a search: its trials side by side."""
    if page.view.search is not None:
        trials = search_trials.table(page.view.records, page.view.search, page.lang)
        yield from _table_section("##", "trials.heading", trials, page.lang)


def _training_remarks(records: Sequence[RunRecord], lang: str) -> Iterator[str]:
    """Remarks on the number of epochs, and on rows that are cost probes."""
    probed = sum(map(cost_forecasts.is_cost_probe, records))
    if probed:
        yield translate("report.cost probes", lang).format(probed, len(records))
    if probed < len(records):
        yield translate(
            "report.one epoch" if run_cells.is_one_epoch(records) else "report.several epochs", lang
        )


def _render_evaluation(page: ReportInput) -> Iterator[str]:
    """Metrics by split, of engines without tables of their own."""
    lang = page.lang
    records = [r for r in page.view.records if r.identity.engine not in OWN_TABLES]
    names = metrics.splits(records)
    if names:
        yield f"## {translate('report.evaluation', lang)}"
    for split in names:
        yield f"### {code(split)}"
        yield render_markdown(metrics.metrics(records, split, lang))
        ablation_table = metrics.ablations(records, split, lang)
        if ablation_table is not None:
            yield f"#### {translate('report.ablation', lang).format(code(split))}"
            yield render_markdown(ablation_table)


def _render_stages(page: ReportInput) -> Iterator[str]:
    records, lang = page.view.records, page.lang
    for name, table in (
        ("title", training_stages.stages(records, lang)),
        ("epochs title", training_stages.epochs(records, lang)),
        ("best title", training_stages.best_and_last(records, lang)),
    ):
        if table.rows:
            yield f"## {translate(f'stages.{name}', lang)}"
            yield render_markdown(table)


def _render_findings(page: ReportInput) -> Iterator[str]:
    yield from _section("##", "story.findings", story.findings(page.view), page.lang)


def _render_audit(page: ReportInput) -> Iterator[str]:
    """Faults of the plan, the suite and its runs, and the rules that were checked."""
    if page.view.audit:
        yield f"## {translate('audit.heading', page.lang)}"
        yield render_markdown(audit.fault_table(page.view.audit, page.lang))
        rules = render_markdown(audit.rule_table(page.view.audit, page.lang))
        yield from _section("###", "audit.rules", rules, page.lang)


def _render_optimizations(page: ReportInput) -> Iterator[str]:
    """Ablation table where there is a run with all on; else where each optimization is applied."""
    view, lang = page.view, page.lang
    if changes_table := ablation.table(view.records, lang, view.changes):
        yield from _section("##", "optimization.heading", render_markdown(changes_table), lang)
    elif applied := ablation.applied(view.records, lang):
        yield from _section("##", "optimization.applied heading", render_markdown(applied), lang)


def _render_retrieval_cost(page: ReportInput) -> Iterator[str]:
    """Heading of the measurements, and the cost of evaluations."""
    if records := page.view.records:
        yield f"## {translate('report.measurements', page.lang)}"
        cost = retrieval_cost.cost(records, page.lang)
        yield from _section("###", "report.evaluation cost", render_markdown(cost), page.lang)


def _render_steps_and_memory(page: ReportInput) -> Iterator[str]:
    kinds: dict[str, Callable[[Sequence[RunRecord], str], Table]] = {
        "steps": steps_and_memory.step_table,
        "phases": steps_and_memory.phase_table,
        "memory": steps_and_memory.memory_table,
    }
    for name, table in kinds.items():
        if page.view.records:
            text = render_markdown(table(page.view.records, page.lang))
            yield from _section("###", f"report.{name}", text, page.lang)


def _render_memory_estimates(page: ReportInput) -> Iterator[str]:
    estimates = memory_estimate.table(page.view.records, page.lang)
    yield from _table_section("###", "report.fit", estimates, page.lang)


def _render_figures(page: ReportInput) -> Iterator[str]:
    if not page.figures:
        return
    lang = page.lang
    yield f"## {translate('report.figures', lang)}"
    for name, link in page.figures.items():
        if not name:
            yield translate("report.no figures", lang).format(escape(link))
        else:
            key = {"loss": "report.loss", "data": "report.data figure"}
            title = translate(key.get(name, "report.memory figure"), lang)
            yield f"![{title}]({link})"
            yield f"*{translate(f'figure.{name} caption', lang)}*"


def _render_outputs(page: ReportInput) -> Iterator[str]:
    outputs = run_outputs.table(page.view.records, page.lang, page.log_root)
    yield from _table_section("##", "outputs.heading", outputs, page.lang)


def _render_tail(page: ReportInput) -> Iterator[str]:
    """Notices, notes, conclusion, and how to repeat the suite."""
    view, lang = page.view, page.lang
    yield from _section("##", "report.notices", sections.notices(view.records, lang), lang)
    yield from _section("##", "report.notes", sections.notes(view), lang)
    yield from _section("##", "story.links", story.links(view, lang), lang)
    yield from _section("##", "story.timeline", story.timeline(view, lang), lang)
    yield from _section("##", "story.conclusion", story.conclusion(view), lang)
    yield from _section("##", "story.next", story.next_steps(view), lang)
    yield f"## {translate('report.again', lang)}"
    if not view.plan_toml.strip():
        yield translate("report.no plan", lang)
        return
    commits = {r.environment.git_commit for r in view.records if r.environment.git_commit}
    if len(commits) == 1:
        dirty = any(r.environment.git_dirty for r in view.records)
        key = "report.at changed commit" if dirty else "report.at commit"
        yield translate(key, lang).format(code(commits.pop()))
    yield translate("report.command", lang)
    yield code_block("workbench run plan.toml", "sh")
    yield code_block(view.plan_toml, "toml")


def _render_appendix(page: ReportInput) -> Iterator[str]:
    if page.appendix:
        text = sections.appendix(page.view.records)
        yield from _section("##", "report.appendix", text, page.lang)


def _section(level: str, heading: str, body: str, lang: str) -> Iterator[str]:
    """A heading and its body, or nothing when the body is empty."""
    if body:
        yield f"{level} {translate(heading, lang)}"
        yield body


def _table_section(level: str, heading: str, table: Table, lang: str) -> Iterator[str]:
    """A heading and its table, or nothing for a table without rows."""
    if table.rows:
        yield from _section(level, heading, render_markdown(table), lang)


SECTIONS: Final = (
    ReportSection(_render_head),
    ReportSection(_render_setup),
    ReportSection(_render_method),
    ReportSection(_render_costs, in_summary=True),
    ReportSection(_render_search, in_summary=True),
    ReportSection(_render_evaluation, in_summary=True),
    ReportSection(_render_stages, in_summary=True),
    ReportSection(lambda page: captions.render_scores(page.view, page.lang), in_summary=True),
    ReportSection(lambda page: captions.render_examples(page.view, page.lang, page.pictures)),
    ReportSection(lambda page: answers.render_scores(page.view, page.lang), in_summary=True),
    ReportSection(lambda page: answers.render_errors(page.view, page.lang, page.pictures)),
    ReportSection(_render_findings),
    ReportSection(_render_audit),
    ReportSection(_render_optimizations),
    ReportSection(_render_retrieval_cost, in_summary=True),
    ReportSection(_render_steps_and_memory),
    ReportSection(_render_memory_estimates, in_summary=True),
    ReportSection(_render_figures),
    ReportSection(_render_outputs, in_summary=True),
    ReportSection(_render_tail),
    ReportSection(_render_appendix),
)
"""All sections of a report, in their order."""
