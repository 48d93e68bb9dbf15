"""Records and reports on the command line.

Figures need matplotlib; reports are made by a child, `python -m results.report`, so that the
workbench itself stays small.
"""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from engines.protocol import RunSpec
from results.records import cost_forecasts, notes, query, store
from results.records.schema import Identity, RunRecord
from results.records.suite_view import RunCurves, SearchView, SuiteView
from results.tables import ablation
from results.text import formats
from results.text.sanitize import clean, clean_line, escape_json
from workbench import paths
from workbench.exit_codes import ExitStatus
from workbench.planning import plan
from workbench.reporting import answer_examples, caption_examples, post_mortem, suite_notes
from workbench.suites import suite, trials
from workbench.suites.state import RunView


def records(log_root: Path) -> list[RunRecord]:
    """The last attempt of every run under a log root, oldest first."""
    lines = store.read(log_root / "results.jsonl")
    found = query.last_attempts(lines.all())
    if lines.trouble:
        _talk(lines.trouble)
    return found


def suite_records(folder: Path, known: list[RunRecord] | None = None) -> list[RunRecord]:
    """The records of one suite in plan order; `known`: all records, where they are read already."""
    order = {spec.run_id: number for number, (_, spec) in enumerate(suite.runs(folder))}
    everything = records(folder.parent) if known is None else known
    found = [r for r in everything if r.identity.suite == folder.name]
    return sorted(found, key=lambda r: order.get(r.identity.run_id, len(order)))


def view(folder: Path) -> SuiteView:
    """A suite folded for a report."""
    state = suite.Reader(folder).poll()
    everything = records(folder.parent)
    again = suite.again(folder, state)
    found = [r for r in suite_records(folder, everything) if r.identity.run_id not in again]
    done = {r.identity.run_id for r in found}
    standings = notes.standings(notes.read(folder.parent / "notes.jsonl"))
    noted = {run: one for (name, run), one in standings.items() if name == folder.name}
    return SuiteView(
        name=folder.name,
        plan_toml=(folder / "plan.toml").read_text(encoding="utf-8"),
        started_wall=_started(folder, state.started_wall),
        state=state.warden,
        words=suite_notes.of(folder, noted.get("", notes.Standing())),
        recipes=suite_notes.recipes(r.spec.subset for r in state.runs),
        records=tuple(found),
        forecasts=_forecasts(found, everything),
        pending=tuple(r.spec.run_id for r in state.runs if r.spec.run_id not in done),
        curves={
            r.spec.run_id: RunCurves(
                curves={name: list(curve.points) for name, curve in r.state.curves.items()}
            )
            for r in state.runs
        },
        notes={run: standing.findings for run, standing in noted.items()},
        states={
            **{r.spec.run_id: _state(r) for r in state.runs},
            **{run: standing.state for run, standing in noted.items() if standing.state},
        },
        planned=tuple(_identity(r.spec) for r in state.runs if r.spec.run_id not in done),
        search=_search(folder),
        changes=ablation.changes(found, folder.parent),
        captions={
            r.identity.run_id: shown
            for r in found
            if (shown := caption_examples.of_run(r, folder.parent, paths.cache_root()))
        },
        answers={
            r.identity.run_id: given
            for r in found
            if (given := answer_examples.of_run(r, folder.parent, paths.cache_root()))
        },
    )


def _search(folder: Path) -> SearchView | None:
    """What was asked of a search, and what it says of itself; None where the suite is none."""
    if trials.base(folder) is None or (asked := plan.load(folder / "plan.toml").search) is None:
        return None
    said = trials.summary(folder)
    keys = ("metric", "split", "trials", "sampler", "pruner", "seed")
    return SearchView(
        **{key: getattr(asked, key) for key in keys},
        direction=said.direction or asked.direction or "",
        ranges={name: values.words() for name, values in asked.ranges.items()},
        importances=said.importances,
        trouble=said.trouble,
    )


def _started(folder: Path, warden: float | None) -> float | None:
    """When the suite was made, at which its first warden starts; a resumed one has another."""
    return None if warden is None else min(warden, suite.created_wall(folder / "plan.toml"))


def _state(run: RunView) -> str:
    """The study's word for where a run is; a cause where it ended in none of these ways."""
    if run.state.status != "ended":
        return "waiting" if run.state.status == "queued" else "running"
    return {"completed": "done", "stopped": "stopped"}.get(run.state.cause, run.state.cause)


