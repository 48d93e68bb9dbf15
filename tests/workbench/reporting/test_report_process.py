"""What a report has of subsets: scanned here, else published."""

from __future__ import annotations

from results.records.suite_view import DataComparison, SubsetCheck, SuiteView
from workbench.reporting import report_process


def test_published_figures_stand_only_for_what_could_not_be_scanned() -> None:
    def compare(second: str, **parts: str) -> DataComparison:
        return DataComparison(first="whole", second=second, **parts)

    view = SuiteView(
        name="s",
        checks=tuple(SubsetCheck(subset=n, sentence="0", source="report") for n in "ab"),
        comparisons=tuple(compare(n, source="report") for n in "abc"),
    )
    here = SubsetCheck(subset="a", sentence="1")
    scans = (compare("a"), compare("b", problem="not here"), compare("d", problem="not here"))
    joined = report_process._join_published(view, (here,), scans)
    assert [(c.subset, c.source) for c in joined.checks] == [("a", ""), ("b", "report")]
    assert {c.second: (c.source, c.problem) for c in joined.comparisons} == {
        "a": ("", ""), "b": ("report", ""), "c": ("report", ""), "d": ("", "not here"),
    }  # fmt: skip
