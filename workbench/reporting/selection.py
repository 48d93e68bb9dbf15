"""Which runs of which suites a report is of: by names, and by the days in which they ended."""

from __future__ import annotations

from collections.abc import Container, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from results.records import published_runs
from results.records.schema import RunRecord
from workbench.reporting import note_writer
from workbench.reporting.period import Period
from workbench.suites import suite
from workbench.suites.suite import SuiteError

TAG: Final = "tag:"
"""How the name of everything that has a tag begins."""
Names = tuple[str, str, str]
"""Suite, run id, label."""


@dataclass(frozen=True)
class SelectedSuite:
    """A suite of a report."""

    name: str
    folder: Path | None
    """None: its records were imported, or it was deleted and they are what is left."""
    runs: frozenset[str] | None = None
    """Ids of the runs that are selected; None: all."""


def find_log_root(log_root: Path, names: Sequence[str]) -> Path:
    """The log root, or the folder that holds the suites whose paths are named.

    Raises:
        SuiteError: they lie in several folders.
    """
    roots = {Path(n).absolute().parent for n in names if n and (Path(n) / "plan.toml").is_file()}
    if len(roots) > 1:
        raise SuiteError(
            f"the suites lie in {len(roots)} folders; copy their folders and records into one"
        )
    return roots.pop() if roots else log_root


def select_by_names(
    log_root: Path,
    names: Sequence[str],
    log_records: Sequence[RunRecord],
    *,
    several: bool = False,
) -> list[SelectedSuite]:
    """Suites and runs by their names, in the order in which they are named.

    A suite is named by its name, a part of it, or its path; runs by id, label, `suite/id`,
    `suite/label` or a part of `suite/id`; imported results by their suite or label; what has a
    tag by `tag:WORD`.

    Args:
        log_root: Where suites lie.
        names: The names.
        log_records: All records of the log root.
        several: A part of a name means all suites that have it.

    Raises:
        SuiteError: nothing has the name, or several suites have it.
    """
    selected: dict[str, SelectedSuite] = {}
    for name in names:
        for entry in _select(log_root, name, log_records, several):
            earlier = selected.get(entry.name)
            runs = entry.runs
            if earlier is not None:
                is_whole = earlier.runs is None or entry.runs is None
                runs = None if is_whole else (earlier.runs or frozenset()) | (runs or frozenset())
            selected[entry.name] = SelectedSuite(entry.name, entry.folder, runs)
    return list(selected.values())


def _select(
    log_root: Path, name: str, log_records: Sequence[RunRecord], several: bool
) -> list[SelectedSuite]:
    if name and (Path(name) / "plan.toml").is_file():
        folder = Path(name).absolute()
        return [SelectedSuite(folder.name, folder)]
    folders = {folder.name: folder for folder in suite.list_suites(log_root)}
    if name.startswith(TAG):
        return _select_tagged(log_root, name.removeprefix(TAG), folders)
    loose = [r for r in log_records if _is_loose(r, folders)]
    suite_names = list(dict.fromkeys([*folders, *(r.identity.suite for r in loose)]))
    suites = [s for s in suite_names if s == name] or [s for s in suite_names if name in s]
    if len(suites) == 1:
        return [SelectedSuite(suites[0], folders.get(suites[0]))]
    runs = [*_names_of_specs(folders.values()), *map(_names_of_record, loose)]
    exact = [run for run in runs if name in _spellings(run)]
    if several and suites and not exact:
        return [SelectedSuite(s, folders.get(s)) for s in suites]
    if suites and not exact:
        raise SuiteError(f"'{name}' fits {len(suites)} suites; give more of the name")
    matches = exact or [run for run in runs if name in f"{run[0]}/{run[1]}"]
    if not matches:
        listed = "`workbench ps --all` and `workbench results list` have them"
        raise SuiteError(f"{log_root}: no suite '{name}', and no run of that name; {listed}")
    owners = list(dict.fromkeys(run[0] for run in matches))
    if len(owners) > 1 and not several:
        examples = ", ".join(f"{run[0]}/{run[1]}" for run in matches[:3])
        more = ", …" if len(matches) > 3 else ""
        raise SuiteError(
            f"'{name}' fits runs of {len(owners)} suites ({examples}{more}); give suite/run"
        )
    return [
        SelectedSuite(o, folders.get(o), frozenset(run[1] for run in matches if run[0] == o))
        for o in owners
    ]


