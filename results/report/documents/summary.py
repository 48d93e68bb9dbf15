"""What a report has found, in at most five lines, and its rankings."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from itertools import islice
from typing import Final

from results.comparison.document_view import (
    Kind,
    RankedRuns,
    Ranking,
    RunChange,
    ValueChange,
    is_best_alone,
    short_suite_name,
)
from results.records import cost_forecasts, published_runs
from results.records.schema import RunRecord
from results.report.captions import short_metric_name
from results.report.documents.run_titles import (
    failed_runs,
    main_runs,
    title_of_run,
    title_of_runs,
)
from results.report.suite_sections import ReportInput, titled
from results.tables import captioning, run_cost
from results.text import formats, metric_names
from results.text.metric_names import TRAIN_SPLIT
from results.text.table import (
    Table,
    TableCell,
    TableColumn,
    code,
    escape,
    join_lines,
    render_markdown,
)
from results.text.translations import cause, translate

MAX_LINES: Final = 5
MAX_NAMES: Final = 3

Lines = Callable[[ReportInput], Iterator[str]]


def render_summary(page: ReportInput) -> Iterator[str]:
    """The lines, then the rankings."""
    lines = (line for source in SOURCES[page.document.kind] for line in source(page))
    text = join_lines([f"- {line}" for line in islice(lines, MAX_LINES)])
    yield from titled("##", "document.summary", text, page.lang)
    for ranking in page.document.rankings:
        heading = translate("document.ranking", page.lang)
        yield f"### {heading.format(code(ranking.split))}"
        yield render_markdown(ranking_table(page, ranking))
    if page.document.rankings:
        yield translate("document.ranking remark", page.lang)


def ranking_table(page: ReportInput, ranking: Ranking) -> Table:
    """A row a entry: run, value with its interval, n, verdict against the first.

    Bold: the first, if all others are worse.
    """
    lang = page.lang
    names = ("rank", "run", "n", "against best")
    rank, run, n, verdict = (
        TableColumn(translate(f"document.{name}", lang), name in ("rank", "n")) for name in names
    )
    columns = (rank, run, TableColumn(escape(ranking.metric), right=True), n, verdict)
    alone = is_best_alone(ranking)
    shared = _shared_names(page, ranking)
    rows = tuple(
        (
            TableCell(str(number), "value"),
            TableCell(_name_place(page, entry, shared), "value"),
            TableCell(
                formats.interval(entry.value, entry.low, entry.high),
                "strong" if alone and number == 1 else "value",
            ),
            TableCell(formats.count(entry.n), "value"),
            TableCell(translate(f"document.rank {entry.verdict}", lang), "value"),
        )
        for number, entry in enumerate(ranking.places, 1)
    )
    return Table(columns, rows)


def _shared_names(page: ReportInput, ranking: Ranking) -> set[str]:
    """Subset and model, as far as all places of a ranking have the same."""
    ranked = {run for entry in ranking.places for run in entry.runs}
    identities = [r.identity for r in page.view.records if r.identity.run_id in ranked]
    names = [{i.subset for i in identities}, {i.model_title for i in identities}]
    return {name for values in names if len(values) == 1 for name in values}


def _name_place(page: ReportInput, entry: RankedRuns, shared: Collection[str]) -> str:
    """Run, and of subset and model what is not shared; flagged where captions are all alike."""
    view, lang = page.view, page.lang
    record = next(r for r in view.records if r.identity.run_id in entry.runs)
    title = title_of_runs(view, entry.runs, lang)
    parts = [title, *(code(name) for name in (record.identity.subset, record.identity.model_title)
                      if code(name) not in title and name not in shared)]  # fmt: skip
    flags = [translate("captions.collapse", lang)] if _collapsed_splits(record) else []
    flags += [translate("imported", lang)] if published_runs.is_imported(record) else []
    return " · ".join(parts) + (f" **[{', '.join(flags)}]**" if flags else "")


def list_best(page: ReportInput) -> Iterator[str]:
    """The best of each ranking; without rankings the score of each run, at most two."""
    lang = page.lang
    for ranking in _main_rankings(page):
        best, *others = ranking.places
        value = formats.interval(best.value, best.low, best.high)
        line = translate("document.best of", lang).format(
            short_metric_name(ranking.metric), code(ranking.split),
            title_of_runs(page.view, best.runs, lang), value,
        )  # fmt: skip
        alike = [p for p in others if p.verdict == "not distinguishable"]
        if alike:
            names = [title_of_runs(page.view, entry.runs, lang) for entry in alike]
            line += translate("document.not distinguishable from", lang).format(_join(names))
        elif is_best_alone(ranking):
            line += translate("document.better than all", lang)
        else:
            line += translate("document.order alone", lang)
        yield line
    if not page.document.rankings:
        yield from islice(_list_scores(page), 2)


def _list_public_scores(page: ReportInput) -> Iterator[str]:
    """The best public score of several, and the next; scores are texts that people noted."""
    scores = []
    for run, words in page.view.run_words.items():
        try:
            score = float(words.public_score)
        except ValueError:
            continue  # none was noted, or words
        if math.isfinite(score):
            scores.append((score, escape(words.public_score), title_of_run(page.view, run)))
    scores.sort(key=lambda entry: -entry[0])
    if len(scores) > 1:
        (best, text, name), (second, other_text, other_name) = scores[:2]
        key = "document.best public" if best > second else "document.tied public"
        yield translate(key, page.lang).format(name, text, other_name, other_text)


def _main_rankings(page: ReportInput) -> list[Ranking]:
    """The first of each engine; of a single engine the first two."""
    engines = {r.identity.run_id: r.identity.engine for r in page.view.records}
    of_engine: dict[str, Ranking] = {}
    for ranking in page.document.rankings:
        of_engine.setdefault(engines[ranking.places[0].runs[0]], ranking)
    return [*of_engine.values()] if len(of_engine) > 1 else [*page.document.rankings[:2]]


def _list_scores(page: ReportInput) -> Iterator[str]:
    for record in main_runs(page.view.records):
        if metric := metric_names.headline_metric(record.metrics):
            value = formats.interval(metric.value, metric.low, metric.high)
            name = title_of_run(page.view, record.identity.run_id)
            score = f"{short_metric_name(metric.name)} {value} ({code(metric.split)})"
            yield f"{name}: {score}"


def headline_change(change: RunChange) -> ValueChange | None:
    """The change of the headline metric."""
    return metric_names.headline_metric([value for value in change.values if value.split])


def _list_full_collapse(page: ReportInput) -> Iterator[str]:
    """That every run with a score collapsed: it stands before any ranking of them."""
    scored = _list_scored(page)
    collapsed = [record for record in scored if _collapsed_splits(record)]
    if collapsed and len(collapsed) == len(scored):
        key = "document.collapsed" if len(scored) == 1 else "document.all collapsed"
        yield translate(key, page.lang).format(_name_collapsed(page, collapsed), len(scored))


def _list_collapsed(page: ReportInput) -> Iterator[str]:
    """The runs that collapsed, where others did not."""
    scored = _list_scored(page)
    collapsed = [record for record in scored if _collapsed_splits(record)]
    if collapsed and len(collapsed) < len(scored):
        yield translate("document.collapsed", page.lang).format(_name_collapsed(page, collapsed))


def _list_scored(page: ReportInput) -> list[RunRecord]:
    """Runs with metrics of a split that they were not trained on."""
    records = main_runs(page.view.records)
    return [r for r in records if any(m.split != TRAIN_SPLIT for m in r.metrics)]


def _name_collapsed(page: ReportInput, records: Sequence[RunRecord]) -> str:
    """`E5-v2 11/97, E5-v3 6/97`: distinct captions of each."""
    return _join([
        f"{title_of_run(page.view, r.identity.run_id)} "
        f"{captioning.count_unique(r, _collapsed_splits(r)[-1])}"
        for r in records
    ])  # fmt: skip


def _collapsed_splits(record: RunRecord) -> list[str]:
    if record.identity.engine != captioning.ENGINE:
        return []
    splits = [split for split in captioning.splits([record]) if split != TRAIN_SPLIT]
    return [split for split in splits if captioning.is_collapsed(record, split)]


def _list_period_changes(page: ReportInput) -> Iterator[str]:
    """How many metrics are better, worse or alike against the earlier period; costs where there are
    no metrics.
    """
    document, lang = page.document, page.lang
    if document.period is None or not document.changes:
        return
    days = f"{document.period.earlier_first} – {document.period.earlier_last}"
    pairs = [(c, v) for c in document.changes if (v := headline_change(c))]
    if not pairs:
        costs = [
            (c, v) for c in document.changes for v in c.values if v.name == "wall" and v.before
        ]
        shares = [f"{title_of_run(page.view, c.run)} {format_share(v)}" for c, v in costs]
        if shares:
            yield translate("document.changed costs", lang).format(days, _join(shares))
        return
    counts = Counter(value.verdict for _, value in pairs)
    numbers = (counts["better"], counts["worse"], len(pairs) - counts["better"] - counts["worse"])
    line = translate("document.changed", lang).format(days, *numbers)
    worse = [title_of_run(page.view, c.run) for c, v in pairs if v.verdict == "worse"]
    yield line + (translate("document.worse runs", lang).format(_join(worse)) if worse else "")


def _list_version_changes(page: ReportInput) -> Iterator[str]:
    """The headline metric of each run against its previous version or baseline."""
    texts = []
    for change in page.document.baselines:
        value = headline_change(change)
        if value is None or (change.relation == "first" and page.document.kind == "study"):
            continue
        names = title_of_run(page.view, change.run), name_baseline(change)
        against = translate("document.against", page.lang).format(*names)
        verdict = translate(f"document.{value.verdict}", page.lang)
        texts.append(
            f"{against}: {short_metric_name(value.name)} {format_delta(value)} ({verdict})"
        )
    if texts:
        yield _join(texts, "; ")


def name_baseline(change: RunChange) -> str:
    """The other run's label, else its `suite/id`, the suite without date and time."""
    return escape(change.label) if change.label else code(short_suite_name(change.baseline))


