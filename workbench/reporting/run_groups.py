"""Runs by the names that a person gives: an id, `suite/id`, or a label that several seeds share."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from results.comparison.groups import RunGroup
from results.records.schema import RunRecord
from workbench.reporting.suite_view import read_records
from workbench.suites.suite import SuiteError


def find_groups(log_root: Path, names: Sequence[str]) -> list[RunGroup]:
    """A group of completed runs for each name.

    Raises:
        SuiteError: no completed run has the name, or runs of several subsets, models or suites;
            two names are of one run.
    """
    records = [r for r in read_records(log_root) if r.exit.cause == "completed"]
    groups = [RunGroup(name, _find_runs(records, name, log_root)) for name in names]
    titles: dict[str, str] = {}
    for group in groups:
        for run in (_names(record)[0] for record in group.records):
            if run in titles:
                raise SuiteError(
                    f"'{titles[run]}' and '{group.title}' are one run, {run}; name another one"
                )
        titles |= dict.fromkeys((_names(record)[0] for record in group.records), group.title)
    return groups


def _find_runs(records: Sequence[RunRecord], name: str, log_root: Path) -> tuple[RunRecord, ...]:
    """Whole names first: an id, a label, `suite/id`, `suite/label`; then a part of `suite/id`."""
    if not name.strip():
        raise SuiteError("the name of a run is empty; `workbench results list` has them")
    exact = [r for r in records if name in _names(r)]
    matches = exact or [r for r in records if name in _names(r)[0]]
    if not matches:
        raise SuiteError(
            f"{log_root}: no completed run '{name}'; `workbench results list` has them"
        )
    kinds = {(r.identity.suite, r.identity.subset, r.identity.model, r.identity.label,
              r.identity.task) for r in matches}  # fmt: skip
    if len(kinds) > 1:
        examples = ", ".join(_names(r)[0] for r in matches[:3])
        more = ", …" if len(matches) > 3 else ""
        raise SuiteError(
            f"'{name}' fits {len(matches)} runs that differ in more than their seed "
            f"({examples}{more}); give suite/run or suite/label"
        )
    return tuple(matches)


def _names(record: RunRecord) -> list[str]:
    """`suite/id` first."""
    identity = record.identity
    names = [f"{identity.suite}/{identity.run_id}", identity.run_id]
    if identity.label:
        names += [identity.label, f"{identity.suite}/{identity.label}"]
    return names
