"""The audit of a suite on disk: its specs, records, learning rates and what people wrote."""

from __future__ import annotations

import contextlib
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import Any

from engines.protocol import RunSpec
from results.records import published_parts, published_runs
from results.records.notes import RunNotes
from results.records.schema import Identity, RunRecord
from results.records.suite_view import AuditRow
from workbench import paths
from workbench.audit import collect
from workbench.audit.rules import audit_runs
from workbench.reporting import suite_notes
from workbench.suites.state import RunView


def audit_suite(
    folder: Path,
    runs: Sequence[RunView],
    log_records: Sequence[RunRecord],
    noted: Mapping[str, RunNotes],
) -> tuple[AuditRow, ...]:
    """The audit of these runs of a suite. `log_records`: of all suites of the log root; `noted`: by
    run id.
    """
    record_of_run = {r.identity.run_id: r for r in log_records if r.identity.suite == folder.name}
    reasons = suite_notes.read_planned_reasons(suite_notes.read_plan_table(folder))
    statements = {
        run.spec.run_id: (
            reasons.get(run.spec.label, ""),
            *noted.get(run.spec.run_id, RunNotes()).findings,
        )
        for run in runs
    }
    rates = {
        run.spec.run_id: run.state.curves["lr"].values() for run in runs if "lr" in run.state.curves
    }
    pairs = [
        (record.identity if record else planned_identity(run.spec), record)
        for run in runs
        for record in [record_of_run.get(run.spec.run_id)]
    ]
    facts = collect.collect_from_records(
        pairs, folder.parent, paths.cache_root(), rates, statements, log_records
    )
    return tuple(audit_runs(facts))


def audit_imported(
    log_root: Path, records: Sequence[RunRecord], noted: Mapping[str, RunNotes]
) -> tuple[AuditRow, ...]:
    """The audit of imported records, which have no folder. `noted`: by run id.

    What their file reports in words of its own counts as said of them, as their findings do.
    """
    statements: dict[str, tuple[str, ...]] = {}
    for name in {record.identity.suite for record in records}:
        with contextlib.suppress(published_runs.PublishedError):
            reported = read_published_parts(log_root, name).get("reported", {})
            statements |= {run: (" ".join(words.values()),) for run, words in reported.items()}
    for run, standing in noted.items():
        statements[run] = (*statements.get(run, ()), *standing.findings)
    pairs = [(record.identity, record) for record in records]
    facts = collect.collect_from_records(pairs, log_root, paths.cache_root(), {}, statements)
    return tuple(audit_runs(facts))


def read_published_parts(
    log_root: Path, name: str, selected: Collection[str] | None = None
) -> dict[str, Any]:
    """What the file of an imported suite says beside its records; empty: it was not kept.

    Raises:
        PublishedError: the copy is damaged.
    """
    path = published_runs.copy_path(log_root, name)
    if not path.is_file():
        return {}
    return published_parts.collect_parts(published_runs.read_file(path), selected)


def planned_identity(spec: RunSpec) -> Identity:
    """Identity of a run that has no record yet."""
    names = ("suite", "run_id", "engine", "task", "subset", "model", "params", "seed", "label")
    return Identity(**{name: getattr(spec, name) for name in names})
