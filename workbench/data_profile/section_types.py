"""Types of a profile section: figures, rows and bars, with one figure for each profile.

Shared by all modules that build sections, so that counts and shares have one format.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Final

from datasets_mm.profile.profile import Profile


@dataclass(frozen=True, slots=True)
class ProfileFigure:
    """One value of one subset. `share`: of the subset's records (or texts), 0 to 1; `low`,
    `high`: bounds of a 95 % interval."""

    text: str
    value: float | None = None
    share: float | None = None
    low: float | None = None
    high: float | None = None


@dataclass(frozen=True, slots=True)
class ProfileRow:
    """One row: a label and the figure of each profile."""

    label: str
    figures: tuple[ProfileFigure, ...]

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
class ProfileSection:
    """A titled group of rows, with a remark on the method and an optional histogram."""

    title: str
    rows: tuple[ProfileRow, ...]
    remark: str = ""
    bars: tuple[tuple[str, int], ...] = ()
    """A histogram: label and count of each step."""


Profiles = Sequence[Profile]
FigureFunction = Callable[[Profile], ProfileFigure]
UNKNOWN: Final = ProfileFigure("n/a")


def row(profiles: Profiles, label: str, find: FigureFunction) -> ProfileRow:
    """A line of figures."""
    return ProfileRow(label, tuple(find(profile) for profile in profiles))


def number(value: float | None, unit: str = "") -> ProfileFigure:
    """A number; "n/a" for None."""
    return UNKNOWN if value is None else ProfileFigure(f"{value:,.0f}{unit}", value)


def count_with_share(count: int, total: int) -> ProfileFigure:
    """A count and its share."""
    if not total:
        return ProfileFigure(f"{count:,}", count)
    return ProfileFigure(f"{count:,} ({100 * count / total:.2f} %)", count, count / total)
