"""What each optimization was worth: runs with one switch off against the run with all on.

Apart from `evaluation.ablations`, which compares variants of a query inside one run: here every
variant is a run. Names and purposes are the SigLIP study's, from `optimizations.toml`; the rows are
found by what differs in the settings, and where each is applied is read from the settings of the
labelled runs, so a plan needs nothing but its labels.
"""

from __future__ import annotations

import functools
import re
import tomllib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Final

from results.records.schema import Metric, Reading, RunRecord
from results.records.suite_view import Change
from results.tables.table import Cell, Column, Table
from results.text.formats import number, percent
from results.text.translations import cause, say

BASELINE: Final = "all on"
"""Label of the run that the others are compared with."""
QUALITY: Final = ("loss", "diversity")
"""Metrics whose change is shown; the first evaluated split that is no training sample."""

_VERSION: Final = re.compile(r".+-(v\d+)")
"""`E5-v2`: an experiment and its version."""


@functools.cache
def known() -> dict[str, dict[str, Any]]:
    """Optimizations by the setting that switches them."""
    path = Path(__file__).parent / "optimizations.toml"
    return tomllib.loads(path.read_text("utf-8"))


def pairs(records: Sequence[RunRecord]) -> list[tuple[RunRecord, RunRecord]]:
    """(all on, one off) for every run that has such a partner: equal but for settings.

    A label with a version (`E5-v2`) is an experiment of its own, and no switch.
    """
    bases = {_kin(r): r for r in records if r.identity.label.casefold() == BASELINE}
    return [
        (bases[_kin(r)], r)
        for r in records
        if r.identity.label.casefold() != BASELINE
        and _kin(r) in bases
        and not _VERSION.fullmatch(r.identity.label)
    ]


def changes(records: Sequence[RunRecord], log_root: Path) -> dict[str, dict[str, Change]]:
    """Of every run with one off, by metric: paired over captions where both runs kept theirs."""
    from results.tables import comparison

    found: dict[str, dict[str, Change]] = {}
    for on, off in pairs(records):
        for name in QUALITY:
            mine, theirs = _metric(on, name), _metric(off, name)
            if mine is not None and theirs is not None:
                delta, low, high, _ = comparison.difference((on, mine), (off, theirs), log_root)
                made = Change(delta=delta, low=low, high=high)
                found.setdefault(off.identity.run_id, {})[name] = made
    return found


def table(
    records: Sequence[RunRecord],
    lang: str = "en",
    known_changes: Mapping[str, Mapping[str, Change]] | None = None,
) -> Table | None:
    """Optimization, purpose, what switching it off changed; None without a baseline.

    A last column says which experiments have it on, where the suite has labelled runs beside those
    that are compared. `known_changes`: from `changes`; without them intervals are of independent
    samples.
    """
    found = pairs(records)
    if not found:
        return None
    compared = {id(record) for pair in found for record in pair}
    others = _labelled([r for r in records if id(r) not in compared])
    heads = ["optimization", "purpose", "time a step", "whole run", "memory", *QUALITY]
    heads += ["applied in"] if others else []
    columns = tuple(Column(say(f"optimization.{head}", lang), 2 <= i < 7) for i, head in
                    enumerate(heads))  # fmt: skip
    paired = known_changes or {}
    body = []
    for on, off in found:
        cells = _row(on, off, lang, paired.get(off.identity.run_id, {}))
        last = [Cell(", ".join(applied_in(_setting(on, off), others)))] if others else []
        body.append((*cells, *last))
    return Table(columns, tuple(body), (Cell(say("optimization.remark", lang), "value"),))


def applied(records: Sequence[RunRecord], lang: str = "en") -> Table | None:
    """Optimization, purpose, effect, the labelled runs that have it on; None without such a run."""
    labelled = _labelled(records)
    found = {name: where for name in known() if (where := applied_in(name, labelled))}
    if not found:
        return None
    heads = ("optimization alone", "purpose", "effect", "applied in")
    columns = tuple(Column(say(f"optimization.{head}", lang)) for head in heads)
    body = tuple(
        (
            Cell(_name(known()[name], lang)),
            _purpose(known()[name], lang),
            Cell(known()[name]["effect" if lang == "en" else f"effect_{lang}"]),
            Cell(", ".join(where)),
        )
        for name, where in found.items()
    )
    return Table(columns, body, (Cell(say("optimization.applied remark", lang), "value"),))


def applied_in(setting: str, records: Sequence[RunRecord]) -> list[str]:
    """The versions all of whose runs have an optimization on, and labels of single runs."""
    on = dict.fromkeys(r.identity.label for r in records if _is_on(setting, r))
    off = {r.identity.label for r in records if not _is_on(setting, r)}
    partly = {version(label) for label in off}
    shown = (label if version(label) in partly else version(label) for label in on)
    return list(dict.fromkeys(shown))


def version(label: str) -> str:
    """`v2` of `E5-v2`; the label itself where it has no version."""
    found = _VERSION.fullmatch(label)
    return found[1] if found else label


