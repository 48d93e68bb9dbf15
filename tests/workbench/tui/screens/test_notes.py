"""Findings and states are noted on the record's screen, and kept as append-only lines."""

from __future__ import annotations

import json
from pathlib import Path

from textual.pilot import Pilot

from tests.workbench.tui import sample_suites
from tests.workbench.tui.conftest import screen_text, until
from workbench.tui.app import WorkbenchApp
from workbench.tui.screens.dialogs import ChoiceDialog, TextDialog
from workbench.tui.screens.record import RecordScreen
from workbench.tui.screens.results.screen import ResultsScreen


async def test_findings_states_and_words_about_a_suite_are_noted(
    app: WorkbenchApp, log_root: Path
) -> None:
    sample_suites.write_records(log_root, 3)
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
        assert [(line["kind"], line["text"]) for line in _lines(log_root)] == [
            ("finding", "mode collapse"),
            ("state", "stopped"),
        ]
        await pilot.press("b")
        await until(pilot, lambda: "No metric of this run has a score" in screen_text(pilot))
        await pilot.press("d", "n", "m", "escape", "escape", "escape")
        await until(pilot, lambda: isinstance(app.screen, ResultsScreen))
        await check_suite_notes(app, pilot, log_root)


async def check_suite_notes(app: WorkbenchApp, pilot: Pilot[None], log_root: Path) -> None:
    """A suite takes notes on the Results screen."""
    await pilot.press("n")
    await until(pilot, lambda: isinstance(app.screen, ChoiceDialog))
    await pilot.press("enter")  # the first: a next step
    await until(pilot, lambda: isinstance(app.screen, TextDialog))
    await pilot.press(*"val and test too", "enter")
    await until(pilot, lambda: len(_lines(log_root)) == 3)
    await pilot.press("n")
    await until(pilot, lambda: "val and test too" in screen_text(pilot))
    await pilot.press("down", "down", "enter")  # why: the choice as a whole
    await until(pilot, lambda: "Why was it chosen?" in screen_text(pilot))
    await pilot.press("enter")
    await until(pilot, lambda: isinstance(app.screen, TextDialog))
    await pilot.press(*"images on both sides", "enter")
    await until(pilot, lambda: len(_lines(log_root)) == 4)
    first, second = _lines(log_root)[2:]
    assert (first["kind"], first["run_id"], first["text"]) == ("next", "", "val and test too")
    assert (second["kind"], second["about"]) == ("reason", "")


def _lines(log_root: Path) -> list[dict[str, str]]:
    return [json.loads(line) for line in (log_root / "notes.jsonl").read_text().splitlines()]
