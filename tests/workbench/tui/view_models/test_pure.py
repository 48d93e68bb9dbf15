"""Charts, numbers, settings and steering: pure functions against known answers."""

from __future__ import annotations

import math
import sys
from typing import Literal

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import BaseModel, Field

from engines import protocol
from engines.param_sections import PinMemory, Workers
from workbench.suites import run_summary
from workbench.suites.state import RunState, RunView, SuiteState, reduce_entries
from workbench.tui.system import child_process
from workbench.tui.view_models import control_actions, form_fields, live_rows, plan_rows
from workbench.tui.view_models import quantities as q
from workbench.tui.view_models.catalog import Catalogue, EngineEntry, SubsetEntry
from workbench.tui.view_models.cells import GridCell
from workbench.tui.view_models.plan_draft import PlanDraft
from workbench.tui.widgets import braille


def lit(lines: list[str]) -> set[tuple[int, int]]:
    """(column, row) of every dot, decoded from the braille block by Unicode's own numbering."""
    places = {
        1: (0, 0),
        2: (0, 1),
        3: (0, 2),
        4: (1, 0),
        5: (1, 1),
        6: (1, 2),
        7: (0, 3),
        8: (1, 3),
    }
    dots = set()
    for y, line in enumerate(lines):
        for x, character in enumerate(line):
            if character == " ":
                continue
            code = ord(character) - 0x2800
            assert 0 < code < 256
            for number, (column, row) in places.items():
                if code >> (number - 1) & 1:
                    dots.add((x * 2 + column, y * 4 + row))
    return dots


def test_a_straight_line_is_a_diagonal() -> None:
    points = [(float(x), float(x)) for x in range(8)]
    assert lit(braille.braille_lines(points, 4, 2)) == {(x, 7 - x) for x in range(8)}


def test_a_constant_is_one_row_in_the_middle() -> None:
    dots = lit(braille.braille_lines([(0, 5.0), (9, 5.0)], 5, 2))
    assert dots == {(x, 3) for x in range(10)}


def test_two_points_are_joined_without_holes() -> None:
    dots = lit(braille.braille_lines([(0, 0.0), (1, 1.0)], 1, 4))
    assert {y for _, y in dots} == set(range(16))


def test_a_nan_is_a_gap_and_never_a_value() -> None:
    points = [(float(x), 1.0 if x < 4 else 2.0) for x in range(10)]
    points[5] = (5.0, math.nan)
    columns = {x for x, _ in lit(braille.braille_lines(points, 5, 3))}
    assert columns == set(range(10)) - {5}
    assert braille.y_range(points) == (1.0, 2.0)


@given(
    st.lists(st.tuples(st.floats(0, 1e6), st.floats(allow_nan=True)), max_size=60),
    st.integers(1, 40),
    st.integers(1, 8),
)
def test_any_curve_fills_exactly_its_box(
    points: list[tuple[float, float]], width: int, height: int
) -> None:
    points.sort(key=lambda p: p[0])
    for draw in (braille.braille_lines, braille.block_lines):
        lines = draw(points, width, height)
        assert [len(line) for line in lines] == [width] * height


def test_bars_show_the_smallest_value_and_fill_the_largest() -> None:
    assert braille.block_lines([(0, 0.0), (1, 8.0)], 2, 1) == ["▁█"]
    assert braille.block_lines([(0, 0.0), (1, 8.0)], 2, 2) == [" █", "▁█"]


