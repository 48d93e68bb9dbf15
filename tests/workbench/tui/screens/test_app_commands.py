"""Palette, copying, themes and own keys on the screen."""

from __future__ import annotations

from pathlib import Path

import pytest
from textual.command import CommandPalette
from textual.pilot import Pilot

from results.listing.views import parse_view
from tests.workbench.tui import sample_suites
from tests.workbench.tui.conftest import ready, screen_text, until
from workbench.tui.app import WorkbenchApp
from workbench.tui.screens import palette
from workbench.tui.screens.data import DataScreen
from workbench.tui.screens.dialogs import ChoiceDialog, MessageDialog
from workbench.tui.screens.jump import JumpOverlay
from workbench.tui.screens.record import RecordScreen
from workbench.tui.screens.results.screen import ResultsScreen
from workbench.tui.system import clipboard
from workbench.tui.widgets.grid import Grid


async def test_the_palette_finds_everything_and_y_copies_it(
    app: WorkbenchApp, log_root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    sample_suites.write_records(log_root, 3)
    texts: list[str] = []

    def pretend(text: str, *_: object) -> clipboard.Copied:
        texts.append(text)
        return clipboard.Copied("by tmux")

    monkeypatch.setattr(clipboard, "copy_text", pretend)
    async with app.run_test(size=(120, 36), notifications=True) as pilot:
        await pilot.press("3")
        await until(pilot, lambda: "3 runs" in screen_text(pilot))
        await check_copies(app, pilot, log_root, texts)
        for name in app.theme_names:
            app.choose_theme(name)
            await pilot.pause()
            app.refresh_css(animate=False)
            await until(pilot, lambda: "3 runs" in screen_text(pilot))
        await check_entries(app, pilot, log_root)
        await pilot.press("colon")
        await until(pilot, lambda: isinstance(app.screen, CommandPalette))
        await pilot.press(*"theme light")
        await until(pilot, lambda: "theme light" in screen_text(pilot))
        await pilot.pause(0.3)
        await pilot.press("down", "enter")
        await until(pilot, lambda: app.theme == "workbench-light")
    assert WorkbenchApp(log_root, tmp_path / "cache").theme == "workbench-light"


async def check_copies(
    app: WorkbenchApp, pilot: Pilot[None], log_root: Path, texts: list[str]
) -> None:
    for at in (0, 1, 4):
        await pilot.press("y")
        await until(pilot, lambda: isinstance(app.screen, ChoiceDialog))
        await pilot.press(*["down"] * at, "enter")
        await until(pilot, lambda at=at: len(texts) == (0, 1, 4).index(at) + 1)
    await until(pilot, lambda: "Copied by tmux" in screen_text(pilot))
    command, folder, table = texts
    assert command.startswith("workbench results show 20261121-000000-weekly-1a2b/02-")
    assert folder.startswith(str(log_root))
    assert table.count("\n") == 2 + 3
    assert table.startswith("| started | ")


async def check_entries(app: WorkbenchApp, pilot: Pilot[None], log_root: Path) -> None:
    content = palette.read_content(log_root, app.cache_root)
    entries = {entry.name: entry for entry in palette.list_entries(app, content)}
    assert {"Compare", "screen live", "theme light", "subset emoji_train"} <= entries.keys()
    assert {"setting lr (retrieval)", "docs tui", "Put into the trash"} <= entries.keys()
    assert not any(name.startswith(("move", "scroll", "Scroll")) for name in entries)
    entries[next(name for name in entries if name.startswith("run "))].run()
    await until(pilot, lambda: isinstance(app.screen, RecordScreen))
    await until(pilot, lambda: "cause" in screen_text(pilot))
    await pilot.press("escape")
    entries["docs tui"].run()
    await until(pilot, lambda: isinstance(app.screen, MessageDialog))
    await until(pilot, lambda: "The terminal UI" in screen_text(pilot))
    await pilot.press("escape")
    entries["subset emoji_val"].run()
    await until(pilot, lambda: isinstance(app.screen, DataScreen))
    await until(pilot, lambda: "emoji_val" in [grid.key for grid in app.screen.query(Grid)])


async def test_own_keys_stand_for_others_but_not_while_typing_and_the_view_is_remembered(
    log_root: Path, tmp_path: Path
) -> None:
    config = tmp_path / "config"
    config.mkdir()
    (config / "screen.toml").write_text('thema = 1\n[keys]\nR = "3"\n[keys.results]\nf = "slash"\n')
    sample_suites.write_records(log_root, 3)
    app = WorkbenchApp(log_root, tmp_path / "cache")
    async with app.run_test(size=(80, 24), notifications=True) as pilot:
        await until(pilot, lambda: "unknown key 'thema'" in str([*app._notifications]))
        await pilot.press("R")
        await until(pilot, lambda: isinstance(app.screen, ResultsScreen))
        await until(pilot, lambda: "3 runs" in screen_text(pilot))
        await pilot.press("g", "greater_than_sign", "f", *"Rf")
        screen = app.screen
        assert isinstance(screen, ResultsScreen)
        await until(pilot, lambda: screen.view.filter == "Rf")
    view = parse_view(WorkbenchApp(log_root, tmp_path / "cache").memory["results"])
    assert (view.group, view.filter) == ("suite", "")
    assert view.sort


async def test_a_letter_focuses_a_part_of_the_screen_and_j_and_k_move(app: WorkbenchApp) -> None:
    async with app.run_test(size=(120, 36)) as pilot:
        screen = await ready(pilot, app)
        for key in ("apostrophe", "ctrl+o"):
            screen.query_one("#subsets", Grid).focus()
            await until(pilot, lambda: screen.focused and screen.focused.id == "subsets")
            await pilot.press(key)
            await until(pilot, lambda: isinstance(app.screen, JumpOverlay))
            overlay = app.screen
            assert isinstance(overlay, JumpOverlay)
            names = {widget.id: letter for letter, widget in overlay.targets.items()}
            assert {"subsets", "models", "runs", "settings-grid", "pick-preset"} <= names.keys()
            label = overlay.query(".jump-label")[list(overlay.targets).index(names["runs"])]
            await until(pilot, lambda label=label: label.region.area)
            assert label.region.offset == screen.query_one("#runs", Grid).region.offset
            await pilot.press(names["runs"])
            await until(pilot, lambda: screen.focused and screen.focused.id == "runs")
        for key in ("escape", "1"):
            await pilot.press("apostrophe", key)
            await until(pilot, lambda: app.screen is screen)
            assert screen.focused
            assert screen.focused.id == "runs"
        screen.query_one("#subsets", Grid).focus()
        grid = screen.query_one("#subsets", Grid)
        await pilot.press("home", "j", "j", "k")
        assert grid.cursor == 1
        await pilot.press("slash", "j", "k")
        assert screen.texts["subsets"] == "jk", "while something is typed they are letters"


async def test_another_log_root_is_opened_on_the_screen(
    app: WorkbenchApp, log_root: Path, tmp_path: Path
) -> None:
    other = tmp_path / "other_logs"
    other.mkdir()
    sample_suites.write_records(other, 3)
    async with app.run_test(size=(120, 36), notifications=True) as pilot:
        screen = await ready(pilot, app)
        await until(pilot, lambda: "bench_logs" in screen_text(pilot).splitlines()[0])
        await pilot.press("O", "end", "enter", *"/nowhere", "enter")
        await until(pilot, lambda: "/nowhere is no folder" in screen_text(pilot))
        await pilot.press("O", "end", "enter", *str(other), "enter")
        await until(pilot, lambda: "other_logs" in screen_text(pilot).splitlines()[0])
        assert app.screen is not screen
        await ready(pilot, app)
        await pilot.press("3")
        await until(pilot, lambda: "3 runs" in screen_text(pilot))
        await pilot.press("2", "O")
        await until(pilot, lambda: isinstance(app.screen, ChoiceDialog))
        assert "shown now" in screen_text(pilot)
        await pilot.press("down", "enter")
        await until(pilot, lambda: app.log_root == log_root)
        await until(pilot, lambda: app.current_mode == "plan")
        await pilot.press("3")
        await until(pilot, lambda: isinstance(app.screen, ResultsScreen))
        await until(pilot, lambda: "3 runs" not in screen_text(pilot))
    assert app.memory["log_roots"] == [str(log_root), str(other)]
