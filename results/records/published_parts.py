"""What a file of published results says beside records and notes, as parts of a `SuiteView`.

Planned experiments, the report's own names, effects of optimizations, and figures of subsets.
Nothing of it was measured here, and every part names its source.
"""

from __future__ import annotations

from collections.abc import Collection
from typing import Any

from results.records import published_runs
from results.records.published_runs import (
    PublishedCheck,
    PublishedComparison,
    PublishedResults,
    PublishedSection,
)
from results.records.suite_view import DataComparison, DataSection, SubsetCheck


def collect_parts(
    results: PublishedResults, selected: Collection[str] | None = None
) -> dict[str, Any]:
    """Fields of a `SuiteView`. `selected`: ids of the runs that it is of; None: all, and plans."""
    plans = results.planned if selected is None else ()
    described = [
        (published_runs.run_id(results, experiment), experiment)
        for experiment in (*results.experiments, *plans)
    ]
    return {
        "planned": tuple(published_runs.identify(results, plan) for plan in plans),
        "planned_facts": {
            published_runs.run_id(results, plan): (results.facts if plan.is_of_file else {})
            | plan.facts
            for plan in plans
        },
        "states": {run: e.state for run, e in described if e.state != "done"},
        "reported": {
            run: reported
            for run, e in described
            if (reported := {**results.reported, **e.reported})
        },
        "published_effects": dict(results.effects),
        "code_changes": results.changes,
        "checks": tuple(_build_check(check, results.source) for check in results.checks),
        "comparisons": tuple(_build_comparison(c, results.source) for c in results.comparisons),
    }


def _build_check(check: PublishedCheck, source: str) -> SubsetCheck:
    sentence = (
        f"All {check.records:,} records were checked for missing fields: {check.missing:,} "
        f"({', '.join(check.fields)})"
    )
    return SubsetCheck(subset=check.subset, sentence=sentence, source=source)


def _build_comparison(comparison: PublishedComparison, source: str) -> DataComparison:
    return DataComparison(
        first=comparison.first,
        second=comparison.second,
        records=comparison.records,
        sections=tuple(map(_build_section, comparison.sections)),
        source=source,
    )


def _build_section(section: PublishedSection) -> DataSection:
    """Shares with their difference in points; counts with their ratio."""
    if section.unit == "%":
        rows = tuple(
            (label, f"{a:.2f} %", f"{b:.2f} %", f"{b - a:+.2f}") for label, a, b in section.rows
        )
    else:
        rows = tuple(
            (label, f"{a:,.0f}", f"{b:,.0f}", f"× {b / a:.3g}" if a else "")
            for label, a, b in section.rows
        )
    return DataSection(title=section.title, rows=rows, remark=section.remark)
