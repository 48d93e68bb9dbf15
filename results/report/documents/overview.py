"""Sections about a document as a whole: its suites, experiments, changes, failures and end.

What only a person knows has a place that names the command which fills it.
"""

from __future__ import annotations

from collections.abc import Iterator

from results.comparison.document_view import (
    RunChange,
    SuitePart,
    short_suite_name,
)
from results.records import published_runs
from results.records.schema import Identity, RunRecord
from results.records.suite_view import SuiteView
from results.report import story
from results.report.documents.changes import describe_settings
from results.report.documents.run_titles import (
    failed_runs,
    format_date,
    list_identities,
    list_waiting,
    main_runs,
    title_of_run,
)
from results.report.documents.summary import (
    format_delta,
    headline_change,
    name_baseline,
    subtract_scores,
)
from results.report.suite_sections import (
    ReportInput,
    count_lines,
    format_state,
    format_time,
    render_forecasts,
    render_memory_estimates,
    titled,
    titled_table,
)
from results.tables import captioning, run_cells, run_outputs
from results.text import formats, metric_names
from results.text.table import (
    Table,
    TableCell,
    TableColumn,
    code,
    escape,
    join_lines,
    prose,
)
from results.text.translations import cause, translate


def render_head(page: ReportInput) -> Iterator[str]:
    """Title, goal, days and counts."""
    view, lang, document = page.view, page.lang, page.document
    yield f"# {story.title(document, lang)}"
    yield from story.goal(view, lang)
    suites = ", ".join(code(part.name) for part in document.parts)
    lines = []
    if document.period:
        days = story.format_days(document.period)
        lines.append(translate("document.period", lang).format(days))
    lines.append(translate("document.of", lang).format(len(view.records), suites))
    imported = sum(map(published_runs.is_imported, view.records))
    if imported:
        lines.append(translate("document.imported", lang).format(imported))
    lines += count_lines(view, lang)
    yield "\n".join(f"- {line}" for line in lines)


def render_suites(page: ReportInput) -> Iterator[str]:
    """What was run, and why: a row a suite."""
    lang = page.lang
    names = ("suite", "start", "state", "runs", "why")
    columns = tuple(TableColumn(translate(f"document.{name}", lang)) for name in names)
    rows = tuple(
        (
            TableCell(part.name, "code"),
            TableCell(format_time(part.started_wall) or "–", "value"),
            TableCell(format_state(part.state, lang) if part.state else "–", "value"),
            TableCell(str(len(part.runs)), "value"),
            TableCell(_reason(part, page), "value"),
        )
        for part in page.document.parts
    )
    yield from titled_table("##", "document.suites", Table(columns, rows), lang)


def _reason(part: SuitePart, page: ReportInput) -> str:
    """Title, goal and reason of a suite, or the command that notes the reason."""
    words = part.words
    texts = [prose(t) for t in (words.title, words.goal, words.reasons.get("", "")) if t]
    if texts:
        return "; ".join(texts)
    if part.state == "imported":
        return translate("document.imported suite", page.lang)
    return fill_in(page, part.name, "--why")


def render_experiments(page: ReportInput) -> Iterator[str]:
    """Every run with its result, state and finding; captioning has a list of its own."""
    view, lang = page.view, page.lang
    runs = {r.identity.run_id: r for r in view.records}
    identities = [i for i in list_identities(view) if i.engine != captioning.ENGINE]
    names = ("experiment", "subset", "model", "result", "time", "state", "finding")
    columns = tuple(
        TableColumn(translate(f"document.{name}", lang), name == "time") for name in names
    )
    facts = {run: record.facts for run, record in runs.items()} | view.planned_facts
    planned = sum(i.run_id not in runs for i in identities)
    made_of = [(i.params, facts.get(i.run_id, {})) for i in identities]
    setup = run_cells.setup_columns(made_of, lang, planned)
    rows = tuple(
        (*row[:3], *cells, *row[3:])
        for i, cells in zip(identities, setup.cells, strict=True)
        for row in (_experiment_row(page, i, runs.get(i.run_id)),)
    )
    table = Table((*columns[:3], *setup.columns, *columns[3:]), rows, setup.remarks)
    yield from titled_table("##", "document.experiments", table, lang)
    if not all(map(view.notes.get, runs)):
        yield fill_in(page, translate("document.run name", lang), "--finding", "document.finding")


