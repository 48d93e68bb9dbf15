"""The Live screen over sample suites: what it shows, and what it tells the warden."""

from __future__ import annotations

import asyncio
import json
import shutil
from dataclasses import replace
from pathlib import Path

import pytest
from textual.pilot import Pilot

from engines import messages
from tests.workbench.tui import sample_suites
from tests.workbench.tui.conftest import live_of, screen_text, until
from workbench.suites import control, suite, trials, warden_file
from workbench.tui.app import WorkbenchApp
from workbench.tui.screens.dialogs import ChoiceDialog, ConfirmDialog
from workbench.tui.screens.live import footers
from workbench.tui.screens.live.screen import LiveScreen
from workbench.tui.screens.results.screen import ResultsScreen
from workbench.tui.system import cli_commands
from workbench.tui.widgets.charts.chart import Chart
from workbench.tui.widgets.charts.chart_panel import ChartPanel
from workbench.tui.widgets.grid import Grid
from workbench.tui.widgets.log_tail import LogTail
from workbench.tui.widgets.top_bar import Heading


async def check_queue_and_run(app: WorkbenchApp, pilot: Pilot[None]) -> None:
    """Queue, run, curves and log are shown; another run is looked at and left again."""
    await pilot.press("2")
    await until(pilot, lambda: "oom-cuda" in screen_text(pilot))  # the queue has its height
    await until(pilot, lambda: "reading on …" not in screen_text(pilot))
    await until(pilot, lambda: "train 64%" in screen_text(pilot))
    text = screen_text(pilot)
    for part in ("running · 1 of 4 runs completed · 1 failed", "completed", "oom-cuda",
                 "train 64%", "queued", "1,680 / 2,616 steps", "left", "GiB", "CPU of one core",
                 "epoch 1 of 1: 2,616 steps of 64"):  # fmt: skip
        assert part in text, f"{part!r} is not on\n{text}"
    assert any(0x2800 < ord(c) < 0x2900 for c in text)
    queue = live_of(app).query_one("#queue", Grid)
    assert queue.cursor == 2  # the run at work
    await pilot.press("up")
    await until(pilot, lambda: "CUDA out of memory" in screen_text(pilot))
    await until(pilot, lambda: "No metrics yet." not in screen_text(pilot))  # none will come
    await pilot.press("up")
    if pilot.app.size.width < 110:
        await pilot.press("v")
    await until(pilot, lambda: "recall@1" in screen_text(pilot))
    await pilot.press("f")
    await until(pilot, lambda: queue.cursor == 2)


async def test_a_narrow_screen_shows_runs_and_suites(app: WorkbenchApp, log_root: Path) -> None:
    busy = sample_suites.busy_root(log_root)
    old = sample_suites.make_suite(log_root, [("emoji_val", "clip-nano")], stamp="20261101-000000")
    async with app.run_test(size=(80, 24)) as pilot:
        await check_queue_and_run(app, pilot)
        assert live_of(app).folder == busy
        await until(pilot, lambda: " p Pause " in screen_text(pilot))
        await until(pilot, lambda: " c Cancel " not in screen_text(pilot))
        await pilot.press("down")
        await until(pilot, lambda: " c Cancel " in screen_text(pilot))
        await pilot.press("o", "down", "enter")
        await until(pilot, lambda: isinstance(app.screen, LiveScreen) and app.screen.folder == old)
        await until(pilot, lambda: "emoji_val" in screen_text(pilot))
        await until(pilot, lambda: " r Resume " in screen_text(pilot))
        live = live_of(app)
        assert live.snapshot is not None
        live.snapshot = replace(live.snapshot, behind=True)  # not all of its runs are read
        live.show_time()
        assert live.query_one("#suite-line", Heading).remark == "reading on …"
        assert "steer('resume')" not in live.footer_titles()
        right, left = "right_square_bracket", "left_square_bracket"
        for key, folder in ((right, busy), (left, old), (right, busy)):
            await pilot.press(key)
            await until(pilot, lambda folder=folder: live_of(app).folder == folder)
        shutil.rmtree(busy)  # a suite that is deleted meanwhile is no crash
        await pilot.pause(1.0)
        assert isinstance(app.screen, LiveScreen)


