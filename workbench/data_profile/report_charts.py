"""Charts of subsets for a report: selected sections of `data describe` as bars."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING, Final

from results.records.suite_view import SubsetChart
from results.text.sanitize import clean_line
from workbench.data_profile import profile_process, report_checks
from workbench.data_profile.sections import build_sections

if TYPE_CHECKING:
    from datasets_mm.profile.profile import Profile
    from results.records.schema import Identity
    from workbench.data_profile.section_types import ProfileSection

BAR_SECTIONS: Final = (
    "candidate passages per record", "captions per record", "first WH-word of the question",
    "right answer", "type of question",
)  # fmt: skip
"""Titles of sections whose rows are counts of one total."""
MAX_BARS: Final = 24


def charts_of_runs(
    runs: Sequence[Identity], on_message: Callable[[str], None]
) -> tuple[SubsetChart, ...]:
    """Charts of every subset of the runs; subsets that cannot be scanned are skipped.

    `on_message` gets a sentence before each scan and for each skipped subset.
    """
    charts: list[SubsetChart] = []
    for subset in dict.fromkeys(run.subset for run in runs):
        on_message(f"{subset}: what it holds, for the figure …")
        try:
            charts += charts_of_profile(report_checks.profile_subset(subset, runs))
        except profile_process.ProfileError as error:
            on_message(f"{subset}: no figure of what it holds: {clean_line(str(error))}")
    return tuple(charts)


def charts_of_profile(profile: Profile) -> Iterator[SubsetChart]:
    """The charts of one subset."""
    for section in build_sections([profile]):
        bars = section.bars or _section_bars(section)
        if sum(count for _, count in bars) and len(bars) <= MAX_BARS:
            yield SubsetChart(subset=profile.name, title=section.title, bars=bars)


def _section_bars(section: ProfileSection) -> tuple[tuple[str, int], ...]:
    """Rows of counts as bars, without rows that are no count (a mean)."""
    if section.title not in BAR_SECTIONS:
        return ()
    rows = ((row.label, row.figures[0]) for row in section.rows)
    return tuple(
        (label, int(figure.value or 0)) for label, figure in rows if figure.share is not None
    )
