"""Writing the record of an ended run: into its own folder and into the log root."""

from __future__ import annotations

from pathlib import Path

from datasets_mm.atomic_files import write_atomic
from engines.protocol import RunSpec
from results.records import store
from workbench.suites import record, state
from workbench.supervisor.event_log import DISK_FULL_ERRNOS


def keep_record(
    records: Path, run: Path, spec: RunSpec, ended: state.RunState, reserve: Path
) -> None:
    """`write_record`; on a full disk it deletes `reserve` to free its blocks and tries again.

    Raises:
        OSError: see `write_record`.
    """
    try:
        write_record(records, run, spec, ended)
    except OSError as error:
        if error.errno not in DISK_FULL_ERRNOS:
            raise
        reserve.unlink(missing_ok=True)
        write_record(records, run, spec, ended)


def write_record(records: Path, run: Path, spec: RunSpec, ended: state.RunState) -> None:
    """Write summary.json beside the journal, then append the record to the file `records`.

    The second is tried even if the first fails: the log root may belong to another user.

    Raises:
        OSError: the disk is full, or a folder is gone.
    """
    run_record = record.build_record(spec, ended, run.relative_to(run.parents[2]).as_posix())
    try:
        write_atomic(run / "summary.json", run_record.model_dump_json(indent=1) + "\n")
    finally:
        store.append_record(records, run_record)
