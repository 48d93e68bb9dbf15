"""Experiments as ids with versions: `E5-v3` follows `E5-v2`, which follows `E5`.

Finds the run that a run is to be compared with, and the nearest run of an earlier period.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, Final, Literal, NamedTuple

from results.records import cost_forecasts
from results.records.schema import RunRecord

_VERSION: Final = re.compile(r"(?P<name>.+?)[-_. ]?v(?P<number>\d+)", re.IGNORECASE)
PATH_SETTINGS: Final = frozenset({"data_root", "image_root", "sample_submission"})
"""Settings that name places of a machine: two runs that differ in these alone are alike."""

Relation = Literal["named", "previous", "first", "earlier"]
"""Of a run to the one that it is compared with: the plan names it; its previous version; the first
of its suite; the nearest of the earlier period."""


class Experiment(NamedTuple):
    """A label in its two parts; a label without a version is version 1."""

    name: str
    version: int


def split_label(label: str) -> Experiment:
    """`E5-v3` -> (`E5`, 3)."""
    match = _VERSION.fullmatch(label)
    return Experiment(match["name"], int(match["number"])) if match else Experiment(label, 1)


def find_baseline(
    record: RunRecord, records: Iterable[RunRecord], named: str = ""
) -> tuple[RunRecord, Relation] | None:
    """The completed run that a run is compared with.

    The one that the plan names; else the previous version of its label, of any suite; else the
    first of its suite with the same engine, task and subset. Of several (seeds, repetitions) the
    one of the same subset and seed, then the latest. None: there is none.
    """
    others = [r for r in records if _is_comparable(r, record)]
    if named:
        matches = [r for r in others if named in _names(r)]
        return (_nearest(record, matches), "named") if matches else None
    experiment = split_label(record.identity.label)
    if experiment.name:
        versions = [(split_label(r.identity.label), r) for r in others if r.identity.label]
        earlier = [pair for pair in versions if pair[0].name == experiment.name
                   and pair[0].version < experiment.version]  # fmt: skip
        if earlier:
            last = max(pair[0].version for pair in earlier)
            return _nearest(record, [r for pair, r in earlier if pair.version == last]), "previous"
    of_suite = [r for r in others if r.identity.suite == record.identity.suite
                and r.identity.subset == record.identity.subset]  # fmt: skip
    first = min(of_suite, key=_number, default=None)
    if first is None or _number(first) >= _number(record):
        return None
    return first, "first"


def find_earlier(record: RunRecord, records: Iterable[RunRecord]) -> RunRecord | None:
    """The nearest run of an earlier period: same engine, task, subset, model and experiment.

    Of several the one with the fewest changed settings, then of the same seed, then the latest.
    """
    name = split_label(record.identity.label).name
    matches = [
        r
        for r in records
        if _is_comparable(r, record)
        and (r.identity.subset, r.identity.model) == (record.identity.subset, record.identity.model)
        and split_label(r.identity.label).name == name
    ]
    if not matches:
        return None
    return min(
        matches,
        key=lambda r: (
            len(changed_settings(r, record)),
            r.identity.seed != record.identity.seed,
            -(r.ended_wall or 0.0),
        ),
    )


def changed_settings(before: RunRecord, after: RunRecord) -> list[tuple[str, Any, Any]]:
    """(name, before, after) of every setting that differs; None: it was not set."""
    first, second = (dict(_list_settings(r.identity.params)) for r in (before, after))
    names = dict.fromkeys((*first, *second))
    return [
        (name, first.get(name), second.get(name))
        for name in names
        if name not in PATH_SETTINGS and first.get(name) != second.get(name)
    ]


def _list_settings(params: Mapping[str, Any]) -> Iterator[tuple[str, Any]]:
    """(name, value); of the stages of a training `stage 1: lr`."""
    for name, value in params.items():
        if name == "stages" and isinstance(value, list | tuple):
            for number, stage in enumerate(value, 1):
                settings = stage.items() if isinstance(stage, dict) else [("", stage)]
                yield from ((f"stage {number}: {key}", v) for key, v in settings if v is not None)
        else:
            yield name, value


def _is_comparable(other: RunRecord, record: RunRecord) -> bool:
    """Whether it is another, completed run of the same kind and fold."""
    a, b = other.identity, record.identity
    return (
        (a.suite, a.run_id) != (b.suite, b.run_id)
        and other.exit.cause == "completed"
        and (a.engine, a.task, a.params.get("fold")) == (b.engine, b.task, b.params.get("fold"))
        and cost_forecasts.is_cost_probe(other) == cost_forecasts.is_cost_probe(record)
    )


def _names(record: RunRecord) -> tuple[str, ...]:
    identity = record.identity
    return identity.label, identity.run_id, f"{identity.suite}/{identity.run_id}"


def _number(record: RunRecord) -> int:
    """Place in its suite: run ids begin with it."""
    number = record.identity.run_id.partition("-")[0]
    return int(number) if number.isdecimal() else 0


def _nearest(record: RunRecord, matches: Sequence[RunRecord]) -> RunRecord:
    identity = record.identity
    return min(
        matches,
        key=lambda r: (
            r.identity.subset != identity.subset,
            r.identity.seed != identity.seed,
            r.identity.suite != identity.suite,
            -(r.ended_wall or 0.0),
        ),
    )
