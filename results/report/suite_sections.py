"""Sections of a report about the runs of its view, each a function of a `ReportInput`.

A section without content yields nothing. `results.report.documents.kinds` has their orders.
"""

from __future__ import annotations

import datetime
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import NamedTuple

from results.comparison.document_view import DocumentView, is_best_alone
from results.records import cost_forecasts
from results.records.schema import RunRecord
from results.records.suite_view import SuiteView
from results.report import answers, architecture, captions, data, sections, story
from results.tables import (
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
)  # fmt: skip
from results.text.table import Table, code, code_block, escape, render_markdown, sentence
from results.text.translations import cause, translate

OWN_TABLES = frozenset({captioning.ENGINE, vqa.ENGINE})
"""Engines whose metrics have tables of their own."""


class ReportInput(NamedTuple):
    """What sections are written from."""

    document: DocumentView
    lang: str = "en"
    figures: Mapping[str, str] = {}
    """Link by name (`loss`, `memory`), under `""` a remark: alone, why there are none."""
    pictures: Mapping[str, str] = {}
    """Link by path, of the pictures that were copied beside the report."""
    appendix: bool = False
    """Add counters, every notice and the trained tensors of each run."""
    log_root: str = ""
    """Folder that paths of outputs begin with; empty: they are relative to the log root."""

    @property
    def view(self) -> SuiteView:
        """All runs of the document as one suite."""
        return self.document.suite


Section = Callable[[ReportInput], Iterator[str]]
"""One part of a report, with its headings."""


def render_head(page: ReportInput) -> Iterator[str]:
    """Title, goal, start and end of a suite."""
    view, lang = page.view, page.lang
    yield f"# {story.title(page.document, lang)}"
    yield from story.goal(view, lang)
    started = format_time(view.started_wall) or "n/a"
    lines = [f"suite: {code(view.name)}"] if view.words.title else []
    lines += [translate("report.started", lang).format(started, format_state(view.state, lang))]
    lines += count_lines(view, lang)
    yield "\n".join(f"- {line}" for line in lines)


def render_background(page: ReportInput) -> Iterator[str]:
    """What led to the work."""
    yield from titled("##", "story.background", story.background(page.view), page.lang)


def count_lines(view: SuiteView, lang: str) -> Iterator[str]:
    """Runs that did not complete, or that all did; runs that have not ended."""
    failed = [r for r in view.records if r.exit.cause != "completed"]
    if failed:
        failures = ", ".join(
            f"{code(r.identity.run_id)} ({cause(r.exit.cause, lang)})" for r in failed
        )
        counts = (len(failed), len(view.records))
        yield translate("report.not completed", lang).format(*counts, failures)
    elif view.records and not view.pending:
        counts = (len(view.records), len(view.records))
        yield translate("report.all completed", lang).format(*counts)
    if view.pending:
        yield translate("report.pending", lang).format(", ".join(map(code, view.pending)))


def format_state(state: str, lang: str) -> str:
    """State of a suite in words."""
    states = {"queued", "running", "paused", "stopping", "starting", "ended", "lost", "imported"}
    is_known = state in states | {"removed"}
    return translate(f"state.{state}", lang) if is_known else escape(state or "n/a")


def format_time(wall: float | None) -> str:
    """A Unix time in UTC: local time would make the report depend on where it is written."""
    if wall is None:
        return ""
    return datetime.datetime.fromtimestamp(wall, datetime.UTC).strftime("%Y-%m-%d %H:%M UTC")


def render_subsets(page: ReportInput) -> Iterator[str]:
    """Subsets with their samples and the reasons for them, then reasons for models and variants."""
    view, lang, records = page.view, page.lang, page.view.records
    subsets = list(dict.fromkeys(i.subset for i in (*(r.identity for r in records), *view.planned)))
    subset_table = sections.subsets(records, lang)
    reasons = story.subset_reasons(view, subsets, lang)
    heading = "story.subsets" if reasons else "report.subsets"
    yield from titled("##", heading, "\n".join(filter(None, (subset_table, reasons))), lang)
    yield from titled("##", "story.choices", story.other_reasons(view, subsets), lang)


def render_data(page: ReportInput) -> Iterator[str]:
    """Full checks and comparisons of subsets."""
    yield from data.render(page.view, page.lang)


def render_architecture(page: ReportInput) -> Iterator[str]:
    """The parts of the models as a drawing."""
    drawing = architecture.render(page.view, page.lang)
    yield from titled("##", "architecture.heading", drawing, page.lang)


def render_setup(page: ReportInput) -> Iterator[str]:
    """Models, environment, fixed and differing settings."""
    lang, records = page.lang, page.view.records
    yield f"## {translate('report.setup', lang)}"
    yield from titled("###", "report.models", sections.models(records, lang), lang)
    yield from titled("###", "report.environment", sections.environment(records, lang), lang)
    yield from titled("###", "report.fixed", sections.fixed_settings(records, lang), lang)
    yield from titled("###", "report.differing", sections.differing_settings(records, lang), lang)
    files = dict.fromkeys(r["outputs"] for r in page.view.reported.values() if "outputs" in r)
    names = ", ".join(map(code, files))
    yield from titled("###", "document.reported outputs", f"- {names}" if names else "", lang)


