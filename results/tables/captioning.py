"""Tables of captioning runs: the study's experiment list, and all scores of a split.

Captions have a dozen scores, so a score is a row and a run is a column, and the train split is
shown too.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Final, NamedTuple

from results.records import published_runs
from results.records.schema import Identity, MetricRecord, RunRecord
from results.records.suite_view import SuiteView
from results.tables import run_cells
from results.tables.metrics import metrics_of_split
from results.text import formats
from results.text.metric_names import split_name
from results.text.table import Table, TableCell, TableColumn, escape
from results.text.translations import cause, translate

ENGINE: Final = "captioning"
COLLAPSE_THRESHOLD: Final = 0.5
"""Share of unique captions below which the SigLIP study reports mode collapse."""

STUDY_COLUMNS: Final = (
    ("Diversity", ("diversity",)),
    ("SigLIP", ("SigLIP cosine", "cosine (local", "SigLIP probability")),
    ("METEOR", ("METEOR",)),
    ("BERTScore", ("BERTScore F1",)),
    ("Cut off", ("cut at max_new_tokens",)),
)
"""The columns of scores, and how the names of the metrics begin that fill them."""
ALWAYS_SHOWN: Final = frozenset({"Diversity", "SigLIP", "METEOR"})
"""The study's columns; the others are shown where a run has them."""

PROJECTORS: Final = {
    "linear": "Linear", "mlp2x": "MLP-2L", "c_abstractor": "C-Abstractor", "perceiver": "Perceiver",
    "cross_attention": "Cross-attention", "qformer": "Q-Former",
}  # fmt: skip
"""Value of the setting `projector` -> its name in tables."""

_PARAMETERS: Final = re.compile(r"^([\w-]+), ([\d,]+) parameters")


class StudyColumn(NamedTuple):
    """A column of scores: one metric, by its full name."""

    title: str
    metric: str
    """Empty: no run has one."""


def captioning_runs(records: Sequence[RunRecord]) -> list[RunRecord]:
    """The captioning runs."""
    return [r for r in records if r.identity.engine == ENGINE]


def projector_title(kind: object) -> str:
    """`C-Abstractor` of `c_abstractor`; another name stays itself, none is a dash."""
    return PROJECTORS.get(str(kind), str(kind)) if kind else "–"


def splits(records: Sequence[RunRecord]) -> list[str]:
    """Every split with captions, in the order of evaluation."""
    return list(
        dict.fromkeys(m.split for r in captioning_runs(records) for m in r.metrics if m.split)
    )


def experiments(view: SuiteView, lang: str = "en") -> Table:
    """`experiment · projector · params · diversity · SigLIP · METEOR · … · state · finding`.

    A column has values of one metric only: METEOR by another rule has a column of its own. A row
    is a run, evaluated on the last of its splits (the held-out one, where there is one); runs that
    have not ended stand below with what is known of them. What an imported run's source calls or
    counts otherwise stands beside it.
    """
    runs = captioning_runs(view.records)
    waiting = [i for i in view.planned if i.engine == ENGINE]
    scored = _study_columns(runs)
    setup = run_cells.setup_columns(
        [(r.identity.params, r.facts | _sample_fact(r)) for r in runs]
        + [(i.params, view.planned_facts.get(i.run_id, {})) for i in waiting],
        lang,
        len(waiting),
    )
    columns = (
        TableColumn(translate("captions.id", lang)),
        TableColumn(translate("captions.projector", lang)),
        TableColumn(translate("captions.params", lang), right=True),
        *setup.columns,
        TableColumn(translate("captions.on", lang)),
        *(TableColumn(column.title, right=True) for column in scored),
        TableColumn(translate("captions.state", lang)),
        TableColumn(translate("captions.finding", lang)),
    )
    body = [_run_row(view, record, scored, lang) for record in runs]
    body += [_planned_row(view, identity, len(scored), lang) for identity in waiting]
    rows = tuple((*row[:3], *cells, *row[3:]) for row, cells in zip(body, setup.cells, strict=True))
    remarks = (*setup.remarks, *_name_remarks(scored, lang)) if body else ()
    return Table(columns, rows, remarks)


