"""Suite views: data of a suite for reports, and records on the command line."""

from __future__ import annotations

import sys
from collections.abc import Callable, Collection, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

from results.records import cost_forecasts, notes, published_runs, store
from results.records.schema import RunRecord
from results.records.suite_view import RunCurves, SearchView, SuiteView
from results.tables import ablation
from results.text.sanitize import clean, clean_line, escape_json
from workbench import paths
from workbench.planning import plan
from workbench.reporting import (
    answer_examples,
    caption_examples,
    post_mortem,
    record_detail,
    suite_audit,
    suite_notes,
)
from workbench.slurm import collector
from workbench.suites import suite, suite_reader, trials
from workbench.suites.state import RunView

Example = TypeVar("Example")


def read_records(log_root: Path) -> list[RunRecord]:
    """The last attempt of every run under a log root, oldest first; those of jobs are collected."""
    collector.collect_records(log_root)
    lines = store.read_records(log_root / "results.jsonl")
    records = store.last_attempts(lines.all())
    if lines.trouble:
        print_message(lines.trouble)
    return records


def read_suite_records(folder: Path, log_records: list[RunRecord] | None = None) -> list[RunRecord]:
    """The records of one suite in plan order; `log_records`: all records, if already read."""
    order = {spec.run_id: number for number, (_, spec) in enumerate(suite.read_runs(folder))}
    everything = read_records(folder.parent) if log_records is None else log_records
    records = [r for r in everything if r.identity.suite == folder.name]
    return sorted(records, key=lambda r: order.get(r.identity.run_id, len(order)))


def build_view(
    folder: Path,
    selected: Collection[str] | None = None,
    log_records: list[RunRecord] | None = None,
) -> SuiteView:
    """All data of a suite that a report needs.

    Args:
        folder: The suite.
        selected: Ids of the runs that the report is of; None: all.
        log_records: All records of its log root, if already read.
    """
    state = suite_reader.SuiteReader(folder).poll()
    log_records = read_records(folder.parent) if log_records is None else log_records
    runs = [r for r in state.runs if selected is None or r.spec.run_id in selected]
    labels = {r.spec.run_id: r.spec.label for r in runs}
    records = [
        r
        for r in read_suite_records(folder, log_records)
        if r.identity.run_id not in state.to_retry
        and (selected is None or r.identity.run_id in labels)
    ]
    done = {r.identity.run_id for r in records}
    noted = read_suite_notes(folder.parent, folder.name)
    return SuiteView(
        name=folder.name,
        plan_toml=(folder / "plan.toml").read_text(encoding="utf-8"),
        started_wall=_start_time(folder, state.started_wall),
        state=state.warden,
        words=suite_notes.collect_words(folder, noted.get("", notes.RunNotes())),
        run_words=suite_notes.collect_run_words(folder, labels, noted),
        code_changes=suite_notes.read_code_changes(folder),
        recipes=suite_notes.read_recipe_words(r.spec.subset for r in runs),
        records=tuple(records),
        forecasts=_matching_forecasts(records, log_records),
        pending=tuple(r.spec.run_id for r in runs if r.spec.run_id not in done),
        curves={r.spec.run_id: _curves_of_run(r) for r in runs},
        notes={run: standing.findings for run, standing in noted.items() if run in {"", *labels}},
        states=_run_states(runs, noted),
        planned=tuple(
            suite_audit.planned_identity(r.spec) for r in runs if r.spec.run_id not in done
        ),
        search=_build_search(folder),
        audit=suite_audit.audit_suite(
            folder, [r for r in runs if r.spec.run_id not in state.to_retry], log_records, noted
        ),
        changes=ablation.compute_changes(records, folder.parent),
        captions=_collect_by_run(caption_examples.collect_caption_examples, records, folder),
        answers=_collect_by_run(answer_examples.collect_answer_examples, records, folder),
    )


def _curves_of_run(run: RunView) -> RunCurves:
    state = run.state
    return RunCurves(
        curves={name: list(curve.points) for name, curve in state.curves.items()},
        phases=tuple(
            (p.name, p.start, state.t if p.end is None else p.end) for p in state.phases
        ),
    )  # fmt: skip


def build_loose_view(
    log_root: Path,
    name: str,
    records: Sequence[RunRecord],
    selected: Collection[str] | None = None,
) -> SuiteView:
    """Records of one suite without a folder: imported, or it was deleted.

    `selected`: as in `build_view`.
    """
    noted, parts = read_suite_notes(log_root, name), dict[str, Any]()
    try:
        parts = suite_audit.read_published_parts(log_root, name, selected)
    except published_runs.PublishedError as error:
        print_message(f"{error}; import it again")
    planned = parts.get("planned", ())
    is_imported = planned or any(map(published_runs.is_imported, records))
    run_ids = {i.run_id for i in (*(r.identity for r in records), *planned)}
    noted_states = {run: standing.state for run, standing in noted.items() if standing.state}
    fields: dict[str, Any] = {
        **parts,
        "name": name,
        "state": "imported" if is_imported else "removed",
        "records": tuple(records),
        "words": suite_notes.collect_words(None, noted.get("", notes.RunNotes())),
        "notes": {run: s.findings for run, s in noted.items() if run in {"", *run_ids}},
        "states": parts.get("states", {}) | noted_states,
        "run_words": suite_notes.collect_run_words(
            None, {r.identity.run_id: r.identity.label for r in records}, noted
        ),
        "recipes": suite_notes.read_recipe_words(r.identity.subset for r in records),
        "audit": suite_audit.audit_imported(log_root, records, noted),
    }
    return SuiteView(**fields)


