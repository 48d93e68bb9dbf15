"""Ablation table: runs with one optimization switched off against the run with all on.

Names and purposes are the SigLIP study's, from `optimizations.toml`. The switched setting of a row
is the one that differs, and where an optimization is applied follows from the settings of the
labelled runs, so a plan needs nothing but its labels. Reduced queries inside one run are in
`metrics.ablations`.
"""

from __future__ import annotations

import functools
import re
import tomllib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Final

from results.records.schema import MetricRecord, Reading, RunRecord
from results.records.suite_view import MetricChange
from results.text import formats
from results.text.formats import number, percent
from results.text.table import Table, TableCell, TableColumn, code
from results.text.translations import cause, translate

BASELINE: Final = "all on"
"""Label of the run that the others are compared with."""
QUALITY: Final = ("loss", "diversity")
"""Metrics whose change is shown; the first evaluated split that is no training sample."""

_VERSION: Final = re.compile(r".+-(v\d+)")
"""`E5-v2`: an experiment and its version."""


@functools.cache
def load_optimizations() -> dict[str, dict[str, Any]]:
    """Optimizations by the setting that switches them."""
    path = Path(__file__).parent / "optimizations.toml"
    return tomllib.loads(path.read_text("utf-8"))


def find_pairs(records: Sequence[RunRecord]) -> list[tuple[RunRecord, RunRecord]]:
    """(all on, one off) for every run that has such a partner: equal but for settings.

    A label with a version (`E5-v2`) is an experiment of its own, and no switch.
    """
    bases = {_pair_key(r): r for r in records if r.identity.label.casefold() == BASELINE}
    return [
        (bases[_pair_key(r)], r)
        for r in records
        if r.identity.label.casefold() != BASELINE
        and _pair_key(r) in bases
        and not _VERSION.fullmatch(r.identity.label)
    ]


def compute_changes(
    records: Sequence[RunRecord], log_root: Path
) -> dict[str, dict[str, MetricChange]]:
    """Of every run with one off, by metric: paired over captions where both runs kept theirs."""
    from results.comparison import groups

    changes: dict[str, dict[str, MetricChange]] = {}
    for on, off in find_pairs(records):
        for name in QUALITY:
            metric_on, metric_off = _find_metric(on, name), _find_metric(off, name)
            if metric_on is not None and metric_off is not None:
                delta, low, high, _ = groups.metric_difference(
                    (on, metric_on), (off, metric_off), log_root
                )
                change = MetricChange(delta=delta, low=low, high=high)
                changes.setdefault(off.identity.run_id, {})[name] = change
    return changes


def table(
    records: Sequence[RunRecord],
    lang: str = "en",
    known_changes: Mapping[str, Mapping[str, MetricChange]] | None = None,
) -> Table | None:
    """Optimization, purpose, what switching it off changed; None without a baseline.

    A last column says which experiments have it on, where the suite has labelled runs in addition
    to those that are compared. `known_changes`: from `compute_changes`; without it the intervals
    are those of independent samples.
    """
    pairs = find_pairs(records)
    if not pairs:
        return None
    compared = {id(record) for pair in pairs for record in pair}
    others = _select_labelled([r for r in records if id(r) not in compared])
    heads = ["optimization", "purpose", "time a step", "whole run", "memory", *QUALITY]
    heads += ["applied in"] if others else []
    columns = tuple(TableColumn(translate(f"optimization.{head}", lang), 2 <= i < 7) for i, head in
                    enumerate(heads))  # fmt: skip
    changes_of_run = known_changes or {}
    body = []
    for on, off in pairs:
        cells = _row(on, off, lang, changes_of_run.get(off.identity.run_id, {}))
        last = (
            [TableCell(", ".join(runs_with_setting(_setting(on, off), others)))] if others else []
        )
        body.append((*cells, *last))
    return Table(
        columns, tuple(body), (TableCell(translate("optimization.remark", lang), "value"),)
    )


def applied(
    records: Sequence[RunRecord], lang: str = "en", published: Mapping[str, str] | None = None
) -> Table | None:
    """Optimization, purpose, effect, the labelled runs that have it on; None without such a run.

    `published`: by setting, the effect as the source of imported runs states it.
    """
    labelled = _select_labelled(records)
    runs_of_setting = {
        name: runs for name in load_optimizations() if (runs := runs_with_setting(name, labelled))
    }
    if not runs_of_setting:
        return None
    heads = ("optimization alone", "purpose", "effect", "setting", "applied in")
    columns = tuple(TableColumn(translate(f"optimization.{head}", lang)) for head in heads)
    body = tuple(
        (
            TableCell(_display_name(load_optimizations()[name], lang)),
            _purpose(load_optimizations()[name], lang),
            TableCell(_effect(name, labelled, lang, (published or {}).get(name, ""))),
            TableCell(_describe_switch(name, labelled), "value"),
            TableCell(", ".join(runs)),
        )
        for name, runs in runs_of_setting.items()
    )
    remarks = ["applied remark"]
    remarks += ["published remark"] if runs_of_setting.keys() & (published or {}).keys() else []
    cells = (TableCell(translate(f"optimization.{remark}", lang), "value") for remark in remarks)
    return Table(columns, body, tuple(cells))


