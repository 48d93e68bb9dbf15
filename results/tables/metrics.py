"""Tables of quality: metrics with their intervals, and ablations beside the full model.

Apart from times and memory. A metric's name may carry a variant in brackets: `recall@1[text only]`
is the same metric of a reduced query, `recall@1[chance]` what guessing would reach.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from typing import Final, NamedTuple

from results.records.schema import Metric, RunRecord
from results.tables import run_cells
from results.tables.table import Cell, Column, Table
from results.text import formats
from results.text.translations import cause, say

CHANCE: Final = "chance"

HEADLINES: Final = {
    "wit": "recall@10", "iglue": "recall@1", "llava": "recall@1", "kvqa": "recall@5",
    "msmarco": "recall@5", "oven": "recall@5", "evqa": "pseudo_recall@5",
    "okvqa": "pseudo_recall@5", "infoseek": "pseudo_recall@5",
}  # fmt: skip
"""The metric by which each set of M2KR is compared (LinWeizheDragon/FLMR: docs/MODEL_ZOO.md)."""

SHOWN: Final = (1, 5, 10, 100)
"""The K of a metric that a table shows where there are more; the record has all."""

_VARIANT: Final = re.compile(r"^(?P<base>.+?)\s*\[(?P<variant>[^\]]+)\]$")


class Name(NamedTuple):
    """A metric's name in its two parts; `variant` is empty for the full model."""

    base: str
    variant: str


def split_name(name: str) -> Name:
    """`recall@1[image only]` -> (`recall@1`, `image only`)."""
    found = _VARIANT.match(name)
    return Name(found["base"], found["variant"]) if found else Name(name, "")


def splits(records: Sequence[RunRecord]) -> list[str]:
    """Every split that was evaluated, in order; `train` is no evaluation."""
    return list(dict.fromkeys(m.split for r in records for m in r.metrics if m.split != "train"))


def metrics(records: Sequence[RunRecord], split: str, lang: str = "en") -> Table:
    """One row a run, one column a metric of the full model: `0.412 [0.389, 0.436]`.

    Runs that have no metric of this split are shown when they should have: when they failed.
    """
    silent = ("completed", "pruned")  # of these none is expected
    shown = [r for r in records if _on(r, split) or r.exit.cause not in silent]
    fields = run_cells.distinguishing(shown)
    every, headline = _names(shown, split), headline_of(split)
    names = _readable(every, headline)
    columns = (
        *run_cells.name_columns(fields, lang),
        Column(say("n", lang), right=True),
        *(Column(name, right=True) for name in names),
    )

    def row(record: RunRecord) -> tuple[Cell, ...]:
        found = _on(record, split)
        counts = dict.fromkeys(formats.count(found[name].n) for name in names if name in found)
        n = Cell(" / ".join(counts), "value") if counts else _missing(record, lang)
        cells = (_metric(found.get(name), record, lang, name == headline) for name in names)
        return (*run_cells.name_cells(record, fields, lang), n, *cells)

    body = [row(r) for r in shown]
    body += _chance_row(shown, split, names, len(fields), lang)
    hidden = sorted({int(name.rpartition("@")[2]) for name in every if name not in names})
    remarks = [*_methods(shown, split, lang)]
    if headline in names:
        remarks.append(Cell(say("remark.headline", lang), "value"))
    if hidden:
        cutoffs = ", ".join(map(str, hidden))
        remarks.append(Cell(say("remark.cutoffs", lang).format(cutoffs), "value"))
    return Table(columns, tuple(body), tuple(remarks))


def headline_of(split: str) -> str:
    """The metric by which the split's data set is compared; empty where none is known."""
    return next((name for prefix, name in HEADLINES.items() if split.startswith(prefix)), "")


def score(record: RunRecord) -> str:
    """`recall@5 0.4321 on oven_val`: of the first split, its data set's metric or the first one."""
    found = [m for m in record.metrics if m.split != "train" and not split_name(m.name).variant]
    own = [m for m in found if m.split == found[0].split]
    named = [m for m in own if m.name == headline_of(m.split)] or own
    return f"{named[0].name} {formats.number(named[0].value)} on {named[0].split}" if named else ""


def _readable(names: Sequence[str], headline: str) -> list[str]:
    """The headline first, and of a metric with more than four K only those of `SHOWN`."""
    cutoffs: dict[str, list[int]] = {}
    for name in names:
        base, _, cut = name.rpartition("@")
        if cut.isdigit():
            cutoffs.setdefault(base, []).append(int(cut))
    hidden = {
        f"{base}@{cut}"
        for base, cuts in cutoffs.items()
        if len(cuts) > len(SHOWN)
        for cut in cuts
        if cut not in SHOWN
    }
    kept = [name for name in names if name not in hidden or name == headline]
    return sorted(kept, key=lambda name: name != headline)


