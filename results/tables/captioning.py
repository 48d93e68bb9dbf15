"""Tables of captioning runs: the study's experiment list, and all scores of a split.

Captions have a dozen scores, so a score is a row and a run is a column, and the train split is
shown too.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Final, NamedTuple

from results.records.metric_names import split_name
from results.records.schema import Identity, MetricRecord, RunRecord
from results.tables import run_cells
from results.tables.metrics import metrics_of_split
from results.text import formats
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


def experiments(
    records: Sequence[RunRecord],
    planned: Sequence[Identity] = (),
    states: Mapping[str, str] | None = None,
    notes: Mapping[str, tuple[str, ...]] | None = None,
    lang: str = "en",
) -> Table:
    """`experiment · projector · params · diversity · SigLIP · METEOR · … · state · finding`.

    A column has values of one metric only: METEOR by another rule has a column of its own. A row
    is a run, evaluated on the last of its splits (the held-out one, where there is one); runs that
    have not ended stand below with what is known of them.
    """
    runs = captioning_runs(records)
    waiting = [i for i in planned if i.engine == ENGINE]
    scored = _study_columns(runs)
    columns = (
        TableColumn(translate("captions.id", lang)),
        TableColumn(translate("captions.projector", lang)),
        TableColumn(translate("captions.params", lang), right=True),
        TableColumn(translate("captions.on", lang)),
        *(TableColumn(column.title, right=True) for column in scored),
        TableColumn(translate("captions.state", lang)),
        TableColumn(translate("captions.finding", lang)),
    )

    def last_cells(identity: Identity, default: str) -> tuple[TableCell, TableCell]:
        run = identity.run_id
        findings = "; ".join((notes or {}).get(run, ()))
        return state_cell((states or {}).get(run) or default, lang), TableCell(findings, "prose")

    body = [
        (
            _name_cell(r.identity, run_cells.flags(r, lang)),
            *_projector_cells(r, lang),
            *_study_cells(r, scored, lang),
            *last_cells(r.identity, "done" if r.exit.cause == "completed" else r.exit.cause),
        )
        for r in runs
    ]  # fmt: skip
    nothing = TableCell("–", "value")
    body += [
        (
            _name_cell(i, ()),
            TableCell(projector_title(i.params.get("projector"))),
            *[nothing] * (2 + len(scored)),
            *last_cells(i, "waiting"),
        )
        for i in waiting
    ]  # fmt: skip
    return Table(columns, tuple(body), tuple(_name_remarks(scored, lang)) if body else ())


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


def _projector_cells(record: RunRecord, lang: str) -> tuple[TableCell, TableCell]:
    """Kind and number of parameters of the projector, from the engine's facts."""
    match = _PARAMETERS.match(record.facts.get("projector", ""))
    if match is None:
        kind = projector_title(record.identity.params.get("projector"))
        return TableCell(kind), TableCell(translate("not reached", lang), "unknown")
    return TableCell(projector_title(match[1])), TableCell(
        formats.parameters(int(match[2].replace(",", ""))), "value"
    )


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
    record: RunRecord, columns: Sequence[StudyColumn], lang: str
) -> tuple[TableCell, ...]:
    split = _last_split(record)
    if not split:
        return (
            TableCell("–", "value"),
            *[TableCell(translate("not reached", lang), "unknown")] * len(columns),
        )
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
