"""Documents: the suites of a report joined, with comparisons, rankings and judged criteria."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final, TypeVar

from results.comparison import history
from results.comparison.document_view import (
    DocumentView,
    JudgedCriterion,
    Kind,
    RunChange,
    SuitePart,
    merge_suites,
    qualify_run_ids,
)
from results.records.notes import RunNotes
from results.records.schema import RunRecord
from results.records.suite_view import RunWords, SuiteView, SuiteWords
from workbench.reporting import note_writer
from workbench.reporting.period import Period
from workbench.reporting.selection import SelectedSuite
from workbench.reporting.suite_view import (
    build_loose_view,
    build_view,
    read_suite_notes,
)

T = TypeVar("T")
DETAILED_KINDS: Final = frozenset({"study", "challenge", "run"})
"""Kinds that have each experiment in detail, with its baseline."""
RunKey = tuple[str, str]
"""Suite and run id."""


@dataclass(frozen=True)
class DocumentRequest:
    """What a report is of."""

    log_root: Path
    suites: Sequence[SelectedSuite]
    kind: Kind | None = None
    """None: chosen by what is selected."""
    period: Period | None = None


def build_documents(request: DocumentRequest, log_records: list[RunRecord]) -> list[DocumentView]:
    """The documents of a request: one, or one for each run of kind `run`.

    `log_records`: the last attempts of all runs of the log root.
    """
    views = [_build_view(request.log_root, s, log_records) for s in request.suites]
    kind = request.kind or choose_kind(request, views)
    if kind != "run":
        return [_build_document(request, kind, views, log_records)]
    documents = []
    for selected, view in zip(request.suites, views, strict=True):
        for run in [*(r.identity.run_id for r in view.records), *view.pending]:
            single = SelectedSuite(selected.name, selected.folder, frozenset({run}))
            of_run = _build_view(request.log_root, single, log_records)
            documents.append(_build_document(request, kind, [of_run], log_records))
    return documents


def choose_kind(request: DocumentRequest, views: Sequence[SuiteView]) -> Kind:
    """Days make it weekly, a whole suite `suite`, a run `run`; else by what the engines do."""
    if request.period is not None:
        return "weekly"
    if len(request.suites) == 1 and request.suites[0].runs is None:
        return "suite" if request.suites[0].folder else "study"
    if len(request.suites) == 1 and len(request.suites[0].runs or ()) == 1:
        return "run"
    identities = [i for v in views for i in (*(r.identity for r in v.records), *v.planned)]
    return "challenge" if {i.engine for i in identities} == {"vqa"} else "study"


def _build_view(log_root: Path, selected: SelectedSuite, log_records: list[RunRecord]) -> SuiteView:
    if selected.folder is not None:
        return build_view(selected.folder, selected.runs, log_records)
    records = [
        r
        for r in log_records
        if r.identity.suite == selected.name
        and (selected.runs is None or r.identity.run_id in selected.runs)
    ]
    return build_loose_view(log_root, selected.name, records, selected.runs)


def _build_document(
    request: DocumentRequest, kind: Kind, views: list[SuiteView], log_records: list[RunRecord]
) -> DocumentView:
    names = {v.name: [*(r.identity.run_id for r in v.records), *v.pending] for v in views}
    ids = qualify_run_ids(names)
    log_root, period = request.log_root, request.period
    records = [record for view in views for record in view.records]
    trash = note_writer.read_trash(log_root)
    others = [r for r in log_records if (r.identity.suite, r.identity.run_id) not in trash]
    pairs = _compare_with_baselines(views, others, ids, log_root) if kind in DETAILED_KINDS else {}
    target = _note_target(kind, views, period)
    noted = read_suite_notes(log_root, target if period else "").get("", RunNotes())
    suite = merge_suites(views, _join_words(kind, views, noted))
    findings = (*noted.findings, *suite.notes.get("", ()))
    earlier = _earlier_records(period, others, records)
    return DocumentView(
        kind=kind,
        suite=suite.model_copy(
            update={"notes": {**suite.notes, **({"": findings} if findings else {})}}
        ),
        parts=tuple(_build_part(view, names[view.name], ids) for view in views),
        period=period.describe() if period else None,
        note_target=target,
        earlier_runs=len(earlier),
        changes=tuple(history.compare_with_period(records, earlier, ids, log_root)),
        baselines=tuple(change for change, _ in pairs.values()),
        rankings=tuple(history.rank_runs(records, ids, log_root)) if kind != "audit" else (),
        criteria=_judge(views, ids, {key: other for key, (_, other) in pairs.items()}),
    )


def _earlier_records(
    period: Period | None, log_records: Sequence[RunRecord], records: Sequence[RunRecord]
) -> list[RunRecord]:
    """Records of the earlier period, of all suites."""
    if period is None:
        return []
    keys = {(r.identity.suite, r.identity.run_id) for r in records}
    return [
        r
        for r in log_records
        if period.earlier.holds_run(r) and (r.identity.suite, r.identity.run_id) not in keys
    ]


def _compare_with_baselines(
    views: Sequence[SuiteView],
    log_records: Sequence[RunRecord],
    ids: history.RunIds,
    log_root: Path,
) -> dict[RunKey, tuple[RunChange, RunRecord]]:
    """Each run's comparison with its baseline, and the baseline, with its public score."""
    records = [record for view in views for record in view.records]
    standings = note_writer.read_standings(log_root)
    words = {(v.name, run): text for v in views for run, text in v.run_words.items()}
    named = {key: text.baseline for key, text in words.items() if text.baseline}
    pairs = {}
    for change, record, other in history.compare_with_baselines(
        records, log_records, named, ids, log_root
    ):
        key = (other.identity.suite, other.identity.run_id)
        score = standings.get(key, RunNotes()).public_score
        scored = change.model_copy(update={"public_score": score})
        pairs[record.identity.suite, record.identity.run_id] = (scored, other)
    return pairs