def _on(record: RunRecord, split: str) -> dict[str, Metric]:
    return {m.name: m for m in record.metrics if m.split == split}


def _names(records: Sequence[RunRecord], split: str) -> list[str]:
    found = (m.name for r in records for m in r.metrics if m.split == split)
    return [name for name in dict.fromkeys(found) if not split_name(name).variant]


def _metric(found: Metric | None, record: RunRecord, lang: str, headline: bool = False) -> Cell:
    if found is None:
        return _missing(record, lang)
    text = formats.interval(found.value, found.low, found.high)
    return Cell(text, "strong" if headline else "value")


def _missing(record: RunRecord, lang: str) -> Cell:
    ended = record.exit.cause
    known = say("not computed", lang) if ended == "completed" else cause(ended, lang)
    return Cell(known, "unknown")


def _chance_row(
    records: Sequence[RunRecord], split: str, names: Sequence[str], width: int, lang: str
) -> list[tuple[Cell, ...]]:
    levels = [{m.value for r in records for m in _of(r, split, name, CHANCE)} for name in names]
    if not any(levels):
        return []
    blank = (Cell("", "value"),) * (width + 1)
    return [(Cell(say("chance", lang)), *blank, *(Cell(_range(v), "value") for v in levels))]


def _of(record: RunRecord, split: str, base: str, variant: str) -> Iterable[Metric]:
    return (m for m in _on(record, split).values() if split_name(m.name) == (base, variant))


def _range(levels: set[float]) -> str:
    if not levels:
        return ""
    low, high = formats.number(min(levels)), formats.number(max(levels))
    return low if low == high else f"{low}–{high}"


def _methods(records: Sequence[RunRecord], split: str, lang: str) -> tuple[Cell, ...]:
    shown = (m for r in records for m in _on(r, split).values() if m.low is not None)
    named = dict.fromkeys(m.method for m in shown if m.method)
    return (Cell(say("remark.intervals", lang).format("; ".join(named))),) if named else ()


def ablations(records: Sequence[RunRecord], split: str, lang: str = "en") -> Table | None:
    """The full model beside its reduced variants, and whether the intervals are disjoint.

    None when no run of this split has a variant.
    """
    variants = _variants(records, split)
    if not variants:
        return None
    fields = run_cells.distinguishing(records)
    columns = (
        *run_cells.name_columns(fields, lang),
        Column(say("metric", lang)),
        Column(say("full model", lang), right=True),
        *(Column(variant, right=True) for variant in variants),
        Column(say("intervals", lang)),
    )
    body = []
    for record in records:
        found = {split_name(m.name): m for m in _on(record, split).values()}
        bases = dict.fromkeys(name.base for name in found if name.variant in variants)
        for base in bases:
            reduced = [found.get(Name(base, variant)) for variant in variants]
            full = found.get(Name(base, ""))
            cells = (_metric(m, record, lang) for m in (full, *reduced))
            verdict = _verdict(full, reduced, variants, lang)
            body.append((*run_cells.name_cells(record, fields, lang), Cell(base), *cells, verdict))
    return Table(columns, tuple(body), (Cell(say("remark.ablation", lang), "value"),))


def _variants(records: Sequence[RunRecord], split: str) -> list[str]:
    found = (split_name(m.name).variant for r in records for m in r.metrics if m.split == split)
    return [variant for variant in dict.fromkeys(found) if variant not in ("", CHANCE)]


def _verdict(
    full: Metric | None, reduced: Sequence[Metric | None], variants: Sequence[str], lang: str
) -> Cell:
    """`disjoint` only when the full model is better than every variant, without overlap."""
    relations: dict[str, list[str]] = {"above": [], "below": [], "overlap": []}
    for part, name in zip(reduced, variants, strict=True):
        if part is None:
            continue
        relation = _relation(full, part) if full else ""
        if not relation:
            return Cell(say("no interval", lang), "unknown")
        relations[relation].append(name)
    for relation, key in (("below", "worse"), ("overlap", "overlap")):
        if names := relations[relation]:
            return Cell(say(key, lang).format(", ".join(names)))
    return Cell(say("disjoint", lang))


def _relation(a: Metric, b: Metric) -> str:
    """Whether a's interval lies on the better side of b's; empty when one has none."""
    if a.low is None or a.high is None or b.low is None or b.high is None:
        return ""
    if a.low <= b.high and b.low <= a.high:
        return "overlap"
    return "above" if (a.low > b.high) == a.higher_is_better else "below"
