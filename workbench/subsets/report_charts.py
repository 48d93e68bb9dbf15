"""What a subset holds as bars for a report: the tables of `data describe`, drawn.

Apart from `profile_rows`, which makes the rows: here is chosen which of them are worth a picture.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING, Final

from results.records.suite_view import Chart
from results.text.sanitize import clean_line
from workbench.subsets import profile_process, report_checks
from workbench.subsets.sections import sections

if TYPE_CHECKING:
    from datasets_mm.profile.profile import Profile
    from results.records.schema import Identity
    from workbench.subsets.section_types import Section

AS_BARS: Final = (
    "candidate passages per record", "captions per record", "first WH-word of the question",
    "right answer", "type of question",
)  # fmt: skip
"""Sections whose rows are counts of one whole."""
MOST_BARS: Final = 24


def of_runs(runs: Sequence[Identity], say: Callable[[str], None]) -> tuple[Chart, ...]:
    """Charts of every subset of the runs; one that cannot be scanned is said.

    `say`: hears a sentence before each scan, and why a subset has no chart.
    """
    found: list[Chart] = []
    for subset in dict.fromkeys(run.subset for run in runs):
        say(f"{subset}: what it holds, for the figure …")
        try:
            found += of_profile(report_checks.profile_of(subset, runs))
        except profile_process.ProfileError as error:
            say(f"{subset}: no figure of what it holds: {clean_line(str(error))}")
    return tuple(found)


def of_profile(profile: Profile) -> Iterator[Chart]:
    """The charts of one subset."""
    for section in sections([profile]):
        bars = section.bars or _bars(section)
        if sum(count for _, count in bars) and len(bars) <= MOST_BARS:
            yield Chart(subset=profile.name, title=section.title, bars=bars)


def _bars(section: Section) -> tuple[tuple[str, int], ...]:
    """Rows of counts as bars; a mean below them is none."""
    if section.title not in AS_BARS:
        return ()
    rows = ((row.label, row.figures[0]) for row in section.rows)
    return tuple((label, int(one.value or 0)) for label, one in rows if one.share is not None)
