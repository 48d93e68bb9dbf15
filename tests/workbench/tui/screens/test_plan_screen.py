"""The Plan screen, driven by keys at two sizes."""

from __future__ import annotations

import random
from dataclasses import replace
from pathlib import Path

import pytest
from textual.pilot import Pilot
from textual.widgets import Input, Static

from tests.workbench.planning.test_trained_models import left
from tests.workbench.tui import sample_suites
from tests.workbench.tui.conftest import live_of, ready, screen_text, until
from workbench.tui.app import WorkbenchApp
from workbench.tui.screens.dialogs import ChoiceDialog, ConfirmDialog
from workbench.tui.screens.live.screen import LiveScreen
from workbench.tui.screens.plan.parts import PartForm, PartsDialog
from workbench.tui.screens.plan.screen import PlanScreen
from workbench.tui.system import cli_commands
from workbench.tui.widgets.form import SettingsForm
from workbench.tui.widgets.grid import Grid


async def test_a_plan_by_keys_alone_on_a_narrow_screen(app: WorkbenchApp, log_root: Path) -> None:
    async with app.run_test(size=(80, 24)) as pilot:
        screen = await ready(pilot, app)
        check_preset(pilot, screen)
        await check_choice(pilot, screen)
        await check_folds(pilot, screen)
        await check_escape(app, pilot, screen)
        await check_panes(pilot, screen)
        await pilot.press("f5")
        await until(pilot, lambda: isinstance(app.screen, ConfirmDialog))
        await pilot.press("enter")  # alone it does no harm
        await until(pilot, lambda: app.screen is screen)
        assert not (app.log_root / "plans").exists()
        await pilot.press("3")
        await until(pilot, lambda: app.screen is not screen)
        left(log_root, "20260101-000000-week-1a2b", "01-a")
        await pilot.press("1")
        await until(pilot, lambda: "run:01-a" in screen.query_one("#models", Grid).keys)
        assert screen.draft.preset == "demo", "the draft stays"
        await check_lists(app, pilot, screen)


def check_preset(pilot: Pilot[None], screen: PlanScreen) -> None:
    """A plan starts from a preset and shows its runs."""
    assert screen.draft.preset == "demo"
    assert screen.preview is not None
    assert len(screen.preview.runs) == 4
    text = screen_text(pilot)
    assert "4 runs: 2 subsets × 2 models" in text
    assert "emoji_train" in text
    assert "clip-nano" in text


async def check_choice(pilot: Pilot[None], screen: PlanScreen) -> None:
    """A subset is left out and taken back."""
    grid = screen.query_one("#subsets", Grid)
    assert screen.focused is grid
    while grid.key != "emoji_train":
        await pilot.press("down")
    await pilot.press("space")
    assert "emoji_train" not in screen.draft.subsets
    await until(pilot, lambda: screen.preview and len(screen.preview.runs) == 2)
    await pilot.press("space")
    await until(pilot, lambda: screen.preview and len(screen.preview.runs) == 4)


async def check_folds(pilot: Pilot[None], screen: PlanScreen) -> None:
    """What cannot be used is folded, and found by words."""
    grid = screen.query_one("#subsets", Grid)
    assert "oven_train" not in grid.keys
    grid.cursor = list(grid.keys).index("fold:data")
    await pilot.press("enter")
    assert "oven_train" in grid.keys
    await pilot.press("enter", "slash", *"oven", "enter")
    assert set(grid.keys) == {"oven_train", "oven_val", "oven_test"}
    assert screen.focused is grid
    await pilot.press("escape")
    assert "oven_train" not in grid.keys
    await pilot.press("s", "slash", *"clip", "space", *"norm", "enter")
    form = screen.query_one("#settings-grid", Grid)
    assert list(form.keys) == ["max_grad_norm"]
    await pilot.press("escape")
    assert "epochs" in form.keys


async def check_escape(app: WorkbenchApp, pilot: Pilot[None], screen: PlanScreen) -> None:
    """Escape leaves the editor without a change."""
    screen.query_one("#settings-grid", Grid).focus()
    screen.query_one(SettingsForm).reveal("epochs")
    before = screen.draft
    await pilot.press("enter", "z", "q", "1")
    await until(pilot, lambda: "⏎ Keep it" in screen_text(pilot))
    assert "super+c" not in screen_text(pilot)
    await pilot.press("escape")
    assert screen.draft == before
    assert screen.focused is screen.query_one("#settings-grid", Grid)
    assert app.screen is screen  # q and 1 were typed, not obeyed


