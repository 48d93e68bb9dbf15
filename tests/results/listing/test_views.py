"""Views of lists of runs, and the file of saved ones."""

from __future__ import annotations

import pytest

from results.listing.views import GROUPS, ResultView, parse_view, read_views, write_views


def test_saved_views_are_read_back(tmp_path):
    path = tmp_path / "config" / "views.json"
    assert read_views(path) == {}
    views = {"weekly": ResultView("since:7d", ("lr", "score"), "lr", False, "mrr@10@val", "suite")}
    write_views(path, views)
    assert read_views(path) == views
    assert [file.name for file in path.parent.iterdir()] == ["views.json"]


@pytest.mark.parametrize("stored", [None, [], {"columns": [1]}, {"group": "no"}, {"sort": 3}])
def test_what_is_no_view_is_the_default_one(stored):
    assert parse_view(stored) == ResultView()


@pytest.mark.parametrize("content", ["{torn", "[]"])
def test_a_damaged_file_is_named(tmp_path, content):
    (tmp_path / "views.json").write_text(content)
    with pytest.raises(ValueError, match="views.json is damaged"):
        read_views(tmp_path / "views.json")


def test_grouping_turns_through_all(tmp_path):
    view, seen = ResultView(), []
    for _ in GROUPS:
        view = view.turn_group()
        seen.append(view.group)
    assert seen == [*GROUPS[1:], ""]
