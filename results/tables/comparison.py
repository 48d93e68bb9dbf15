"""Tables of a comparison: metrics, costs, what differs; and two runs explained in words."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final

from results import significance
from results.comparison.cases import CaseComparison
from results.comparison.differences import FieldDifference, count_choices
from results.comparison.groups import (
    CostChange,
    GroupComparison,
    MetricChange,
    RunGroup,
    UnmeasuredCost,
)
from results.records.message_translations import localize
from results.records.schema import Reading
from results.text import formats
from results.text.metric_names import TRAIN_SPLIT
from results.text.table import Table, TableCell, TableColumn
from results.text.translations import translate

NUMBERS: Final = ("a", "b", "delta", "p", "detectable", "ratio")


def groups_table(groups: Sequence[RunGroup], lang: str = "en") -> Table:
    """The compared groups by their letters: title, number of runs, seeds."""
    rows = tuple(
        (
            TableCell(letter(at), "value"),
            TableCell(group.title, "code"),
            TableCell(str(len(group.records)), "value"),
            TableCell(", ".join(str(record.identity.seed) for record in group.records), "value"),
        )
        for at, group in enumerate(groups)
    )
    return Table(_columns(("side", "run", "runs", "seeds"), lang), rows)


def letter(at: int) -> str:
    """`A`, `B`, …: name of a group in the tables."""
    return chr(ord("A") + at)


def metrics_table(comparison: GroupComparison, lang: str = "en", other: str = "B") -> Table:
    """A row a metric: both values, the difference with its interval, p, verdict, power."""
    names = ("split", "metric", "a", "b", "delta", "p", "verdict", "detectable")
    rows = tuple(_metric_row(change, lang, other) for change in comparison.metrics)
    remarks = [_word(key, lang) for key in _noise_remarks(comparison)]
    methods = dict.fromkeys(change.test.difference.method for change in comparison.metrics)
    remarks += [TableCell(localize(method, lang)) for method in methods]
    if any(change.p is not None for change in comparison.metrics):
        remarks.append(_word("remark p", lang))
    for key, missing in (("only a", comparison.only_a), ("only b", comparison.only_b)):
        if missing:
            title = _name_side(key, lang, other)
            remarks.append(TableCell(f"{title}: {', '.join(missing)}"))
    return Table(_columns(names, lang, other) if rows else (), rows, tuple(remarks))


def _noise_remarks(comparison: GroupComparison) -> list[str]:
    """Keys of what is said about the intervals of the metrics, or that there is no metric."""
    if not comparison.metrics:
        return ["no metrics"]
    return ["remark seeds" if comparison.over_seeds else "remark one seed"]


def costs_table(comparison: GroupComparison, lang: str = "en", other: str = "B") -> Table:
    """A row a cost: both values, their ratio, verdict."""
    rows = tuple(_cost_row(change, lang, other) for change in comparison.costs)
    remarks = [_unmeasured_remark(cost, lang, other) for cost in comparison.unmeasured]
    if any(change.difference.low is None for change in comparison.costs):
        remarks.append(_word("remark single", lang))
    names = ("cost", "a", "b", "ratio", "verdict")
    return Table(_columns(names, lang, other), rows, tuple(remarks))


def _unmeasured_remark(cost: UnmeasuredCost, lang: str, other: str) -> TableCell:
    """`step, median: n/a (reason)`; of one side by its letter."""
    title = translate(f"compare.cost {cost.name}", lang)
    sides = {"A": cost.a, other: cost.b}
    texts = [
        f"{side} {formats.n_a(localize(reason, lang))}"
        for side, reason in sides.items()
        if reason is not None
    ]
    if cost.a == cost.b:
        texts = [formats.n_a(localize(cost.a or "", lang))]
    return TableCell(f"{title}: {', '.join(texts)}", "value")


def cases_table(compared: CaseComparison | None, lang: str = "en", other: str = "B") -> Table:
    """A row a case: its kind, item, score and rank of both; how many items are of each kind."""
    if compared is None:
        return Table((), (), (_word("no cases", lang),))
    titles = [translate("compare.kind", lang), translate("compare.item", lang)]
    sides = [TableColumn(f"{side} {compared.metric}", right=True) for side in ("A", other)]
    rank = translate("predictions.rank", lang)
    ranks = [TableColumn(f"{side} {rank}", right=True) for side in ("A", other)]
    rows = tuple(
        (
            TableCell(_name_side(case.kind, lang, other), "value"),
            TableCell(case.id, "code"),
            *(TableCell(formats.number(score), "value") for score in (case.a, case.b)),
            *(TableCell(str(line.get("rank") or "–")) for line in (case.a_line, case.b_line)),
        )
        for case in compared.cases
    )
    counts = ", ".join(
        f"{_name_side(kind, lang, other)}: {formats.count(count)}"
        for kind, count in compared.counts.items()
    )
    remark = TableCell(f"{compared.metric} ({compared.split}): {counts}", "prose")
    return Table((*map(TableColumn, titles), *sides, *ranks), rows, (remark,))


def differences_table(
    differences: Sequence[FieldDifference], groups: Sequence[RunGroup], lang: str = "en"
) -> Table:
    """A row a field that is not equal in all groups."""
    titles = [TableColumn(translate(f"compare.{name}", lang)) for name in ("kind", "field")]
    titles += [TableColumn(letter(at)) for at in range(len(groups))]
    rows = tuple(
        (
            _word(f"kind {difference.kind}", lang),
            TableCell(difference.name, "code"),
            *(TableCell(_format_values(values)) for values in difference.values),
        )
        for difference in differences
    )
    remarks = () if rows else (_word("no difference", lang),)
    return Table(tuple(titles) if rows else (), rows, remarks)


def explain(
    comparison: GroupComparison, differences: Sequence[FieldDifference], lang: str = "en"
) -> list[str]:
    """Sentences: what differs, what changed, and whether the one can be given to the other."""
    lines = [_explain_causes(differences, lang)]
    lines += [_explain_metric(change, lang) for change in _by_evidence(comparison.metrics)]
    lines += [_explain_cost(change, lang) for change in comparison.costs if change.a.value]
    if (choices := count_choices(differences)) > 1:
        lines.append(translate("compare.several causes", lang).format(choices))
    lines += [translate(f"compare.{key}", lang) for key in _noise_remarks(comparison)]
    return lines


def _columns(names: Sequence[str], lang: str, other: str = "B") -> tuple[TableColumn, ...]:
    titles = {"b": other, "delta": f"{other} − A"}
    return tuple(
        TableColumn(titles.get(name) or translate(f"compare.{name}", lang), name in NUMBERS)
        for name in names
    )


def _word(key: str, lang: str) -> TableCell:
    return TableCell(translate(f"compare.{key}", lang), "value")


def _name_side(key: str, lang: str, other: str) -> str:
    """Words about a side, such as `b better`, with the letter that the side has."""
    return translate(f"compare.{key}", lang).replace("B", other)


def _verdict_cell(verdict: str, lang: str, other: str) -> TableCell:
    text = _name_side(verdict, lang, other)
    return TableCell(text, "strong" if verdict.endswith(("better", "less")) else "value")


def _metric_row(change: MetricChange, lang: str, other: str) -> tuple[TableCell, ...]:
    difference = change.test.difference
    delta = formats.interval(difference.delta, difference.low, difference.high)
    return (
        TableCell(change.split, "code"),
        TableCell(change.name),
        _reading_cell(change.a),
        _reading_cell(change.b),
        TableCell(f"+{delta}" if difference.delta > 0 else delta, "value"),
        TableCell("–" if change.p is None else _format_p(change.p), "value"),
        _verdict_cell(change.verdict, lang, other),
        TableCell(_format_detectable(change), "value"),
    )


def _reading_cell(reading: Reading) -> TableCell:
    return TableCell(formats.interval(reading.value or 0.0, reading.low, reading.high), "value")


def _format_p(p: float) -> str:
    return "< 0.001" if p < 0.001 else f"{p:.3f}"


def _format_detectable(change: MetricChange) -> str:
    """`0.021`, and what would detect the observed difference: `0.021 (n ≥ 1,860)`."""
    test = change.test
    if test.detectable is None:
        return "–"
    text = formats.number(test.detectable, 3)
    count = test.clusters or test.n
    needed = significance.needed_count(count, test.detectable, test.difference.delta)
    return text if needed is None else f"{text} (n ≥ {formats.count(needed)})"


def _cost_row(change: CostChange, lang: str, other: str) -> tuple[TableCell, ...]:
    a, b = change.a.value or 0.0, change.b.value or 0.0
    return (
        _word(f"cost {change.name}", lang),
        TableCell(_format_cost(change.name, change.a), "value"),
        TableCell(_format_cost(change.name, change.b), "value"),
        TableCell(f"{b / a:.3f}" if a else "–", "value"),
        _verdict_cell(change.verdict, lang, other),
    )


def _format_cost(name: str, reading: Reading) -> str:
    return formats.cost(name, reading.value or 0.0, reading.low, reading.high)


def _format_values(values: tuple[Any, ...]) -> str:
    texts = ["–" if value in (None, "") else formats.setting(value) for value in values]
    return ", ".join(texts)


def _by_evidence(changes: Sequence[MetricChange]) -> list[MetricChange]:
    """The most certain first, then those without a test, of held-out splits first; five at most."""

    def order(change: MetricChange) -> tuple[bool, float, bool, bool, bool, float]:
        difference, tested = change.test.difference, change.p is not None
        return (
            not tested, change.p or 0.0, difference.low is None, not difference.distinguishable,
            change.split == TRAIN_SPLIT, -abs(difference.delta) if tested else 0.0,
        )  # fmt: skip

    return sorted(changes, key=order)[:5]


def _explain_causes(differences: Sequence[FieldDifference], lang: str) -> str:
    if not differences:
        return translate("compare.no difference", lang)
    named = [
        f"{d.name} ({_format_values(d.values[0])} → {_format_values(d.values[1])})"
        for d in differences[:5]
    ]
    rest = len(differences) - len(named)
    text = "; ".join(named) + (f"; +{rest}" if rest else "")
    return translate("compare.differs", lang).format(text)


def _explain_metric(change: MetricChange, lang: str) -> str:
    difference = change.test.difference
    text = formats.interval(difference.delta, difference.low, difference.high)
    sign = "+" if difference.delta > 0 else ""
    p = "" if change.p is None else f", p {_format_p(change.p)}"
    verdict = translate(f"compare.{change.verdict}", lang)
    return f"{change.name} ({change.split}): {sign}{text}{p}: {verdict}"


def _explain_cost(change: CostChange, lang: str) -> str:
    a, b = change.a.value or 0.0, change.b.value or 0.0
    sides = f"{_format_cost(change.name, change.a)} → {_format_cost(change.name, change.b)}"
    share = f"{(b / a - 1) * 100:+.1f} %"
    verdict = translate(f"compare.{change.verdict}", lang)
    return f"{translate(f'compare.cost {change.name}', lang)}: {sides} ({share}): {verdict}"