async def check_panes(pilot: Pilot[None], screen: PlanScreen) -> None:
    """Where it is narrow the same pane shows settings, runs and file."""
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


async def check_lists(app: WorkbenchApp, pilot: Pilot[None], screen: PlanScreen) -> None:
    """Engines and presets are chosen from lists."""
    await pilot.press("e")
    await until(pilot, lambda: isinstance(app.screen, ChoiceDialog))
    await pilot.press("end", "enter")
    await until(pilot, lambda: screen.draft.engine == "probe")
    await until(pilot, lambda: screen.preview and len(screen.preview.runs) == 1)
    assert "needs no subset" in screen_text(pilot)
    await pilot.press("p", "end", "enter")
    await until(pilot, lambda: screen.draft.preset == "")
    assert screen.draft.subsets == ()


async def test_settings_are_edited_and_problems_told_on_a_wide_screen(app: WorkbenchApp) -> None:
    async with app.run_test(size=(120, 36)) as pilot:
        screen = await ready(pilot, app)
        check_preset(pilot, screen)
        assert "workbench run" in screen_text(pilot)
        await check_number(pilot, screen)
        await check_switch_and_choice(app, pilot, screen)
        await check_problems(app, pilot, screen)
        screen.change(replace(screen.origin, subsets=(), models=("clip-nano",), suite={}))
        await until(pilot, lambda: screen.preview and screen.preview.problems)
        screen.change(replace(screen.draft, subsets=("emoji_train",)))
        await until(pilot, lambda: "F5  Start 1 run\n" in screen_text(pilot))
        place = screen.query_one("#runs", Grid).region
        assert "subset" in screen_text(pilot).splitlines()[place.y][place.x :]
        # A start waits for the check of what was just typed.
        screen.change(replace(screen.draft, suite={**screen.draft.suite, "name": "just-typed"}))
        await pilot.press("f5")
        await until(pilot, lambda: isinstance(app.screen, ConfirmDialog))
        await until(pilot, lambda: "plans/just-typed-" in screen_text(pilot).replace("\n", ""))
        await pilot.press("escape", "v")
        await until(pilot, lambda: "schema = 1" in screen_text(pilot))


async def check_number(pilot: Pilot[None], screen: PlanScreen) -> None:
    """A number is edited, checked and put back."""
    screen.query_one("#settings-grid", Grid).focus()
    screen.query_one(SettingsForm).reveal("repeats")
    await pilot.press("enter", "backspace", "x", "enter")
    about = screen.query_one("#settings-about", Static)
    assert "repeats: 'x' is not a whole number" in str(about.render())
    assert not screen.draft.suite.get("repeats")
    await pilot.press("backspace", "3", "enter")
    await until(pilot, lambda: screen.preview and len(screen.preview.runs) == 12)
    assert screen.draft.suite["repeats"] == 3
    assert "repeats = 3" in (screen.preview.toml if screen.preview else "")
    await pilot.press("backspace")
    await until(pilot, lambda: screen.preview and len(screen.preview.runs) == 4)
    assert "repeats" not in screen.draft.suite


async def check_switch_and_choice(
    app: WorkbenchApp, pilot: Pilot[None], screen: PlanScreen
) -> None:
    """A switch turns, and a choice is chosen."""
    assert screen.catalogs is not None
    engine = screen.catalogs.engine("retrieval")
    assert engine is not None
    switch = next(s for s in engine.settings if s.kind == "switch")
    choice = next(s for s in engine.settings if s.kind == "choice")
    screen.query_one(SettingsForm).reveal(switch.name)
    await pilot.press("space")
    assert screen.draft.settings[switch.name] is not switch.default
    screen.query_one(SettingsForm).reveal(choice.name)
    await pilot.press("enter")
    await until(pilot, lambda: isinstance(app.screen, ChoiceDialog))
    await pilot.press("home", "down", "enter")
    await until(pilot, lambda: app.screen is screen)
    if choice.choices[1] != choice.default:
        assert screen.draft.settings[choice.name] == choice.choices[1]