def _is_loose(record: RunRecord, folders: Container[str]) -> bool:
    """Whether a record stands for itself: it was imported, or its suite's folder is gone."""
    return published_runs.is_imported(record) or record.identity.suite not in folders


def _select_tagged(log_root: Path, tag: str, folders: Mapping[str, Path]) -> list[SelectedSuite]:
    """Runs and suites that a person has given the tag."""
    runs: dict[str, set[str]] = {}
    for (owner, run), noted in note_writer.read_standings(log_root).items():
        if tag in noted.tags:
            runs.setdefault(owner, set()).add(run)
    if not runs:
        raise SuiteError(
            f"{log_root}: nothing has the tag '{tag}'; `workbench results note RUN --tag {tag}`"
        )
    return [
        SelectedSuite(owner, folders.get(owner), None if "" in tagged else frozenset(tagged))
        for owner, tagged in runs.items()
    ]


def _spellings(run: Names) -> tuple[str, ...]:
    owner, run_id, label = run
    labels = (label, f"{owner}/{label}") if label else ()
    return run_id, f"{owner}/{run_id}", *labels


def _names_of_specs(folders: Iterable[Path]) -> list[Names]:
    runs: list[Names] = []
    for folder in folders:
        try:
            runs += [(folder.name, s.run_id, s.label) for _, s in suite.read_runs(folder)]
        except (OSError, SuiteError):
            continue
    return runs


def _names_of_record(record: RunRecord) -> Names:
    return record.identity.suite, record.identity.run_id, record.identity.label


def select_by_period(
    log_root: Path,
    period: Period,
    log_records: Sequence[RunRecord],
    chosen: Sequence[SelectedSuite] = (),
) -> list[SelectedSuite]:
    """Runs that ended in a period, and those of its suites that have not ended; none of the trash.

    Args:
        log_root: Where suites lie.
        period: Days.
        log_records: All records of the log root.
        chosen: Only of these suites and runs; imported ones are kept, as they have no days. Empty:
            of all suites.

    Raises:
        SuiteError: no run ended in these days.
    """
    folders = {folder.name: folder for folder in reversed(suite.list_suites(log_root))}
    imported = {r.identity.suite for r in log_records if published_runs.is_imported(r)}
    suites = list(chosen) or [
        *(SelectedSuite(*named) for named in folders.items()),
        *(SelectedSuite(name, None) for name in dict.fromkeys(
            r.identity.suite for r in log_records if r.identity.suite not in {*folders, *imported}
        )),
    ]  # fmt: skip
    selected = [s for s in suites if s.folder is None and s.name in imported]
    trash = note_writer.read_trash(log_root)
    for candidate in (s for s in suites if s not in selected):
        runs = _runs_of_period(candidate, period, log_records)
        runs = frozenset(run for run in runs if (candidate.name, run) not in trash)
        if runs:
            selected.append(SelectedSuite(candidate.name, candidate.folder, runs))
    if not selected:
        raise SuiteError(
            f"{log_root}: no run ended from {period.first} to {period.last} (UTC); give other days"
        )
    return selected


def _runs_of_period(
    candidate: SelectedSuite, period: Period, log_records: Sequence[RunRecord]
) -> frozenset[str]:
    """Ids of the runs that ended in the period; with them those without a record."""
    of_suite = [r for r in log_records if r.identity.suite == candidate.name]
    ended = {r.identity.run_id for r in of_suite if period.holds_run(r)}
    if candidate.folder is not None and (
        ended or period.holds(suite.read_creation_time(candidate.folder / "plan.toml"))
    ):
        recorded = {r.identity.run_id for r in of_suite}
        ended |= {s.run_id for _, s in suite.read_runs(candidate.folder)} - recorded
    return frozenset(ended if candidate.runs is None else ended & candidate.runs)
