"""The days of a report, in UTC."""

from __future__ import annotations

from datetime import UTC, date, datetime

import pytest

from workbench.reporting import period
from workbench.suites.suite import SuiteError

NOW = datetime(2026, 11, 25, 23, 30, tzinfo=UTC)  # a Wednesday


@pytest.mark.parametrize(("since", "until", "first", "last"), [
    ("monday", None, "2026-11-23", "2026-11-25"),
    ("Wednesday", None, "2026-11-25", "2026-11-25"),
    ("friday", None, "2026-11-20", "2026-11-25"),
    ("7d", None, "2026-11-19", "2026-11-25"),
    ("2026-11-01", "2026-11-07", "2026-11-01", "2026-11-07"),
    ("monday", "2026-11-22", "2026-11-16", "2026-11-22"),
])  # fmt: skip
def test_days(since: str, until: str | None, first: str, last: str) -> None:
    days = period.parse_period(since, until, NOW)
    assert (days.first.isoformat(), days.last.isoformat()) == (first, last)


@pytest.mark.parametrize(("since", "until", "words"), [
    ("mondy", None, "--since: 'mondy' is no day; write monday, 7d or a date"),
    ("0d", None, "'0d' is no day"),
    ("monday", "friday", "--to: 'friday' is no date"),
    ("2026-12-01", None, "--since 2026-12-01 is after the last day, 2026-11-25"),
])  # fmt: skip
def test_no_days(since: str, until: str | None, words: str) -> None:
    with pytest.raises(SuiteError, match=words):
        period.parse_period(since, until, NOW)


def test_the_earlier_days_are_a_week_or_as_many() -> None:
    short = period.Period(date(2026, 11, 23), date(2026, 11, 25))
    assert short.earlier == period.Period(date(2026, 11, 16), date(2026, 11, 22))
    month = period.Period(date(2026, 11, 1), date(2026, 11, 30))
    assert month.earlier == period.Period(date(2026, 10, 2), date(2026, 10, 31))
    assert period.Period(date.min, date.max).earlier == period.Period(date.min, date.min)
    assert short.note_target == "week:2026-W48"
    first_second = datetime(2026, 11, 23, tzinfo=UTC).timestamp()
    assert short.holds(first_second)
    assert not short.holds(first_second - 1)
    assert not short.holds(None)