def _describe_switch(setting: str, records: Sequence[RunRecord]) -> str:
    """`schedule`: constant → cosine; of several values in use all."""
    used: dict[str, None] = {}
    for record in records:
        stages: Sequence[Mapping[str, Any]] = record.identity.params.get("stages") or ({},)
        for params in ({**record.identity.params, **stage} for stage in stages):
            if _is_on_with(setting, params, record):
                used[formats.setting(params.get(setting))] = None
    entry, first = load_optimizations()[setting], next(iter(used), "")
    off = {"true": "false"}.get(first, "0" if first.replace(".", "", 1).isdigit() else "–")
    before = formats.setting(entry["off"]) if "off" in entry else entry.get("before", off)
    return f"{code(setting)}: {code(str(before))} → {', '.join(map(code, used))}"


def _effect(setting: str, records: Sequence[RunRecord], lang: str, published: str) -> str:
    """What is expected of it, what follows from the runs' own numbers, what a source states."""
    expected = str(load_optimizations()[setting]["effect" if lang == "en" else f"effect_{lang}"])
    if counted := _counted_effect(setting, records, lang):
        expected += f", {counted}"
    if not published:
        return expected
    return translate("optimization.published effect", lang).format(expected, published)


def _counted_effect(setting: str, records: Sequence[RunRecord], lang: str) -> str:
    """Frames encoded, effective batch, epochs saved, of the first run that tells; else empty."""
    count = {
        "feature_cache": _count_frames, "gradient_accumulation_steps": _multiply_batch,
        "early_stopping": _count_epochs,
    }.get(setting)  # fmt: skip
    if count is None:
        return ""
    for record in records:
        if _is_on(setting, record) and (numbers := count(record)):
            return translate(f"optimization.counted {setting}", lang).format(
                record.identity.label, *map(formats.count, numbers)
            )
    return ""


def _count_frames(record: RunRecord) -> tuple[float, ...]:
    """Frames that the encoder computes with the cache, and would compute without it."""
    once = record.samples * int(record.identity.params.get("frames") or 1)
    epochs = record.epochs or 0.0
    return (once, once * epochs) if once and epochs > 1 else ()


def _multiply_batch(record: RunRecord) -> tuple[float, ...]:
    params = record.identity.params
    batch, steps = params.get("batch"), params.get("gradient_accumulation_steps")
    if not isinstance(batch, int) or not isinstance(steps, int):
        return ()
    return batch, steps, batch * steps


def _count_epochs(record: RunRecord) -> tuple[float, ...]:
    """Epoch after which early stopping ended the last stage, and its planned epochs."""
    stages = record.identity.params.get("stages") or (record.identity.params,)
    ended = [epoch.epoch for epoch in record.training_epochs if epoch.stopped]
    planned = stages[-1].get("epochs")
    return (ended[-1], planned) if ended and planned else ()


def runs_with_setting(setting: str, records: Sequence[RunRecord]) -> list[str]:
    """Versions all of whose runs have the setting on, and labels of single runs."""
    on = dict.fromkeys(r.identity.label for r in records if _is_on(setting, r))
    off = {r.identity.label for r in records if not _is_on(setting, r)}
    partly = {version(label) for label in off}
    names = (label if version(label) in partly else version(label) for label in on)
    return list(dict.fromkeys(names))


def version(label: str) -> str:
    """`v2` of `E5-v2`; the label itself where it has no version."""
    match = _VERSION.fullmatch(label)
    return match[1] if match else label


def _select_labelled(records: Sequence[RunRecord]) -> list[RunRecord]:
    return [r for r in records if r.identity.label and r.identity.task == "train"]


def _is_on(setting: str, record: RunRecord) -> bool:
    """Whether a run has the setting on, in a stage at least; for `auto`, as its engine reported."""
    params = record.identity.params
    stages: Sequence[Mapping[str, Any]] = params.get("stages") or ({},)
    return any(_is_on_with(setting, {**params, **stage}, record) for stage in stages)


def _is_on_with(setting: str, params: Mapping[str, Any], record: RunRecord) -> bool:
    entry, value = load_optimizations().get(setting, {}), params.get(setting)
    if value == "auto":
        value = record.facts.get(setting, "").partition(" ")[0].rstrip(",;")
    if "on" in entry:
        return entry["on"] in str(value or "").casefold()
    if "needs" in entry and not _is_on_with(entry["needs"], params, record):
        return False
    return bool(value) and value != entry.get("off")