async def check_problems(app: WorkbenchApp, pilot: Pilot[None], screen: PlanScreen) -> None:
    """Problems are shown, those of the plan's code too, and nothing starts."""
    grid = screen.query_one("#subsets", Grid)
    grid.focus()
    for name in screen.draft.subsets:
        grid.cursor = list(grid.keys).index(name)
        await pilot.press("space")
    await until(pilot, lambda: screen.preview and screen.preview.problems)
    assert "Choose at least one subset." in screen_text(pilot)
    await pilot.press("f5")
    assert not isinstance(app.screen, ConfirmDialog)
    screen.change(replace(screen.origin, settings={"epochz": 3}))
    await until(pilot, lambda: "epochz" in screen_text(pilot))
    assert screen.query_one("#start").disabled


async def test_expected_time_and_accuracy_stand_beside_presets_before_a_run(
    app: WorkbenchApp, monkeypatch: pytest.MonkeyPatch
) -> None:
    from workbench.planning import expand

    monkeypatch.setattr(expand, "expand_cells", lambda *_: [])  # the challenge's files are not here
    async with app.run_test(size=(120, 36)) as pilot:
        screen = await ready(pilot, app)
        await pilot.press("p")
        await until(pilot, lambda: isinstance(app.screen, ChoiceDialog))
        lines = screen_text(pilot).splitlines()
        row = next(line for line in lines if "vqa-3fold-7b-tta" in line)
        assert "15:00:00, 0.85–0.88" in row
        assert any("time (on a T4) and accuracy that a document expects" in line for line in lines)
        presets = app.screen.query_one(Grid)
        presets.cursor = list(presets.keys).index("vqa-3fold-3b")
        await pilot.press("enter")
        await until(pilot, lambda: screen.preview and screen.preview.expected)
        assert "notebook expects 6:00:00, 0.79–0.82 on a T4" in screen_text(pilot)
        screen.change(replace(screen.draft, settings={**screen.draft.settings, "max_steps": 3}))
        await until(pilot, lambda: screen.preview and "max_steps" in screen.preview.toml)
        assert "expects" not in screen_text(pilot)


