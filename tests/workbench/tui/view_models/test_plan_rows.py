"""Rows of the Plan screen."""

from __future__ import annotations

from workbench.tui.view_models import plan_rows
from workbench.tui.view_models.catalog import Catalogs, SubsetEntry


def test_a_built_copy_is_told_with_its_folder_and_what_it_lacks() -> None:
    copy = SubsetEntry("a", "A", rows=200, built=True, expected_rows=76_000, data_root="/copy")
    text, failed = plan_rows.describe_entry(Catalogs(subsets=(copy,)), "subsets", "a")
    assert text == "built from /copy: 200 of the 76,000 records of the recipe · A"
    assert not failed


def test_an_earlier_suite_is_a_start_like_a_preset() -> None:
    name, state, about = plan_rows.suite_row("week-1a2b", "a × m · epochs=2", "ended")
    assert (name, state, about.text) == ("week-1a2b", "ended", "a × m · epochs=2")