def subtract_scores(before: str, after: str) -> str:
    """`+0.045`: difference of two noted scores; empty where one is no number."""
    try:
        return f"{float(after) - float(before):+.4g}"
    except ValueError:
        return ""


def format_share(value: ValueChange) -> str:
    """`-9.1 %`: how a cost changed."""
    return f"{(value.after / value.before - 1) * 100:+.1f} %" if value.before else "–"


def format_delta(value: ValueChange) -> str:
    """`+0.021 [0.003, 0.039]`."""
    text = formats.interval(value.delta, value.low, value.high)
    return f"+{text}" if value.delta > 0 else text


def _list_criteria(page: ReportInput) -> Iterator[str]:
    """How many success criteria are met, and which are not."""
    judged = [(run, c) for run, criteria in page.document.criteria.items() for c in criteria]
    if not judged:
        return
    counts = Counter(criterion.verdict for _, criterion in judged)
    numbers = counts["met"], counts["not met"], counts["not measured"]
    line = translate("document.criteria counts", page.lang).format(*numbers)
    unmet = [
        f"{title_of_run(page.view, run)} {escape(criterion.text)}"
        for run, criterion in judged
        if criterion.verdict == "not met"
    ]
    yield line + (f": {_join(unmet)}" if unmet else "")


def _list_failures(page: ReportInput) -> Iterator[str]:
    records = page.view.records
    counts = Counter(r.exit.cause for r in failed_runs(records))
    if counts:
        causes = ", ".join(f"{cause(name, page.lang)} {n}" for name, n in counts.most_common())
        numbers = counts.total(), len(records)
        yield translate("document.failures line", page.lang).format(*numbers, causes)