@pytest.mark.parametrize(
    ("fraction", "done"), [(0.0, 0), (0.5, 5), (1.0, 10), (-3, 0), (7, 10), (0.25, 3)]
)
def test_bar_has_its_width(fraction: float, done: int) -> None:
    left, right = braille.progress_bar(fraction, 10)
    assert (len(left), len(left + right)) == (done, 10)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (q.size(3.15 * 2**30), "3.15 GiB"),
        (q.size(28.07 * 2**30), "28.1 GiB"),
        (q.size(612 * 2**20), "612 MiB"),
        (q.size(1023.9 * 2**20), "1.00 GiB"),
        (q.size(0), "0 B"),
        (q.wall(481.39), "8:01.39"),
        (q.clock(481.39), "8:01"),
        (q.clock(3723), "1:02:03"),
        (q.duration(0.0864), "86.4 ms"),
        (q.duration(0.99996), "1.00 s"),
        (q.duration(0.00042), "420 µs"),
        (q.number(1.5284), "1.528"),
        (q.number(0.031), "0.03100"),
        (q.number(740.2), "740.2"),
        (q.number(2e-5), "2.00e-05"),
        (q.number(math.nan), "NaN"),
        (q.number(math.inf), "∞"),
        (q.count(339137), "339,137"),
        (q.share(0.0312), "3.1 %"),
        (q.percent(187.4), "187 %"),
    ],
)
def test_quantities(text: str, expected: str) -> None:
    assert text == expected


@pytest.mark.parametrize(
    "write", [q.count, q.size, q.clock, q.wall, q.duration, q.number, q.share, q.percent]
)
def test_unknown_is_never_zero(write: q.Formatter) -> None:
    assert write(None) == q.UNKNOWN


@given(st.floats(0.000_001, 1e9))
def test_quantities_have_equal_widths(value: float) -> None:
    assert len(q.size(value)) <= 8
    assert len(q.number(value)) <= 9


class Params(BaseModel):
    """One field of every kind."""

    epochs: int = Field(1, ge=1, le=64, description="Times over the data")
    lr: float = Field(2e-5, gt=0, description="Learning rate")
    tf32: bool = True
    precision: Literal["bf16", "fp32"] = "bf16"
    layers: tuple[int, ...] = (3, 7, 11)
    data_root: str | None = None
    max_steps: int | None = Field(None, ge=1)
    workers: Workers = "auto"
    pin_memory: PinMemory = "auto"


FORM = {s.name: s for s in form_fields.settings_of_schema(Params.model_json_schema())}


def test_every_kind_of_field_is_known() -> None:
    assert {name: s.kind for name, s in FORM.items()} == {
        "epochs": "integer", "lr": "number", "tf32": "switch", "precision": "choice",
        "layers": "list", "data_root": "text", "max_steps": "integer", "workers": "integer",
        "pin_memory": "switch",
    }  # fmt: skip
    assert FORM["epochs"].limits == "1 to 64"
    assert FORM["lr"].limits == "> 0"
    assert FORM["precision"].choices == ("bf16", "fp32")
    assert FORM["layers"].item == "integer"
    assert FORM["data_root"].optional
    assert FORM["max_steps"].low == 1


@pytest.mark.parametrize(
    ("name", "typed", "value"),
    [
        ("epochs", "3", 3), ("lr", "1e-4", 1e-4), ("layers", "2, 5,8", [2, 5, 8]),
        ("layers", "", []), ("data_root", "", None), ("data_root", "/x y", "/x y"),
        ("max_steps", "", None), ("max_steps", "1_000", 1000), ("workers", "auto", "auto"),
        ("workers", "4", 4), ("pin_memory", "auto", "auto"), ("pin_memory", "on", True),
    ],
)  # fmt: skip
def test_reading_what_was_typed(name: str, typed: str, value: object) -> None:
    assert form_fields.parse_value(FORM[name], typed) == value


@pytest.mark.parametrize(
    ("name", "typed", "sentence"),
    [
        ("epochs", "two", "epochs: 'two' is not a whole number"),
        ("epochs", "1.5", "epochs: '1.5' is not a whole number"),
        ("epochs", "65", "epochs: 65 is not 1 to 64"),
        ("lr", "0", "lr: 0 is not > 0"),
        ("lr", "nan", "lr: nan is not > 0"),
        ("layers", "3, x", "layers: 'x' is not a whole number"),
        ("workers", "automatic", "workers: 'automatic' is not a whole number"),
        ("workers", "65", "workers: 65 is not 0 to 64"),
    ],
)
def test_what_cannot_be_read_says_why(name: str, typed: str, sentence: str) -> None:
    with pytest.raises(form_fields.SettingError, match="^" + sentence.replace("(", r"\(") + "$"):
        form_fields.parse_value(FORM[name], typed)


