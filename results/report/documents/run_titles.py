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
    return _find_title(view, [run])


def _find_title(view: SuiteView, runs: Sequence[str]) -> str:
    """The shortest name that these runs have and no other has; the first id if none is."""
    identities = list_identities(view)
    identity = next((i for i in identities if i.run_id == runs[0]), None)
    if identity is None:
        return code(runs[0])
    for fields in (("label",), ("subset",), ("subset", "model"), ("label", "subset")):
        values = [getattr(identity, name) for name in fields]
        equal = {i.run_id for i in identities if [getattr(i, name) for name in fields] == values}
        if all(values) and equal <= {*runs}:
            pairs = zip(fields, values, strict=True)
            return " · ".join(escape(v) if name == "label" else code(v) for name, v in pairs)
    return code(runs[0])


def title_of_runs(view: SuiteView, runs: Sequence[str], lang: str) -> str:
    """Of runs that differ by their seed: the name that they share, and a count."""
    name = _find_title(view, runs)
    return name if len(runs) == 1 else translate("document.seeds", lang).format(name, len(runs))


def list_identities(view: SuiteView) -> list[Identity]:
    """Identities of all runs, with a record or planned."""
    return [*(record.identity for record in view.records), *view.planned]


def list_waiting(view: SuiteView) -> list[Identity]:
    """Planned runs that are still to come; not those whose source says that they are earlier."""
    return [i for i in view.planned if view.states.get(i.run_id, "waiting") == "waiting"]


def main_runs(records: Sequence[RunRecord]) -> list[RunRecord]:
    """Experiments: folds that an ensemble of their suite has joined are left out."""
    joined = {_cell_key(r.identity) for r in records if r.identity.task == "ensemble"}
    return [
        r
        for r in records
        if r.identity.task == "ensemble"
        or not r.identity.params.get("folds")
        or _cell_key(r.identity) not in joined
    ]


def _cell_key(identity: Identity) -> tuple[object, ...]:
    """What folds and their ensemble have in common, and other folds of the suite have not."""
    i = identity
    return i.suite, i.engine, i.subset, i.model, i.label, i.seed, i.repeat


def failed_runs(records: Sequence[RunRecord]) -> list[RunRecord]:
    """Runs that did not complete, though nobody skipped them and no search pruned them."""
    return [r for r in records if r.exit.cause not in ("completed", "pruned", "skipped")]


def format_date(wall: float | None) -> str:
    """The day of a Unix time, in UTC; empty: not known."""
    return "" if wall is None else datetime.fromtimestamp(wall, UTC).strftime("%Y-%m-%d")
