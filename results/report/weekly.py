"""The weekly report of a suite: Markdown in the order in which people here write it.

Apart from the parts, which other outputs use too. A pure function of the view: the same view gives
the same bytes, on every machine and in every time zone.
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
    captioning,
    cost_forecast,
    memory_estimate,
    message_translations,
    metrics,
    retrieval_cost,
    run_cells,
    run_outputs,
    search_trials,
    timing_and_memory,
    training_cost,
    vqa,
)
from results.tables.table import Table, code, escape, fenced, markdown
from results.text.translations import cause, say

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
            "records": message_translations.records(view.records, lang),
            "forecasts": message_translations.records(view.forecasts, lang),
        }
    )
    parts = [
        *_head(view, lang),
        *_setup(view, lang),
        *_results(view, lang),
        *_search(view, lang),
        *_evaluation([r for r in view.records if r.identity.engine not in OWN_TABLES], lang),
        *captions.render(view, lang, pictures),
        *answers.render(view, lang, pictures),
        *_part("##", "story.findings", story.findings(view), lang),
        *_optimizations(view, lang),
        *_measurements(view.records, lang),
        *_figures(figures or {}, lang),
        *_tail(view, lang),
        *_appendix(view.records if appendix else (), lang),
    ]
    return "\n".join(part if part.endswith("\n") else f"{part}\n" for part in parts)


def _head(view: SuiteView, lang: str) -> Iterator[str]:
    yield f"# {story.title(view, lang)}"
    yield from story.head(view, lang)
    started = _moment(view.started_wall) or "n/a"
    lines = [f"suite: {code(view.name)}"] if view.words.title else []
    lines += [say("report.started", lang).format(started, _state(view.state, lang))]
    failed = [r for r in view.records if r.exit.cause != "completed"]
    if failed:
        named = ", ".join(
            f"{code(r.identity.run_id)} ({cause(r.exit.cause, lang)})" for r in failed
        )
        counts = (len(failed), len(view.records))
        lines.append(say("report.not completed", lang).format(*counts, named))
    elif view.records and not view.pending:
        counts = (len(view.records), len(view.records))
        lines.append(say("report.all completed", lang).format(*counts))
    if view.pending:
        lines.append(say("report.pending", lang).format(", ".join(map(code, view.pending))))
    yield "\n".join(f"- {line}" for line in lines)


def _state(state: str, lang: str) -> str:
    known = {"queued", "running", "holding", "stopping", "starting", "ended", "lost"}
    return say(f"state.{state}", lang) if state in known else escape(state or "n/a")


def _moment(wall: float | None) -> str:
    """A Unix time in UTC: local time would make the report depend on where it is written."""
    if wall is None:
        return ""
    return datetime.datetime.fromtimestamp(wall, datetime.UTC).strftime("%Y-%m-%d %H:%M UTC")


def _setup(view: SuiteView, lang: str) -> Iterator[str]:
    records = view.records
    subsets = list(dict.fromkeys(i.subset for i in (*(r.identity for r in records), *view.planned)))
    known, chosen = sections.subsets(records, lang), story.subset_reasons(view, subsets, lang)
    heading = "story.subsets" if chosen else "report.subsets"
    yield from _part("##", heading, "\n".join(filter(None, (known, chosen))), lang)
    yield from _part("##", "story.choices", story.other_reasons(view, subsets), lang)
    yield from data.render(view, lang)
    yield from _part("##", "architecture.heading", architecture.render(view, lang), lang)
    yield f"## {say('report.setup', lang)}"
    yield from _part("###", "report.models", sections.models(records, lang), lang)
    yield from _part("###", "report.environment", sections.environment(records, lang), lang)
    yield from _part("###", "report.fixed", sections.fixed_settings(records, lang), lang)
    yield from _part("###", "report.differing", sections.differing_settings(records, lang), lang)


def _results(view: SuiteView, lang: str) -> Iterator[str]:
    records = view.records
    if not records:
        return
    yield f"## {say('report.results', lang)}"
    how = (say("report.sequential", lang), *_trained(records, lang))
    yield f"{say('report.method', lang)}\n" + "\n".join(f"- {line}" for line in how)
    yield from _part("###", "report.cost", markdown(training_cost.cost(records, lang)), lang)
    trained = training_cost.train(records, lang, view.notes)
    if trained.rows:
        yield f"### {say('report.training', lang)}"
        evaluated = "with evaluation" if metrics.splits(records) else "no evaluation"
        yield say(f"report.{evaluated}", lang)
        yield markdown(trained)
    yield from _part("###", "report.total", f"- {training_cost.total(records, lang)}", lang)
    expected = cost_forecast.expected(records, lang)
    yield from _part("###", "report.forecasts", markdown(expected) if expected.rows else "", lang)
    found = cost_forecasts.of_suite(records, view.forecasts)
    beside = markdown(cost_forecast.compared(found, lang)) if found else ""
    yield from _part("###", "report.compared", beside, lang)
    failed = training_cost.failures(records, lang)
    yield from _part("###", "report.failures", markdown(failed) if failed.rows else "", lang)


def _search(view: SuiteView, lang: str) -> Iterator[str]:
    """Of a search: its trials side by side."""
    if view.search is not None:
        found = search_trials.table(view.records, view.search, lang)
        yield from _part("##", "trials.heading", markdown(found) if found.rows else "", lang)


def _trained(records: Sequence[RunRecord], lang: str) -> Iterator[str]:
    """How long the trainings went, and which rows are none."""
    probed = sum(map(cost_forecasts.costing, records))
    if probed:
        yield say("report.costing runs", lang).format(probed, len(records))
    if probed < len(records):
        yield say(
            "report.one epoch" if run_cells.one_epoch(records) else "report.several epochs", lang
        )


def _evaluation(records: Sequence[RunRecord], lang: str) -> Iterator[str]:
    names = metrics.splits(records)
    if names:
        yield f"## {say('report.evaluation', lang)}"
    for split in names:
        yield f"### {code(split)}"
        yield markdown(metrics.metrics(records, split, lang))
        ablated = metrics.ablations(records, split, lang)
        if ablated is not None:
            yield f"#### {say('report.ablation', lang).format(code(split))}"
            yield markdown(ablated)


def _optimizations(view: SuiteView, lang: str) -> Iterator[str]:
    """What switches were worth, beside a run with all on; else which runs have them on."""
    if worth := ablation.table(view.records, lang, view.changes):
        yield from _part("##", "optimization.heading", markdown(worth), lang)
    elif applied := ablation.applied(view.records, lang):
        yield from _part("##", "optimization.applied heading", markdown(applied), lang)


def _measurements(records: Sequence[RunRecord], lang: str) -> Iterator[str]:
    if not records:
        return
    yield f"## {say('report.measurements', lang)}"
    kinds: dict[str, Callable[[Sequence[RunRecord], str], Table]] = {
        "evaluation cost": retrieval_cost.cost,
        "steps": timing_and_memory.steps,
        "phases": timing_and_memory.phases,
        "memory": timing_and_memory.memory,
    }
    for name, table in kinds.items():
        yield from _part("###", f"report.{name}", markdown(table(records, lang)), lang)
    fitted = memory_estimate.table(records, lang)
    yield from _part("###", "report.fit", markdown(fitted) if fitted.rows else "", lang)


def _figures(figures: Mapping[str, str], lang: str) -> Iterator[str]:
    if not figures:
        return
    yield f"## {say('report.figures', lang)}"
    for name, link in figures.items():
        if not name:
            yield say("report.no figures", lang).format(escape(link))
        else:
            key = {"loss": "report.loss", "data": "report.data figure"}
            title = say(key.get(name, "report.memory figure"), lang)
            yield f"![{title}]({link})"
            yield f"*{say(f'figure.{name} caption', lang)}*"


def _tail(view: SuiteView, lang: str) -> Iterator[str]:
    left = run_outputs.table(view.records, lang)
    yield from _part("##", "outputs.heading", markdown(left) if left.rows else "", lang)
    yield from _part("##", "report.notices", sections.notices(view.records, lang), lang)
    yield from _part("##", "report.notes", sections.notes(view), lang)
    yield from _part("##", "story.links", story.links(view, lang), lang)
    yield from _part("##", "story.timeline", story.timeline(view, lang), lang)
    yield from _part("##", "story.conclusion", story.conclusion(view), lang)
    yield from _part("##", "story.next", story.next_steps(view), lang)
    yield f"## {say('report.again', lang)}"
    if not view.plan_toml.strip():
        yield say("report.no plan", lang)
        return
    commits = {r.environment.git_commit for r in view.records if r.environment.git_commit}
    if len(commits) == 1:
        dirty = any(r.environment.git_dirty for r in view.records)
        key = "report.at changed commit" if dirty else "report.at commit"
        yield say(key, lang).format(code(commits.pop()))
    yield say("report.command", lang)
    yield fenced("workbench run plan.toml", "sh")
    yield fenced(view.plan_toml, "toml")


def _appendix(records: Sequence[RunRecord], lang: str) -> Iterator[str]:
    yield from _part("##", "report.appendix", sections.appendix(records), lang)


def _part(level: str, heading: str, body: str, lang: str) -> Iterator[str]:
    """A heading and its body, or nothing when the body is empty."""
    if body:
        yield f"{level} {say(heading, lang)}"
        yield body