def _sample_fact(record: RunRecord) -> dict[str, str]:
    return {"samples": formats.count(record.samples)} if record.samples else {}


def _run_row(
    view: SuiteView, record: RunRecord, scored: Sequence[StudyColumn], lang: str
) -> tuple[TableCell, ...]:
    identity = record.identity
    missing = TableCell(translate("not reached", lang), "unknown")
    if published_runs.is_imported(record):
        missing = run_cells.missing_cell(record, lang)
    reported = view.reported.get(identity.run_id, {})
    return (
        _name_cell(identity, run_cells.flags(record, lang)),
        *_projector_cells(identity, (record.facts, reported), missing, lang),
        *_study_cells(record, scored, missing, lang),
        *_last_cells(view, identity, _end_of(record), lang),
    )


def _planned_row(
    view: SuiteView, identity: Identity, scores: int, lang: str
) -> tuple[TableCell, ...]:
    run, nothing = identity.run_id, TableCell("–", "value")
    sources = view.planned_facts.get(run, {}), view.reported.get(run, {})
    return (
        _name_cell(identity, ()),
        *_projector_cells(identity, sources, nothing, lang),
        *[nothing] * (1 + scores),
        *_last_cells(view, identity, "waiting", lang),
    )


def _end_of(record: RunRecord) -> str:
    return "done" if record.exit.cause == "completed" else record.exit.cause


def _last_cells(
    view: SuiteView, identity: Identity, default: str, lang: str
) -> tuple[TableCell, TableCell]:
    """State and findings."""
    run = identity.run_id
    findings = "; ".join(view.notes.get(run, ()))
    noted = view.states.get(run)
    state = default if noted in (None, "", "waiting", "running") and default != "waiting" else noted
    return state_cell(state or default, lang), TableCell(findings, "prose")


def scores(records: Sequence[RunRecord], split: str, lang: str = "en") -> Table:
    """One row a metric, one column a run: `0.412 [0.389, 0.436]`."""
    runs = [r for r in captioning_runs(records) if any(m.split == split for m in r.metrics)]
    metrics_of_run = {r.identity.run_id: metrics_of_split(r, split) for r in runs}
    names = list(dict.fromkeys(name for metrics in metrics_of_run.values() for name in metrics))
    names = [name for name in names if not split_name(name).variant]
    columns = (
        TableColumn(translate("metric", lang)),
        TableColumn(translate("n", lang), right=True),
        *(TableColumn(_title(r.identity), right=True) for r in runs),
    )
    body = []
    for name in names:
        cells = [_metric_cell(metrics_of_run[r.identity.run_id].get(name)) for r in runs]
        counts = {metrics[name].n for metrics in metrics_of_run.values() if name in metrics}
        n = TableCell(" / ".join(map(formats.count, sorted(counts))), "value")
        body.append((TableCell(name), n, *cells))
    return Table(columns, tuple(body), tuple(_method_remarks(metrics_of_run.values())))


def is_collapsed(record: RunRecord, split: str) -> bool:
    """Whether the captions of a split are a mode collapse by the study's rule."""
    return any(
        m.split == split and m.name == "diversity" and m.value < COLLAPSE_THRESHOLD
        for m in record.metrics
    )


def count_unique(record: RunRecord, split: str) -> str:
    """`6/97`: distinct captions of a split, and all; empty without a diversity."""
    metric = next((m for m in record.metrics if (m.split, m.name) == (split, "diversity")), None)
    return "" if metric is None else f"{round(metric.value * metric.n)}/{metric.n}"


def _name_cell(identity: Identity, flags: tuple[str, ...]) -> TableCell:
    return TableCell(identity.label or identity.run_id, "text" if identity.label else "code", flags)


def state_cell(state: str, lang: str) -> TableCell:
    """A state of the suite's view, or the cause of a run's end."""
    if state in {"waiting", "running", "done", "stopped"}:
        return TableCell(translate(f"captions.{state}", lang), "value")
    return TableCell(cause(state, lang))


