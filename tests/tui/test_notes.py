"""Findings and states are noted on the record's screen, and kept as append-only lines."""

from __future__ import annotations

import json
from pathlib import Path

from tests.tui import canned
from tests.tui.conftest import screen_text, until
from workbench.tui.app import WorkbenchApp
from workbench.tui.screens.dialogs import Ask, Choose
from workbench.tui.screens.record import RecordScreen


async def test_a_finding_and_a_state_are_noted(app: WorkbenchApp, log_root: Path) -> None:
    canned.write_records(log_root, 3)
    notes = log_root / "notes.jsonl"
    async with app.run_test(size=(100, 30)) as pilot:
        await pilot.press("3")
        await until(pilot, lambda: "3 runs" in screen_text(pilot))
        await pilot.press("enter")
        await until(pilot, lambda: "cause" in screen_text(pilot))
        await pilot.press("n")
        await until(pilot, lambda: isinstance(app.screen, Ask))
        await pilot.press(*"mode collapse", "enter")
        await until(pilot, lambda: "mode collapse" in screen_text(pilot))
        assert isinstance(app.screen, RecordScreen)
        await pilot.press("s")
        await until(pilot, lambda: isinstance(app.screen, Choose))
        await pilot.press("end", "up", "enter")  # the last but one: stopped
        await until(pilot, lambda: "stopped" in screen_text(pilot))
        await pilot.press("n", "escape")
        assert isinstance(app.screen, RecordScreen)
    lines = [json.loads(line) for line in notes.read_text("utf-8").splitlines()]
    assert [(line["kind"], line["text"]) for line in lines] == [
        ("finding", "mode collapse"),
        ("state", "stopped"),
    ]
