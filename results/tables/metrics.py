"""Tables of quality metrics with their intervals, and ablations beside the full model.

A metric's name may carry a variant in brackets: `recall@1[text only]` is the same metric of a
reduced query, `recall@1[chance]` what guessing would reach.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from results.records.schema import MetricRecord, RunRecord
from results.tables import run_cells
from results.text import formats
from results.text.metric_names import (
    CHANCE,
    SHOWN_CUTOFFS,
    MetricName,
    headline_of,
    split_name,
)
from results.text.table import Table, TableCell, TableColumn
from results.text.translations import cause, translate

BestCells = frozenset[tuple[str, str]]
"""Run ids and metrics that are better than all others of a split."""


def splits(records: Sequence[RunRecord]) -> list[str]:
    """Every split that was evaluated, in order; `train` is no evaluation."""
    return list(dict.fromkeys(m.split for r in records for m in r.metrics if m.split != "train"))


def metrics(
    records: Sequence[RunRecord], split: str, lang: str = "en", best: BestCells = frozenset()
) -> Table:
    """One row a run, one column a metric of the full model: `0.412 [0.389, 0.436]`.

    `best`: what is bold, as it is better than every other row.

    Runs that have no metric of this split are shown when they should have: when they failed.
    """
    runs = [r for r in records if metrics_of_split(r, split) or _lacks_metrics(r, split)]
    fields = run_cells.distinguishing_fields(runs)
    all_names, headline = _names(runs, split), headline_of(split)
    names = _visible_names(all_names, headline)
    columns = (
        *run_cells.name_columns(fields, lang),
        TableColumn(translate("n", lang), right=True),
        *(TableColumn(name, right=True) for name in names),
    )

    def row(record: RunRecord) -> tuple[TableCell, ...]:
        metrics_of_run = metrics_of_split(record, split)
        counts = dict.fromkeys(
            formats.count(metrics_of_run[name].n) for name in names if name in metrics_of_run
        )
        n = TableCell(" / ".join(counts), "value") if counts else _missing_cell(record, lang)
        cells = (
            _metric_cell(
                metrics_of_run.get(name), record, lang, (record.identity.run_id, name) in best
            )
            for name in names
        )
        return (*run_cells.name_cells(record, fields, lang), n, *cells)

    body = [row(r) for r in runs]
    body += _chance_row(runs, split, names, len(fields), lang)
    methods = (
        m.method
        for r in runs
        for m in metrics_of_split(r, split).values()
        if m.low is not None and m.method
    )
    has_best = any((r.identity.run_id, name) in best for r in runs for name in names)
    texts = [translate("remark.best", lang)] if has_best else []
    texts += [translate("remark.headline", lang)] if headline in names else []
    if hidden := sorted({int(name.rpartition("@")[2]) for name in all_names if name not in names}):
        texts.append(translate("remark.cutoffs", lang).format(", ".join(map(str, hidden))))
    remarks = (TableCell(text, "value") for text in texts)
    return Table(columns, tuple(body), (*run_cells.interval_remarks(methods, lang), *remarks))


def _lacks_metrics(record: RunRecord, split: str) -> bool:
    """Whether a run failed that was to be evaluated on the split, as far as its settings say."""
    chosen = record.identity.params.get("evaluate_on")
    is_planned = not isinstance(chosen, list | tuple) or split in chosen
    return is_planned and record.exit.cause not in ("completed", "pruned")


def _visible_names(names: Sequence[str], headline: str) -> list[str]:
    """The headline first, and of a metric with more than four K only those of `SHOWN_CUTOFFS`."""
    cutoffs: dict[str, list[int]] = {}
    for name in names:
        base, _, cut = name.rpartition("@")
        if cut.isdigit():
            cutoffs.setdefault(base, []).append(int(cut))
    hidden = {
        f"{base}@{cut}"
        for base, cuts in cutoffs.items()
        if len(cuts) > len(SHOWN_CUTOFFS)
        for cut in cuts
        if cut not in SHOWN_CUTOFFS
    }
    kept = [name for name in names if name not in hidden or name == headline]
    return sorted(kept, key=lambda name: name != headline)


def metrics_of_split(record: RunRecord, split: str) -> dict[str, MetricRecord]:
    """The run's metrics of one split, by name."""
    return {m.name: m for m in record.metrics if m.split == split}


