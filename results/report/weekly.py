"""The weekly report of a suite as Markdown, in the order in which the users write theirs.

A pure function of the view: the same view gives the same bytes, on every machine and in every time
zone.
"""

from __future__ import annotations

import datetime
from collections.abc import Callable, Iterator, Mapping, Sequence

from results.records import cost_forecasts
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
    message_translations,
    metrics,
    retrieval_cost,
    run_cells,
    run_cost,
    run_outputs,
    search_trials,
    steps_and_memory,
    vqa,
)
from results.tables.table import Table, code, code_block, escape, render_markdown
from results.text.translations import cause, translate

OWN_TABLES = frozenset({captioning.ENGINE, vqa.ENGINE})
"""Engines whose metrics have tables of their own."""


def render(
    view: SuiteView,
    lang: str = "en",
    figures: Mapping[str, str] | None = None,
    pictures: Mapping[str, str] | None = None,
    *,
    appendix: bool = False,
) -> str:
    """The whole report.

    `figures`: link by name (`loss`, `memory`), or under `""` the reason why there are none; None
    leaves the part out. `pictures`: link by path, of the pictures that were copied beside it.
    `appendix`: counters, every notice and the trained tensors of each run stand at the end.
    """
    view = view.model_copy(
        update={
            "records": message_translations.localize_records(view.records, lang),
            "forecasts": message_translations.localize_records(view.forecasts, lang),
        }
    )
    parts = [
        *_render_head(view, lang),
        *_render_setup(view, lang),
        *_render_results(view, lang),
        *_render_search(view, lang),
        *_render_evaluation([r for r in view.records if r.identity.engine not in OWN_TABLES], lang),
        *captions.render(view, lang, pictures),
        *answers.render(view, lang, pictures),
        *_section("##", "story.findings", story.findings(view), lang),
        *_render_audit(view, lang),
        *_render_optimizations(view, lang),
        *_render_measurements(view.records, lang),
        *_render_figures(figures or {}, lang),
        *_render_tail(view, lang),
        *_render_appendix(view.records if appendix else (), lang),
    ]
    return "\n".join(part if part.endswith("\n") else f"{part}\n" for part in parts)


def _render_head(view: SuiteView, lang: str) -> Iterator[str]:
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
    states = {"queued", "running", "holding", "stopping", "starting", "ended", "lost"}
    return translate(f"state.{state}", lang) if state in states else escape(state or "n/a")


def _format_time(wall: float | None) -> str:
    """A Unix time in UTC: local time would make the report depend on where it is written."""
    if wall is None:
        return ""
    return datetime.datetime.fromtimestamp(wall, datetime.UTC).strftime("%Y-%m-%d %H:%M UTC")


def _render_setup(view: SuiteView, lang: str) -> Iterator[str]:
    records = view.records
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


def _render_results(view: SuiteView, lang: str) -> Iterator[str]:
    records = view.records
    if not records:
        return
    yield f"## {translate('report.results', lang)}"
    remarks = (translate("report.sequential", lang), *_training_remarks(records, lang))
    yield f"{translate('report.method', lang)}\n" + "\n".join(f"- {line}" for line in remarks)
    yield from _section(
        "###", "report.cost", render_markdown(run_cost.cost_table(records, lang)), lang
    )
    trained = run_cost.training_table(records, lang, view.notes)
    if trained.rows:
        yield f"### {translate('report.training', lang)}"
        evaluated = "with evaluation" if metrics.splits(records) else "no evaluation"
        yield translate(f"report.{evaluated}", lang)
        yield render_markdown(trained)
    yield from _section("###", "report.total", f"- {run_cost.total_line(records, lang)}", lang)
    expected = cost_forecast.forecast_table(records, lang)
    yield from _section(
        "###", "report.forecasts", render_markdown(expected) if expected.rows else "", lang
    )
    comparisons = cost_forecasts.compare_suite(records, view.forecasts)
    comparison_table = (
        render_markdown(cost_forecast.comparison_table(comparisons, lang)) if comparisons else ""
    )
    yield from _section("###", "report.compared", comparison_table, lang)
    failed = run_cost.failure_table(records, lang)
    yield from _section(
        "###", "report.failures", render_markdown(failed) if failed.rows else "", lang
    )