def _judge(
    views: Sequence[SuiteView], ids: history.RunIds, baselines: dict[RunKey, RunRecord]
) -> dict[str, tuple[JudgedCriterion, ...]]:
    judged = {}
    for view in views:
        for record in view.records:
            key = (view.name, record.identity.run_id)
            criteria = view.run_words.get(key[1], RunWords()).criteria
            if criteria:
                judged[ids[key]] = history.judge_criteria(criteria, record, baselines.get(key))
    return judged


def _build_part(view: SuiteView, runs: Sequence[str], ids: history.RunIds) -> SuitePart:
    return SuitePart(
        name=view.name,
        started_wall=view.started_wall,
        state=view.state,
        plan_toml=view.plan_toml,
        words=view.words,
        runs=tuple(ids[view.name, run] for run in dict.fromkeys(runs)),
    )


def _note_target(kind: Kind, views: Sequence[SuiteView], period: Period | None) -> str:
    """What the document's own texts are noted on: its week, else its run, else its last suite."""
    if period is not None:
        return period.note_target
    last = views[-1]
    if kind == "run":
        run = next(iter((*(r.identity.run_id for r in last.records), *last.pending)), "")
        return f"{last.name}/{run}"
    return last.name


def _join_words(kind: Kind, views: Sequence[SuiteView], noted: RunNotes) -> SuiteWords | None:
    """Texts of the document: those noted on it, then those of its suites; None: its suite's."""
    if kind in ("suite", "study", "audit", "challenge") and len(views) == 1:
        return None
    words = [view.words for view in views]
    reasons: dict[str, list[str]] = {}
    for source in (*words, noted):
        for name, reason in source.reasons.items():
            if name or source is noted:
                reasons.setdefault(name, []).append(reason)
    alone = kind == "run"
    return SuiteWords(
        title=noted.title or _single([w.title for w in words if not alone]),
        goal=noted.goal or _single([w.goal for w in words]),
        background=noted.background or _single([w.background for w in words]),
        conclusion=noted.conclusion,
        next_steps=_flatten([noted.next_steps, *(w.next_steps for w in words if not alone)]),
        events=_flatten([noted.events, *(w.events for w in words)]),
        links=_flatten([noted.links, *(w.links for w in words)]),
        reasons={name: "; ".join(dict.fromkeys(texts)) for name, texts in reasons.items()},
    )


def _single(texts: Sequence[str]) -> str:
    """The text that all suites share; empty where they differ."""
    distinct = set(texts)
    return distinct.pop() if len(distinct) == 1 else ""


def _flatten(parts: Sequence[tuple[T, ...]]) -> tuple[T, ...]:
    return tuple(dict.fromkeys(entry for part in parts for entry in part))
