"""The days of a report: `monday`, a date or `7d`. Days are UTC."""

from __future__ import annotations

import re
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from typing import Final

from results.comparison.document_view import ReportPeriod
from results.records.schema import RunRecord
from workbench.suites.suite import SuiteError

WEEKDAYS: Final = (
    "monday", "tuesday", "wednesday", "thursday", "friday", "saturday", "sunday",
)  # fmt: skip
_DAYS: Final = re.compile(r"(\d{1,4})d")
WEEK: Final = timedelta(days=7)


@dataclass(frozen=True)
class Period:
    """Days from `first` to `last`, both included."""

    first: date
    last: date

    def holds(self, wall: float | None) -> bool:
        """Whether a Unix time lies in these days; False: it is not known."""
        if wall is None:
            return False
        return self.first <= datetime.fromtimestamp(wall, UTC).date() <= self.last

    def holds_run(self, record: RunRecord) -> bool:
        """Whether the run ended in these days."""
        return self.holds(record.ended_wall or record.started_wall)

    @property
    def earlier(self) -> Period:
        """The week before, or as many days as the period has if those are more."""
        length = max(WEEK, self.last - self.first + timedelta(days=1)).days
        days = (self.first.toordinal() - length, self.first.toordinal() - 1)
        return Period(*(date.fromordinal(max(1, day)) for day in days))

    @property
    def note_target(self) -> str:
        """What notes about its report are noted on: the week of its last day, `week:2026-W48`."""
        year, week, _ = self.last.isocalendar()
        return f"week:{year}-W{week:02d}"

    def describe(self) -> ReportPeriod:
        """The period as a report shows it."""
        earlier = self.earlier
        return ReportPeriod(
            first=self.first.isoformat(), last=self.last.isoformat(),
            earlier_first=earlier.first.isoformat(), earlier_last=earlier.last.isoformat(),
        )  # fmt: skip


def parse_period(since: str, last_day: str | None, now: datetime) -> Period:
    """The days from `since` to `last_day`.

    Args:
        since: A day of the week (the last one, today included), a date `2026-11-23`, or `7d`: as
            many days, the last one included.
        last_day: The last day, as a date; None: today.
        now: An aware time, for "today".

    Raises:
        SuiteError: one of them is no day, or `last_day` is before `since`.
    """
    last = now.astimezone(UTC).date() if last_day is None else _parse_date(last_day, "--to")
    word = since.strip().casefold()
    if word in WEEKDAYS:
        first = last - timedelta(days=(last.weekday() - WEEKDAYS.index(word)) % 7)
    elif (match := _DAYS.fullmatch(word)) and int(match[1]):
        first = last - timedelta(days=int(match[1]) - 1)
    else:
        first = _parse_date(since, "--since")
    if first > last:
        raise SuiteError(f"--since {first} is after the last day, {last}; give an earlier day")
    return Period(first, last)


def _parse_date(text: str, option: str) -> date:
    try:
        return date.fromisoformat(text.strip())
    except ValueError:
        raise SuiteError(
            f"{option}: '{text}' is no day; write monday, 7d or a date such as 2026-11-23"
            if option == "--since"
            else f"{option}: '{text}' is no date; write it as 2026-11-23"
        ) from None