def render_profile_hint(page: ReportInput) -> Iterator[str]:
    """How the full check of the subsets comes into the report, where it is not there."""
    if page.view.records and not page.view.checks:
        yield translate("document.no checks", page.lang)


def render_estimates(page: ReportInput) -> Iterator[str]:
    """Memory estimates and cost forecasts beside what was measured."""
    parts = [*render_memory_estimates(page), *render_forecasts(page)]
    if parts:
        yield f"## {translate('document.estimates', page.lang)}"
        yield from parts


def _experiment_row(
    page: ReportInput, identity: Identity, record: RunRecord | None
) -> tuple[TableCell, ...]:
    view, lang, run = page.view, page.lang, identity.run_id
    metric = metric_names.headline_metric(record.metrics) if record else None
    result, time = TableCell("–", "value"), TableCell("–", "value")
    if metric:
        value = formats.interval(metric.value, metric.low, metric.high)
        result = TableCell(f"{escape(metric.name)} {value} ({code(metric.split)})", "value")
    if record:
        wall = record.timing.end_to_end_seconds
        time = run_cells.reading_cell(wall, formats.duration, lang=lang)
    state = state_of_run(view, run, record)
    return (
        TableCell(
            identity.label or run,
            "text" if identity.label else "code",
            run_cells.flags(record, lang) if record else (),
        ),
        TableCell(identity.subset, "code"),
        TableCell(identity.model_title, "code"),
        result,
        time,
        captioning.state_cell(state, lang),
        TableCell("; ".join(view.notes.get(run, ())), "prose"),
    )


def state_of_run(view: SuiteView, run: str, record: RunRecord | None) -> str:
    """The state that a person noted, else how the run ended, else what its journal says."""
    state = view.states.get(run, "waiting")
    if record is None or state not in ("waiting", "running"):
        return state
    return "done" if record.exit.cause == "completed" else record.exit.cause


def render_failures(page: ReportInput) -> Iterator[str]:
    """Runs that did not complete, counted by cause, with the detail of each."""
    lang = page.lang
    failed = failed_runs(page.view.records)
    names = ("cause", "count", "failed runs", "detail")
    columns = tuple(
        TableColumn(translate(f"document.{name}", lang), name == "count") for name in names
    )
    rows = []
    for name in dict.fromkeys(r.exit.cause for r in failed):
        of_cause = [r for r in failed if r.exit.cause == name]
        details = dict.fromkeys(r.exit.detail for r in of_cause if r.exit.detail)
        runs = ", ".join(title_of_run(page.view, r.identity.run_id) for r in of_cause)
        rows.append((
            TableCell(cause(name, lang)), TableCell(str(len(of_cause)), "value"),
            TableCell(runs, "value"), TableCell("; ".join(details), "sentence"),
        ))  # fmt: skip
    yield from titled_table("##", "document.failures", Table(columns, tuple(rows)), lang)


def render_submissions(page: ReportInput) -> Iterator[str]:
    """Experiments of a challenge: public score, baseline and its score, delta, what changed."""
    view, lang = page.view, page.lang
    changes = {change.run: change for change in page.document.baselines}
    names = (
        "experiment",
        "date",
        "public score",
        "result",
        "baseline",
        "delta",
        "changed-settings",
    )
    columns = tuple(TableColumn(translate(f"document.{name}", lang)) for name in names)
    records = main_runs(view.records)
    rows = [_submission_row(page, r, changes.get(r.identity.run_id)) for r in records]
    files = [_submission_file(record) for record in records]
    if any(files):
        columns = (*columns, TableColumn(translate("outputs.submission", lang)))
        rows = [
            (*row, TableCell(file, "code") if file else TableCell("–", "value"))
            for row, file in zip(rows, files, strict=True)
        ]
    yield from titled_table("##", "document.submissions", Table(columns, tuple(rows)), lang)


def _submission_file(record: RunRecord) -> str:
    """Path of the run's submission, relative to the log root; empty: it has none."""
    outputs = run_outputs.list_outputs(record)
    paths = [f"{record.folder}/{output.path}" for output in outputs if output.kind == "submission"]
    return next(iter(paths), "")