@pytest.mark.parametrize("setting", FORM.values(), ids=list(FORM))
def test_writing_and_reading_a_default_gives_it_back(setting: form_fields.Setting) -> None:
    value = form_fields.parse_value(setting, form_fields.format_value(setting.default))
    assert form_fields.is_default_value(setting, value)


def test_a_switch_with_a_word_turns_through_all_three() -> None:
    seen = ["auto"]
    for _ in range(3):
        seen.append(form_fields.next_value(FORM["pin_memory"], seen[-1]))
    assert seen == ["auto", True, False, "auto"]
    assert form_fields.next_value(FORM["tf32"], True) is False
    assert form_fields.next_value(FORM["tf32"], False) is True


def test_a_one_is_not_the_switch_true() -> None:
    assert not form_fields.is_default_value(FORM["tf32"], 1)


def test_no_attribute_hides_one_of_textual() -> None:
    """Textual's objects have hundreds of attributes; a second `_closed` broke a screen once."""
    import re
    from pathlib import Path

    from textual.screen import ModalScreen, Screen
    from textual.scroll_view import ScrollView
    from textual.widget import Widget

    import workbench.tui

    theirs = {n for t in (Widget, Screen, ModalScreen, ScrollView) for n in vars(t())}
    theirs |= {n for t in (Screen, ModalScreen, ScrollView) for k in t.__mro__ for n in vars(k)}
    meant = {"virtual_size", "scroll_y", "remark", "title", "value", "cursor", "theme"}
    for folder in ("screens", "widgets"):
        for file in (Path(workbench.tui.__file__).parent / folder).glob("*.py"):
            ours = set(
                re.findall(r"^        self\.(\w+)(?:: [^=]+)? = ", file.read_text(), re.MULTILINE)
            )
            assert not (ours & theirs) - meant, file


def test_charts_show_the_gpu_that_the_run_has() -> None:
    gpu = protocol.Gpu(index=3, used=5 << 30, process=4 << 30, utilisation=70.0)
    sample = protocol.Sample(t=1.0, gpus=(gpu,))
    run = reduce_entries([protocol.Entry(seq=0, wall=0.0, src="warden", msg=sample)], RunState())
    shown = live_rows.chart_series(run)
    assert shown["gpu"].last == 70.0
    assert (shown["memory"].title, shown["memory"].last) == ("VRAM, GPU 3", 4 << 30)
    assert live_rows.chart_series(RunState())["gpu"].last is None


@pytest.mark.parametrize(
    ("script", "sentence"),
    [
        ('print(\'{"kind": "failed", "error": "no data"}\')', "no data"),
        ("raise SystemExit(3)", "ended with code 3"),
        ("print('x' * 3000)", "longer than 1,024 bytes"),
    ],
)
async def test_a_child_that_comes_to_nothing_says_why(
    monkeypatch: pytest.MonkeyPatch, script: str, sentence: str
) -> None:
    monkeypatch.setattr(child_process, "LINE_BYTES", 1024)
    with pytest.raises(child_process.ChildError, match=sentence):
        async for _ in child_process.read_messages([sys.executable, "-c", script]):
            pass


def a_search(*causes: protocol.Cause, trials: int = 20) -> SuiteState:
    """A search of which some trials have ended, each with this cause."""
    runs = []
    for number, cause in enumerate(causes, 1):
        chosen = {"lr": 0.0003 / number, "layers": [3, 7]}
        spec = protocol.RunSpec(
            suite="s", run_id=f"t{number}", engine="retrieval", subset="emoji_train", model="m",
            cache_root="c", trial=protocol.Trial(number=number, settings=chosen),
        )  # fmt: skip
        end = protocol.Entry(seq=0, wall=1.0, src="warden", msg=protocol.End(cause=cause))
        runs.append(RunView(spec, spec.run_id, reduce_entries([end])))
    return SuiteState(name="s", warden="ended", started_wall=0.0, runs=tuple(runs), trials=trials)