def _names(records: Sequence[RunRecord], split: str) -> list[str]:
    names = (m.name for r in records for m in r.metrics if m.split == split)
    return [name for name in dict.fromkeys(names) if not split_name(name).variant]


def _metric_cell(
    metric: MetricRecord | None, record: RunRecord, lang: str, strong: bool = False
) -> TableCell:
    if metric is None:
        return _missing_cell(record, lang)
    text = formats.interval(metric.value, metric.low, metric.high)
    return TableCell(text, "strong" if strong else "value")


def _missing_cell(record: RunRecord, lang: str) -> TableCell:
    if record.exit.cause == "completed":
        return TableCell(translate("not computed", lang), "unknown")
    return TableCell(cause(record.exit.cause, lang), "unknown")


def _chance_row(
    records: Sequence[RunRecord], split: str, names: Sequence[str], width: int, lang: str
) -> list[tuple[TableCell, ...]]:
    levels = [
        {m.value for r in records for m in _metrics_of_variant(r, split, name, CHANCE)}
        for name in names
    ]
    if not any(levels):
        return []
    blank = (TableCell("", "value"),) * (width + 1)
    return [
        (
            TableCell(translate("chance", lang)),
            *blank,
            *(TableCell(_format_range(v), "value") for v in levels),
        )
    ]


def _metrics_of_variant(
    record: RunRecord, split: str, base: str, variant: str
) -> Iterable[MetricRecord]:
    return (
        m for m in metrics_of_split(record, split).values() if split_name(m.name) == (base, variant)
    )


def _format_range(levels: set[float]) -> str:
    if not levels:
        return ""
    low, high = formats.number(min(levels)), formats.number(max(levels))
    return low if low == high else f"{low}–{high}"


def ablations(records: Sequence[RunRecord], split: str, lang: str = "en") -> Table | None:
    """The full model beside its reduced variants, and whether the intervals are disjoint.

    None when no run of this split has a variant.
    """
    variants = _variants(records, split)
    if not variants:
        return None
    fields = run_cells.distinguishing_fields(records)
    columns = (
        *run_cells.name_columns(fields, lang),
        TableColumn(translate("metric", lang)),
        TableColumn(translate("full model", lang), right=True),
        *(TableColumn(variant, right=True) for variant in variants),
        TableColumn(translate("intervals", lang)),
    )
    body = []
    for record in records:
        metrics_of_run = {split_name(m.name): m for m in metrics_of_split(record, split).values()}
        bases = dict.fromkeys(name.base for name in metrics_of_run if name.variant in variants)
        for base in bases:
            reduced = [metrics_of_run.get(MetricName(base, variant)) for variant in variants]
            full = metrics_of_run.get(MetricName(base, ""))
            cells = (_metric_cell(m, record, lang) for m in (full, *reduced))
            verdict = _verdict_cell(full, reduced, variants, lang)
            body.append(
                (*run_cells.name_cells(record, fields, lang), TableCell(base), *cells, verdict)
            )
    return Table(columns, tuple(body), (TableCell(translate("remark.ablation", lang), "value"),))


def _variants(records: Sequence[RunRecord], split: str) -> list[str]:
    variants = (split_name(m.name).variant for r in records for m in r.metrics if m.split == split)
    return [variant for variant in dict.fromkeys(variants) if variant not in ("", CHANCE)]


def _verdict_cell(
    full: MetricRecord | None,
    reduced: Sequence[MetricRecord | None],
    variants: Sequence[str],
    lang: str,
) -> TableCell:
    """`disjoint` only when the full model is better than every variant, without overlap."""
    relations: dict[str, list[str]] = {"above": [], "below": [], "overlap": []}
    for part, name in zip(reduced, variants, strict=True):
        if part is None:
            continue
        relation = _interval_relation(full, part) if full else ""
        if not relation:
            return TableCell(translate("no interval", lang), "unknown")
        relations[relation].append(name)
    for relation, key in (("below", "worse"), ("overlap", "overlap")):
        if names := relations[relation]:
            return TableCell(translate(key, lang).format(", ".join(names)))
    return TableCell(translate("disjoint", lang))


def _interval_relation(a: MetricRecord, b: MetricRecord) -> str:
    """Whether a's interval lies on the better side of b's; empty when one has none."""
    if a.low is None or a.high is None or b.low is None or b.high is None:
        return ""
    if a.low <= b.high and b.low <= a.high:
        return "overlap"
    return "above" if (a.low > b.high) == a.higher_is_better else "below"
