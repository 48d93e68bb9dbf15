"""Which suite goes on, and with which of its runs, after whatever ended it.

Apart from `headless`, which follows any suite: here is only what makes it fit to be started again.
"""

from __future__ import annotations

from pathlib import Path

from workbench.suites import suite
from workbench.suites.state import RunView, unfinished
from workbench.supervisor import launch


def choose(log_root: Path, name: str | None) -> Path:
    """The suite of that name; without one the newest that nobody works at and that is unfinished.

    Raises:
        SuiteError: there is none, or more than one fits.
    """
    if name is not None:
        return suite.find(log_root, name)
    for folder in suite.suites(log_root):
        try:
            warden = suite.read_warden(folder)
            working = warden is not None and suite.alive(warden)
            if not working and (left(folder) or to_come(folder)):
                return folder
        except suite.SuiteError:
            continue  # a colleague's, or broken; by its name it is refused with the reason
    suite.find(log_root, None)  # no suites at all has a sentence of its own
    raise suite.SuiteError(f"{log_root}: every suite is at work or has nothing left to do")


def left(folder: Path) -> list[RunView]:
    """The runs that are to be started (again), in their order."""
    out = suite.taken_out(folder)
    views = suite.Reader(folder).poll().runs
    return [v for v in views if v.spec.run_id not in out and unfinished(v.state)]


def to_come(folder: Path) -> int:
    """Trials of a search that were not chosen yet."""
    return suite.Reader(folder).poll().to_come


def prepare(folder: Path) -> list[RunView]:
    """Close the books of a warden that died; the runs that are left, none if all is done.

    Raises:
        SuiteError: the suite is at work.
    """
    warden = suite.read_warden(folder)
    if warden is not None and suite.alive(warden):
        where = f"warden {warden.pid} on {warden.host}"
        raise suite.SuiteError(
            f"{folder.name} is at work ({warden.state}, {where}); `workbench attach {folder.name}` "
            f"shows it, `workbench stop {folder.name}` ends it"
        )
    launch.reconcile(folder, elsewhere=True)
    return left(folder)


def announcement(folder: Path, views: list[RunView], trials: int) -> str:
    """One line: how many runs are left, and where the first of them goes on."""
    if not views:
        return f"{folder.name}: the search goes on; trials to come: {trials}"
    count = "1 run is" if len(views) == 1 else f"{len(views)} runs are"
    first = views[0]
    last = f", which ended as {first.state.cause}" if first.state.end is not None else ""
    search = f"; trials to come: {trials}" if trials else ""
    return f"{folder.name}: {count} left; first {first.spec.run_id}{last}{search}"