async def test_start_runs_exactly_the_command_that_was_shown(
    app: WorkbenchApp, log_root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    ran: list[list[str]] = []
    folder = sample_suites.make_suite(log_root, [("emoji_train", "clip-nano")], state="running")
    hidden = folder.rename(log_root.parent / "made-by-the-command")

    async def pretend(arguments: list[str]) -> cli_commands.CommandResult:
        ran.append(arguments)
        hidden.rename(folder)
        return cli_commands.CommandResult(0, f"{folder.name}\n", "it runs on by itself\n")

    monkeypatch.setattr(cli_commands, "run_workbench", pretend)
    async with app.run_test(size=(120, 36)) as pilot:
        screen = await ready(pilot, app)
        preview = screen.preview
        assert preview is not None
        await pilot.press("f5")
        await until(pilot, lambda: isinstance(app.screen, ConfirmDialog))
        assert "go on when you leave" in screen_text(pilot)
        await pilot.press("y")
        await until(pilot, lambda: isinstance(app.screen, LiveScreen))
        assert preview.file is not None
        assert ran == [cli_commands.run_arguments(preview.file, log_root)]
        assert preview.file.read_text() == preview.toml
        await until(pilot, lambda: live_of(app).snapshot is not None)
        assert live_of(app).folder == folder


async def test_trained_runs_are_models_with_engine_subset_and_metric(
    app: WorkbenchApp, log_root: Path
) -> None:
    suite = "20260101-000000-week-1a2b"
    run = left(log_root, suite, "01-a", label="E5-v2")
    built = sample_suites.record(suite, 1, random.Random(1))
    (run / "summary.json").write_text(built.model_dump_json())
    left(log_root, suite, "02-b", state={"run": {"engine": "vqa"}}, engine="vqa")
    async with app.run_test(size=(120, 36)) as pilot:
        screen = await ready(pilot, app)
        grid = screen.query_one("#models", Grid)
        assert "run:E5-v2" in grid.keys
        assert "run:02-b" not in grid.keys, "of another engine"
        screen.change(replace(screen.draft, subsets=("emoji_val",), models=(), suite={}))
        grid.focus()
        grid.cursor = list(grid.keys).index("run:E5-v2")
        await pilot.press("space")
        await until(pilot, lambda: screen.preview and len(screen.preview.runs) == 1)
        score = f"{built.metrics[0].value:.3f}"
        assert "run:E5-v2: trained on emoji_train" in screen_text(pilot)
        assert f"recall@1 {score} on okvqa_test" in screen_text(pilot)
        form = screen.query_one("#settings-grid", Grid)
        form.focus()
        screen.query_one(SettingsForm).reveal("task")
        await pilot.press("enter")
        await until(pilot, lambda: isinstance(app.screen, ChoiceDialog))
        await pilot.press("home", "down", "enter")
        await until(pilot, lambda: screen.preview and "evaluate" in screen.preview.toml)
        assert screen.preview is not None
        assert 'models = [\n    "run:E5-v2",\n]' in screen.preview.toml
        assert screen.preview.runs[0].model == f"run:{suite}/01-a"


KEYS = ["s", "enter", "1", "enter", "down", "enter", "3", "2", "enter", "f5", "y"]
"""The newcomer's task: two subsets, two models, one epoch, batch 32, start. 22 keys before."""


async def test_the_newcomers_suite_takes_eleven_keys_and_a_start_that_fails_says_why(
    app: WorkbenchApp, monkeypatch: pytest.MonkeyPatch
) -> None:
    commands: list[list[str]] = []

    async def pretend(arguments: list[str]) -> cli_commands.CommandResult:
        commands.append(arguments)
        return cli_commands.CommandResult(2, "", "workbench: the disk is \x1b[31mfull\n")

    monkeypatch.setattr(cli_commands, "run_workbench", pretend)
    async with app.run_test(size=(120, 36), notifications=True) as pilot:
        screen = await ready(pilot, app)
        for key in KEYS:
            if key == "f5":
                await until(pilot, lambda: screen.preview and "batch = 32" in screen.preview.toml)
            if key == "y":
                await until(pilot, lambda: isinstance(app.screen, ConfirmDialog))
            await pilot.press(key)
        await until(pilot, lambda: commands)
        preview = screen.preview
        assert preview is not None
        assert len(KEYS) <= 12
        assert dict(screen.draft.settings) == {"epochs": 1, "batch": 32}
        assert {(run.subset, run.model) for run in preview.runs} == {
            (subset, model)
            for subset in ("emoji_train", "emoji_mm_train")
            for model in ("clip-nano", "effnet-minilm")
        }
        await until(pilot, lambda: "the disk is" in screen_text(pilot))
        assert app.screen is screen, "a start that fails stays"
        assert "\x1b" not in screen_text(pilot)


async def test_runs_that_are_done_are_kept_and_their_costs_shown(
    app: WorkbenchApp, log_root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    copied: list[str] = []
    monkeypatch.setattr(app, "copy_to_clipboard", copied.append)
    async with app.run_test(size=(120, 36)) as pilot:
        screen = await ready(pilot, app)
        spec = sample_suites.demo_specs(log_root, app.cache_root)[0]
        sample_suites.append_record(log_root, sample_suites.record_of(spec, seconds=100.0))
        screen.change(replace(screen.draft))
        await until(pilot, lambda: screen.preview and any(r.cost.done for r in screen.preview.runs))
        await until(pilot, lambda: "--keep-done" in screen_text(pilot))
        text = screen_text(pilot)
        assert "✓ done" in text
        assert "F5  Start 3 runs" in text
        await pilot.press("y")
        await until(pilot, lambda: isinstance(app.screen, ChoiceDialog))
        await pilot.press("enter")
        await until(pilot, lambda: copied)
        assert copied[0].endswith("--keep-done")
        await until(pilot, lambda: app.screen is screen)
        await pilot.press("f")
        await until(pilot, lambda: "F5  Start 4 runs" in screen_text(pilot))
        assert "--keep-done" not in screen_text(pilot)


async def test_runs_are_left_out_and_reordered_and_parts_have_forms(app: WorkbenchApp) -> None:
    async with app.run_test(size=(120, 36)) as pilot:
        screen = await ready(pilot, app)
        await check_footer(pilot)
        await pilot.press("x")
        assert screen.draft == screen.origin, "x needs the runs"
        screen.query_one("#runs", Grid).focus()
        await until(pilot, lambda: app.focused is screen.query_one("#runs", Grid))
        await pilot.press("right", "right", "x")
        await until(pilot, lambda: screen.preview and len(screen.preview.runs) == 3)
        out = {"subset": "emoji_train", "model": "effnet-minilm"}
        assert screen.draft.suite["exclude"] == [out]
        text = screen_text(pilot)
        assert "✗ left out" in text
        assert "2 × 2 − 1 = 3" in text
        assert "F5  Start 3 runs" in text
        assert "3 runs: 2 subsets × 2 models, 1 left out" in text
        await until(pilot, lambda: "Take back" in screen_text(pilot).splitlines()[-1])
        await pilot.press("J")
        await until(pilot, lambda: screen.draft.subsets == ("emoji_mm_train", "emoji_train"))
        await until(
            pilot, lambda: screen.preview and screen.preview.runs[0].subset == "emoji_mm_train"
        )
        await pilot.press("less_than_sign")
        assert screen.draft.models == ("effnet-minilm", "clip-nano")
        await until(
            pilot, lambda: screen.preview and screen.preview.runs[0].model == "effnet-minilm"
        )
        await pilot.press("K", "greater_than_sign")
        await until(pilot, lambda: screen.current_run and screen.current_run.excluded)
        await pilot.press("x")
        await until(pilot, lambda: screen.preview and len(screen.preview.runs) == 4)
        assert screen.draft == screen.origin
        await pilot.press("u")
        await until(pilot, lambda: screen.preview and len(screen.preview.runs) == 3)
        screen.change(screen.origin)
        await until(pilot, lambda: screen.preview and len(screen.preview.runs) == 4)
        await check_forms(app, pilot, screen)


async def check_footer(pilot: Pilot[None]) -> None:
    """The keys of the list with the focus come first."""

    def footer() -> str:
        return screen_text(pilot).splitlines()[-1]

    await until(pilot, lambda: "space Choose" in footer())
    await pilot.press("end")  # the fold of subsets that need data
    await until(pilot, lambda: "i Data root" in footer())
    await pilot.press("s")
    await until(pilot, lambda: "Default" in footer())
    assert "q Quit" in footer()


async def check_forms(app: WorkbenchApp, pilot: Pilot[None], screen: PlanScreen) -> None:
    """Variants and a search."""
    await pilot.press("s", "slash", *"variant", "enter")
    form = screen.query_one("#settings-grid", Grid)
    form.cursor = list(form.keys).index("[[variant]]")
    await pilot.press("enter")
    await until(pilot, lambda: isinstance(app.screen, PartsDialog))
    for epochs in "12":
        await pilot.press("a")
        await until(pilot, lambda: isinstance(app.screen, PartForm))
        await pilot.press("slash", *"epochs", "enter", "enter", epochs, "enter")
        await pilot.press("escape", "escape")
        await until(pilot, lambda: isinstance(app.screen, PartsDialog))
    await pilot.press("K")
    labels = [part["label"] for part in screen.draft.suite["variant"]]
    assert labels == ["variant 2", "variant 1"]
    assert screen.draft.suite["variant"][1]["settings"] == {"epochs": 1}
    await pilot.press("escape")
    await until(pilot, lambda: screen.preview and len(screen.preview.runs) == 8)
    assert {run.variant for run in screen.preview.runs} == {"variant 1", "variant 2"}
    await pilot.press("enter", "backspace", "backspace", "escape")
    await until(pilot, lambda: "variant" not in screen.draft.suite)
    screen.query_one(SettingsForm).search("[search]")
    await pilot.press("enter")
    await until(pilot, lambda: isinstance(app.screen, PartForm))
    await pilot.press("enter", *"recall@1", "enter")
    await pilot.press("slash", *"lr", "enter", "enter", *"high", "enter")
    assert "is no range" in screen_text(pilot) or "not a number" in screen_text(pilot)
    typed = app.screen.query_one("#settings-input", Input)
    typed.value = "1e-5..1e-3:log"
    await pilot.press("enter", "escape", "escape")
    await until(pilot, lambda: app.screen is screen)
    table = {"metric": "recall@1", "ranges": {"lr": {"low": 1e-5, "high": 1e-3, "log": True}}}
    assert screen.draft.suite["search"] == table


async def test_draft_pins_folds_groups_and_view_are_there_in_the_next_session(
    app: WorkbenchApp, log_root: Path, tmp_path: Path
) -> None:
    async with app.run_test(size=(80, 24)) as pilot:
        screen = await ready(pilot, app)
        screen.change(replace(screen.draft, settings={"epochs": 3}))
        await until(pilot, lambda: screen.preview and "epochs = 3" in screen.preview.toml)
        assert "demo, 1 change" in screen_text(pilot)
        grid = screen.query_one("#subsets", Grid)
        await pilot.press("end", "enter", "home")
        while grid.key != "emoji_val":
            await pilot.press("down")
        await pilot.press("asterisk")
        assert grid.keys[0] == "emoji_val"
        assert "oven_train" in grid.keys
        screen.query_one(SettingsForm).focus_list()
        await pilot.press("home", "enter", "v")
        await until(pilot, lambda: screen.focused and screen.focused.id == "runs")
    again = WorkbenchApp(log_root, tmp_path / "cache")
    async with again.run_test(size=(80, 24)) as pilot:
        screen = await ready(pilot, again)
        assert screen.draft.settings == {"epochs": 3}
        assert "demo, 1 change" in screen_text(pilot)
        await pilot.press("u")
        await until(pilot, lambda: screen.draft.settings == {})
        await until(pilot, lambda: screen.preview and "epochs" not in screen.preview.toml)
        grid = screen.query_one("#subsets", Grid)
        assert grid.keys[0] == "emoji_val"
        assert "oven_train" in grid.keys
        assert screen.has_class("view-runs")
        assert "epochs" not in screen.query_one("#settings-grid", Grid).keys
        grid.cursor = 0
        await pilot.press("asterisk")
        assert grid.keys[0] != "emoji_val"
    assert not WorkbenchApp(log_root, tmp_path / "cache").memory["drafts"]


async def test_a_plan_is_saved_opened_and_queued_behind_another_suite(
    app: WorkbenchApp, log_root: Path, tmp_path: Path
) -> None:
    file = tmp_path / "old.toml"
    file.write_text('subsets = "emoji_val"\nmodels = "clip-nano"\nname = "old"\n')
    work = [("emoji_train", "clip-nano")]
    folder = sample_suites.make_suite(log_root, work, state="running")
    async with app.run_test(size=(120, 36), notifications=True) as pilot:
        screen = await ready(pilot, app)
        screen.start_from(f"file:{file}")
        await until(pilot, lambda: screen.preview and len(screen.preview.runs) == 1)
        await pilot.press("w", *"demo", "enter")
        await until(pilot, lambda: "is a preset that ships" in screen_text(pilot))
        await pilot.press("w", *"mine", "enter")
        await until(pilot, lambda: "workbench run --preset mine" in screen_text(pilot))
        await until(pilot, lambda: "mine" in [p.name for p in screen.catalogs.presets])
        assert screen.draft.suite["name"] == "old", "the draft stays"
        await pilot.press("p", "end", "up", "enter", *str(file), "enter")
        await until(pilot, lambda: screen.draft.preset == str(file))
        screen.start_from("file:/nowhere.toml")
        await until(pilot, lambda: "cannot be read" in screen_text(pilot))
        assert screen.draft.preset == str(file)
        await until(pilot, lambda: app.suites and app.suites[0].busy)
        await pilot.press("Q", "enter")
        option = f"--after {folder.name}"
        await until(pilot, lambda: option in " ".join(screen_text(pilot).split()))
        assert "waits for the end of" in screen_text(pilot)
        await pilot.press("f5")
        await until(pilot, lambda: isinstance(app.screen, ConfirmDialog))
        assert "It starts when" in screen_text(pilot)
        await pilot.press("escape", "P")
        await until(pilot, lambda: "Start these cost probes?" in screen_text(pilot))
        await pilot.press("escape", "Q", "end", "enter")
        await until(pilot, lambda: "--after" not in screen_text(pilot))
        screen.change(replace(screen.draft, models=("effnet-minilm",)))
        screen.action_start()
        await app.switch_mode("live")  # by mouse: keys would wait for the check
        await until(pilot, lambda: screen.checked_draft is screen.draft)
        await pilot.press("1")
        assert app.screen is screen, "no question about a start that was left"
