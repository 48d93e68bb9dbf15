"""Input of a report: runs of one or several suites as one `DocumentView`.

`merge_suites` joins suites into one `SuiteView`, whose run ids are unique.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import Any, Final, Literal, TypeVar

from pydantic import Field

from results.records.schema import RunRecord
from results.records.suite_view import SuiteView, SuiteViewPart, SuiteWords

Kind = Literal["suite", "weekly", "study", "audit", "challenge", "run"]
KINDS: Final[tuple[Kind, ...]] = ("suite", "weekly", "study", "audit", "challenge", "run")

T = TypeVar("T")
BY_RUN: Final = (
    "curves", "states", "changes", "captions", "answers", "run_words", "planned_facts", "reported",
)  # fmt: skip
"""Parts of a suite's view by run id, beside its notes."""
NOT_STATED: Final = "?"
"""A setting that the source of an imported run does not state."""
AT_WORK: Final = frozenset({"starting", "queued", "running", "paused", "stopping"})
"""States of a suite that is not over."""
_TIME: Final = re.compile(r"^\d{8}-\d{6}-")


class ReportPeriod(SuiteViewPart):
    """Days of a report, as dates, and those that it is compared with."""

    first: str
    last: str
    earlier_first: str
    earlier_last: str


class SuitePart(SuiteViewPart):
    """A suite of a document that joins several."""

    name: str
    started_wall: float | None = None
    state: str = ""
    plan_toml: str = ""
    words: SuiteWords = SuiteWords()
    findings: tuple[str, ...] = ()
    runs: tuple[str, ...] = ()
    """Ids of its runs in the document; with a record or without."""


class ValueChange(SuiteViewPart):
    """A metric or cost of two runs."""

    name: str
    split: str = ""
    """Empty: a cost, in seconds or bytes."""
    before: float
    after: float
    delta: float
    """After less before; the mean over items where these were compared, of BLEU too."""
    low: float | None = None
    """Lower limit of the interval of `delta`; None: there is no interval."""
    high: float | None = None
    verdict: Literal["better", "worse", "equal", "not distinguishable", "no interval"]


class RunChange(SuiteViewPart):
    """A run compared with an earlier one."""

    run: str
    """Its id in the document."""
    baseline: str
    """`suite/id` of the run that it is compared with."""
    label: str = ""
    """Label of the baseline run."""
    relation: Literal["named", "previous", "first", "earlier"]
    """See `results.comparison.experiments`."""
    values: tuple[ValueChange, ...] = ()
    settings: tuple[tuple[str, str, str], ...] = ()
    """Name, before, after; `–`: not set; `?`: the source of an imported run does not state it."""
    others: tuple[str, ...] = ()
    """What else differs: data, model, seed, code, versions, hardware."""
    public_score: str = ""
    """Public score of the baseline run."""


class RankedRuns(SuiteViewPart):
    """Runs that differ by their seed, at their place of a ranking."""

    runs: tuple[str, ...]
    """Ids in the document."""
    value: float
    low: float | None = None
    high: float | None = None
    n: int
    verdict: Literal["best", "worse", "not distinguishable", "no interval"]
    """Compared with the best."""


class Ranking(SuiteViewPart):
    """Runs by the headline metric of a split, best first."""

    split: str
    metric: str
    places: tuple[RankedRuns, ...]


def is_best_alone(ranking: Ranking) -> bool:
    """Whether every other place is distinguishably worse than the first."""
    return all(entry.verdict == "worse" for entry in ranking.places[1:])


class JudgedCriterion(SuiteViewPart):
    """A success criterion, judged."""

    text: str
    value: float | None = None
    low: float | None = None
    high: float | None = None
    verdict: Literal["met", "not met", "not measured"]
    certain: bool = True
    """False: the interval of the value holds the bound."""


class DocumentView(SuiteViewPart):
    """A report's content; the only input of `results.report`."""

    kind: Kind = "suite"
    suite: SuiteView
    """All runs, those of several suites as one suite."""
    parts: tuple[SuitePart, ...] = ()
    """The suites; empty: `suite` is one."""
    period: ReportPeriod | None = None
    note_target: str = ""
    """What `workbench results note` is given for the document's own texts."""
    earlier_runs: int = 0
    """Number of runs of the earlier period."""
    changes: tuple[RunChange, ...] = ()
    """Against the earlier period."""
    baselines: tuple[RunChange, ...] = ()
    """Against the previous version of an experiment, or its baseline."""
    rankings: tuple[Ranking, ...] = ()
    criteria: dict[str, tuple[JudgedCriterion, ...]] = Field(default={})
    """By run id."""


def qualify_run_ids(names: Mapping[str, Sequence[str]]) -> dict[tuple[str, str], str]:
    """(suite, run id) -> an id that no other run of these suites has.

    An id that several suites have is preceded by its suite without date and time, which is a part
    of `suite/id` and so names the run for every command: `demo-2ba0/01-retrieval-emoji_train`.
    With its date and time, where that is not unique either.
    """
    pairs = [(suite, run) for suite, runs in names.items() for run in dict.fromkeys(runs)]
    counts = Counter(run for _, run in pairs)
    counts_with_suite = Counter((short_suite_name(suite), run) for suite, run in pairs)

    def qualify(suite: str, run: str) -> str:
        if counts[run] == 1:
            return run
        short = short_suite_name(suite)
        return f"{short if counts_with_suite[short, run] == 1 else suite}/{run}"

    return {(suite, run): qualify(suite, run) for suite, run in pairs}


