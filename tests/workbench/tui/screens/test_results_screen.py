"""The Results screen over sample records."""

from __future__ import annotations

import io
import json
import random
from pathlib import Path

import pytest
from rich.console import Console

from results.records import schema
from tests.workbench.tui import sample_suites
from tests.workbench.tui.conftest import build_subset, screen_text, until
from workbench.reporting import record_detail
from workbench.suites import suite
from workbench.tui.app import WorkbenchApp
from workbench.tui.screens import record as record_screen
from workbench.tui.screens.dialogs import ChoiceDialog
from workbench.tui.screens.record import RecordScreen
from workbench.tui.screens.record_browser import RecordBrowser
from workbench.tui.screens.results.case import CaseScreen
from workbench.tui.screens.results.compare import CompareScreen
from workbench.tui.screens.results.predictions import PredictionsScreen
from workbench.tui.screens.results.screen import ResultsScreen
from workbench.tui.system import cli_commands
from workbench.tui.view_models.results import rows
from workbench.tui.widgets.charts.chart import Chart
from workbench.tui.widgets.charts.curve_wall import CurveWall
from workbench.tui.widgets.grid import Grid


async def test_results_sort_filter_and_detail(
    app: WorkbenchApp, log_root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(rows, "INDEXED_BYTES", 0)  # another process parses the records
    sample_suites.write_records(log_root, 60)
    async with app.run_test(size=(120, 36)) as pilot:
        await pilot.press("3")
        await until(pilot, lambda: "60 runs · newest first" in screen_text(pilot))
        assert list((app.cache_root / "run-lists").glob("*")), "it has written their index"
        await pilot.press("slash", *"oven nano", "enter")
        await until(pilot, lambda: " of 60 runs" in screen_text(pilot))
        grid = app.screen.query_one("#records", Grid)
        assert 0 < len(grid.rows) < 60
        assert all("oven_train" in str(row) and "clip-nano" in str(row) for row in grid.rows)
        await pilot.press("escape")
        await until(pilot, lambda: len(grid.rows) == 60)
        await pilot.press("greater_than_sign")
        assert "by " in screen_text(pilot)
        await pilot.press("slash", *"modle:x")
        await until(pilot, lambda: "did you mean model" in screen_text(pilot))
        assert len(grid.rows) == 60  # a filter that is none hides nothing
        await pilot.press("escape", "slash", *"model:clip score>.4", "enter")
        await until(pilot, lambda: 0 < len(grid.rows) < 40)
        assert all("clip" in str(row) for row in grid.rows)
        assert " b Items " in screen_text(pilot)
        await pilot.press("escape", "g")
        await until(pilot, lambda: "▾ suite weekly-1a2b" in screen_text(pilot))
        await pilot.press("home")  # on the heading of a group
        await until(pilot, lambda: " b Items " not in screen_text(pilot))
        await pilot.press("enter")
        await until(pilot, lambda: "▸ suite weekly-1a2b" in screen_text(pilot))
        await pilot.press("g", "g", "g", "g", "home")
        await pilot.press("enter")
        await until(pilot, lambda: isinstance(app.screen, RecordScreen))
        await until(pilot, lambda: "cause" in screen_text(pilot))
        await pilot.press("escape")
        assert isinstance(app.screen, ResultsScreen)


def test_names_and_values_of_a_record_stand_apart() -> None:
    made = sample_suites.record("s", 1, random.Random(1))
    pages = {}
    for width in (70, 200):
        console = Console(width=width, file=io.StringIO())
        with console.capture() as capture:
            console.print(*record_screen._record_page(made))
        pages[width] = capture.get()
    titles = set()
    for group in record_detail.build_groups(made):
        titles.add(f" {group.title}")
        for line in group.lines:
            assert f"   {line.name}  " in pages[200]
    lines = {line.rstrip() for line in pages[70].splitlines() if line.strip()} - titles
    assert all(line.startswith("   ") for line in lines), "a wrapped value stays in its column"


async def test_what_is_shown_is_exported(
    app: WorkbenchApp, log_root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    sample_suites.write_records(log_root, 20)
    commands: list[tuple[list[str], str]] = []

    async def pretend(arguments: list[str], text: str = "") -> cli_commands.CommandResult:
        commands.append((arguments, text))
        return cli_commands.CommandResult(0, "", "")

    monkeypatch.setattr(cli_commands, "run_workbench", pretend)
    async with app.run_test(size=(80, 24)) as pilot:
        await pilot.press("3")
        await until(pilot, lambda: "20 runs" in screen_text(pilot))
        await pilot.press("slash", *"oven", "enter")
        grid = app.screen.query_one("#records", Grid)
        await until(pilot, lambda: 0 < len(grid.rows) < 40)
        shown = list(grid.keys)
        await pilot.press("x")
        await until(pilot, lambda: isinstance(app.screen, ChoiceDialog))
        await pilot.press("enter")
        await until(pilot, lambda: commands)
        arguments, text = commands[0]
        assert arguments[:2] == ["results", "export"]
        assert arguments[2].endswith(".csv")
        assert text.split() == shown
        await pilot.press("space", "down", "space")  # marked ones come first, in the shown order
        await pilot.press("x")
        await until(pilot, lambda: isinstance(app.screen, ChoiceDialog))
        await pilot.press("end", "enter")
        await until(pilot, lambda: list((log_root / "exports").glob("*.md")))
        (file,) = (log_root / "exports").glob("*.md")
        await until(pilot, file.read_text)
        lines = file.read_text().splitlines()
        assert [key in line for key, line in zip(shown, lines[2:], strict=False)] == [True, True]
        assert len(lines) == 2 + 2


async def test_columns_metric_and_views_are_chosen_and_a_run_is_trashed(
    app: WorkbenchApp, log_root: Path, tmp_path: Path
) -> None:
    sample_suites.write_records(log_root, 5)
    async with app.run_test(size=(120, 36)) as pilot:
        await pilot.press("3")
        await until(pilot, lambda: "5 runs" in screen_text(pilot))
        grid = app.screen.query_one("#records", Grid)
        key = grid.key
        await pilot.press("t")
        await until(pilot, lambda: len(grid.rows) == 4)
        await pilot.press("slash", *"in:trash", "enter")
        await until(pilot, lambda: grid.keys == [key])
        await pilot.press("u", "escape")
        await until(pilot, lambda: len(grid.rows) == 5)
        await pilot.press("c", "down", "K", "J", "up", "space")  # the first column is left out
        await pilot.press("end", "space", "enter")
        screen = app.screen
        assert isinstance(screen, ResultsScreen)
        await until(pilot, lambda: screen.view.columns)
        assert "when" not in screen.view.columns
        assert screen.view.columns[-1] == "recall@1@okvqa_test"
        await pilot.press("m", "down", "enter")
        await until(pilot, lambda: screen.view.metric == "recall@1@okvqa_test")
        await pilot.press("v", "enter", *"mine", "enter")
        await until(pilot, (tmp_path / "config" / "views.json").is_file)
        await pilot.press("c", "d")
        await until(pilot, lambda: not screen.view.columns)
        await pilot.press("v", "home", "enter")
        await until(pilot, lambda: screen.view.columns)
        await pilot.press("greater_than_sign", "greater_than_sign", "less_than_sign")
        assert screen.view.sort == screen.view.columns[0]


async def test_a_newer_schema_is_refused_in_a_sentence(app: WorkbenchApp, log_root: Path) -> None:
    (log_root / "results.jsonl").write_text('{"schema": 999}\n')
    async with app.run_test(size=(120, 36)) as pilot:
        await pilot.press("3")
        await until(pilot, lambda: "newer workbench" in " ".join(screen_text(pilot).split()))
        assert "cannot be read" in screen_text(pilot)


async def test_new_records_appear_and_the_cursor_stays_on_the_newest_until_it_is_moved(
    app: WorkbenchApp, log_root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from workbench.tui.screens.results import screen as results

    monkeypatch.setattr(results, "REREAD_SECONDS", 0.1)
    async with app.run_test(size=(80, 24)) as pilot:
        await pilot.press("3")
        await until(pilot, lambda: "No records yet." in screen_text(pilot))
        sample_suites.append_record(log_root, sample_suites.record("s", 1, random.Random(1)))
        await until(pilot, lambda: "1 run · newest" in screen_text(pilot))
        grid = app.screen.query_one("#records", Grid)
        sample_suites.append_record(log_root, sample_suites.record("s", 2, random.Random(2)))
        await until(pilot, lambda: len(grid.rows) == 2)
        assert grid.cursor == 0
        await pilot.press("down")
        held = grid.key
        sample_suites.append_record(log_root, sample_suites.record("s", 3, random.Random(3)))
        await until(pilot, lambda: len(grid.rows) == 3)
        assert (grid.key, grid.cursor) == (held, 2)


async def test_marked_runs_are_compared_pair_by_pair_and_reported(
    app: WorkbenchApp, log_root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from tests.workbench.tui.view_models.results.test_comparison import ROW

    sample_suites.write_records(log_root, 4)
    commands: list[list[str]] = []

    async def pretend(arguments: list[str], text: str = "") -> cli_commands.CommandResult:
        commands.append(arguments)
        if arguments[0] == "report":
            return cli_commands.CommandResult(1, "", "workbench: no suite of that name\n")
        return cli_commands.CommandResult(0, f"{json.dumps(ROW)}\n" * 2, "")

    monkeypatch.setattr(cli_commands, "run_workbench", pretend)
    async with app.run_test(size=(80, 24), notifications=True) as pilot:
        await pilot.press("3")
        await until(pilot, lambda: "4 runs" in screen_text(pilot))
        keys = app.screen.query_one("#records", Grid).keys
        await pilot.press("w")
        await until(pilot, lambda: isinstance(app.screen, ChoiceDialog))
        await pilot.press("enter")
        await until(pilot, lambda: "no suite of that name" in screen_text(pilot))
        assert commands.pop()[:2] == ["report", keys[0].partition("/")[0]]
        await pilot.press("C", "space", "down", "space", "down", "space", "C")
        await until(pilot, lambda: isinstance(app.screen, CompareScreen))
        await until(pilot, lambda: "B better" in screen_text(pilot))
        assert commands[0][:5] == ["results", "compare", *keys[:3]]
        await pilot.press("right_square_bracket")
        await until(pilot, lambda: "C better" in screen_text(pilot))
        await pilot.press("left_square_bracket")
        await until(pilot, lambda: "B better" in screen_text(pilot))
        await pilot.press("right_square_bracket")
        await until(pilot, lambda: "C better" in screen_text(pilot))
        await pilot.press("down", "enter")
        await until(pilot, lambda: commands[-1][-1] == "mrr@10@val")
        await pilot.press("4")
        await until(pilot, lambda: "differs" in screen_text(pilot))
        await pilot.press("3", "end", "enter")
        await until(pilot, lambda: isinstance(app.screen, CaseScreen))
        await until(pilot, lambda: "a hound" in screen_text(pilot))
        await pilot.press("p")
        await until(pilot, lambda: "rank #1" in screen_text(pilot))
        await pilot.press("escape")
        await until(pilot, lambda: isinstance(app.screen, CompareScreen))
        assert app.screen.query_one("#cases", Grid).cursor == 0
        await pilot.press("escape")
        assert isinstance(app.screen, ResultsScreen)
        await pilot.press("w")
        await until(pilot, lambda: isinstance(app.screen, ChoiceDialog))
        await pilot.press("end", "enter")
        await until(pilot, lambda: commands[-1][0] == "report")
        assert commands[-1][1:4] == list(keys[:3])
        assert commands[-1][-3:] == ["--lang", "ko", "--form=tex"]


def put_answers(log_root: Path, folder: Path, number: int, scores: list[float]) -> None:
    """Record of a run, with a file of scores of the records q0, q1, … of `aa_first`."""
    run, spec = suite.read_runs(folder)[number - 1]
    (run / "predictions").mkdir()
    lines = [
        {"id": f"q{n}", "cluster": f"p{n}", "recall@1": score, "mrr@10": 1 - score,
         "rank": 1 if score else 40 + n, "top": [f"p{n}" if score else "p9", "p1"]}
        for n, score in enumerate(scores)
    ]  # fmt: skip
    (run / "predictions" / "aa_first.jsonl").write_text("\n".join(map(json.dumps, lines)) + "\n")
    made = sample_suites.record(folder.name, number, random.Random(number))
    identity = made.identity.model_copy(
        update={"run_id": spec.run_id, "subset": "aa_first", "model": spec.model}
    )
    metrics = tuple(
        schema.MetricRecord(
            name=name, value=0.5, split="aa_first", n=len(scores),
            scores_file="predictions/aa_first.jsonl",
        )
        for name in ("recall@1", "mrr@10")
    )  # fmt: skip
    path = f"{folder.name}/runs/{run.name}"
    sample_suites.append_record(
        log_root, made.model_copy(update={"identity": identity, "metrics": metrics, "folder": path})
    )


@pytest.fixture
def compared(log_root: Path, tmp_path: Path) -> Path:
    """A suite of two runs with curves, logs and scores of a subset that is built."""
    build_subset("aa_first", tmp_path)
    folder = sample_suites.make_suite(
        log_root, [("aa_first", "clip-nano"), ("aa_first", "effnet-minilm")],
        stamp="20261121-091412",
    )  # fmt: skip
    for number, scores in ((1, [1.0, 0.0, 0.0, 1.0]), (2, [1.0, 1.0, 0.0, 0.0])):
        journal = sample_suites.begin(folder, number)
        t = sample_suites.train(journal, 60, 60, seed=number)
        sample_suites.finish(journal, t, "aa_first")
        sample_suites.log(folder, number, f"output of run {number}\n")
        put_answers(log_root, folder, number, scores)
    return folder


@pytest.mark.filterwarnings("ignore:Image.Image.getdata is deprecated")  # by textual-image 0.12
async def test_single_items_are_browsed_with_their_records_and_opened_in_data(
    app: WorkbenchApp, compared: Path
) -> None:
    async with app.run_test(size=(80, 24)) as pilot:
        await pilot.press("3")
        await until(pilot, lambda: "2 runs" in screen_text(pilot))
        await pilot.press("end", "b")
        await until(pilot, lambda: isinstance(app.screen, PredictionsScreen))
        await until(pilot, lambda: "recall@1 on aa_first · worst first" in screen_text(pilot))
        grid = app.screen.query_one("#predictions", Grid)
        assert [row[2] for row in grid.rows] == ["q2", "q1", "q0", "q3"]
        await until(pilot, lambda: "What is\\x1b[2J it?" in screen_text(pilot))
        await until(pilot, lambda: "Other words." in screen_text(pilot))
        await pilot.press("n")
        await until(pilot, lambda: "rank #41" in screen_text(pilot))
        await pilot.press("p", "m", "down", "enter")
        await until(pilot, lambda: "mrr@10 on aa_first" in screen_text(pilot))
        await pilot.press("slash", *"P3", "enter")
        await until(pilot, lambda: len(grid.rows) == 1)
        await pilot.press("enter")
        await until(pilot, lambda: isinstance(app.screen, RecordBrowser))
        await until(pilot, lambda: "row 4 of 6" in screen_text(pilot))
        await pilot.press("escape", "3", "escape")
        await until(pilot, lambda: len(grid.rows) == 4)
        await pilot.press("escape")
        await until(pilot, lambda: isinstance(app.screen, ResultsScreen))


@pytest.mark.filterwarnings("ignore:Image.Image.getdata is deprecated")  # by textual-image 0.12
async def test_curves_and_logs_of_compared_runs_are_beside_each_other(
    app: WorkbenchApp, compared: Path
) -> None:
    async with app.run_test(size=(120, 36)) as pilot:
        await pilot.press("3")
        await until(pilot, lambda: "2 runs" in screen_text(pilot))
        await pilot.press("space", "down", "space", "C")
        await until(pilot, lambda: isinstance(app.screen, CompareScreen))
        await until(
            pilot, lambda: "B less" in screen_text(pilot) or "not distinct" in screen_text(pilot)
        )
        screen = app.screen
        await pilot.press("2")
        wall = screen.query_one(CurveWall)
        await until(pilot, lambda: wall.names)
        await until(pilot, lambda: "r@1 in the batch" in screen_text(pilot))
        assert not screen.query_one("#metrics").region.area
        assert " A " in screen_text(pilot)
        await pilot.press("x", "l", "e", "left", "left", "right", "shift+left", "shift+right")
        await until(pilot, lambda: "loss log smoothed 0.6 over time" in screen_text(pilot))
        await pilot.press("m", "down", "enter")
        await until(pilot, lambda: wall.names[0] == "r@1")
        await pilot.press("z")
        await until(pilot, lambda: sum(chart.region.area > 0 for chart in wall.query(Chart)) == 1)
        await pilot.press("escape", "5", "w")
        await until(pilot, lambda: "output of run 1" in screen_text(pilot))
        assert "output of run 2" in screen_text(pilot)
        await pilot.press("1")
        await until(pilot, lambda: "⏎ Its cases" in screen_text(pilot))
        await pilot.press("3", "enter")
        await until(pilot, lambda: isinstance(app.screen, CaseScreen))
        await until(pilot, lambda: "What is" in screen_text(pilot))
        await until(pilot, lambda: "asked" in screen_text(pilot))  # its picture
        assert "B found" in screen_text(pilot)
        await pilot.press("enter")
        await until(pilot, lambda: isinstance(app.screen, RecordBrowser))
