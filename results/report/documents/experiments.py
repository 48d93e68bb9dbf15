"""An experiment in detail: settings, epochs, scores, comparison, problems, conclusion."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Final

from results.comparison.document_view import JudgedCriterion, RunChange, name_in_audit
from results.records import published_runs
from results.records.message_translations import localize
from results.records.schema import RunRecord
from results.records.suite_view import RunWords
from results.report import answers, captions
from results.report.documents.changes import describe_settings, value_cells
from results.report.documents.overview import fill_in, state_of_run
from results.report.documents.run_titles import (
    format_date,
    list_identities,
    main_runs,
    title_of_run,
)
from results.report.documents.summary import name_baseline, subtract_scores
from results.report.suite_sections import ReportInput, titled, titled_table
from results.tables import captioning, metrics, run_cells, training_stages, vqa
from results.text import formats
from results.text.metric_names import TRAIN_SPLIT
from results.text.table import (
    Table,
    TableCell,
    TableColumn,
    code,
    code_block,
    escape,
    join_lines,
    prose,
    render_markdown,
    sentence,
)
from results.text.translations import translate

UNSET: Final[tuple[Any, ...]] = (None, "", [], ())
"""Values of settings that are not set."""


def render_experiments(page: ReportInput) -> Iterator[str]:
    """A section for each experiment; settings are those in which the experiments differ."""
    records = main_runs(page.view.records)
    if records:
        yield f"## {translate('document.details', page.lang)}"
    planned = [i for i in page.view.planned if i.run_id in page.view.reported]
    differing = _differing_settings([i.params for i in (*(r.identity for r in records), *planned)])
    for record in records:
        flags = run_cells.flags(record, page.lang)
        suffix = f" **[{escape(', '.join(flags))}]**" if flags else ""
        yield f"### {title_of_run(page.view, record.identity.run_id)}{suffix}"
        yield from _render_beginning(page, record, "####")
        settings = {k: v for k, v in record.identity.params.items() if k in differing}
        yield from _render_settings(page, settings, "####")
        yield from _render_training(page, record, "####")
    for identity in planned if records else ():
        yield f"### {title_of_run(page.view, identity.run_id)}"
        state = page.view.states.get(identity.run_id, "waiting")
        shown = captioning.state_cell(state, page.lang).text
        lines = [f"- {translate('document.state', page.lang)}: {escape(shown)}"]
        reported = page.view.reported[identity.run_id]
        yield join_lines([*lines, *_reported_lines(reported, page.lang)])
        settings = {k: v for k, v in identity.params.items() if k in differing}
        yield from _render_settings(page, settings, "####")


def _reported_lines(reported: Mapping[str, str], lang: str) -> Iterator[str]:
    """Names, sizes and places in the words of an imported run's source."""
    for name, text in reported.items():
        yield f"- {translate(f'document.reported {name}', lang)}: {escape(text)}"


def render_single(page: ReportInput) -> Iterator[str]:
    """The experiment of a report of one run, with its scores and all of its settings."""
    for record in page.view.records:
        yield from _render_beginning(page, record, "##")
        yield from _render_scores(page, record)
        yield from _render_training(page, record, "##")
        settings = {**record.identity.params, "seed": record.identity.seed}
        yield from _render_settings(page, settings, "##")


def _render_beginning(page: ReportInput, record: RunRecord, level: str) -> Iterator[str]:
    """What the run is, what was expected of it, and what changed against its baseline."""
    run = record.identity.run_id
    yield join_lines(list(_fact_lines(page, record)))
    yield from _render_expectation(page, run, page.view.run_words.get(run, RunWords()), level)
    change = next((c for c in page.document.baselines if c.run == run), None)
    if change:
        yield from _render_change(page, change, level)


def _render_training(page: ReportInput, record: RunRecord, level: str) -> Iterator[str]:
    """Stages, epochs, examples, problems, conclusion."""
    view, lang, run = page.view, page.lang, record.identity.run_id
    stages = training_stages.stages([record], lang, named=False)
    yield from titled_table(level, "stages.title", stages, lang)
    epochs = training_stages.epochs([record], lang, named=False)
    yield from titled_table(level, "stages.epochs title", epochs, lang)
    best = training_stages.best_and_last([record], lang)
    yield from titled_table(level, "stages.best title", best, lang)
    scores = training_stages.best_and_last_scores([record], lang)
    yield from titled_table(level, "stages.scores title", scores, lang)
    yield from captions.render_run_examples(run, view, lang, page.pictures, level)
    yield from _render_problems(page, record, level)
    yield from _render_conclusion(page, record, view.run_words.get(run, RunWords()), level)