def short_suite_name(name: str) -> str:
    """A suite's name without date and time: `demo-2ba0`."""
    return _TIME.sub("", name)


def merge_suites(suites: Sequence[SuiteView], words: SuiteWords | None = None) -> SuiteView:
    """Suites as one, with the texts of the document; run ids by `qualify_run_ids`."""
    ids = qualify_run_ids({suite.name: _run_ids(suite) for suite in suites})
    names_of_suites = Counter(name for suite in suites for name in _run_names(suite))
    shared = {name for name, count in names_of_suites.items() if count > 1}
    views = [_rename_runs(suite, ids, shared) for suite in suites]
    if len(views) == 1 and words is None:
        return views[0]
    searches = [view.search for view in views if view.search is not None]
    run_notes = {run: texts for view in views for run, texts in view.notes.items() if run}
    findings = tuple(text for view in views for text in view.notes.get("", ()))
    forecasts = {(r.identity.suite, r.identity.run_id): r for v in views for r in v.forecasts}
    joined: dict[str, Any] = {
        name: {key: value for view in views for key, value in getattr(view, name).items()}
        for name in (*BY_RUN, "recipes", "published_effects")
    }
    for name in ("records", "pending"):
        joined[name] = tuple(entry for view in views for entry in getattr(view, name))
    labels = {r.identity.label for view in views for r in view.records} - {""}
    joined["planned"] = tuple(
        identity
        for view in views
        for identity in view.planned
        if view.state != "imported" or identity.label not in labels  # a plan that was carried out
    )
    for name in ("charts", "checks", "comparisons", "code_changes"):
        joined[name] = tuple(_unique(entry for view in views for entry in getattr(view, name)))
    return SuiteView(
        name=", ".join(short_suite_name(view.name) for view in views),
        started_wall=min((v.started_wall for v in views if v.started_wall), default=None),
        state=_merge_states([view.state for view in views]),
        words=words or SuiteWords(),
        forecasts=tuple(forecasts.values()),
        notes={**({"": findings} if findings else {}), **run_notes},
        audit=_merge_audits(views),
        search=searches[0] if len(searches) == 1 else None,
        **joined,
    )


def _merge_states(states: Sequence[str]) -> str:
    """The state that all have; of different ones `running`, if one is at work, else `ended`."""
    if len(set(states)) == 1:
        return states[0]
    return "running" if AT_WORK.intersection(states) else "ended"


def _run_ids(suite: SuiteView) -> list[str]:
    return list(dict.fromkeys([*(r.identity.run_id for r in suite.records), *suite.pending]))


def _run_names(suite: SuiteView) -> set[str]:
    """Ids and labels: what an audit calls the runs of a suite."""
    identities = [*(r.identity for r in suite.records), *suite.planned]
    return {*_run_ids(suite), *(i.label for i in identities)} - {""}


def name_in_audit(suite: str, name: str) -> str:
    """A name in the audit of several suites, where runs of more than one are called so."""
    return f"{short_suite_name(suite)}/{name}"


def _rename_runs(
    suite: SuiteView, ids: Mapping[tuple[str, str], str], shared: Collection[str]
) -> SuiteView:
    """The suite with its runs by their ids in the document. `shared`: names of audits that runs of
    several suites have."""

    def rename(run: str) -> str:
        return ids.get((suite.name, run), run)

    def rename_record(record: RunRecord) -> RunRecord:
        identity = record.identity
        update = {"run_id": rename(identity.run_id)}
        return record.model_copy(update={"identity": identity.model_copy(update=update)})

    update: dict[str, Any] = {
        name: {rename(run): value for run, value in getattr(suite, name).items()}
        for name in (*BY_RUN, "notes")
    }
    update["records"] = tuple(map(rename_record, suite.records))
    update["pending"] = tuple(map(rename, suite.pending))
    update["planned"] = tuple(
        identity.model_copy(update={"run_id": rename(identity.run_id)})
        for identity in suite.planned
    )
    update["audit"] = tuple(
        row.model_copy(update={"runs": tuple(
            name_in_audit(suite.name, name) if name in shared else name for name in row.runs
        )})
        for row in suite.audit
    )  # fmt: skip
    return suite.model_copy(update=update)


def _merge_audits(views: Sequence[SuiteView]) -> tuple[Any, ...]:
    """Faults of all, then each rule once that none of them broke."""
    rows = [row for view in views for row in view.audit]
    faults = list(_unique(row for row in rows if row.standing == "fault"))
    codes = {row.code for row in faults}
    rest = {row.code: row for row in rows if row.code not in codes}
    return (*faults, *rest.values())


def _unique(entries: Iterable[T]) -> list[T]:
    kept: list[T] = []
    for entry in entries:
        if not any(entry == other for other in kept):
            kept.append(entry)
    return kept
