"""The table: draws only what is on screen, keeps its cursor, repaints only what changed."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import pytest
from textual.app import App, ComposeResult

from datasets_mm import catalog
from engines import model_catalog
from tests.workbench.tui.conftest import screen_text
from workbench.tui.view_models.cells import GridCell, GridColumn, GridRow
from workbench.tui.widgets.grid import Grid

COLUMNS = (
    GridColumn("name", "name", 8, grow=10, rank=0),
    GridColumn("value", "value", 6, right=True, rank=1),
    GridColumn("extra", "extra", 30, rank=2),
)


class Counted(Sequence[GridRow]):
    """Rows that count how often one is looked at."""

    def __init__(self, count: int) -> None:
        self.count, self.looks = count, 0

    def __len__(self) -> int:
        return self.count

    def __getitem__(self, index: Any) -> Any:
        self.looks += 1
        return (f"row {index}", str(index), "x")

    def __iter__(self) -> Iterator[GridRow]:
        raise AssertionError("a window never walks over all rows")


class GridApp(App[None]):
    """A grid and the messages that it sent."""

    def __init__(self) -> None:
        super().__init__()
        self.got: list[Grid.Moved | Grid.HeaderChosen] = []

    def compose(self) -> ComposeResult:
        yield Grid(COLUMNS, notice="Nothing here.")

    def on_grid_moved(self, event: Grid.Moved) -> None:
        self.got.append(event)

    def on_grid_chosen(self, event: Grid.Chosen) -> None:
        self.got.append(event)

    def on_grid_header_chosen(self, event: Grid.HeaderChosen) -> None:
        self.got.append(event)


async def test_ten_thousand_rows_cost_one_screen() -> None:
    app = GridApp()
    async with app.run_test(size=(40, 20)) as pilot:
        grid, rows = app.query_one(Grid), Counted(10_000)
        grid.show(rows)
        await pilot.pause()
        assert rows.looks <= 20 * 4
        await pilot.press("end")
        await pilot.pause()
        assert "row 9999" in screen_text(pilot)
        await pilot.press("pageup")
        assert 9_970 < grid.cursor < 9_999
        await pilot.press("pagedown")
        assert grid.cursor == 9_999
        assert rows.looks <= 20 * 10


async def test_notice_stands_where_no_rows_are() -> None:
    app = GridApp()
    async with app.run_test(size=(40, 6)) as pilot:
        assert "Nothing here." in screen_text(pilot)
        grid = app.query_one(Grid)
        grid.show([("a", "1", "")])
        await pilot.pause()
        assert "Nothing here." not in screen_text(pilot)
        grid.show_notice("It failed.", failed=True)
        await pilot.pause()
        assert "It failed." in screen_text(pilot)
        grid.show_notice("no completed run of this name: workbench results list shows all.")
        await pilot.pause()
        assert " ".join(screen_text(pilot).split()).endswith(grid.notice)


async def test_columns_without_room_are_left_out_by_rank_and_numbers_stand_right() -> None:
    app = GridApp()
    async with app.run_test(size=(30, 4)) as pilot:
        app.query_one(Grid).show([("name", "7", "extra!")])
        await pilot.pause()
        header, row = screen_text(pilot).splitlines()[:2]
        assert "extra" not in header + row
        assert header.rindex("value") + len("value") == row.rindex("7") + 1


async def test_shipped_names_stay_distinct_in_twelve_cells() -> None:
    names = [*catalog.names(), *model_catalog.names()]
    assert len({name[:11] for name in names}) < len(names), "a cut at the right is not enough"

    class NamesApp(App[None]):
        def compose(self) -> ComposeResult:
            yield Grid((GridColumn("name", "", 12, middle_cut=True),), header=False, notice="")

    app = NamesApp()
    async with app.run_test(size=(14, len(names))) as pilot:
        app.query_one(Grid).show([(name,) for name in names])
        await pilot.pause()
        lines = [line.strip() for line in screen_text(pilot).splitlines()]
    assert len(set(lines)) == len(names)
    assert "em…_en_train" in lines


async def test_the_cursor_stays_on_its_row_when_rows_move() -> None:
    app = GridApp()
    async with app.run_test(size=(40, 10)) as pilot:
        grid = app.query_one(Grid)
        grid.focus()
        grid.show([("a", "1", ""), ("b", "2", "")], ["a", "b"])
        await pilot.press("down")
        assert grid.key == "b"
        grid.show([("c", "3", ""), ("a", "1", ""), ("b", "2", "")], ["c", "a", "b"])
        assert (grid.key, grid.cursor) == ("b", 2)
        grid.show([("c", "3", "")], ["c"])
        assert (grid.key, grid.cursor) == ("c", 0)


async def test_only_lines_that_changed_are_painted(monkeypatch: pytest.MonkeyPatch) -> None:
    app = GridApp()
    async with app.run_test(size=(40, 10)) as pilot:
        grid = app.query_one(Grid)
        rows: list[GridRow] = [(str(n), str(n), "") for n in range(6)]
        grid.show(rows)
        await pilot.pause()
        painted: list[int] = []
        draw = grid.render_line
        monkeypatch.setattr(grid, "render_line", lambda y: (painted.append(y), draw(y))[1])
        grid.show([*rows[:3], ("3", GridCell("changed", "accent"), ""), *rows[4:]])
        await pilot.pause()
        assert painted == [4]  # the header is line 0
        painted.clear()
        grid.show(list(grid.rows))
        await pilot.pause()
        assert painted == []


async def test_mouse_moves_opens_and_sorts() -> None:
    app = GridApp()
    async with app.run_test(size=(40, 10)) as pilot:
        app.query_one(Grid).show([("a", "1", ""), ("b", "2", "")], ["a", "b"])
        await pilot.click(Grid, offset=(3, 2))
        assert app.query_one(Grid).key == "b"
        await pilot.click(Grid, offset=(3, 2), times=2)
        assert any(isinstance(m, Grid.Chosen) and m.row == 1 for m in app.got)
        await pilot.click(Grid, offset=(2, 0))
        assert isinstance(app.got[-1], Grid.HeaderChosen)
        assert app.got[-1].key == "name"


async def test_wide_characters_are_measured_in_cells() -> None:
    app = GridApp()
    async with app.run_test(size=(30, 4)) as pilot:
        app.query_one(Grid).show([("한국어 이름이 아주 길다 정말로", "7", "")])
        await pilot.pause()
        from rich.cells import cell_len

        strip = app.query_one(Grid).render_line(1)
        assert strip.cell_length == 30 == cell_len(strip.text)
        assert "…" in strip.text


async def test_the_arrow_leaves_the_title_whole_and_a_heading_spans_the_row() -> None:
    app = GridApp()
    async with app.run_test(size=(30, 6)) as pilot:
        grid = app.query_one(Grid)
        grid.show([(GridCell("▾ a heading over all columns", "strong"),), ("a", "1", "x")])
        for key in ("name", "value"):
            grid.mark_sorted(key, "▾")
            await pilot.pause()
            assert f"{key} ▾" in screen_text(pilot)
        assert "▾ a heading over all columns" in screen_text(pilot)