@pytest.mark.parametrize(
    ("causes", "title"),
    [(("completed", "oom-cuda"), "Rerun failed"), (("failed", "stopped"), "Resume"),
     (("completed", "pruned"), None)],
)  # fmt: skip
def test_the_footer_of_an_ended_suite_has_the_key_for_what_is_left(causes, title) -> None:
    state = sample_suites.search_state(*causes, trials=len(causes))
    assert footers.list_titles(state, None).get("steer('resume')") == title


async def test_a_wide_screen_shows_runs_and_logs(app: WorkbenchApp, log_root: Path) -> None:
    folder = sample_suites.busy_root(log_root)
    async with app.run_test(size=(120, 36)) as pilot:
        await check_queue_and_run(app, pilot)
        sample_suites.log(folder, 3, "".join(f"line {n}\n" for n in range(150)))
        await until(pilot, lambda: "line 149" in screen_text(pilot))
        live_of(app).query_one(LogTail).focus()
        await until(pilot, lambda: isinstance(app.focused, LogTail))
        await pilot.press("home")  # the log stays where it was scrolled to
        await until(pilot, lambda: "line 0 " in screen_text(pilot) + " ")
        sample_suites.log(folder, 3, "".join(f"line {n}\n" for n in range(160)))
        await until(pilot, lambda: (s := live_of(app).snapshot) and s.log[-1] == "line 159")
        await pilot.pause()
        assert "line 159" not in screen_text(pilot)
        live_of(app).query_one("#queue", Grid).focus()
        await pilot.press("home")  # a finished run is scrubbed to before its metrics
        await until(pilot, lambda: "recall@1" in screen_text(pilot))
        await pilot.press("left")
        await until(pilot, lambda: "Events up to" in screen_text(pilot))
        assert "No metrics yet." in screen_text(pilot)
        assert "recall@1" not in screen_text(pilot)


def count_chart_rows(app: WorkbenchApp) -> int:
    return len({chart.region.y for chart in app.screen.query(Chart) if chart.display})


async def test_charts_stand_in_two_rows_where_there_is_height(
    app: WorkbenchApp, log_root: Path
) -> None:
    sample_suites.busy_root(log_root)
    async with app.run_test(size=(160, 50)) as pilot:
        await pilot.press("2")
        await until(pilot, lambda: "step time" in screen_text(pilot))
        for size, rows in (((160, 50), 2), ((160, 30), 1), ((120, 36), 1)):
            await pilot.resize_terminal(*size)
            await pilot.pause()
            await until(pilot, lambda n=rows: count_chart_rows(app) == n)


async def test_a_small_window_shows_the_run_at_work_and_nothing_cropped(
    app: WorkbenchApp, log_root: Path
) -> None:
    sample_suites.busy_root(log_root)
    async with app.run_test(size=(100, 8)) as pilot:
        for size in ((100, 8), (60, 12)):
            await pilot.resize_terminal(*size)
            for key in "24":
                await pilot.press(key)
                app.screen.add_class("trouble")  # its line is there, but not to be scrolled to
                await pilot.pause()
                await until(pilot, lambda: "80×24 and more shows the screens" in screen_text(pilot))
                assert " left" in screen_text(pilot)
                assert "loss " in screen_text(pilot)
                assert "1 Plan" not in screen_text(pilot)
                assert not app.screen.show_vertical_scrollbar
        await pilot.resize_terminal(80, 24)
        await until(pilot, lambda: "Data" in screen_text(pilot))


async def test_a_broken_suite_is_a_sentence(app: WorkbenchApp, log_root: Path) -> None:
    folder = sample_suites.make_suite(log_root, [("emoji_train", "clip-nano")])
    run, _ = suite.read_runs(folder)[0]
    (run / "spec.json").write_text("{")
    async with app.run_test(size=(80, 24)) as pilot:
        await pilot.press("2")
        await until(pilot, lambda: "This suite cannot be read" in screen_text(pilot))


async def test_a_suite_without_runs_says_so(app: WorkbenchApp, log_root: Path) -> None:
    folder = log_root / "20261121-091411-none-1a2b"
    (folder / "runs").mkdir(parents=True)
    (folder / "plan.toml").write_text('name = "x"\n')
    async with app.run_test(size=(80, 24)) as pilot:
        await pilot.press("2")
        await until(pilot, lambda: "This suite has no runs." in screen_text(pilot))