def _identity(spec: RunSpec) -> Identity:
    """What a run that has not ended is to be."""
    names = ("suite", "run_id", "engine", "task", "subset", "model", "params", "seed", "label")
    return Identity(**{name: getattr(spec, name) for name in names})


def _forecasts(found: list[RunRecord], everything: list[RunRecord]) -> tuple[RunRecord, ...]:
    """The costing runs, of any suite, that some of the records can be compared with."""
    sources = [cost_forecasts.match(record, everything) for record in found]
    return tuple({id(r): r for r in sources if r is not None}.values())


@dataclass(frozen=True)
class Wanted:
    """What a report has beside its usual parts."""

    appendix: bool = False
    """Counters and trained tensors of each run."""
    data: bool = False
    """The full check of each subset."""
    compare: tuple[str, str] | None = None
    """Two subsets, side by side."""
    eda: bool = False
    """Figures of what its subsets hold."""


def report(folder: Path, lang: str, out: Path | None, wanted: Wanted | None = None) -> ExitStatus:
    """Print the report, or write it with its figures into `out`.

    Raises:
        SuiteError: data that was asked for cannot be scanned.
    """
    wanted = wanted or Wanted()
    command = [sys.executable, "-m", "results.report", "-", "--lang", lang]
    command += ["--appendix"] if wanted.appendix else []
    found = _with_data(view(folder), wanted)
    if out is not None:
        command += ["--out", str(out)]
        found = _with_sheets(found)
    done = subprocess.run(command, input=found.model_dump_json().encode(), check=False)
    return ExitStatus.COMPLETED if done.returncode == 0 else ExitStatus.FAILED


def _with_data(found: SuiteView, wanted: Wanted) -> SuiteView:
    """With what a scan of its subsets says, where that was asked for."""
    from workbench.subsets import profile_process, report_charts, report_checks

    runs = [*(record.identity for record in found.records), *found.planned]
    drawn = report_charts.of_runs(runs, _talk) if wanted.eda else ()
    try:
        checks = report_checks.checks(runs, _talk) if wanted.data else ()
        pairs = [wanted.compare] if wanted.compare else []
        compared = tuple(report_checks.comparison(*pair, runs) for pair in pairs)
    except profile_process.ProfileError as error:
        raise suite.SuiteError(str(error)) from None
    update = {"checks": checks, "comparisons": compared, "charts": drawn}
    return found.model_copy(update=update)


def _talk(text: str) -> None:
    print(f"workbench: {clean(text)}", file=sys.stderr)


def _with_sheets(found: SuiteView) -> SuiteView:
    """With frames of the videos among its examples."""
    frames = {r.identity.run_id: r.identity.params.get("frames") or 8 for r in found.records}
    shown = {
        run: caption_examples.with_sheets(many, frames[run], paths.cache_root())
        for run, many in found.captions.items()
    }
    return found.model_copy(update={"captions": shown})


def summary(folder: Path) -> str:
    """The result tables of a suite as Markdown, for the end of a headless run."""
    from results.tables import (
        captioning,
        cost_forecast,
        memory_estimate,
        retrieval_cost,
        run_outputs,
        training_cost,
    )
    from results.tables.search_trials import table as trial_table
    from results.tables.table import markdown

    everything = records(folder.parent)
    found = suite_records(folder, everything)
    search, compared = _search(folder), cost_forecasts.of_suite(found, everything)
    first = [trial_table(found, search)] if search else []
    first += [captioning.experiments(found), cost_forecast.expected(found)]
    first += [cost_forecast.compared(compared)] if compared else []
    last = [retrieval_cost.cost(found), memory_estimate.table(found), training_cost.failures(found)]
    last += [run_outputs.table(found, root=str(folder.parent))]
    parts = [markdown(training_cost.cost(found)), training_cost.total(found)]
    parts += [markdown(table) for table in (*first, training_cost.train(found)) if table.rows]
    parts += _scores(found)
    parts += [markdown(table) for table in last if table.rows]
    return "\n\n".join(part.strip() for part in parts if part.strip())