def render_method(page: ReportInput) -> Iterator[str]:
    """Heading of the results, and how they were measured."""
    if records := page.view.records:
        yield f"## {translate('report.results', page.lang)}"
        remarks = (
            translate("report.sequential", page.lang), *_training_remarks(records, page.lang)
        )  # fmt: skip
        yield f"{translate('report.method', page.lang)}\n" + "\n".join(f"- {r}" for r in remarks)


def render_costs(page: ReportInput) -> Iterator[str]:
    """Cost, training and total."""
    view, lang, records = page.view, page.lang, page.view.records
    if not records:
        return
    yield from titled_table("###", "report.cost", run_cost.cost_table(records, lang), lang)
    trained = run_cost.training_table(records, lang, view.notes)
    if trained.rows:
        yield f"### {translate('report.training', lang)}"
        evaluated = "with evaluation" if metrics.splits(records) else "no evaluation"
        yield translate(f"report.{evaluated}", lang)
        yield render_markdown(trained)
    if total := run_cost.total_line(records, lang):
        yield from titled("###", "report.total", f"- {total}", lang)


def render_forecasts(page: ReportInput) -> Iterator[str]:
    """Forecasts of cost probes, and full runs beside their forecasts."""
    lang, records = page.lang, page.view.records
    expected = cost_forecast.forecast_table(records, lang)
    yield from titled_table("###", "report.forecasts", expected, lang)
    if comparisons := cost_forecasts.compare_suite(records, page.view.forecasts):
        compared = cost_forecast.comparison_table(comparisons, lang)
        yield from titled_table("###", "report.compared", compared, lang)


def render_failures(page: ReportInput) -> Iterator[str]:
    """Runs that did not complete."""
    lang, records = page.lang, page.view.records
    yield from titled_table("###", "report.failures", run_cost.failure_table(records, lang), lang)


def render_search(page: ReportInput) -> Iterator[str]:
    """Of a search: its trials side by side."""
    if page.view.search is not None:
        trials = search_trials.table(page.view.records, page.view.search, page.lang)
        yield from titled_table("##", "trials.heading", trials, page.lang)


def _training_remarks(records: Sequence[RunRecord], lang: str) -> Iterator[str]:
    """Remarks on the number of epochs, and on rows that are cost probes."""
    probed = sum(map(cost_forecasts.is_cost_probe, records))
    if probed:
        yield translate("report.cost probes", lang).format(probed, len(records))
    if probed < len(records):
        yield translate(
            "report.one epoch" if run_cells.is_one_epoch(records) else "report.several epochs", lang
        )


def render_evaluation(page: ReportInput) -> Iterator[str]:
    """Metrics by split, of engines without tables of their own."""
    lang = page.lang
    records = [r for r in page.view.records if r.identity.engine not in OWN_TABLES]
    names = metrics.splits(records)
    if names:
        yield f"## {translate('report.evaluation', lang)}"
    for split in names:
        yield f"### {code(split)}"
        yield render_markdown(metrics.metrics(records, split, lang, _best_cells(page, split)))
        ablation_table = metrics.ablations(records, split, lang)
        if ablation_table is not None:
            yield f"#### {translate('report.ablation', lang).format(code(split))}"
            yield render_markdown(ablation_table)


def _best_cells(page: ReportInput, split: str) -> metrics.BestCells:
    """The first of the split's ranking, if every other is worse."""
    return frozenset(
        (run, ranking.metric)
        for ranking in page.document.rankings
        if ranking.split == split and is_best_alone(ranking)
        for run in ranking.places[0].runs
    )


def render_stages(page: ReportInput) -> Iterator[str]:
    records, lang = page.view.records, page.lang
    for name, table in (
        ("title", training_stages.stages(records, lang)),
        ("epochs title", training_stages.epochs(records, lang)),
        ("best title", training_stages.best_and_last(records, lang)),
        ("scores title", training_stages.best_and_last_scores(records, lang)),
    ):
        if table.rows:
            yield f"## {translate(f'stages.{name}', lang)}"
            yield render_markdown(table)


def render_findings(page: ReportInput) -> Iterator[str]:
    yield from titled("##", "story.findings", story.findings(page.view), page.lang)


def render_audit(page: ReportInput) -> Iterator[str]:
    """Faults of the plan, the suite and its runs, and the rules that were checked."""
    yield from render_faults(page)
    yield from render_rules(page, "###")


def render_faults(page: ReportInput) -> Iterator[str]:
    """Faults of the plan, the suite and its runs."""
    if page.view.audit:
        yield f"## {translate('audit.heading', page.lang)}"
        yield render_markdown(audit.fault_table(page.view.audit, page.lang))


def render_rules(page: ReportInput, level: str = "##") -> Iterator[str]:
    """Rules of the audit without a fault."""
    if page.view.audit:
        rules = render_markdown(audit.rule_table(page.view.audit, page.lang))
        yield from titled(level, "audit.rules", rules, page.lang)