def _render_settings(page: ReportInput, settings: dict[str, Any], level: str) -> Iterator[str]:
    """Settings as a block of YAML; those that are not set in one line."""
    chosen = {name: value for name, value in settings.items() if value not in UNSET}
    lines = [line for item in chosen.items() for line in _setting_lines(*item)]
    if unset := [name for name in settings if name not in chosen]:
        lines.append(f"# {translate('report.unset', page.lang)}: {', '.join(unset)}")
    block = code_block("\n".join(lines), "yaml") if lines else ""
    yield from titled(level, "document.settings", block, page.lang)


def _setting_lines(name: str, value: Any) -> Iterator[str]:
    """A setting as YAML; each stage of a training has its line."""
    if isinstance(value, list | tuple) and value and all(isinstance(v, dict) for v in value):
        yield f"{name}:"
        for part in value:
            pairs = ", ".join(
                f"{key}: {formats.setting(v)}" for key, v in part.items() if v not in UNSET
            )
            yield f"  - {{{pairs}}}"
    else:
        yield f"{name}: {formats.setting(value)}"


def _fact_lines(page: ReportInput, record: RunRecord) -> Iterator[str]:
    """Run, days, subset, model, size, state, reason, findings."""
    view, lang, identity = page.view, page.lang, record.identity
    planned = next((i for i in list_identities(view) if i.run_id == identity.run_id), identity)
    name = planned.run_id if "/" in planned.run_id else f"{identity.suite}/{planned.run_id}"
    yield f"- {translate('document.run', lang)}: {code(name)}"
    if published_runs.is_imported(record):
        source = localize(published_runs.read_source(record), lang)
        yield f"- {translate('document.source', lang).format(escape(source))}"
    yield from _reported_lines(view.reported.get(identity.run_id, {}), lang)
    if days := " – ".join(dict.fromkeys(filter(None, map(format_date, (
        record.started_wall, record.ended_wall,
    ))))):  # fmt: skip
        yield f"- {translate('document.date', lang)}: {days}"
    yield f"- {translate('document.subset', lang)}: {code(identity.subset)}"
    yield f"- {translate('document.model', lang)}: {code(identity.model_title)}"
    if record.trainable_parameters is not None and record.parameters is not None:
        sizes = map(formats.parameters, (record.parameters, record.trainable_parameters))
        yield f"- {translate('report.parameters', lang).format(*sizes)}"
    shown = captioning.state_cell(state_of_run(view, identity.run_id, record), lang).text
    yield f"- {translate('document.state', lang)}: {escape(shown)}"
    if reason := view.words.reasons.get(identity.label, "") if identity.label else "":
        yield f"- {translate('document.why', lang)}: {prose(reason)}"
    wall = record.timing.end_to_end_seconds.value
    if wall is not None:
        yield f"- {translate('document.time', lang)}: {formats.duration(wall)}"


def _render_expectation(page: ReportInput, run: str, words: RunWords, level: str) -> Iterator[str]:
    """What was expected before the run, and its criteria judged after it."""
    lang = page.lang
    judged = page.document.criteria.get(run, ())
    if not (words.expected or judged):
        if page.document.kind == "run":
            yield f"{level} {translate('document.expectation', lang)}"
            yield translate("document.no expectation", lang)
        return
    yield f"{level} {translate('document.expectation', lang)}"
    if words.expected:
        yield f"> {prose(words.expected)}\n"
    if judged:
        names = ("criterion", "value", "judgement")
        columns = tuple(TableColumn(translate(f"document.{name}", lang)) for name in names)
        rows = tuple((TableCell(c.text), _value_cell(c), _judgement_cell(c, lang)) for c in judged)
        yield render_markdown(Table(columns, rows))


def _value_cell(criterion: JudgedCriterion) -> TableCell:
    if criterion.value is None:
        return TableCell("–", "value")
    return TableCell(formats.interval(criterion.value, criterion.low, criterion.high), "value")


def _judgement_cell(criterion: JudgedCriterion, lang: str) -> TableCell:
    text = translate(f"document.{criterion.verdict}", lang)
    if not criterion.certain and criterion.verdict != "not measured":
        text += translate("document.uncertain", lang)
    return TableCell(text, "strong" if criterion.verdict == "met" else "value")