def _title(identity: Identity) -> str:
    """Heading of a run; labels are user text, and headings are not escaped by the table."""
    text = identity.label or identity.run_id
    return re.sub(r"[^\w .+·-]", "?", text)


def beside_reported(text: str, reported: str, lang: str = "en") -> str:
    """`Cross-attention (report: C-Abstractor)`; `text` alone where the report says the same."""
    if not reported or reported == text:
        return text
    return translate("captions.reported", lang).format(text, reported)


def _projector_cells(
    identity: Identity,
    sources: tuple[Mapping[str, str], Mapping[str, str]],
    missing: TableCell,
    lang: str,
) -> tuple[TableCell, TableCell]:
    """Kind and number of parameters of the projector. `sources`: facts, the report's own words."""
    facts, reported = sources
    match = _PARAMETERS.match(facts.get("projector", ""))
    kind = projector_title(match[1] if match else identity.params.get("projector"))
    name = TableCell(beside_reported(kind, reported.get("projector", ""), lang))
    if match is None:
        return name, missing
    size = formats.parameters(int(match[2].replace(",", "")))
    return name, TableCell(beside_reported(size, reported.get("parameters", ""), lang), "value")


def _last_split(record: RunRecord) -> str:
    """The split by which a run is listed; empty: it was not evaluated."""
    names = splits([record])
    others = [split for split in names if split != "train"] or names
    return others[-1] if others else ""


def _study_columns(records: Sequence[RunRecord]) -> list[StudyColumn]:
    """A column for each kind of score: the metric that all runs have, else one for each metric."""
    columns = []
    for title, beginnings in STUDY_COLUMNS:
        by_run = [
            [
                m.name
                for m in r.metrics
                if m.split == split
                and m.name.startswith(beginnings)
                and not split_name(m.name).variant
            ]
            for r in records
            if (split := _last_split(r))
        ]
        names = [names_of_run for names_of_run in by_run if names_of_run]
        shared = [name for name in (names or [[]])[0] if all(name in other for other in names)]
        chosen = shared[:1] or list(dict.fromkeys(names_of_run[0] for names_of_run in names))
        if len(chosen) > 1:
            columns += [StudyColumn(escape(name), name) for name in chosen]
        elif chosen or title in ALWAYS_SHOWN:
            columns.append(StudyColumn(title, "".join(chosen)))
    return columns


def _study_cells(
    record: RunRecord, columns: Sequence[StudyColumn], missing: TableCell, lang: str
) -> tuple[TableCell, ...]:
    split = _last_split(record)
    if not split:
        return (TableCell("–", "value"), *[missing] * len(columns))
    metrics = {m.name: m for m in record.metrics if m.split == split}
    flags = (translate("captions.collapse", lang),) if is_collapsed(record, split) else ()
    cells = (
        _metric_cell(metrics.get(c.metric), flags if c.title == "Diversity" else ())
        for c in columns
    )
    return (TableCell(split, "code"), *cells)


def _metric_cell(metric: MetricRecord | None, flags: tuple[str, ...] = ()) -> TableCell:
    if metric is None:
        return TableCell("–", "value")
    return TableCell(formats.interval(metric.value, metric.low, metric.high), "value", flags)


def _name_remarks(columns: Sequence[StudyColumn], lang: str) -> list[TableCell]:
    """Full metric names of the columns, because a METEOR of another tokenizer differs."""
    return [
        TableCell(translate("captions.names", lang).format(column.title, column.metric))
        for column in columns
        if column.metric and column.title not in ("Diversity", escape(column.metric))
    ]


def _method_remarks(metrics_of_runs: Iterable[Mapping[str, MetricRecord]]) -> list[TableCell]:
    """Each interval method once, with its metrics."""
    metrics_of_method: dict[str, dict[str, None]] = {}
    for metrics in metrics_of_runs:
        for metric in metrics.values():
            if metric.method:
                metrics_of_method.setdefault(metric.method, {})[metric.name] = None
    return [
        TableCell(f"{', '.join(names)}: {method}.") for method, names in metrics_of_method.items()
    ]
