"""What a section of a profile is made of: figures, rows and bars, one figure for each profile.

Under all modules that make sections (`profile_rows`, `choice_rows`), so that they say counts and
shares in one way.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Final

from datasets_mm.profile.profile import Profile


@dataclass(frozen=True, slots=True)
class Figure:
    """One number of one subset. `share` of the subset's records (or texts), if it is one."""

    text: str
    value: float | None = None
    share: float | None = None
    low: float | None = None
    high: float | None = None


@dataclass(frozen=True, slots=True)
class Row:
    """One line: what it is, and the figure of each profile."""

    label: str
    figures: tuple[Figure, ...]

    @property
    def difference(self) -> str:
        """Second against first: percentage points between shares, else the ratio."""
        if len(self.figures) != 2:
            return ""
        first, second = self.figures
        if first.share is not None and second.share is not None:
            return f"{100 * (second.share - first.share):+.2f}"
        if first.value and second.value is not None:
            return f"× {second.value / first.value:.3g}"
        return ""


@dataclass(frozen=True, slots=True)
class Section:
    """Rows that belong together, a sentence about how they were found, and bars to look at."""

    title: str
    rows: tuple[Row, ...]
    remark: str = ""
    bars: tuple[tuple[str, int], ...] = ()
    """A histogram: label and count of each step."""


Profiles = Sequence[Profile]
Find = Callable[[Profile], Figure]
UNKNOWN: Final = Figure("n/a")


def row(profiles: Profiles, label: str, find: Find) -> Row:
    """A line of figures."""
    return Row(label, tuple(find(profile) for profile in profiles))


def number(value: float | None, unit: str = "") -> Figure:
    """A number; "n/a" for None."""
    return UNKNOWN if value is None else Figure(f"{value:,.0f}{unit}", value)


def part(count: int, total: int) -> Figure:
    """A count and its share."""
    if not total:
        return Figure(f"{count:,}", count)
    return Figure(f"{count:,} ({100 * count / total:.2f} %)", count, count / total)