def _scores(found: list[RunRecord]) -> Iterator[str]:
    """Captions, answers and other evaluations, split by split."""
    from results.tables import captioning, metrics, published, vqa
    from results.tables.table import code, markdown

    spoken, asked = captioning.of(found), vqa.of(found)
    for split in captioning.splits(spoken):
        yield f"Captions of {code(split)}\n\n{markdown(captioning.scores(spoken, split))}"
    if expected := published.table(asked):
        yield markdown(expected)
    for split in vqa.splits(asked):
        yield f"Answers on {code(split)}\n\n" + "\n".join(vqa.sections(asked, split))
    others = [r for r in found if r not in spoken and r not in asked]
    for split in metrics.splits(others):
        yield f"Evaluation on {code(split)}\n\n{markdown(metrics.metrics(others, split))}"
        if ablation := metrics.ablations(others, split):
            yield markdown(ablation)


def list_records(log_root: Path, suite_name: str | None, *, as_json: bool) -> None:
    """One line per run, oldest first."""
    from results.records import epoch_time
    from results.tables import metrics

    found = [r for r in records(log_root) if not suite_name or suite_name in r.identity.suite]
    for record in found:
        if as_json:
            print(escape_json(record.model_dump_json()))
            continue
        wall, rss = cost_forecasts.wall(record), record.memory.rss_main_peak.value
        process = cost_forecasts.seconds(wall) if wall.value is not None else "n/a"
        guess = "" if cost_forecasts.measured(record) else "  forecast"
        cells = [
            f"{record.identity.suite:<32}",
            f"{record.identity.run_id:<44}",
            f"seed {record.identity.seed:<5}",
            f"{record.exit.cause:<11}",
            f"{formats.count(record.steps):>8} steps",
            f"{process:>10} wall-clock",
            f"{epoch_time.words(record) or 'n/a':>10} training of 1 epoch",
            f"{formats.size(rss) if rss is not None else 'n/a':>9} max RSS{guess}",
            metrics.score(record),
        ]
        print(clean_line("  ".join(cells).rstrip()))
    if not found and not as_json:
        print(f"workbench: no records in {clean(str(log_root))}", file=sys.stderr)


def show_record(log_root: Path, run_id: str, *, as_json: bool) -> None:
    """All that one record holds, and the black box of a run that did not complete.

    Of several that fit: the newest run of just that id, else the newest whose name holds it.

    Raises:
        SuiteError: no run fits.
    """
    from results.tables import memory_estimate, run_outputs

    everything = records(log_root)
    found = [r for r in everything if run_id in f"{r.identity.suite}/{r.identity.run_id}"]
    if not found:
        raise suite.SuiteError(f"{log_root}: no run '{run_id}'; `workbench results list` has them")
    exact = [r for r in found if r.identity.run_id == run_id]
    record = (exact or found)[-1]
    if as_json:
        print(escape_json(record.model_dump_json()))
        return
    for group, value in record.model_dump(mode="json").items():
        if value is None:
            continue
        print(f"{clean_line(group)}:")
        for name, text in _flat(value):
            print("    " + clean_line(f"{name:<36} {text}"))
    for compared in cost_forecasts.comparisons(record, everything):
        source = compared.source.identity
        print(clean_line(f"{compared.what}: {compared.sentence()}"))
        print("    " + clean_line(f"by {source.suite}/{source.run_id}"))
    if record.fit:
        print(clean_line(f"memory: {memory_estimate.sentence(record.fit)}"))
    if left := run_outputs.of(record):
        print("left:")
    for one in left:
        print("    " + clean_line(f"{one.kind:<12} {log_root / record.folder / one.path}", 4096))
    if record.exit.cause not in ("completed", "pruned", "skipped"):
        for line in post_mortem.lines(log_root / record.folder, record.identity.attempt):
            indent = line[: len(line) - len(line.lstrip(" "))]
            print(indent + clean_line(line))


def _flat(value: Any, prefix: str = "") -> Iterator[tuple[str, str]]:
    """Leaves of a nested value with their dotted names; a reading is one leaf."""
    if isinstance(value, dict) and {"value", "reason"} <= value.keys() and prefix:
        yield prefix, _reading(value)
    elif isinstance(value, dict):
        for key, inner in value.items():
            yield from _flat(inner, f"{prefix}.{key}" if prefix else str(key))
    elif isinstance(value, list):
        for number, inner in enumerate(value):
            yield from _flat(inner, f"{prefix}[{number}]")
    elif value not in ("", None):
        yield prefix, str(value)


def _reading(reading: Mapping[str, Any]) -> str:
    if reading["value"] is None:
        return formats.n_a(reading["reason"])
    interval = formats.interval(reading["value"], reading["low"], reading["high"], digits=6)
    return f"{interval}  ({reading['method']})" if reading["method"] else interval