def _render_change(page: ReportInput, change: RunChange, level: str) -> Iterator[str]:
    """Comparison with the previous version or the baseline: each metric and cost."""
    lang = page.lang
    heading = translate(f"document.compared {change.relation}", lang).format(name_baseline(change))
    yield f"{level} {heading}"
    names = ("quantity", "before", "after", "difference", "verdict")
    columns = tuple(
        TableColumn(translate(f"document.{name}", lang), name in ("before", "after", "difference"))
        for name in names
    )
    held_out = [value for value in change.values if value.split != TRAIN_SPLIT]
    rows = [value_cells(value, lang) for value in held_out]
    rows += _public_score_rows(page, change)
    if rows:
        remark = TableCell(translate("document.change remark", lang), "value")
        yield render_markdown(Table(columns, tuple(rows), (remark,)))
    changed = translate("document.settings changed", lang)
    yield f"{changed}: {describe_settings(change, lang)}"


def _public_score_rows(page: ReportInput, change: RunChange) -> list[tuple[TableCell, ...]]:
    """The scores of a leaderboard, where both runs have one."""
    words = page.view.run_words.get(change.run)
    texts = (change.public_score, words.public_score if words else "")
    if not (difference := subtract_scores(*texts)):
        return []
    title = translate("document.public score", page.lang)
    verdict = translate("document.no interval", page.lang)
    scores = (TableCell(text) for text in texts)
    delta = TableCell(difference, "value")
    return [(TableCell(title, "value"), *scores, delta, TableCell(verdict, "value"))]


def _render_problems(page: ReportInput, record: RunRecord, level: str) -> Iterator[str]:
    """Faults of the audit that the run has."""
    identity = record.identity
    names = {identity.label, identity.run_id.rpartition("/")[2]} - {""}
    names |= {name_in_audit(identity.suite, name) for name in names}
    rows = [row for row in page.view.audit if row.standing == "fault" and names & {*row.runs}]
    lines = [
        f"- **{translate(f'audit.{row.severity}', page.lang)}** {escape(row.title[page.lang])} "
        f"({code(row.code)}): {sentence(row.evidence[page.lang])}. "
        f"{translate('audit.remedy', page.lang)}: {sentence(row.remedy[page.lang])}"
        for row in rows
    ]
    yield from titled(level, "document.problems", join_lines(lines), page.lang)


def _render_conclusion(
    page: ReportInput, record: RunRecord, words: RunWords, level: str
) -> Iterator[str]:
    """Findings, conclusion and next steps that people noted, or the place for them."""
    view, lang, run = page.view, page.lang, record.identity.run_id
    target = run if "/" in run else f"{record.identity.suite}/{run}"
    findings = view.notes.get(run, ())
    lines = [f"- {prose(text)}" for text in findings]
    lines += [f"- {translate('document.conclusion', lang)}: {prose(words.conclusion)}"] * bool(
        words.conclusion
    )
    lines += [f"- {translate('document.next', lang)}: {prose(step)}" for step in words.next_steps]
    yield f"{level} {translate('document.run conclusion', lang)}"
    if lines:
        yield join_lines(lines)
    missing = ["--conclusion"] if not (words.conclusion or findings) else []
    missing += ["--next"] if page.document.kind == "run" and not words.next_steps else []
    for option in missing:
        yield f"{fill_in(page, target, option)}\n"


def _render_scores(page: ReportInput, record: RunRecord) -> Iterator[str]:
    """All scores of a run, one table a split, and the errors of its answers."""
    lang, view = page.lang, page.view
    if record.identity.engine == captioning.ENGINE:
        for split in captioning.splits([record]):
            yield f"## {translate('document.scores', lang).format(code(split))}"
            yield render_markdown(captioning.scores([record], split, lang))
    elif record.identity.engine == vqa.ENGINE:
        for split in vqa.splits([record]):
            yield f"## {translate('document.scores', lang).format(code(split))}"
            yield from vqa.sections([record], split, lang, view.answers)
        yield from answers.render_errors(view, lang, page.pictures)
    else:
        for split in metrics.splits([record]):
            yield f"## {translate('document.scores', lang).format(code(split))}"
            yield render_markdown(metrics.metrics([record], split, lang))


def _differing_settings(settings: Sequence[Mapping[str, Any]]) -> set[str]:
    """Settings that have several values among these runs; all of a single run."""
    names = {name for params in settings for name in params}
    if len(settings) == 1:
        return names
    return {name for name in names if len({repr(params.get(name)) for params in settings}) > 1}
