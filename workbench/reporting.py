"""Records and reports on the command line.

Tables and figures need pandas or matplotlib; they are made by a child, `python -m results.report`,
so that the workbench itself stays small.
"""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from results import store
from results.schema import RunCurves, RunRecord, SuiteView
from workbench import suite
from workbench.exits import ExitStatus


def records(log_root: Path) -> list[RunRecord]:
    """The last attempt of every run under a log root, oldest first."""
    last: dict[tuple[str, str], RunRecord] = {}
    for record in store.read(log_root / "results.jsonl"):
        key = (record.identity.suite, record.identity.run_id)
        if key not in last or record.identity.attempt >= last[key].identity.attempt:
            last[key] = record
    return list(last.values())


def suite_records(folder: Path) -> list[RunRecord]:
    """The records of one suite in plan order."""
    order = {spec.run_id: number for number, (_, spec) in enumerate(suite.runs(folder))}
    found = [r for r in records(folder.parent) if r.identity.suite == folder.name]
    return sorted(found, key=lambda r: order.get(r.identity.run_id, len(order)))


def view(folder: Path) -> SuiteView:
    """A suite folded for a report."""
    state = suite.Reader(folder).poll()
    found = suite_records(folder)
    done = {r.identity.run_id for r in found}
    return SuiteView(
        name=folder.name,
        plan_toml=(folder / "plan.toml").read_text(encoding="utf-8"),
        started_wall=state.started_wall,
        state=state.warden,
        records=tuple(found),
        pending=tuple(r.spec.run_id for r in state.runs if r.spec.run_id not in done),
        curves={
            r.spec.run_id: RunCurves(
                curves={name: list(curve.points) for name, curve in r.state.curves.items()}
            )
            for r in state.runs
        },
    )


def report(folder: Path, lang: str, out: Path | None) -> ExitStatus:
    """Print the report, or write it with its figures into `out`."""
    if lang not in ("en", "ko"):
        raise suite.SuiteError(f"--lang {lang}: is not known; use en or ko")
    command = [sys.executable, "-m", "results.report", "-", "--lang", lang]
    if out is not None:
        command += ["--out", str(out)]
    done = subprocess.run(command, input=view(folder).model_dump_json().encode(), check=False)
    return ExitStatus.COMPLETED if done.returncode == 0 else ExitStatus.FAILED


def summary(folder: Path) -> str:
    """The result tables of a suite as Markdown, for the end of a headless run."""
    from results import tables

    return tables.summary(suite_records(folder))