def _render_search(view: SuiteView, lang: str) -> Iterator[str]:
    """Of a search: its trials side by side."""
    if view.search is not None:
        trials = search_trials.table(view.records, view.search, lang)
        yield from _section(
            "##", "trials.heading", render_markdown(trials) if trials.rows else "", lang
        )


def _training_remarks(records: Sequence[RunRecord], lang: str) -> Iterator[str]:
    """Remarks on the number of epochs, and on rows that are cost probes."""
    probed = sum(map(cost_forecasts.is_cost_probe, records))
    if probed:
        yield translate("report.costing runs", lang).format(probed, len(records))
    if probed < len(records):
        yield translate(
            "report.one epoch" if run_cells.is_one_epoch(records) else "report.several epochs", lang
        )


def _render_evaluation(records: Sequence[RunRecord], lang: str) -> Iterator[str]:
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


def _render_audit(view: SuiteView, lang: str) -> Iterator[str]:
    if view.audit:
        yield f"## {translate('audit.heading', lang)}"
        yield render_markdown(audit.fault_table(view.audit, lang))
        yield from _section(
            "###", "audit.rules", render_markdown(audit.rule_table(view.audit, lang)), lang
        )


def _render_optimizations(view: SuiteView, lang: str) -> Iterator[str]:
    """Ablation table where there is a run with all on; else where each optimization is applied."""
    if changes_table := ablation.table(view.records, lang, view.changes):
        yield from _section("##", "optimization.heading", render_markdown(changes_table), lang)
    elif applied := ablation.applied(view.records, lang):
        yield from _section("##", "optimization.applied heading", render_markdown(applied), lang)


def _render_measurements(records: Sequence[RunRecord], lang: str) -> Iterator[str]:
    if not records:
        return
    yield f"## {translate('report.measurements', lang)}"
    kinds: dict[str, Callable[[Sequence[RunRecord], str], Table]] = {
        "evaluation cost": retrieval_cost.cost,
        "steps": steps_and_memory.step_table,
        "phases": steps_and_memory.phase_table,
        "memory": steps_and_memory.memory_table,
    }
    for name, table in kinds.items():
        yield from _section("###", f"report.{name}", render_markdown(table(records, lang)), lang)
    fitted = memory_estimate.table(records, lang)
    yield from _section("###", "report.fit", render_markdown(fitted) if fitted.rows else "", lang)


def _render_figures(figures: Mapping[str, str], lang: str) -> Iterator[str]:
    if not figures:
        return
    yield f"## {translate('report.figures', lang)}"
    for name, link in figures.items():
        if not name:
            yield translate("report.no figures", lang).format(escape(link))
        else:
            key = {"loss": "report.loss", "data": "report.data figure"}
            title = translate(key.get(name, "report.memory figure"), lang)
            yield f"![{title}]({link})"
            yield f"*{translate(f'figure.{name} caption', lang)}*"


def _render_tail(view: SuiteView, lang: str) -> Iterator[str]:
    outputs = run_outputs.table(view.records, lang)
    yield from _section(
        "##", "outputs.heading", render_markdown(outputs) if outputs.rows else "", lang
    )
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


def _render_appendix(records: Sequence[RunRecord], lang: str) -> Iterator[str]:
    yield from _section("##", "report.appendix", sections.appendix(records), lang)


def _section(level: str, heading: str, body: str, lang: str) -> Iterator[str]:
    """A heading and its body, or nothing when the body is empty."""
    if body:
        yield f"{level} {translate(heading, lang)}"
        yield body
