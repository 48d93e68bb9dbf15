"""What a pane below 80×24 shows: the suite, its run at work with progress and time left, the next
runs. `SmallPaneFeed` reads files; the rest is pure."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Final

from results.text import formats
from results.text.sanitize import clean_line
from workbench.suites import run_summary

if TYPE_CHECKING:
    from workbench.suites.state import RunView, SuiteState

READ_SECONDS: Final = 0.5
"""Longest reading of journals; the rest follows with the next one."""
HINT: Final = "80×24 and more shows the screens · q leaves, suites go on"
BAR_CELLS: Final = 20


class SmallPaneFeed:
    """Reader of the suite that a small pane shows; it keeps its place in the journals."""

    def __init__(self, give_way: Callable[[], object] | None = None) -> None:
        """`give_way`: see `SuiteReader.poll`."""
        self._give_way = give_way
        self._folder: Path | None = None
        self._reader: object | None = None

    def poll(self, folder: Path | None) -> tuple[str, ...]:
        """The lines of a suite; None: there is none."""
        from workbench.suites.suite import SuiteError
        from workbench.suites.suite_reader import SuiteReader

        if folder is None:
            return ("No suite yet.", HINT)
        try:
            if self._folder != folder or not isinstance(self._reader, SuiteReader):
                self._folder, self._reader = folder, SuiteReader(folder)
            return format_lines(self._reader.poll(READ_SECONDS, self._give_way))
        except (OSError, SuiteError) as error:
            return (clean_line(str(error)), HINT)


def format_lines(suite: SuiteState) -> tuple[str, ...]:
    """Lines by importance: run and progress, numbers, the suite, what is next."""
    lines = []
    if (view := suite.current) is not None:
        lines += _run_lines(view)
    counts = run_summary.format_outcomes(suite)
    lines.append(clean_line(f"{suite.name} · {suite.warden} · {counts}"))
    queued = [v for v in suite.runs if v.state.status == "queued"]
    if queued:
        first = queued[0].spec
        more = f" and {len(queued) - 1} more" if len(queued) > 1 else ""
        lines.append(clean_line(f"next {first.subset} {first.model}{more}"))
    if view is None and (ended := [v for v in suite.runs if v.state.status == "ended"]):
        number = suite.runs.index(ended[-1]) + 1
        lines.append(clean_line(run_summary.progress_line(ended[-1], number, suite.total)))
    return (*lines, HINT)


def _run_lines(view: RunView) -> list[str]:
    """`emoji_mm_train clip-nano`, then bar, percent and time left, then loss, step time, memory."""
    run, numbers = view.state, run_summary.format_numbers(view.state)
    share = run.fraction
    bar = ""
    if share is not None and run.phase in ("train", "warmup"):
        full = round(share * BAR_CELLS)
        bar = f"▕{'█' * full}{'░' * (BAR_CELLS - full)}▏ {share:.0%}"
    time_left = f"{numbers.time_left} left" if numbers.time_left else formats.clock(run.t)
    progress = " ".join(part for part in (run.phase, bar, time_left) if part)
    shown = (
        ("loss", numbers.loss), ("r@1", numbers.r1), ("step", numbers.step_time),
        ("RSS", numbers.rss), ("VRAM", numbers.vram),
    )  # fmt: skip
    names = (view.spec.label, view.spec.subset, view.spec.model)
    return [
        clean_line(" ".join(name for name in names if name)),
        progress,
        " · ".join(f"{name} {text}" for name, text in shown if text),
    ]
