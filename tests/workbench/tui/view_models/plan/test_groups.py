"""Groups of settings of every engine."""

from __future__ import annotations

import pytest

from engines import catalog
from workbench.tui.view_models.form_fields import Setting
from workbench.tui.view_models.plan import groups

SETTINGS = (
    Setting("name", "text"), Setting("epochs", "number", group="length"),
    Setting("temperature", "number", about="First value", group="objective"),
    Setting("max_grad_norm", "number", about="Largest gradient; 0: no clipping", group="optim"),
)  # fmt: skip


@pytest.mark.parametrize("engine", catalog.names())
def test_every_setting_of_an_engine_has_a_group(engine: str) -> None:
    params = catalog.load(engine).Params
    titles = groups.section_titles(params)
    assert set(titles) == set(params.model_fields)
    assert all(title == title.lower() and "_" not in title for title in titles.values())
    if engine != "probe":
        assert titles["lr"] == "optimization"
        assert titles["checkpoint_every"] == "checkpoints"
        assert len(set(titles.values())) >= 6


def names(opened: set[str], changed: set[str]) -> list[tuple[str, list[str]]]:
    shown = groups.group_settings(SETTINGS, changed, opened)
    return [(group.title, [s.name for s in group.settings]) for group in shown]


def test_changed_settings_of_closed_groups_are_in_the_first() -> None:
    rest = [("plan", ["name"]), ("objective", ["temperature"]), ("optim", ["max_grad_norm"])]
    assert names(set(), set()) == [("often changed", ["epochs"]), *rest]
    assert names(set(), {"temperature"})[0] == ("often changed", ["epochs", "temperature"])
    assert names({"objective"}, {"temperature"})[0] == ("often changed", ["epochs"])


def test_a_search_reads_names_and_descriptions() -> None:
    assert [s.name for s in groups.search_settings(SETTINGS, "clip")] == ["max_grad_norm"]
    assert [s.name for s in groups.search_settings(SETTINGS, "m first")] == ["temperature"]
    assert groups.search_settings(SETTINGS, "nothing") == []
    assert groups.heading_title("group:plan") == "plan"
    assert groups.heading_title("plan") == ""
