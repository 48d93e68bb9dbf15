"""Tables of VQA runs: folds, ensembles against their folds, confusion and reliability.

Gains stand beside the value that they are gains over, each with its paired interval.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Final

from results.comparison.predictions import LETTERS
from results.records import message_translations
from results.records.schema import MetricRecord, RunRecord
from results.records.suite_view import AnsweredSplit
from results.tables import run_cells
from results.tables.metrics import metrics_of_split
from results.text import formats
from results.text.metric_names import split_name
from results.text.table import Table, TableCell, TableColumn, code, render_markdown
from results.text.translations import translate

ENGINE: Final = "vqa"
METHODS: Final = ("majority", "probability", "fold-weighted", "stacked")

Answers = Mapping[str, Sequence[AnsweredSplit]]
"""Answered splits by run id."""

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


def vqa_runs(records: Sequence[RunRecord]) -> list[RunRecord]:
    """The VQA runs."""
    return [r for r in records if r.identity.engine == ENGINE]


def splits(records: Sequence[RunRecord]) -> list[str]:
    """Every split with an accuracy, in the order of evaluation."""
    names = (m.split for r in vqa_runs(records) for m in r.metrics if m.name == "accuracy")
    return list(dict.fromkeys(names))


def run_table(
    records: Sequence[RunRecord], split: str, lang: str = "en", answers: Answers | None = None
) -> Table:
    """A row a run that answered the split: accuracy with interval, checks, gains, time.

    Columns that no run fills are left out. Below them, the accuracy of the most frequent letter
    alone, once for runs of equal questions; `answers`: the letters, by run id.
    """
    runs = [
        (r, metrics)
        for r in vqa_runs(records)
        if "accuracy" in (metrics := metrics_of_split(r, split))
    ]
    filled_columns = [
        (name, word) for name, word in COLUMNS if any(name in metrics for _, metrics in runs)
    ]
    columns = (
        TableColumn(translate("vqa.run", lang)),
        TableColumn(translate("vqa.fold", lang), right=True),
        TableColumn(translate("n", lang), right=True),
        *(TableColumn(translate(f"vqa.{word}", lang), right=True) for _, word in filled_columns),
        TableColumn(translate("vqa.time", lang), right=True),
    )
    body = tuple(
        (
            _name_cell(record, lang),
            _fold_cell(record, lang),
            TableCell(formats.count(metrics["accuracy"].n), "value"),
            *(_metric_cell(metrics.get(name), metrics["accuracy"]) for name, _ in filled_columns),
            run_cells.reading_cell(record.timing.end_to_end_seconds, formats.duration),
        )
        for record, metrics in runs
    )
    body += tuple(_majority_rows([r for r, _ in runs], split, len(columns), lang, answers or {}))
    remarks = [
        TableCell(translate("vqa.chance", lang), "value"),
        *_method_remarks(runs, filled_columns, lang),
    ]
    return Table(columns, body, tuple(remarks))


def _majority_rows(
    records: Sequence[RunRecord], split: str, width: int, lang: str, answers: Answers
) -> Iterator[tuple[TableCell, ...]]:
    """A row for each set of true letters: their most frequent one, and its share."""
    runs_of_counts: dict[tuple[int, ...], list[RunRecord]] = {}
    for record in records:
        for answered in answers.get(record.identity.run_id, ()):
            if answered.split == split and any(map(sum, answered.confusion)):
                counts = tuple(map(sum, answered.confusion))
                runs_of_counts.setdefault(counts, []).append(record)
    for counts, runs in runs_of_counts.items():
        most = max(counts)
        letter = LETTERS[counts.index(most)]
        fold = _fold_cell(runs[0], lang) if len(runs_of_counts) > 1 else TableCell("–", "value")
        yield (
            TableCell(translate("vqa.most frequent", lang).format(letter), "value"),
            fold,
            TableCell(formats.count(sum(counts)), "value"),
            TableCell(formats.number(most / sum(counts), 3), "value"),
            *[TableCell("–", "value")] * (width - 4),
        )


def ensemble_table(record: RunRecord, split: str, lang: str = "en") -> Table | None:
    """Single folds, then every voting method, with its gain over one fold and the verdict.

    None for a run that put nothing together on that split.
    """
    metrics = metrics_of_split(record, split)
    single = [n for n in metrics if split_name(n).variant.startswith("fold ")]
    mean = metrics.get("gain over the mean fold")
    voted = [f"accuracy[{name}]" for name in METHODS if f"accuracy[{name}]" in metrics]
    if not voted:
        return None
    columns = (
        TableColumn(translate("vqa.answers by", lang)),
        TableColumn(translate("n", lang), right=True),
        TableColumn(translate("vqa.accuracy", lang), right=True),
        TableColumn(translate("vqa.gain", lang), right=True),
        TableColumn(translate("vqa.verdict", lang)),
    )
    body = []
    for name in (*(single or ["accuracy"]), *voted):
        part = split_name(name).variant
        gained = metrics.get(f"gain[{part}]")
        title = (
            _part_cell(part, lang) if part else TableCell(translate("vqa.unstacked", lang), "value")
        )
        body.append(
            (
                title,
                TableCell(formats.count(metrics[name].n), "value"),
                _metric_cell(metrics[name]),
                _gain_cell(gained),
                _verdict_cell(gained, lang),
            )
        )  # fmt: skip
    remarks = (
        [TableCell(translate("vqa.mean fold", lang).format(_gain_cell(mean).text), "value")]
        if mean
        else []
    )
    remarks += [
        TableCell(f"{_part_cell(method, lang).text}: {gained.method}.")
        for method in METHODS
        if (gained := metrics.get(f"gain[{method}]"))
    ]
    remarks += _temperature_remarks(metrics, lang)
    return Table(columns, tuple(body), tuple(remarks))


def _temperature_remarks(metrics: Mapping[str, MetricRecord], lang: str) -> list[TableCell]:
    """What scaling by a fitted temperature did to the calibration; none without it."""
    error, gained = metrics.get("ECE[temperature]"), metrics.get("gain[temperature]")
    if error is None or gained is None:
        return []
    values = (_metric_cell(error).text, _gain_cell(gained).text, _verdict_cell(gained, lang).text)
    return [TableCell(translate("vqa.temperature", lang).format(*values), "value")]


def sections(
    records: Sequence[RunRecord], split: str, lang: str = "en", answers: Answers | None = None
) -> Iterator[str]:
    """Markdown of one split: its runs, then each ensemble against its folds."""
    yield render_markdown(run_table(records, split, lang, answers))
    for record in records:
        voted = ensemble_table(record, split, lang)
        if voted is not None:
            yield f"{translate('vqa.against', lang).format(code(record.identity.run_id))}\n"
            yield render_markdown(voted)


def confusion_table(answered: AnsweredSplit, lang: str = "en") -> Table:
    """True letters down, answered letters across, with the share of each row that is right."""
    columns = (
        TableColumn(translate("vqa.true", lang)),
        *(TableColumn(letter, right=True) for letter in LETTERS),
        TableColumn(translate("vqa.right", lang), right=True),
    )
    body = []
    for row, (letter, counts) in enumerate(zip(LETTERS, answered.confusion, strict=False)):
        right = counts[row] / sum(counts) if sum(counts) else None
        cells = (
            TableCell(formats.count(count), "strong" if row == column else "value")
            for column, count in enumerate(counts)
        )
        body.append((TableCell(letter, "value"), *cells, _share_cell(right)))
    return Table(columns, tuple(body))


def reliability_table(answered: AnsweredSplit, lang: str = "en") -> Table:
    """Non-empty confidence bins: mean confidence and accuracy."""
    titles = ("confidence bin", "n of bin", "confidence", "right")
    columns = tuple(TableColumn(translate(f"vqa.{title}", lang), right=True) for title in titles)
    body = tuple(
        (
            TableCell(f"{low:.2f}–{high:.2f}", "value"), TableCell(formats.count(n), "value"),
            _share_cell(confidence), _share_cell(accuracy),
        )
        for low, high, n, confidence, accuracy in answered.reliability if n
    )  # fmt: skip
    return Table(columns, body)


def kind_table(answered: AnsweredSplit, lang: str = "en") -> Table:
    """Types of question, the one with most errors first."""
    columns = (
        TableColumn(translate("vqa.kind", lang)),
        TableColumn(translate("n", lang), right=True),
        TableColumn(translate("vqa.wrong", lang), right=True),
        TableColumn(translate("vqa.right", lang), right=True),
    )
    order = sorted(answered.kinds.items(), key=lambda item: (item[1][1] - item[1][0], item[0]))
    body = tuple(
        (
            TableCell(message_translations.localize(name, lang)),
            TableCell(formats.count(n), "value"),
            TableCell(formats.count(n - right), "value"),
            _share_cell(right / n if n else None),
        )
        for name, (n, right) in order
    )  # fmt: skip
    return Table(columns, body)


def _name_cell(record: RunRecord, lang: str) -> TableCell:
    return TableCell(record.identity.run_id, "code", run_cells.flags(record, lang))


def _fold_cell(record: RunRecord, lang: str) -> TableCell:
    identity = record.identity
    if identity.task == "ensemble":
        return TableCell(translate("vqa.ensemble", lang), "value")
    folds, fold = identity.params.get("folds"), identity.params.get("fold")
    if identity.task != "train" or not isinstance(folds, int) or not isinstance(fold, int):
        return TableCell("–", "value")
    return TableCell(f"{fold + 1}/{folds}" if folds else "–", "value")


def _part_cell(part: str, lang: str) -> TableCell:
    number = part.removeprefix("fold ")
    if number != part:
        return TableCell(f"{translate('vqa.fold', lang)} {number}")
    return TableCell(translate(f"vqa.{part}", lang), "value")


def _metric_cell(metric: MetricRecord | None, reference: MetricRecord | None = None) -> TableCell:
    """The value, with n where that of `reference` differs."""
    if metric is None:
        return TableCell("–", "value")
    text = formats.interval(metric.value, metric.low, metric.high)
    counted = f" (n = {formats.count(metric.n)})" if reference and metric.n != reference.n else ""
    return TableCell(text + counted, "value")


def _gain_cell(metric: MetricRecord | None) -> TableCell:
    if metric is None:
        return TableCell("–", "value")
    sign = "+" if metric.value > 0 else ""
    return TableCell(sign + formats.interval(metric.value, metric.low, metric.high), "value")


def _verdict_cell(metric: MetricRecord | None, lang: str) -> TableCell:
    """Only an interval without zero is a difference."""
    if metric is None:
        return TableCell("–", "value")
    if metric.low is None or metric.high is None or metric.low <= 0 <= metric.high:
        return TableCell(translate("compare.not distinguishable", lang), "value")
    return TableCell(translate("vqa.better" if metric.low > 0 else "vqa.worse", lang), "strong")


def _share_cell(value: float | None) -> TableCell:
    return TableCell("–" if value is None else formats.percent(value), "value")


def _method_remarks(
    runs: Sequence[tuple[RunRecord, dict[str, MetricRecord]]],
    columns: Sequence[tuple[str, str]],
    lang: str,
) -> list[TableCell]:
    """Interval methods with the headings of their metrics, of the first run that has each."""
    titles_of_method: dict[str, list[str]] = {}
    for name, word in columns:
        metric = next((metrics[name] for _, metrics in runs if name in metrics), None)
        if metric is not None and metric.method:
            titles_of_method.setdefault(metric.method, []).append(translate(f"vqa.{word}", lang))
    first_run = f" ({translate('vqa.first run', lang)})" if len(runs) > 1 else ""
    return [
        TableCell(f"{', '.join(titles)}: {method}{first_run if _describes_run(method) else ''}.")
        for method, titles in titles_of_method.items()
    ]


def _describes_run(method: str) -> bool:
    """Whether a method says something of one run in addition to how the interval was made."""
    return ";" in method or ". " in method