async def test_trials_of_a_search_appear_one_by_one(app: WorkbenchApp, log_root: Path) -> None:
    pytest.importorskip("optuna")
    folder = sample_suites.make_search(log_root, trials=12)
    async with app.run_test(size=(120, 36)) as pilot:
        await pilot.press("2")
        await until(pilot, lambda: "0 of 12 trials completed" in screen_text(pilot))
        base = trials.read_base(folder)
        assert base is not None
        for number in (1, 2):
            chosen = {"lr": 0.0003 * number}
            spec = trials.make_spec(base, number, chosen, {**base.spec.params, **chosen})
            trials.admit_trial(folder, spec)
            await until(pilot, lambda c=chosen: f"lr={c['lr']:g}" in screen_text(pilot))
        sample_suites.train(sample_suites.begin(folder, 1), 50, 200)
        await until(pilot, lambda: "train 25%" in screen_text(pilot))
        assert live_of(app).query_one("#queue", Grid).keys[0].startswith("t0001-")


async def test_new_journal_lines_appear(app: WorkbenchApp, log_root: Path) -> None:
    folder = sample_suites.make_suite(
        log_root, [("emoji_train", "clip-nano"), ("emoji_train", "effnet-minilm")], state="running"
    )
    async with app.run_test(size=(80, 24)) as pilot:
        await pilot.press("2")
        await until(pilot, lambda: live_of(app).snapshot is not None)
        assert "queued" in screen_text(pilot)
        journal = sample_suites.begin(folder, 1)
        await until(pilot, lambda: "running" in screen_text(pilot).split("subset")[1])
        t = sample_suites.train(journal, 100, 200)
        sample_suites.log(folder, 1, "hello from the engine\n")
        await until(pilot, lambda: "train 50%" in screen_text(pilot))
        await until(pilot, lambda: "hello from the engine" in screen_text(pilot))
        journal.put(messages.Attempt(number=2, pid=4712, environment={}))
        await until(pilot, lambda: live_of(app).view.state.attempt == 2)
        await pilot.press("a")
        await until(pilot, lambda: "attempt 1 of 2, a: another" in screen_text(pilot))
        sample_suites.finish(journal, t, "emoji_val")
        await until(pilot, lambda: "completed" in screen_text(pilot))
        sample_suites.begin(folder, 2)
        await until(pilot, lambda: live_of(app).query_one("#queue", Grid).cursor == 1)


STEERING = (
    ("k", "skip", "03-retrieval-evqa_train-tinyclip-61m"),
    ("p", "pause", None),
    ("p", "resume", None),
    ("c", "cancel", "04-retrieval-oven_train-tinyclip-61m"),
    ("u", "restore", "04-retrieval-oven_train-tinyclip-61m"),
    ("s", "stop", None),
)
"""Key, order, and its run. What is queued, the last, must be looked at first."""
ECHOES = {
    "skip": "skipping: after this step", "pause": "pauses after the run at work",
    "cancel": "u takes it back",
}  # fmt: skip
"""Order -> what the screen shows before the warden has read it."""


async def test_steering_asks_then_writes_one_command(app: WorkbenchApp, log_root: Path) -> None:
    folder, place = sample_suites.busy_root(log_root), 0
    async with app.run_test(size=(80, 24)) as pilot:
        await pilot.press("2")
        await until(pilot, lambda: live_of(app).snapshot is not None)
        for key, do, run in STEERING:
            if do == "cancel":
                await pilot.press("down")
            for answer in "ny":
                assert control.read_commands(folder, place)[0] == []
                await pilot.press(key)
                await until(pilot, lambda: isinstance(app.screen, ConfirmDialog))
                await pilot.press(answer)
                await until(pilot, lambda: isinstance(app.screen, LiveScreen))
            await until(pilot, lambda at=place: control.read_commands(folder, at)[0])
            (told,), place = control.read_commands(folder, place)
            assert (told.do, told.run) == (do, run)
            await until(pilot, lambda do=do: ECHOES.get(do, "") in screen_text(pilot))


