"""Writing the record of an ended run: into its own folder and into the log root."""

from __future__ import annotations

from pathlib import Path

from engines.protocol import RunSpec
from results.records import store
from workbench.suites import record, state, suite
from workbench.supervisor.event_log import FULL


def keep_record(
    folder: Path, run: Path, spec: RunSpec, ended: state.RunState, reserve: Path
) -> None:
    """`write_record`; on a full disk once more with what `reserve` takes, blocks and file entry.

    Raises:
        OSError: see `write_record`.
    """
    try:
        write_record(folder, run, spec, ended)
    except OSError as error:
        if error.errno not in FULL:
            raise
        reserve.unlink(missing_ok=True)
        write_record(folder, run, spec, ended)


def write_record(folder: Path, run: Path, spec: RunSpec, ended: state.RunState) -> None:
    """summary.json beside the journal, then the same as one line of results.jsonl.

    Each is tried whatever becomes of the other: the log root may be a colleague's.

    Raises:
        OSError: the disk is full, or a folder is gone.
    """
    made = record.build(spec, ended, run.relative_to(folder.parent).as_posix())
    try:
        suite.replace(run / "summary.json", made.model_dump_json(indent=1))
    finally:
        store.append(folder.parent / "results.jsonl", made)
