"""Tables of VQA runs: folds beside each other, an ensemble against its folds, what was confused.

Apart from `evaluation`, whose tables have a column for each metric of any engine: here the gains
stand beside what they are gains over, each with its paired interval.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Final

from results.records.schema import Metric, RunRecord
from results.records.suite_view import AnsweredSplit
from results.tables import message_translations, run_cells
from results.tables.metrics import split_name
from results.tables.table import Cell, Column, Table, code, markdown
from results.text import formats
from results.text.translations import say

ENGINE: Final = "vqa"
LETTERS: Final = "abcd"
METHODS: Final = ("majority", "probability", "fold-weighted", "stacked")

COLUMNS: Final = (
    ("accuracy", "accuracy"),
    ("TTA gain", "tta"),
    ("accuracy[written]", "written"),
    ("unparsable", "unparsable"),
    ("accuracy[blank image]", "blank"),
    ("picture gain", "picture gain"),
    ("ECE", "ece"),
)
"""Metrics of the table of runs, and the words of their headings."""


def of(records: Sequence[RunRecord]) -> list[RunRecord]:
    """The VQA runs."""
    return [r for r in records if r.identity.engine == ENGINE]


def splits(records: Sequence[RunRecord]) -> list[str]:
    """Every split with an accuracy, in the order of evaluation."""
    found = (m.split for r in of(records) for m in r.metrics if m.name == "accuracy")
    return list(dict.fromkeys(found))


def runs(records: Sequence[RunRecord], split: str, lang: str = "en") -> Table:
    """A row a run that answered the split: accuracy with interval, checks, gains, time.

    Columns that no run fills are left out.
    """
    shown = [(r, known) for r in of(records) if "accuracy" in (known := _on(r, split))]
    used = [(name, word) for name, word in COLUMNS if any(name in known for _, known in shown)]
    columns = (
        Column(say("vqa.run", lang)),
        Column(say("vqa.fold", lang), right=True),
        Column(say("n", lang), right=True),
        *(Column(say(f"vqa.{word}", lang), right=True) for _, word in used),
        Column(say("vqa.time", lang), right=True),
    )
    body = tuple(
        (
            _name(record, lang),
            _fold(record, lang),
            Cell(formats.count(known["accuracy"].n), "value"),
            *(_value(known.get(name), known["accuracy"]) for name, _ in used),
            run_cells.reading(record.timing.end_to_end_seconds, formats.duration),
        )
        for record, known in shown
    )
    remarks = [Cell(say("vqa.chance", lang), "value"), *_methods(shown, used, lang)]
    return Table(columns, body, tuple(remarks))


def ensemble(record: RunRecord, split: str, lang: str = "en") -> Table | None:
    """Single folds, then every way of voting, with what it gains over one fold, and whether so.

    None for a run that put nothing together on that split.
    """
    known = _on(record, split)
    single = [n for n in known if split_name(n).variant.startswith("fold ")]
    mean = known.get("gain over the mean fold")
    voted = [f"accuracy[{name}]" for name in METHODS if f"accuracy[{name}]" in known]
    if not voted:
        return None
    columns = (
        Column(say("vqa.answers by", lang)),
        Column(say("n", lang), right=True),
        Column(say("vqa.accuracy", lang), right=True),
        Column(say("vqa.gain", lang), right=True),
        Column(say("vqa.verdict", lang)),
    )
    body = []
    for name in (*(single or ["accuracy"]), *voted):
        part = split_name(name).variant
        gained = known.get(f"gain[{part}]")
        title = _part(part, lang) if part else Cell(say("vqa.unstacked", lang), "value")
        body.append(
            (
                title, Cell(formats.count(known[name].n), "value"), _value(known[name]),
                _gain(gained), _verdict(gained, lang),
            )
        )  # fmt: skip
    remarks = [Cell(say("vqa.mean fold", lang).format(_gain(mean).text), "value")] if mean else []
    remarks += [
        Cell(f"{_part(split_name(m.name).variant, lang).text}: {m.method}.")
        for m in known.values()
        if split_name(m.name).base == "gain"
    ]
    return Table(columns, tuple(body), tuple(remarks))


def sections(records: Sequence[RunRecord], split: str, lang: str = "en") -> Iterator[str]:
    """Markdown of one split: its runs, then each ensemble against its folds."""
    yield markdown(runs(records, split, lang))
    for record in records:
        voted = ensemble(record, split, lang)
        if voted is not None:
            yield f"{say('vqa.against', lang).format(code(record.identity.run_id))}\n"
            yield markdown(voted)


def confusion(answered: AnsweredSplit, lang: str = "en") -> Table:
    """True letters down, answered letters across, with the share of each row that is right."""
    columns = (
        Column(say("vqa.true", lang)),
        *(Column(letter, right=True) for letter in LETTERS),
        Column(say("vqa.right", lang), right=True),
    )
    body = []
    for place, (letter, counts) in enumerate(zip(LETTERS, answered.confusion, strict=False)):
        right = counts[place] / sum(counts) if sum(counts) else None
        cells = (
            Cell(formats.count(count), "strong" if place == column else "value")
            for column, count in enumerate(counts)
        )
        body.append((Cell(letter, "value"), *cells, _share(right)))
    return Table(columns, tuple(body))


def reliability(answered: AnsweredSplit, lang: str = "en") -> Table:
    """Bins of confidence that have answers: how confident, how often right."""
    titles = ("confidence bin", "n of bin", "confidence", "right")
    columns = tuple(Column(say(f"vqa.{title}", lang), right=True) for title in titles)
    body = tuple(
        (
            Cell(f"{low:.2f}–{high:.2f}", "value"), Cell(formats.count(n), "value"),
            _share(confidence), _share(accuracy),
        )
        for low, high, n, confidence, accuracy in answered.reliability if n
    )  # fmt: skip
    return Table(columns, body)


def kinds(answered: AnsweredSplit, lang: str = "en") -> Table:
    """Types of question, the one with most errors first."""
    columns = (
        Column(say("vqa.kind", lang)),
        Column(say("n", lang), right=True),
        Column(say("vqa.wrong", lang), right=True),
        Column(say("vqa.right", lang), right=True),
    )
    order = sorted(answered.kinds.items(), key=lambda one: (one[1][1] - one[1][0], one[0]))
    body = tuple(
        (
            Cell(message_translations.localized(name, lang)), Cell(formats.count(n), "value"),
            Cell(formats.count(n - right), "value"),
            _share(right / n if n else None),
        )
        for name, (n, right) in order
    )  # fmt: skip
    return Table(columns, body)


def _on(record: RunRecord, split: str) -> dict[str, Metric]:
    return {m.name: m for m in record.metrics if m.split == split}


def _name(record: RunRecord, lang: str) -> Cell:
    return Cell(record.identity.run_id, "code", run_cells.flags(record, lang))


def _fold(record: RunRecord, lang: str) -> Cell:
    identity = record.identity
    if identity.task == "ensemble":
        return Cell(say("vqa.ensemble", lang), "value")
    folds, fold = identity.params.get("folds"), identity.params.get("fold")
    if identity.task != "train" or not isinstance(folds, int) or not isinstance(fold, int):
        return Cell("–", "value")
    return Cell(f"{fold + 1}/{folds}" if folds else "–", "value")


def _part(part: str, lang: str) -> Cell:
    number = part.removeprefix("fold ")
    if number != part:
        return Cell(f"{say('vqa.fold', lang)} {number}")
    return Cell(say(f"vqa.{part}", lang), "value")


def _value(metric: Metric | None, beside: Metric | None = None) -> Cell:
    """The number; strong if it is the one that others stand beside, with n where theirs differs."""
    if metric is None:
        return Cell("–", "value")
    text = formats.interval(metric.value, metric.low, metric.high)
    counted = f" (n = {formats.count(metric.n)})" if beside and metric.n != beside.n else ""
    return Cell(text + counted, "strong" if metric is beside else "value")


def _gain(metric: Metric | None) -> Cell:
    if metric is None:
        return Cell("–", "value")
    sign = "+" if metric.value > 0 else ""
    return Cell(sign + formats.interval(metric.value, metric.low, metric.high), "value")


def _verdict(metric: Metric | None, lang: str) -> Cell:
    """Only an interval without zero is a difference."""
    if metric is None:
        return Cell("–", "value")
    if metric.low is None or metric.high is None or metric.low <= 0 <= metric.high:
        return Cell(say("compare.not distinguishable", lang), "value")
    return Cell(say("vqa.better" if metric.low > 0 else "vqa.worse", lang), "strong")


def _share(value: float | None) -> Cell:
    return Cell("–" if value is None else formats.percent(value), "value")


def _methods(
    shown: Sequence[tuple[RunRecord, dict[str, Metric]]],
    used: Sequence[tuple[str, str]],
    lang: str,
) -> list[Cell]:
    """How intervals were made and what they say beside them, of the first run that has each."""
    found: dict[str, list[str]] = {}
    for name, word in used:
        metric = next((known[name] for _, known in shown if name in known), None)
        if metric is not None and metric.method:
            found.setdefault(metric.method, []).append(say(f"vqa.{word}", lang))
    of_first = f" ({say('vqa.first run', lang)})" if len(shown) > 1 else ""
    return [
        Cell(f"{', '.join(named)}: {method}{of_first if _of_a_run(method) else ''}.")
        for method, named in found.items()
    ]


def _of_a_run(method: str) -> bool:
    """Whether it says something of one run beside how the interval was made."""
    return ";" in method or ". " in method