async def test_empty_log_root_says_what_to_do(app: WorkbenchApp) -> None:
    async with app.run_test(size=(80, 24)) as pilot:
        await pilot.press("2")
        await until(pilot, lambda: "No suite yet." in screen_text(pilot))
        await pilot.press("s", "k", "c", "p", "f", "o")
        await until(pilot, lambda: isinstance(app.screen, ChoiceDialog))
        await pilot.press("escape", "3")
        await until(pilot, lambda: "No records yet." in screen_text(pilot))
        await pilot.press("x", "w", "enter", "r", "less_than_sign")
        assert isinstance(app.screen, ResultsScreen)


PROPOSALS = [
    {"experiment": "tenth-rate", "change": "a tenth", "answers": "too high?",
     "asked_by": ["loss-not-finite"], "problem": ""},
    {"experiment": "shuffled-images", "change": "images", "answers": "used?", "asked_by": [],
     "problem": "it left no checkpoint"},
]  # fmt: skip


async def test_a_lost_warden_is_said_its_books_are_closed_once_and_experiments_are_offered(
    app: WorkbenchApp, log_root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = sample_suites.busy_root(log_root)
    warden = warden_file.read_warden(folder)
    assert warden is not None
    warden_file.write_warden(folder, warden.model_copy(update={"start_ticks": 1}))
    ran: list[list[str]] = []
    judged = asyncio.Event()

    async def pretend(arguments: list[str]) -> cli_commands.CommandResult:
        ran.append(arguments)
        is_list = arguments[0] == "experiment" and "--json" in arguments
        output = "\n".join(map(json.dumps, PROPOSALS)) if is_list else ""
        if arguments[0] == "audit":
            await judged.wait()
            return cli_commands.CommandResult(1, "warning  data-bound  Raise num_workers", "")
        return cli_commands.CommandResult(0, output, "")

    monkeypatch.setattr(cli_commands, "run_workbench", pretend)
    async with app.run_test(size=(80, 24)) as pilot:
        await pilot.press("2")
        await until(pilot, lambda: "The warden of this suite is gone" in screen_text(pilot))
        await until(pilot, lambda: ran)
        await pilot.pause(1.2)
        assert ran == [cli_commands.ps_arguments(log_root)]
        await pilot.press("s")
        assert isinstance(app.screen, LiveScreen)
        run = f"{folder.name}/{live_of(app).view.spec.run_id}"
        for keys, commands in ((["down", "enter"], 2), (["enter"], 4)):
            await pilot.press("E")
            await until(pilot, lambda: isinstance(app.screen, ChoiceDialog))
            assert "! loss-not-finite" in screen_text(pilot)
            await pilot.press(*keys)  # an impossible one starts nothing
            await until(pilot, lambda count=commands: len(ran) == count)
        assert ran[-1] == cli_commands.experiment_arguments(run, log_root, "tenth-rate")
        await pilot.press("A", "3")
        judged.set()  # too late: another screen is open
        await until(pilot, lambda: not any(w.group == "audit" for w in app.workers))
        assert isinstance(app.screen, ResultsScreen)
        await pilot.press("2", "A")
        await until(pilot, lambda: "Raise num_workers" in screen_text(pilot))
        assert ran[-1] == cli_commands.audit_arguments(run, log_root)


async def test_foreign_text_reaches_no_widget_as_markup_or_escape(
    app: WorkbenchApp, log_root: Path
) -> None:
    hostile = "[bold]x[/bold] [/] \x1b]52;c;aGk=\x07 \x9b31m \u202eabc"
    folder = sample_suites.make_suite(log_root, [("emoji_train", "clip-nano")], state="running")
    journal = sample_suites.begin(folder, 1)
    journal.put(messages.Phase(t=2.0, name="load", detail=hostile))
    journal.put(messages.Notice(t=2.0, code="x", text=hostile))
    metric = messages.Metric(t=2.1, name=hostile, value=0.5, split=hostile, n=1)
    journal.put(metric)
    sample_suites.log(folder, 1, hostile + "\n")
    sample_suites.write_warden(folder, "queued", detail=hostile)
    async with app.run_test(size=(200, 60)) as pilot:
        await pilot.press("2")
        await until(pilot, lambda: screen_text(pilot).count("[bold]x[/") >= 6)
        assert not set(screen_text(pilot)) & set("\x1b\x07\x9b\u202e")


async def test_charts_are_zoomed_another_run_drawn_behind_and_the_log_searched(
    app: WorkbenchApp, log_root: Path
) -> None:
    folder = sample_suites.busy_root(log_root)
    sample_suites.log(folder, 3, "".join(f"line {n}\n" for n in range(400)))
    async with app.run_test(size=(120, 36)) as pilot:
        await pilot.press("2")
        await until(pilot, lambda: "step time" in screen_text(pilot))
        live = live_of(app)
        panel = live.query_one(ChartPanel)
        await pilot.press("z", "l", "e", "left")
        await pilot.pause()
        assert sum(chart.region.area > 0 for chart in panel.query(Chart)) == 1
        assert "loss log smoothed 0.6" in screen_text(pilot)
        await pilot.press("z", "z", "z", "z", "escape")
        await pilot.pause()
        assert sum(chart.region.area > 0 for chart in panel.query(Chart)) == 4
        await pilot.press("plus")
        await until(pilot, lambda: isinstance(app.screen, ChoiceDialog))
        await pilot.press("enter")
        await until(pilot, lambda: panel.options.reference)
        await until(pilot, lambda: "behind: " in screen_text(pilot))
        await pilot.press("plus", "m")
        await until(pilot, lambda: isinstance(app.screen, ChoiceDialog))
        assert not panel.options.reference
        grid = app.screen.query_one(Grid)
        grid.cursor = list(grid.keys).index("lr")
        await pilot.press("enter")
        await until(pilot, lambda: panel.options.curves == {"loss": "lr"})
        await until(pilot, lambda: app.screen is live)
        await pilot.press("slash", *"9$", "enter")
        await until(pilot, lambda: "/9$: 20 lines" in screen_text(pilot))
        log = live.query_one(LogTail)
        await until(pilot, lambda: log.scroll_offset.y)
        last = log.scroll_offset.y
        await pilot.press("N")
        await until(pilot, lambda: log.scroll_offset.y == 189)
        await pilot.press("n")
        await until(pilot, lambda: log.scroll_offset.y == last)
        await pilot.press("L")
        await until(pilot, lambda: live.snapshot and len(live.snapshot.log) == 400)
        await until(pilot, lambda: "step time" not in screen_text(pilot))


async def test_marked_runs_share_the_charts_and_a_cursor_moves_all_panels(
    app: WorkbenchApp, log_root: Path
) -> None:
    sample_suites.busy_root(log_root)
    async with app.run_test(size=(120, 36)) as pilot:
        await pilot.press("2")
        await until(pilot, lambda: "step time" in screen_text(pilot))
        live = live_of(app)
        grid = live.query_one("#queue", Grid)
        await until(pilot, lambda: grid.cursor == 2)
        await pilot.press("space", "up", "space")
        await until(pilot, lambda: "A 1.4" in screen_text(pilot))
        assert live.letters[grid.key or ""] == "B"
        assert "B 1.8" in screen_text(pilot)
        await pilot.press("space", "down", "x")
        await until(pilot, lambda: "loss over time" in screen_text(pilot))
        assert live.marked == [grid.key]
        await pilot.press(*["left"] * 20)
        await until(pilot, lambda: "Events up to" in screen_text(pilot))
        moment = live.query_one(ChartPanel).moment
        assert moment is not None
        steps = screen_text(pilot).partition(" / 2,616 steps")[0].split()[-1]
        assert 0 < int(steps.replace(",", "")) < 1_684
        await pilot.press("shift+left", "shift+right", "shift+right")
        later = live.query_one(ChartPanel).moment
        assert later is not None
        assert moment < later < moment + 1.0
        await pilot.press("right")
        assert (live.query_one(ChartPanel).moment or 0.0) > later + 0.1
        await pilot.press("escape")
        await until(pilot, lambda: "1,680 / 2,616 steps" in screen_text(pilot))
        assert "Events up to" not in screen_text(pilot)
        await pilot.press("x", "x")
        assert app.memory["live"]["x"] == "step"
