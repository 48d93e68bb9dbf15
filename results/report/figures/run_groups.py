"""Runs of a figure: those that differ by their seed (or fold) as one group, with a short name."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Final, NamedTuple

from results.records.schema import Identity, RunRecord
from results.records.suite_view import SuiteView
from results.report.figures.drawing import FigureText
from results.tables import run_cells

NAME_FIELDS: Final = (
    ("label",),
    ("model_title",),
    ("label", "model_title"),
    ("label", "model_title", "task"),
    ("subset", "model_title"),
    ("label", "subset", "model_title", "task"),
)
"""Fields of names, the shortest first."""


class FigureGroup(NamedTuple):
    """Runs that are one line, box or point of a figure."""

    runs: tuple[str, ...]
    identity: Identity
    """Of the first."""
    flags: tuple[str, ...] = ()
    records: tuple[RunRecord, ...] = ()

    @property
    def count_key(self) -> str:
        """Word for what its runs differ by."""
        return "folds" if self.identity.params.get("folds") else "seeds"


def group_runs(view: SuiteView, runs: Iterable[str]) -> list[FigureGroup]:
    """Groups of the runs in their order; a run that nothing is known of is a group of its own."""
    records = {r.identity.run_id: r for r in view.records}
    identities = {run: r.identity for run, r in records.items()}
    identities |= {i.run_id: i for i in view.planned if i.run_id not in records}
    members: dict[str, list[str]] = {}
    for run in runs:
        members.setdefault(_group_key(run, identities.get(run)), []).append(run)
    groups = []
    for group in members.values():
        of_group = tuple(records[run] for run in group if run in records)
        flags = dict.fromkeys(flag for record in of_group for flag in run_cells.flags(record))
        first = identities.get(group[0]) or Identity(
            suite="", run_id=group[0], engine="", task="", subset="", model="", label=group[0]
        )
        groups.append(FigureGroup(tuple(group), first, tuple(flags), of_group))
    return groups


def _group_key(run: str, identity: Identity | None) -> str:
    if identity is None:
        return run
    i = identity
    params = sorted((k, v) for k, v in i.params.items() if k != "fold")
    return repr((i.suite, i.engine, i.task, i.subset, i.model, i.label, params))


def name_groups(groups: Sequence[FigureGroup], text: FigureText) -> list[str]:
    """The shortest names that tell the groups apart and can be drawn, else run ids."""
    for fields in NAME_FIELDS:
        names = [
            " · ".join(filter(None, (str(getattr(g.identity, field)) for field in fields)))
            for g in groups
        ]
        drawable = all(name and text.can_draw_all(name) for name in names)
        if drawable and len(set(names)) == len(names):
            return names
    return [group.runs[0] for group in groups]