def read_suite_notes(log_root: Path, name: str) -> dict[str, notes.RunNotes]:
    """Current notes of a suite by run id; under `""` those of the whole suite."""
    standings = notes.reduce_notes(notes.read_notes(log_root / "notes.jsonl"))
    return {run: standing for (owner, run), standing in standings.items() if owner == name}


def _collect_by_run(
    collect: Callable[[RunRecord, Path, Path], tuple[Example, ...]],
    records: list[RunRecord],
    folder: Path,
) -> dict[str, tuple[Example, ...]]:
    """Examples of each run that has any. `collect`: of a record, log root and cache root."""
    cache_root = paths.cache_root()
    examples = {r.identity.run_id: collect(r, folder.parent, cache_root) for r in records}
    return {run: collected for run, collected in examples.items() if collected}


def _build_search(folder: Path) -> SearchView | None:
    """Plan and results of a search; None: the suite is no search."""
    if (
        trials.read_base(folder) is None
        or (search := plan.load(folder / "plan.toml").search) is None
    ):
        return None
    summary = trials.read_summary(folder)
    keys = ("metric", "split", "trials", "sampler", "pruner", "seed")
    return SearchView(
        **{key: getattr(search, key) for key in keys},
        direction=summary.direction or search.direction or "",
        ranges={name: values.describe() for name, values in search.ranges.items()},
        importances=summary.importances,
        trouble=summary.trouble,
    )


def _start_time(folder: Path, warden: float | None) -> float | None:
    """Creation time of the suite (a resumed suite has a later warden); None: not started."""
    return None if warden is None else min(warden, suite.read_creation_time(folder / "plan.toml"))


def _run_states(runs: Sequence[RunView], noted: Mapping[str, notes.RunNotes]) -> dict[str, str]:
    """State of each run in a word; a noted one takes precedence."""
    states = {r.spec.run_id: _run_state_word(r) for r in runs}
    return states | {run: standing.state for run, standing in noted.items() if standing.state}


def _run_state_word(run: RunView) -> str:
    """State of a run as a predefined state, else its exit cause."""
    if run.state.status != "ended":
        return "waiting" if run.state.status == "queued" else "running"
    return {"completed": "done", "stopped": "stopped"}.get(run.state.cause, run.state.cause)


def _matching_forecasts(
    records: list[RunRecord], log_records: list[RunRecord]
) -> tuple[RunRecord, ...]:
    """Records of cost probes, of any suite, that forecast one of the records."""
    sources = [cost_forecasts.find_forecast_run(record, log_records) for record in records]
    return tuple({id(r): r for r in sources if r is not None}.values())


def print_message(text: str) -> None:
    """A sentence on stderr."""
    print(f"workbench: {clean(text)}", file=sys.stderr)


def format_summary(folder: Path) -> str:
    """The tables of a suite as Markdown, for the end of a headless run."""
    from results import report

    log_records = read_records(folder.parent)
    records = read_suite_records(folder, log_records)
    view = SuiteView(
        name=folder.name,
        records=tuple(records),
        forecasts=_matching_forecasts(records, log_records),
        search=_build_search(folder),
    )
    return report.render_summary(view, str(folder.parent))


def find_record(log_records: Sequence[RunRecord], run_id: str, log_root: Path) -> RunRecord:
    """The record of a run named by its id, its label, `suite/id` or a part of an id.

    Of several matches: the newest run with exactly that id or label, else the newest one.

    Raises:
        SuiteError: no run fits.
    """
    exact = [r for r in log_records if run_id in (r.identity.run_id, r.identity.label)]
    parts = [r for r in log_records if run_id in f"{r.identity.suite}/{r.identity.run_id}"]
    if not (matches := exact or parts):
        raise suite.SuiteError(f"{log_root}: no run '{run_id}'; `workbench results list` has them")
    return matches[-1]


def show_record(log_root: Path, run_id: str, *, as_json: bool) -> None:
    """Print one record, and the post-mortem of a run that did not complete.

    Raises:
        SuiteError: see `find_record`.
    """
    from results.tables import memory_estimate, run_outputs

    log_records = read_records(log_root)
    record = find_record(log_records, run_id, log_root)
    if as_json:
        print(escape_json(record.model_dump_json()))
        return
    print("\n".join(record_detail.format_groups(record_detail.build_groups(record))))
    for compared in cost_forecasts.compare_with_forecast(record, log_records):
        source = compared.source.identity
        print(clean_line(f"{compared.scope}: {compared.sentence()}"))
        print("    " + clean_line(f"by {source.suite}/{source.run_id}"))
    if record.fit:
        print(clean_line(f"memory: {memory_estimate.sentence(record.fit)}"))
    if outputs := run_outputs.list_outputs(record):
        print("Files:")
    for output in outputs:
        print(
            "    " + clean_line(f"{output.kind:<12} {log_root / record.folder / output.path}", 4096)
        )
    if record.exit.cause not in ("completed", "pruned", "skipped"):
        for line in post_mortem.post_mortem_lines(
            log_root / record.folder, record.identity.attempt
        ):
            indent = line[: len(line) - len(line.lstrip(" "))]
            print(indent + clean_line(line))