def _labelled(records: Sequence[RunRecord]) -> list[RunRecord]:
    return [r for r in records if r.identity.label and r.identity.task == "train"]


def _is_on(setting: str, record: RunRecord) -> bool:
    """By the setting; where that is `auto`, by what the engine told of the run."""
    entry, value = known().get(setting, {}), record.identity.params.get(setting)
    if value == "auto":
        value = record.facts.get(setting, "").partition(" ")[0].rstrip(",;")
    if "on" in entry:
        return entry["on"] in str(value or "").casefold()
    if "needs" in entry and not _is_on(entry["needs"], record):
        return False
    return bool(value) and value != entry.get("off")


def _setting(on: RunRecord, off: RunRecord) -> str:
    return next(iter(switched(on, off)), "")


def _name(entry: Mapping[str, Any], lang: str) -> str:
    return str(entry.get(lang) or entry.get("name", ""))


def _purpose(entry: Mapping[str, Any], lang: str) -> Cell:
    purposes = entry["purpose"].split(", ") if entry else []
    return Cell(", ".join(say(f"optimization.for {word}", lang) for word in purposes))


def switched(on: RunRecord, off: RunRecord) -> list[str]:
    """Settings that differ, those with a name in the study first, in the order of its table.

    Without diversity monitoring there is no early stopping either: the row is the monitoring's.
    """
    mine, theirs = on.identity.params, off.identity.params
    differing = [k for k in {**mine, **theirs} if mine.get(k) != theirs.get(k)]
    places = {name: place for place, name in enumerate(known())}
    return sorted(differing, key=lambda name: places.get(name, len(places)))


def _row(
    on: RunRecord, off: RunRecord, lang: str, paired: Mapping[str, Change]
) -> tuple[Cell, ...]:
    entry = known().get(_setting(on, off), {})
    label = off.identity.label
    name = _name(entry, lang) or label or ", ".join(switched(on, off))
    if off.exit.cause != "completed":
        why = Cell(cause(off.exit.cause, lang), "unknown")
        return (Cell(name), _purpose(entry, lang), *[why] * 5)
    return (
        Cell(f"{name} ({label})" if label not in ("", name) else name),
        _purpose(entry, lang),
        _share(on.timing.step_median, off.timing.step_median),
        _share(on.timing.end_to_end_seconds, off.timing.end_to_end_seconds),
        _share(_memory(on), _memory(off)),
        *(_change(paired.get(kind) or _unpaired(on, off, kind), lang) for kind in QUALITY),
    )


def _share(on: Reading, off: Reading) -> Cell:
    """How much more the run without it took: `+12.0 % [9.8 %, 14.1 %]`.

    Bold where the interval excludes 0; without an interval the change alone, never bold.
    """
    if not on.value or off.value is None:
        return Cell(off.reason or on.reason, "unknown")
    share = off.value / on.value - 1
    limits = _limits(on, off)
    if limits is None:
        return Cell(_signed(share), "value")
    low, high = (limit / on.value for limit in limits)
    text = f"{_signed(share)} [{_signed(low)}, {_signed(high)}]"
    return Cell(text, "strong" if low > 0 or high < 0 else "value")


def _limits(on: Reading, off: Reading) -> tuple[float, float] | None:
    from results.statistics import unpaired_difference

    if None in (on.low, on.high, off.low, off.high):
        return None
    both: Any = ((r.value, r.low, r.high) for r in (on, off))
    found = unpaired_difference(*both)
    return None if found.low is None or found.high is None else (found.low, found.high)


def _change(found: Change | None, lang: str) -> Cell:
    """How a metric changed when it was switched off; bold where the interval excludes 0."""
    if found is None:
        return Cell(say("not measured", lang), "unknown")
    if found.low is None or found.high is None:
        return Cell(f"{found.delta:+.3f}", "value")
    text = f"{found.delta:+.3f} [{number(found.low, 3)}, {number(found.high, 3)}]"
    return Cell(text, "strong" if found.low > 0 or found.high < 0 else "value")


def _unpaired(on: RunRecord, off: RunRecord, name: str) -> Change | None:
    """The change from the two values and their intervals alone."""
    from results.tables import comparison

    mine, theirs = _metric(on, name), _metric(off, name)
    if mine is None or theirs is None:
        return None
    delta, low, high, _ = comparison.difference((on, mine), (off, theirs), None)
    return Change(delta=delta, low=low, high=high)


def _metric(record: RunRecord, name: str) -> Metric | None:
    held = [m for m in record.metrics if m.name == name]
    apart = [m for m in held if m.split != "train"]
    return next(iter(apart or held), None)


def _memory(record: RunRecord) -> Reading:
    """On a GPU what torch allocated, else the peak of the main process."""
    found = record.memory.vram_allocated_peak
    return found if found.value is not None else record.memory.rss_main_peak


def _kin(record: RunRecord) -> tuple[object, ...]:
    i = record.identity
    return (i.suite, i.engine, i.subset, i.model, i.seed, i.repeat)


def _signed(share: float) -> str:
    return f"{'+' if share >= 0 else '-'}{percent(abs(share))}"
