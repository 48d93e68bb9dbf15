"""The three screens, driven by keys at two sizes over canned suites."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from tests.tui import canned
from tests.tui.conftest import SIZES, screen_text, until
from workbench import suite
from workbench.tui import command
from workbench.tui.app import WorkbenchApp, refusal
from workbench.tui.screens.dialogs import Choose, Confirm, Help
from workbench.tui.screens.live import LiveScreen
from workbench.tui.screens.plan import PlanScreen
from workbench.tui.screens.record import RecordScreen
from workbench.tui.screens.results import ResultsScreen
from workbench.tui.widgets.grid import Grid
from workbench.tui.widgets.log_tail import LogTail

sizes = pytest.mark.parametrize("size", SIZES, ids=lambda s: f"{s[0]}x{s[1]}")


def plan_of(app: WorkbenchApp) -> PlanScreen:
    assert isinstance(app.screen, PlanScreen)
    return app.screen


def live_of(app: WorkbenchApp) -> LiveScreen:
    assert isinstance(app.screen, LiveScreen)
    return app.screen


async def ready(pilot, app: WorkbenchApp) -> PlanScreen:
    """The catalogues are there and the first plan was expanded."""
    screen = plan_of(app)
    await until(pilot, lambda: screen.preview is not None)
    return screen


# -- Plan ----------------------------------------------------------------------------------


@sizes
async def test_plan_starts_from_a_preset_and_shows_its_runs(app: WorkbenchApp, size) -> None:
    async with app.run_test(size=size) as pilot:
        screen = await ready(pilot, app)
        assert screen.draft.preset == "demo"
        assert screen.preview is not None
        assert len(screen.preview.runs) == 4
        text = screen_text(pilot)
        assert "4 runs: 2 subsets × 2 models" in text
        assert "emoji_train" in text
        assert "clip-nano" in text
        if size[0] >= 110:
            assert "workbench run" in text
            assert 'name = "demo"' in text


@sizes
async def test_plan_by_keys_alone(app: WorkbenchApp, size) -> None:
    async with app.run_test(size=size) as pilot:
        screen = await ready(pilot, app)
        grid = screen.query_one("#subsets", Grid)
        assert screen.focused is grid
        while grid.key != "emoji_train":
            await pilot.press("down")
        await pilot.press("space")
        assert "emoji_train" not in screen.draft.subsets
        await until(pilot, lambda: screen.preview and len(screen.preview.runs) == 2)
        await pilot.press("space")
        await until(pilot, lambda: screen.preview and len(screen.preview.runs) == 4)


async def test_a_number_is_edited_checked_and_put_back(app: WorkbenchApp) -> None:
    async with app.run_test(size=(120, 36)) as pilot:
        screen = await ready(pilot, app)
        grid = screen.query_one("#settings-grid", Grid)
        grid.focus()
        grid.cursor = list(grid.keys).index("repeats")
        await pilot.press("enter", "backspace", "x", "enter")
        assert "repeats: 'x' is not a whole number" in screen_text(pilot)
        assert not screen.draft.suite.get("repeats")
        await pilot.press("backspace", "3", "enter")
        await until(pilot, lambda: screen.preview and len(screen.preview.runs) == 12)
        assert screen.draft.suite["repeats"] == 3
        assert "repeats = 3" in (screen.preview.toml if screen.preview else "")
        await pilot.press("backspace")
        await until(pilot, lambda: screen.preview and len(screen.preview.runs) == 4)
        assert "repeats" not in screen.draft.suite


async def test_a_switch_turns_and_a_choice_is_chosen(app: WorkbenchApp) -> None:
    async with app.run_test(size=(120, 36)) as pilot:
        screen = await ready(pilot, app)
        assert screen.catalogue is not None
        engine = screen.catalogue.engine("retrieval")
        assert engine is not None
        switch = next(s for s in engine.settings if s.kind == "switch")
        choice = next(s for s in engine.settings if s.kind == "choice")
        grid = screen.query_one("#settings-grid", Grid)
        grid.focus()
        grid.cursor = list(grid.keys).index(switch.name)
        await pilot.press("space")
        assert screen.draft.settings[switch.name] is not switch.default
        grid.cursor = list(grid.keys).index(choice.name)
        await pilot.press("enter")
        await until(pilot, lambda: isinstance(app.screen, Choose))
        await pilot.press("home", "down", "enter")
        await until(pilot, lambda: app.screen is screen)
        if choice.choices[1] != choice.default:
            assert screen.draft.settings[choice.name] == choice.choices[1]


async def test_escape_leaves_the_editor_without_a_change(app: WorkbenchApp) -> None:
    async with app.run_test(size=(80, 24)) as pilot:
        screen = await ready(pilot, app)
        grid = screen.query_one("#settings-grid", Grid)
        grid.focus()
        before = screen.draft
        await pilot.press("enter", "z", "q", "1", "escape")
        assert screen.draft == before
        assert screen.focused is grid
        assert isinstance(app.screen, PlanScreen)  # q and 1 were typed, not obeyed


async def test_the_same_pane_shows_settings_runs_and_file_where_it_is_narrow(
    app: WorkbenchApp,
) -> None:
    async with app.run_test(size=(80, 24)) as pilot:
        screen = await ready(pilot, app)
        shown = []
        for _ in range(4):
            shown.append(
                tuple(
                    screen.query_one(f"#{part}").region.area > 0
                    for part in ("plan-settings", "plan-runs", "plan-file")
                )
            )
            await pilot.press("v")
            await pilot.pause()
        assert shown == [
            (True, False, False), (False, True, False), (False, False, True), (True, False, False)
        ]  # fmt: skip


async def test_problems_are_shown_and_nothing_starts(app: WorkbenchApp) -> None:
    async with app.run_test(size=(120, 36)) as pilot:
        screen = await ready(pilot, app)
        grid = screen.query_one("#subsets", Grid)
        for name in screen.draft.subsets:
            grid.cursor = list(grid.keys).index(name)
            await pilot.press("space")
        await until(pilot, lambda: screen.preview and screen.preview.problems)
        assert "Choose at least one subset." in screen_text(pilot)
        await pilot.press("f5")
        assert not isinstance(app.screen, Confirm)


async def test_a_wrong_setting_is_told_by_the_plan_code(app: WorkbenchApp) -> None:
    async with app.run_test(size=(120, 36)) as pilot:
        screen = await ready(pilot, app)
        from dataclasses import replace

        screen.change(replace(screen.draft, settings={"epochz": 3}))
        await until(pilot, lambda: screen.preview and screen.preview.problems)
        assert "epochz" in screen_text(pilot)
        assert screen.query_one("#start").disabled


async def test_presets_and_engines_are_chosen_from_lists(app: WorkbenchApp) -> None:
    async with app.run_test(size=(80, 24)) as pilot:
        screen = await ready(pilot, app)
        await pilot.press("e")
        await until(pilot, lambda: isinstance(app.screen, Choose))
        await pilot.press("end", "enter")
        await until(pilot, lambda: screen.draft.engine == "probe")
        await until(pilot, lambda: screen.preview and len(screen.preview.runs) == 1)
        assert "needs no subset" in screen_text(pilot)
        await pilot.press("p", "end", "enter")
        await until(pilot, lambda: screen.draft.preset == "")
        assert screen.draft.subsets == ()


async def test_start_runs_exactly_the_command_that_was_shown(
    app: WorkbenchApp, log_root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    ran: list[list[str]] = []
    folder = canned.make_suite(log_root, [("emoji_train", "clip-nano")], state="running")
    hidden = folder.rename(log_root.parent / "made-by-the-command")

    async def pretend(arguments: list[str]) -> command.Outcome:
        ran.append(arguments)
        hidden.rename(folder)
        return command.Outcome(0, f"{folder.name}\n", "it runs on by itself\n")

    monkeypatch.setattr(command, "workbench", pretend)
    async with app.run_test(size=(120, 36)) as pilot:
        screen = await ready(pilot, app)
        preview = screen.preview
        assert preview is not None
        await pilot.press("f5")
        await until(pilot, lambda: isinstance(app.screen, Confirm))
        assert "go on when you leave" in screen_text(pilot)
        await pilot.press("y")
        await until(pilot, lambda: isinstance(app.screen, LiveScreen))
        assert preview.file is not None
        assert ran == [command.run_detached(preview.file, log_root)]
        assert preview.file.read_text() == preview.toml
        await until(pilot, lambda: live_of(app).snapshot is not None)
        assert live_of(app).folder == folder


async def test_a_start_that_fails_says_why_and_stays(
    app: WorkbenchApp, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def pretend(arguments: list[str]) -> command.Outcome:
        return command.Outcome(2, "", "workbench: the disk is \x1b[31mfull\n")

    monkeypatch.setattr(command, "workbench", pretend)
    async with app.run_test(size=(80, 24), notifications=True) as pilot:
        await ready(pilot, app)
        await pilot.press("f5")
        await until(pilot, lambda: isinstance(app.screen, Confirm))
        await pilot.press("y")
        await until(pilot, lambda: "the disk is" in screen_text(pilot))
        assert isinstance(app.screen, PlanScreen)
        assert "\x1b" not in screen_text(pilot)


async def test_enter_alone_does_no_harm(app: WorkbenchApp) -> None:
    async with app.run_test(size=(80, 24)) as pilot:
        screen = await ready(pilot, app)
        await pilot.press("f5")
        await until(pilot, lambda: isinstance(app.screen, Confirm))
        await pilot.press("enter")
        await until(pilot, lambda: app.screen is screen)
        assert not (app.log_root / "plans").exists()


# -- Live ----------------------------------------------------------------------------------


@sizes
async def test_live_shows_queue_run_curves_and_log(app: WorkbenchApp, log_root: Path, size) -> None:
    canned.busy_root(log_root)
    async with app.run_test(size=size) as pilot:
        await pilot.press("2")
        await until(pilot, lambda: live_of(app).snapshot is not None)
        await until(pilot, lambda: "step time" in screen_text(pilot))
        text = screen_text(pilot)
        for part in ("running · 2 of 4 runs done · 1 failed", "completed", "oom-cuda", "train 64%",
                     "queued", "1,680 / 2,616 steps", "left", "GiB", "CPU (100 % = one core)",
                     "epoch 1 of 1: 2,616 steps of 64"):  # fmt: skip
            assert part in text, f"{part!r} is not on\n{text}"
        assert any(0x2800 < ord(c) < 0x2900 for c in text)
        assert live_of(app).query_one("#queue", Grid).cursor == 2  # the run at work


@sizes
async def test_another_run_is_looked_at_and_left_again(
    app: WorkbenchApp, log_root: Path, size
) -> None:
    canned.busy_root(log_root)
    async with app.run_test(size=size) as pilot:
        await pilot.press("2")
        await until(pilot, lambda: live_of(app).snapshot is not None)
        await pilot.press("up")
        await until(pilot, lambda: "CUDA out of memory" in screen_text(pilot))
        await pilot.press("up")
        if size[0] < 110:
            await pilot.press("v")
        await until(pilot, lambda: "recall@1" in screen_text(pilot))
        await pilot.press("f")
        await until(pilot, lambda: live_of(app).query_one("#queue", Grid).cursor == 2)


async def test_new_journal_lines_appear(app: WorkbenchApp, log_root: Path) -> None:
    folder = canned.make_suite(
        log_root, [("emoji_train", "clip-nano"), ("emoji_train", "effnet-minilm")], state="running"
    )
    async with app.run_test(size=(80, 24)) as pilot:
        await pilot.press("2")
        await until(pilot, lambda: live_of(app).snapshot is not None)
        assert "queued" in screen_text(pilot)
        journal = canned.begin(folder, 1)
        await until(pilot, lambda: "running" in screen_text(pilot).split("subset")[1])
        t = canned.train(journal, 100, 200)
        canned.log(folder, 1, "hello from the engine\n")
        await until(pilot, lambda: "train 50%" in screen_text(pilot))
        await until(pilot, lambda: "hello from the engine" in screen_text(pilot))
        canned.finish(journal, t, "emoji_val")
        await until(pilot, lambda: "completed" in screen_text(pilot))
        canned.begin(folder, 2)
        await until(pilot, lambda: live_of(app).query_one("#queue", Grid).cursor == 1)


@pytest.mark.parametrize(
    ("keys", "do", "run"),
    [
        (["s"], "stop", None),
        (["k"], "skip", "03-retrieval-evqa_train-tinyclip-61m"),
        (["down", "c"], "cancel", "04-retrieval-oven_train-tinyclip-61m"),
        (["h"], "hold", None),
    ],
)
async def test_steering_asks_then_writes_one_command(
    app: WorkbenchApp, log_root: Path, keys: list[str], do: str, run: str | None
) -> None:
    folder = canned.busy_root(log_root)
    async with app.run_test(size=(80, 24)) as pilot:
        await pilot.press("2")
        await until(pilot, lambda: live_of(app).snapshot is not None)
        await pilot.press(*keys)
        await until(pilot, lambda: isinstance(app.screen, Confirm))
        await pilot.press("n")
        await until(pilot, lambda: isinstance(app.screen, LiveScreen))
        assert suite.read_commands(folder, 0)[0] == []
        await pilot.press(keys[-1])
        await until(pilot, lambda: isinstance(app.screen, Confirm))
        await pilot.press("y")
        await until(pilot, lambda: suite.read_commands(folder, 0)[0])
        (told,) = suite.read_commands(folder, 0)[0]
        assert (told.do, told.run) == (do, run)


async def test_a_held_suite_goes_on_with_the_same_key(app: WorkbenchApp, log_root: Path) -> None:
    folder = canned.busy_root(log_root)
    canned.write_warden(folder, "holding")
    async with app.run_test(size=(80, 24)) as pilot:
        await pilot.press("2")
        await until(pilot, lambda: live_of(app).snapshot is not None)
        await pilot.press("h")
        await until(pilot, lambda: isinstance(app.screen, Confirm))
        await pilot.press("y")
        await until(pilot, lambda: suite.read_commands(folder, 0)[0])
        assert suite.read_commands(folder, 0)[0][0].do == "continue"


async def test_suites_are_chosen_from_a_list_and_by_brackets(
    app: WorkbenchApp, log_root: Path
) -> None:
    busy = canned.busy_root(log_root)
    old = canned.make_suite(log_root, [("emoji_val", "clip-nano")], stamp="20261101-000000")
    async with app.run_test(size=(80, 24)) as pilot:
        await pilot.press("2")
        await until(pilot, lambda: live_of(app).snapshot is not None)
        assert live_of(app).folder == busy
        await pilot.press("o", "down", "enter")
        await until(pilot, lambda: isinstance(app.screen, LiveScreen) and app.screen.folder == old)
        await until(pilot, lambda: "emoji_val" in screen_text(pilot))
        await pilot.press("right_square_bracket")
        await until(pilot, lambda: live_of(app).folder == busy)


@sizes
async def test_empty_log_root_says_what_to_do(app: WorkbenchApp, size) -> None:
    async with app.run_test(size=size) as pilot:
        await pilot.press("2")
        await until(pilot, lambda: "No suite yet." in screen_text(pilot))
        await pilot.press("s", "k", "c", "h", "f", "o")
        await until(pilot, lambda: isinstance(app.screen, Choose))
        await pilot.press("escape", "3")
        await until(pilot, lambda: "No records yet." in screen_text(pilot))
        await pilot.press("x", "w", "enter", "r", "less_than_sign")
        assert isinstance(app.screen, ResultsScreen)


async def test_a_lost_warden_is_said_and_its_books_are_closed_once(
    app: WorkbenchApp, log_root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = canned.busy_root(log_root)
    warden = suite.read_warden(folder)
    assert warden is not None
    suite.write_warden(folder, warden.model_copy(update={"start_ticks": 1}))
    ran: list[list[str]] = []

    async def pretend(arguments: list[str]) -> command.Outcome:
        ran.append(arguments)
        return command.Outcome(0, "", "")

    monkeypatch.setattr(command, "workbench", pretend)
    async with app.run_test(size=(80, 24)) as pilot:
        await pilot.press("2")
        await until(pilot, lambda: "The warden of this suite is gone" in screen_text(pilot))
        await until(pilot, lambda: ran)
        await pilot.pause(1.2)
        assert ran == [command.list_suites(log_root)]
        await pilot.press("s")
        assert isinstance(app.screen, LiveScreen)


async def test_a_broken_suite_is_a_sentence(app: WorkbenchApp, log_root: Path) -> None:
    folder = canned.make_suite(log_root, [("emoji_train", "clip-nano")])
    run, _ = suite.runs(folder)[0]
    (run / "spec.json").write_text("{")
    async with app.run_test(size=(80, 24)) as pilot:
        await pilot.press("2")
        await until(pilot, lambda: "This suite cannot be read" in screen_text(pilot))


async def test_a_suite_that_is_deleted_meanwhile_is_no_crash(
    app: WorkbenchApp, log_root: Path
) -> None:
    folder = canned.busy_root(log_root)
    async with app.run_test(size=(80, 24)) as pilot:
        await pilot.press("2")
        await until(pilot, lambda: live_of(app).snapshot is not None)
        shutil.rmtree(folder)
        await pilot.pause(1.0)
        assert isinstance(app.screen, LiveScreen)


async def test_foreign_text_reaches_no_widget_as_markup_or_escape(
    app: WorkbenchApp, log_root: Path
) -> None:
    from engines import protocol

    hostile = "[bold]x[/bold] [/] \x1b]52;c;aGk=\x07 \x9b31m \u202eabc"
    folder = canned.make_suite(log_root, [("emoji_train", "clip-nano")], state="running")
    journal = canned.begin(folder, 1)
    journal.put(protocol.Phase(t=2.0, name="load", detail=hostile))
    journal.put(protocol.Notice(t=2.0, code="x", text=hostile))
    metric = protocol.Metric(t=2.1, name=hostile, value=0.5, split=hostile, n=1)
    journal.put(metric)
    canned.log(folder, 1, hostile + "\n")
    canned.write_warden(folder, "queued", detail=hostile)
    async with app.run_test(size=(200, 60)) as pilot:
        await pilot.press("2")
        await until(pilot, lambda: screen_text(pilot).count("[bold]x[/bold") >= 6)
        assert not set(screen_text(pilot)) & set("\x1b\x07\x9b\u202e")


async def test_log_stays_where_it_was_scrolled_to(app: WorkbenchApp, log_root: Path) -> None:
    folder = canned.busy_root(log_root)
    canned.log(folder, 3, "".join(f"line {n}\n" for n in range(150)))
    async with app.run_test(size=(120, 36)) as pilot:
        await pilot.press("2")
        await until(pilot, lambda: "line 149" in screen_text(pilot))
        live_of(app).query_one(LogTail).focus()
        await pilot.press("home")
        await until(pilot, lambda: "line 0 " in screen_text(pilot) + " ")
        canned.log(folder, 3, "".join(f"line {n}\n" for n in range(160)))
        await until(pilot, lambda: (s := live_of(app).snapshot) and s.log[-1] == "line 159")
        await pilot.pause()
        assert "line 159" not in screen_text(pilot)


# -- Results -------------------------------------------------------------------------------


@sizes
async def test_results_sort_filter_and_detail(app: WorkbenchApp, log_root: Path, size) -> None:
    canned.write_records(log_root, 60)
    async with app.run_test(size=size) as pilot:
        await pilot.press("3")
        await until(pilot, lambda: "60 runs · newest first" in screen_text(pilot))
        await pilot.press("slash", *"oven nano", "enter")
        await until(pilot, lambda: " of 60 runs" in screen_text(pilot))
        grid = app.screen.query_one("#records", Grid)
        assert 0 < len(grid.rows) < 60
        assert all("oven_train" in str(row) and "clip-nano" in str(row) for row in grid.rows)
        await pilot.press("escape")
        await until(pilot, lambda: len(grid.rows) == 60)
        await pilot.press("greater_than_sign")
        assert "by " in screen_text(pilot)
        await pilot.press("enter")
        await until(pilot, lambda: isinstance(app.screen, RecordScreen))
        await until(pilot, lambda: "cause" in screen_text(pilot))
        await pilot.press("escape")
        assert isinstance(app.screen, ResultsScreen)


async def test_new_records_appear_by_themselves(
    app: WorkbenchApp, log_root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import random

    from workbench.tui.screens import results

    monkeypatch.setattr(results, "REREAD_SECONDS", 0.1)
    async with app.run_test(size=(80, 24)) as pilot:
        await pilot.press("3")
        await until(pilot, lambda: "No records yet." in screen_text(pilot))
        canned.append_record(log_root, canned.record("s", 1, random.Random(1)))
        await until(pilot, lambda: "1 runs" in screen_text(pilot))


@pytest.mark.parametrize(("choice", "ending"), [("home", "md"), ("end", "csv")])
async def test_what_is_shown_is_exported(
    app: WorkbenchApp, log_root: Path, choice: str, ending: str
) -> None:
    canned.write_records(log_root, 20)
    async with app.run_test(size=(80, 24)) as pilot:
        await pilot.press("3")
        await until(pilot, lambda: "20 runs" in screen_text(pilot))
        await pilot.press("slash", *"oven", "enter")
        shown = len(app.screen.query_one("#records", Grid).rows)
        await pilot.press("x")
        await until(pilot, lambda: isinstance(app.screen, Choose))
        await pilot.press(choice, "enter")
        await until(pilot, lambda: list((log_root / "exports").glob(f"*.{ending}")))
        (file,) = (log_root / "exports").iterdir()
        await until(pilot, file.read_text)
        extra = 2 if ending == "md" else 1
        assert len(file.read_text().splitlines()) == shown + extra


async def test_a_newer_schema_is_refused_in_a_sentence(app: WorkbenchApp, log_root: Path) -> None:
    (log_root / "results.jsonl").write_text('{"schema": 999}\n')
    async with app.run_test(size=(120, 36)) as pilot:
        await pilot.press("3")
        await until(pilot, lambda: "newer workbench" in " ".join(screen_text(pilot).split()))
        assert "cannot be read" in screen_text(pilot)


async def test_report_is_written_by_the_command(
    app: WorkbenchApp, log_root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    canned.write_records(log_root, 5)
    ran: list[list[str]] = []

    async def pretend(arguments: list[str]) -> command.Outcome:
        ran.append(arguments)
        return command.Outcome(1, "", "workbench: no suite of that name\n")

    monkeypatch.setattr(command, "workbench", pretend)
    async with app.run_test(size=(80, 24), notifications=True) as pilot:
        await pilot.press("3")
        await until(pilot, lambda: "5 runs" in screen_text(pilot))
        await pilot.press("w")
        await until(pilot, lambda: "no suite of that name" in screen_text(pilot))
        assert ran[0][0] == "report"


# -- the frame -----------------------------------------------------------------------------


@sizes
async def test_help_and_modes(app: WorkbenchApp, size) -> None:
    async with app.run_test(size=size) as pilot:
        for key, kind in (("2", LiveScreen), ("3", ResultsScreen), ("1", PlanScreen),
                          ("f2", LiveScreen), ("f1", PlanScreen)):  # fmt: skip
            await pilot.press(key)
            await until(pilot, lambda kind=kind: isinstance(app.screen, kind))
        await pilot.press("question_mark")
        await until(pilot, lambda: isinstance(app.screen, Help))
        assert "leave; suites go on" in screen_text(pilot)
        await pilot.press("escape", "q")
        await until(pilot, lambda: not app.is_running)


@sizes
async def test_mouse_clicks_do_what_keys_do(app: WorkbenchApp, size) -> None:
    async with app.run_test(size=size) as pilot:
        screen = await ready(pilot, app)
        await pilot.click("#subsets", offset=(1, 1))
        first = screen.query_one("#subsets", Grid).keys[0]
        assert first in screen.draft.subsets
        tabs = list(screen.query("Tab"))
        await pilot.click(tabs[2])
        await until(pilot, lambda: isinstance(app.screen, ResultsScreen))


def test_no_line_is_wider_than_the_smallest_screen_needs() -> None:
    """The footers of all screens fit 80 columns, with `q Quit` in view."""
    from textual.binding import Binding

    own = [b for b in WorkbenchApp.BINDINGS if isinstance(b, Binding) and b.show]
    for screen in (PlanScreen, LiveScreen, ResultsScreen):
        shown = [b for b in (*screen.BINDINGS, *own) if isinstance(b, Binding) and b.show]
        names = {"question_mark": "?", "slash": "/", "escape": "esc"}
        keys = [b.key_display or names.get(b.key, b.key) for b in shown]
        width = sum(len(k) + len(b.description) + 3 for k, b in zip(keys, shown, strict=True))
        assert width <= 80, screen


@pytest.mark.parametrize("term", ["", "dumb", "unknown"])
def test_a_terminal_that_cannot_is_refused_with_a_way_out(term: str) -> None:
    assert "--headless" in refusal(term, is_terminal=True)


def test_terminals_that_can_are_not_refused() -> None:
    assert refusal("xterm-256color", is_terminal=True) == ""
    assert "terminal" in refusal("xterm-256color", is_terminal=False)