def _list_faults(page: ReportInput) -> Iterator[str]:
    """Errors and warnings of the audit, the worst named."""
    faults = [row for row in page.view.audit if row.standing == "fault"]
    severe = [row for row in faults if row.severity == "error"]
    severe = severe or [row for row in faults if row.severity == "warning"]
    if faults:
        counts = [sum(r.severity == name for r in faults) for name in ("error", "warning", "note")]
        line = translate("document.faults", page.lang).format(*counts)
        names = [escape(row.title[page.lang]) for row in severe]
        yield line + (f": {_join(list(dict.fromkeys(names)))}" if names else "")


def _list_costs(page: ReportInput) -> Iterator[str]:
    """The sum of all wall-clocks, and the longest run."""
    total = run_cost.total_line(page.view.records, page.lang)
    records = page.view.records
    if records and all(map(published_runs.is_imported, records)):
        yield from [f"{total} **[{translate('imported', page.lang)}]**"] if total else []
        return
    walls = [
        (wall, r)
        for r in records
        if not published_runs.is_imported(r)
        and cost_forecasts.is_measured(r)
        and (wall := r.timing.end_to_end_seconds.value) is not None
    ]
    if len(walls) < 2:
        yield from [total] if walls else []
        return
    wall, record = max(walls, key=lambda pair: pair[0])
    name = title_of_run(page.view, record.identity.run_id)
    yield total + translate("document.longest", page.lang).format(name, formats.duration(wall))


def _join(names: list[str], separator: str = ", ") -> str:
    rest = len(names) - MAX_NAMES
    return separator.join(names[:MAX_NAMES]) + (f" (+{rest})" if rest > 0 else "")


SOURCES: Final[Mapping[Kind, tuple[Lines, ...]]] = {
    "suite": (_list_full_collapse, list_best, _list_collapsed, _list_costs, _list_failures,
              _list_faults),
    "weekly": (_list_full_collapse, _list_costs, list_best, _list_period_changes, _list_failures,
               _list_faults),
    "study": (_list_full_collapse, list_best, _list_collapsed, _list_version_changes,
              _list_criteria, _list_faults),
    "audit": (_list_faults, _list_failures, _list_costs),
    "challenge": (
        _list_public_scores, list_best, _list_version_changes, _list_criteria, _list_failures,
        _list_faults,
    ),
    "run": (_list_full_collapse, list_best, _list_collapsed, _list_version_changes, _list_criteria,
            _list_costs),
}  # fmt: skip
"""What the lines are about, the most important first."""
