"""Findings and states are noted on the record's screen, and kept as append-only lines."""

from __future__ import annotations

import json
from pathlib import Path

from tests.workbench.tui import sample_suites
from tests.workbench.tui.conftest import screen_text, until
from workbench.tui.app import WorkbenchApp
from workbench.tui.screens.dialogs import ChoiceDialog, TextDialog
from workbench.tui.screens.record import RecordScreen


async def test_a_finding_and_a_state_are_noted(app: WorkbenchApp, log_root: Path) -> None:
    sample_suites.write_records(log_root, 3)
    notes = log_root / "notes.jsonl"
    async with app.run_test(size=(100, 30)) as pilot:
        await pilot.press("3")
        await until(pilot, lambda: "3 runs" in screen_text(pilot))
        await pilot.press("enter")
        await until(pilot, lambda: "cause" in screen_text(pilot))
        await pilot.press("n")
        await until(pilot, lambda: isinstance(app.screen, TextDialog))
        await pilot.press(*"mode collapse", "enter")
        await until(pilot, lambda: "mode collapse" in screen_text(pilot))
        assert isinstance(app.screen, RecordScreen)
        await pilot.press("s")
        await until(pilot, lambda: isinstance(app.screen, ChoiceDialog))
        await pilot.press("end", "up", "enter")  # the last but one: stopped
        await until(pilot, lambda: "stopped" in screen_text(pilot))
        await pilot.press("n", "escape")
        assert isinstance(app.screen, RecordScreen)
    lines = [json.loads(line) for line in notes.read_text("utf-8").splitlines()]
    assert [(line["kind"], line["text"]) for line in lines] == [
        ("finding", "mode collapse"),
        ("state", "stopped"),
    ]


async def test_a_suite_takes_notes_on_the_results_screen(app: WorkbenchApp, log_root: Path) -> None:
    sample_suites.write_records(log_root, 3)
    async with app.run_test(size=(100, 30)) as pilot:
        await pilot.press("3")
        await until(pilot, lambda: "3 runs" in screen_text(pilot))
        await pilot.press("n")
        await until(pilot, lambda: isinstance(app.screen, ChoiceDialog))
        await pilot.press("enter")  # the first: a next step
        await until(pilot, lambda: isinstance(app.screen, TextDialog))
        await pilot.press(*"val and test too", "enter")
        await until(pilot, (log_root / "notes.jsonl").exists)
        await pilot.press("n")
        await until(pilot, lambda: "val and test too" in screen_text(pilot))
        await pilot.press("down", "down", "enter")  # why: the choice as a whole
        await until(pilot, lambda: "Why was it chosen?" in screen_text(pilot))
        await pilot.press("enter")
        await until(pilot, lambda: isinstance(app.screen, TextDialog))
        await pilot.press(*"images on both sides", "enter")
        await until(pilot, lambda: len(_lines(log_root)) == 2)
    first, second = _lines(log_root)
    assert (first["kind"], first["run_id"], first["text"]) == ("next", "", "val and test too")
    assert (second["kind"], second["about"]) == ("reason", "")


def _lines(log_root: Path) -> list[dict[str, str]]:
    return [json.loads(line) for line in (log_root / "notes.jsonl").read_text().splitlines()]