def test_a_growing_search_counts_the_trials_that_were_asked_for() -> None:
    state = a_search("completed", "pruned", "failed")
    assert live_rows.suite_line(state, 1.0)[0] == "ended · 3 of 20 trials done · 1 failed"
    rows, keys = live_rows.queue_rows(state)
    assert keys == ["t1", "t2", "t3"]
    assert [row[1].text for row in rows] == [
        "lr=0.0003 layers=[3, 7]", "lr=0.00015 layers=[3, 7]", "lr=0.0001 layers=[3, 7]",
    ]  # fmt: skip
    assert rows[1][0].text == "✂"
    assert (rows[1][4].tone, rows[2][4].tone) == ("dim", "error")
    assert live_rows.format_failure(state.runs[1].state) == ""


def test_a_search_can_be_resumed_for_the_trials_to_come() -> None:
    asked = control_actions.make_question("resume", a_search("completed", "pruned"), None)
    assert asked.refusal == ""
    assert asked.text == "The search goes on with 18 trials. Completed ones are kept."
    done = control_actions.make_question("resume", a_search("completed", trials=1), None)
    assert done.refusal.startswith("All runs of this suite are completed")


def test_a_subset_of_another_engine_is_dim_throughout() -> None:
    engine = EngineEntry("captioning", form="captions")
    fits, other, broken = (
        SubsetEntry("a", rows=5, form="captions"),
        SubsetEntry("b", rows=5, form="passages", problem="no data"),
        SubsetEntry("c", problem="its file is wrong"),
    )
    known = Catalogue(engines=(engine,), subsets=(fits, other, broken))
    assert [known.is_for(s, "captioning") for s in known.subsets] == [True, False, True]
    rows = plan_rows.subset_rows(known, PlanDraft(engine="captioning", subsets=("a",)))
    assert rows[0][1] == GridCell("a", "strong")
    assert {cell.tone for cell in rows[1][1:] if isinstance(cell, GridCell)} == {"dim"}
    assert rows[1][-1] == GridCell("passages", "dim")
    assert rows[2][-1] == GridCell("missing", "error")


def test_one_metric_stands_for_a_run() -> None:
    def metric(name: str, split: str) -> protocol.Metric:
        return protocol.Metric(name=name, value=1.0, split=split, n=1)

    loss, trained = metric("loss", "val"), metric("loss", "train")
    accuracy = metric("accuracy", "test")
    assert run_summary.headline_metric([trained, loss, accuracy]) == accuracy
    assert run_summary.headline_metric([trained, loss]) == loss
    assert run_summary.headline_metric([trained]) == trained
    assert run_summary.headline_metric([]) is None


def test_runs_that_look_alike_are_told_apart() -> None:
    def spec(**more: object) -> protocol.RunSpec:
        table = {"suite": "s", "run_id": "r", "engine": "e", "subset": "a", "model": "m",
                 "params": {}, "cache_root": "c", **more}  # fmt: skip
        return protocol.RunSpec.model_validate(table)

    seeds = [spec(seed=1), spec(seed=2), spec(subset="b", seed=2)]
    assert run_summary.distinguishing_labels(seeds, seeds=True) == ["seed 1", "seed 2", ""]
    assert run_summary.distinguishing_labels(seeds, seeds=False) == ["", "", ""]
    variants = [spec(label="all on"), spec(label="no cache", repeat=1)]
    assert run_summary.distinguishing_labels(variants, seeds=True) == [
        "all on repeat 1",
        "no cache repeat 2",
    ]
    state = SuiteState("s", runs=tuple(RunView(s, "f", RunState()) for s in seeds[:2]))
    assert [row[0] for row in run_summary.suite_rows(state)[1]] == ["a m seed 1", "a m seed 2"]