def _submission_row(
    page: ReportInput, record: RunRecord, change: RunChange | None
) -> tuple[TableCell, ...]:
    view, lang, run = page.view, page.lang, record.identity.run_id
    words = view.run_words.get(run)
    public = words.public_score if words else ""
    metric = metric_names.headline_metric(record.metrics)
    result = "–" if metric is None else formats.interval(metric.value, metric.low, metric.high)
    return (
        TableCell(title_of_run(view, run), "value", run_cells.flags(record, lang)),
        TableCell(format_date(record.started_wall) or "–", "value"),
        TableCell(public) if public else TableCell("–", "value"),
        TableCell(result, "value"),
        *_baseline_cells(change, public, lang),
    )  # fmt: skip


def _baseline_cells(change: RunChange | None, public: str, lang: str) -> tuple[TableCell, ...]:
    """Baseline with its public score, delta of the headline metric or the public score, changes."""
    if change is None:
        return (TableCell("–", "value"),) * 3
    score = f" ({escape(change.public_score)})" if change.public_score else ""
    value = headline_change(change)
    delta = format_delta(value) if value else subtract_scores(change.public_score, public)
    return (
        TableCell(name_baseline(change) + score, "value"),
        TableCell(delta or "–", "value"),
        TableCell(describe_settings(change, lang), "value"),
    )


def render_timeline(page: ReportInput) -> Iterator[str]:
    """By date: suites that started, runs that ended, what people noted, what is planned."""
    view, lang = page.view, page.lang
    events = [(date, prose(event)) for date, event in view.words.events]
    for part in page.document.parts:
        if date := format_date(part.started_wall):
            name = code(short_suite_name(part.name))
            events.append((date, translate("document.suite started", lang).format(name)))
    ended: dict[tuple[str, str], list[str]] = {}
    for record in view.records:
        if date := format_date(record.ended_wall):
            ended.setdefault((date, record.exit.cause), []).append(record.identity.run_id)
    for (date, end), runs in ended.items():
        names = ", ".join(title_of_run(view, run) for run in runs)
        events.append((date, f"{cause(end, lang)}: {names}"))
    if waiting := list_waiting(view):
        names = ", ".join(title_of_run(view, i.run_id) for i in waiting)
        planned = translate("document.planned event", lang).format(names)
        events.append((translate("document.later", lang), planned))
    yield from titled("##", "story.timeline", story.timeline_table(events, lang), lang)


def render_conclusion(page: ReportInput) -> Iterator[str]:
    """Findings, then the conclusions of the document and of its suites, or the place for them."""
    view, lang, document = page.view, page.lang, page.document
    findings = list(dict.fromkeys(view.notes.get("", ())))
    lines = [f"{number}. {prose(text)}" for number, text in enumerate(findings, 1)]
    yield from titled("##", "story.findings", join_lines(lines), lang)
    conclusions = [view.words.conclusion] if view.words.conclusion else []
    conclusions += [part.words.conclusion for part in document.parts if part.words.conclusion]
    yield f"## {translate('story.conclusion', lang)}"
    for text in dict.fromkeys(conclusions):
        yield f"> {prose(text)}\n"
    if not conclusions or (document.period and not view.words.conclusion):
        yield fill_in(page, document.note_target, "--conclusion", "story.conclusion")


def render_next(page: ReportInput) -> Iterator[str]:
    """Next steps that people noted, and runs that are still planned."""
    view, lang = page.view, page.lang
    yield f"## {translate('story.next', lang)}"
    steps = [f"- {prose(step)}" for step in dict.fromkeys(view.words.next_steps)]
    for identity in list_waiting(view):
        names = title_of_run(view, identity.run_id), code(identity.subset), code(identity.model)
        steps.append(f"- {translate('document.planned', lang).format(*names)}")
    if steps:
        yield join_lines(steps)
    if not view.words.next_steps:
        yield fill_in(page, page.document.note_target, "--next", "story.next")


def fill_in(page: ReportInput, target: str, option: str, key: str = "") -> str:
    """The marked place of a text that only a person can write, with the command that fills it.

    `key`: of its heading.
    """
    command = code(f'workbench results note {target} {option} "…"')
    title = f"{translate(key, page.lang)}: " if key else ""
    return f"**[{translate('document.fill in', page.lang)}]** {title}{command}"
