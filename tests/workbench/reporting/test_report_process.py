"""What a report has of subsets: scanned here, else published."""

from __future__ import annotations

import pytest

from results.comparison.document_view import DocumentView
from results.records.suite_view import DataComparison, SubsetCheck, SuiteView
from workbench.data_profile import report_checks
from workbench.data_profile.report_checks import ReadProfiles
from workbench.reporting import report_process
from workbench.reporting.report_process import ReportOptions


def test_after_a_scan_the_documents_are_built_again(monkeypatch: pytest.MonkeyPatch) -> None:
    """A scan builds the subset, which the audit of the first report would not know yet."""
    scans = [True, False]

    def check(_runs: object, _say: object, read: ReadProfiles, **_: object) -> tuple[()]:
        read.has_scanned |= scans.pop(0)
        return ()

    monkeypatch.setattr(report_checks, "check_subsets", check)
    for builds in (2, 1):
        built: list[DocumentView] = []

        def build(built: list[DocumentView] = built) -> list[DocumentView]:
            built.append(DocumentView(suite=SuiteView(name=f"build {len(built) + 1}")))
            return built[-1:]

        (document,) = report_process.add_data(build, ReportOptions(data=True))
        assert document.suite.name == f"build {builds}"


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