def _setting(on: RunRecord, off: RunRecord) -> str:
    return next(iter(switched_settings(on, off)), "")


def _display_name(entry: Mapping[str, Any], lang: str) -> str:
    return str(entry.get(lang) or entry.get("name", ""))


def _purpose(entry: Mapping[str, Any], lang: str) -> TableCell:
    purposes = entry["purpose"].split(", ") if entry else []
    return TableCell(", ".join(translate(f"optimization.for {word}", lang) for word in purposes))


def switched_settings(on: RunRecord, off: RunRecord) -> list[str]:
    """Settings that differ, those with a name in the study first, in the order of its table.

    Without diversity monitoring there is no early stopping either: the row is the monitoring's.
    """
    params_on, params_off = on.identity.params, off.identity.params
    differing = [k for k in {**params_on, **params_off} if params_on.get(k) != params_off.get(k)]
    positions = {name: index for index, name in enumerate(load_optimizations())}
    return sorted(differing, key=lambda name: positions.get(name, len(positions)))


def _row(
    on: RunRecord, off: RunRecord, lang: str, changes: Mapping[str, MetricChange]
) -> tuple[TableCell, ...]:
    entry = load_optimizations().get(_setting(on, off), {})
    label = off.identity.label
    name = _display_name(entry, lang) or label or ", ".join(switched_settings(on, off))
    if off.exit.cause != "completed":
        cause_cell = TableCell(cause(off.exit.cause, lang), "unknown")
        return (TableCell(name), _purpose(entry, lang), *[cause_cell] * 5)
    return (
        TableCell(f"{name} ({label})" if label not in ("", name) else name),
        _purpose(entry, lang),
        _relative_change_cell(on.timing.step_median, off.timing.step_median),
        _relative_change_cell(on.timing.end_to_end_seconds, off.timing.end_to_end_seconds),
        _relative_change_cell(_peak_memory(on), _peak_memory(off)),
        *(
            _change_cell(changes.get(kind) or _unpaired_change(on, off, kind), lang)
            for kind in QUALITY
        ),
    )


def _relative_change_cell(on: Reading, off: Reading) -> TableCell:
    """Relative change without the optimization: `+12.0 % [9.8 %, 14.1 %]`.

    Bold where the interval excludes 0; without an interval the change alone, never bold.
    """
    if not on.value or off.value is None:
        return TableCell(off.reason or on.reason, "unknown")
    share = off.value / on.value - 1
    limits = _change_limits(on, off)
    if limits is None:
        return TableCell(_format_signed(share), "value")
    low, high = (limit / on.value for limit in limits)
    text = f"{_format_signed(share)} [{_format_signed(low)}, {_format_signed(high)}]"
    return TableCell(text, "strong" if low > 0 or high < 0 else "value")


def _change_limits(on: Reading, off: Reading) -> tuple[float, float] | None:
    from results.statistics import unpaired_difference

    if None in (on.low, on.high, off.low, off.high):
        return None
    both: Any = ((r.value, r.low, r.high) for r in (on, off))
    difference = unpaired_difference(*both)
    return (
        None
        if difference.low is None or difference.high is None
        else (difference.low, difference.high)
    )


def _change_cell(change: MetricChange | None, lang: str) -> TableCell:
    """Change of a metric without the optimization; bold where the interval excludes 0."""
    if change is None:
        return TableCell(translate("not measured", lang), "unknown")
    if change.low is None or change.high is None:
        return TableCell(f"{change.delta:+.3f}", "value")
    text = f"{change.delta:+.3f} [{number(change.low, 3)}, {number(change.high, 3)}]"
    return TableCell(text, "strong" if change.low > 0 or change.high < 0 else "value")


def _unpaired_change(on: RunRecord, off: RunRecord, name: str) -> MetricChange | None:
    """The change from the two values and their intervals alone."""
    from results.comparison import groups

    metric_on, metric_off = _find_metric(on, name), _find_metric(off, name)
    if metric_on is None or metric_off is None:
        return None
    delta, low, high, _ = groups.metric_difference((on, metric_on), (off, metric_off), None)
    return MetricChange(delta=delta, low=low, high=high)


def _find_metric(record: RunRecord, name: str) -> MetricRecord | None:
    metrics = [m for m in record.metrics if m.name == name]
    held_out = [m for m in metrics if m.split != "train"]
    return next(iter(held_out or metrics), None)


def _peak_memory(record: RunRecord) -> Reading:
    """On a GPU what torch allocated, else the peak of the main process."""
    allocated = record.memory.vram_allocated_peak
    return allocated if allocated.value is not None else record.memory.rss_main_peak


def _pair_key(record: RunRecord) -> tuple[object, ...]:
    i = record.identity
    return (i.suite, i.engine, i.subset, i.model, i.seed, i.repeat)


def _format_signed(share: float) -> str:
    return f"{'+' if share >= 0 else '-'}{percent(abs(share))}"