def render_retrieval_cost(page: ReportInput) -> Iterator[str]:
    """Heading of the measurements, and the cost of evaluations."""
    if records := page.view.records:
        yield f"## {translate('report.measurements', page.lang)}"
        cost = retrieval_cost.cost(records, page.lang)
        yield from titled("###", "report.evaluation cost", render_markdown(cost), page.lang)


def render_steps_and_memory(page: ReportInput) -> Iterator[str]:
    kinds: dict[str, Callable[[Sequence[RunRecord], str], Table]] = {
        "steps": steps_and_memory.step_table,
        "phases": steps_and_memory.phase_table,
        "memory": steps_and_memory.memory_table,
    }
    for name, table in kinds.items():
        if page.view.records:
            text = render_markdown(table(page.view.records, page.lang))
            yield from titled("###", f"report.{name}", text, page.lang)


def render_memory_estimates(page: ReportInput) -> Iterator[str]:
    estimates = memory_estimate.table(page.view.records, page.lang)
    yield from titled_table("###", "report.fit", estimates, page.lang)


def render_figures(page: ReportInput) -> Iterator[str]:
    if not page.figures:
        return
    lang = page.lang
    yield f"## {translate('report.figures', lang)}"
    remark = page.figures.get("", "")
    if remark and len(page.figures) == 1:
        yield translate("report.no figures", lang).format(sentence(remark))
        return
    if remark:
        yield sentence(remark)
    for name, link in page.figures.items():
        if name:
            yield f"![{translate(f'figure.{name} title', lang)}]({link})"
            yield f"*{translate(f'figure.{name} caption', lang)}*"


def render_outputs(page: ReportInput) -> Iterator[str]:
    outputs = run_outputs.table(page.view.records, page.lang, page.log_root)
    yield from titled_table("##", "outputs.heading", outputs, page.lang)


def render_notices(page: ReportInput) -> Iterator[str]:
    """Notices of the runs."""
    text = sections.notices(page.view.records, page.lang)
    yield from titled("##", "report.notices", text, page.lang)


def render_notes(page: ReportInput) -> Iterator[str]:
    """Findings that stand in no table, and linked documents."""
    view, lang = page.view, page.lang
    yield from titled("##", "report.notes", sections.notes(view), lang)
    yield from titled("##", "story.links", story.links(view, lang), lang)


def render_end(page: ReportInput) -> Iterator[str]:
    """Timeline, conclusion and next steps of a suite."""
    view, lang = page.view, page.lang
    yield from titled("##", "story.timeline", story.timeline(view, lang), lang)
    yield from titled("##", "story.conclusion", story.conclusion(view), lang)
    yield from titled("##", "story.next", story.next_steps(view), lang)


def render_repetition(page: ReportInput) -> Iterator[str]:
    """How to repeat the suites: commit, command, plan."""
    view, lang = page.view, page.lang
    yield f"## {translate('report.again', lang)}"
    plans = {part.name: part.plan_toml for part in page.document.parts}
    plans = plans or {view.name: view.plan_toml}
    if not any(text.strip() for text in plans.values()):
        yield translate("report.no plan", lang)
        return
    commits = {r.environment.git_commit for r in view.records if r.environment.git_commit}
    if len(commits) == 1:
        dirty = any(r.environment.git_dirty for r in view.records)
        key = "report.at changed commit" if dirty else "report.at commit"
        yield translate(key, lang).format(code(commits.pop()))
    yield translate("report.command", lang)
    yield code_block("workbench run plan.toml", "sh")
    for name, text in plans.items():
        if text.strip():
            yield from [f"### {code(name)}"] if len(plans) > 1 else []
            yield code_block(text, "toml")


def render_appendix(page: ReportInput) -> Iterator[str]:
    if page.appendix:
        text = sections.appendix(page.view.records)
        yield from titled("##", "report.appendix", text, page.lang)


def titled(level: str, heading: str, body: str, lang: str) -> Iterator[str]:
    """A heading and its body, or nothing when the body is empty."""
    if body:
        yield f"{level} {translate(heading, lang)}"
        yield body


def titled_table(level: str, heading: str, table: Table, lang: str) -> Iterator[str]:
    """A heading and its table, or nothing for a table without rows."""
    if table.rows:
        yield from titled(level, heading, render_markdown(table), lang)


def render_caption_scores(page: ReportInput) -> Iterator[str]:
    """Experiments of captioning, and all scores."""
    yield from captions.render_scores(page.view, page.lang)


def render_caption_examples(page: ReportInput) -> Iterator[str]:
    """Best and worst captions."""
    yield from captions.render_examples(page.view, page.lang, page.pictures)


def render_answer_scores(page: ReportInput) -> Iterator[str]:
    """VQA runs and ensembles."""
    yield from answers.render_scores(page.view, page.lang)


def render_answer_errors(page: ReportInput) -> Iterator[str]:
    """Error analysis of answers."""
    yield from answers.render_errors(page.view, page.lang, page.pictures)
