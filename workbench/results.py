"""Results as data frames, for notebooks and scripts: `import workbench.results as wr`.

Loads pandas; neither torch nor Textual. Every function takes `log_root`, default that of the
command line (`bench_logs` here, or `WORKBENCH_LOG_ROOT`). Columns have nullable types (`string`,
`Int64`, `Float64`, `boolean`, `datetime64[us, UTC]`), so an unmeasured number is `<NA>`, never 0;
beside it `NAME.reason` says why. `frame.attrs["units"]` has the unit of each column that has one.
A notebook shows a frame as the terminal shows tables: values with interval, `n/a (reason)`.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from engines import messages
from results.comparison import groups
from results.records import data_frame, notes
from results.records.schema import RunRecord
from workbench import paths
from workbench.reporting import run_groups
from workbench.reporting.suite_view import read_records
from workbench.suites.journal import Tail
from workbench.suites.suite import SuiteError

if TYPE_CHECKING:
    from pandas import DataFrame

__all__ = ["compare", "metrics", "queries", "runs", "steps"]

Root = Path | str | None

STEP_UNITS: Final = {
    "time": "s", "seconds": "s", "data_wait": "s", "data_stall": "s", "transfer": "s",
    "forward": "s", "backward": "s", "optimizer": "s",
}  # fmt: skip


def runs(log_root: Root = None) -> DataFrame:
    """One row for the last attempt of each run, with its notes.

    Settings are `params.lr`, readings `timing.step_median` with `.low`, `.high` and `.reason`,
    metrics `recall@1@emoji_val` with `.low`, `.high` and `.n`.
    """
    root = _root(log_root)
    standings = notes.reduce_notes(notes.read_notes(root / "notes.jsonl"))
    return _shown(data_frame.build_frame(read_records(root), standings))


def metrics(log_root: Root = None) -> DataFrame:
    """One row for each metric of each run: suite, run_id, label, seed, subset, model, split,
    metric, value, low, high, n, method, higher_is_better."""
    return _shown(data_frame.build_metric_frame(read_records(_root(log_root))))


def steps(run: str, log_root: Root = None) -> DataFrame:
    """One row for each logged window of optimizer steps of a completed run, from its journal.

    Columns: step (done so far), count, samples, epoch, warmup, time (since the engine started),
    seconds (of the whole window) and its parts, loss, lr, grad_norm, and the window's metrics.

    Raises:
        SuiteError: no completed run has this id or label, or several have.
    """
    record = _find_run(run, log_root)
    entries = Tail(_root(log_root) / record.folder / "events.jsonl").read_all()
    rows: list[dict[str, Any]] = []
    for entry in entries:
        if isinstance(entry.msg, messages.Step):
            window = entry.msg.model_dump(exclude={"kind", "t", "step_seconds", "metrics"})
            rows.append({"time": entry.msg.t, **window, **entry.msg.metrics})
    return _shown(data_frame.set_types(rows, STEP_UNITS))


def queries(run: str, split: str | None = None, log_root: Root = None) -> DataFrame:
    """One row for each evaluated item (query, question, medium) of a completed run.

    Columns: split, id, the file's own (`cluster`, `medium`, `rank`, `caption`, …) and scores under
    the names of their metrics. `split`: only this one.

    Raises:
        SuiteError: no completed run has this id or label, or several have.
    """
    record, root = _find_run(run, log_root), _root(log_root)
    return _shown(data_frame.build_item_frame(record, root, split))


def compare(a: str, b: str, log_root: Root = None, every_metric: bool = False) -> DataFrame:
    """One row for each metric that both have: a, b, delta with low and high, p, p_holm,
    detectable, n, clusters, method, verdict. A label names all its seeds.

    Raises:
        SuiteError: no completed run has such a name, or runs that differ in more than their seed.
    """
    root = _root(log_root)
    first, second = run_groups.find_groups(root, [a, b])
    changes = groups.compare_groups(first, second, root, every_metric).metrics
    return _shown(data_frame.set_types([change.as_row() for change in changes]))


def _shown(frame: DataFrame) -> DataFrame:
    """The frame, which a notebook shows as the terminal does."""
    shown = data_frame.notebook_class()(frame)
    shown.attrs.update(frame.attrs)
    return shown


def _root(log_root: Root) -> Path:
    return paths.log_root(Path(log_root) if log_root is not None else None)


def _find_run(name: str, log_root: Root) -> RunRecord:
    (group,) = run_groups.find_groups(_root(log_root), [name])
    if len(group.records) > 1:
        listed = ", ".join(record.identity.run_id for record in group.records)
        raise SuiteError(f"'{name}' has {len(group.records)} seeds; give one of {listed}")
    return group.records[0]
