"""Names of runs in sentences and headings, as short as they can be without ambiguity."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime

from results.records.schema import Identity, RunRecord
from results.records.suite_view import SuiteView
from results.text.table import code, escape
from results.text.translations import translate


def title_of_run(view: SuiteView, run: str) -> str:
    """The shortest name that no other run has: label, subset, subset and model, id; Markdown."""
    identities = list_identities(view)
    identity = next((i for i in identities if i.run_id == run), None)
    if identity is None:
        return code(run)
    for fields in (("label",), ("subset",), ("subset", "model"), ("label", "subset")):
        values = [getattr(identity, name) for name in fields]
        equal = [i for i in identities if [getattr(i, name) for name in fields] == values]
        if all(values) and len(equal) == 1:
            pairs = zip(fields, values, strict=True)
            return " · ".join(escape(v) if name == "label" else code(v) for name, v in pairs)
    return code(run)


def title_of_runs(view: SuiteView, runs: Sequence[str], lang: str) -> str:
    """Of runs that differ by their seed: the common label, else the first run's id, and a count."""
    if len(runs) == 1:
        return title_of_run(view, runs[0])
    labels = {i.label for i in list_identities(view) if i.run_id in runs}
    name = escape(labels.pop()) if len(labels) == 1 and labels != {""} else code(runs[0])
    return translate("document.seeds", lang).format(name, len(runs))


def list_identities(view: SuiteView) -> list[Identity]:
    """Identities of all runs, with a record or planned."""
    return [*(record.identity for record in view.records), *view.planned]


def main_runs(records: Sequence[RunRecord]) -> list[RunRecord]:
    """Experiments: folds that an ensemble of their suite has joined are left out."""
    joined = {
        (i.suite, i.label, i.seed, i.repeat)
        for i in (r.identity for r in records)
        if i.task == "ensemble"
    }
    return [
        r
        for r in records
        if r.identity.task == "ensemble"
        or not r.identity.params.get("folds")
        or (r.identity.suite, r.identity.label, r.identity.seed, r.identity.repeat) not in joined
    ]


def failed_runs(records: Sequence[RunRecord]) -> list[RunRecord]:
    """Runs that did not complete, though nobody skipped them and no search pruned them."""
    return [r for r in records if r.exit.cause not in ("completed", "pruned", "skipped")]


def format_date(wall: float | None) -> str:
    """The day of a Unix time, in UTC; empty: not known."""
    return "" if wall is None else datetime.fromtimestamp(wall, UTC).strftime("%Y-%m-%d")
