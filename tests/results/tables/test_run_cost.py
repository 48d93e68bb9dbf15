"""Cost and training tables: the users' own rows to the character, flags that cannot be lost."""

import re

import pytest

from results.records import published_runs
from results.records.schema import Exit, Reading
from results.tables import metrics as tables_metrics
from results.tables import run_cells, run_cost, steps_and_memory
from results.text import translations
from results.text.table import (
    render_markdown,
    render_terminal,
)

COST = """\
|---|---:|---:|---:|---:|---:|
| `oven_train` | 339,137 | 5,300 | **8:01.39** | ~3.15 GiB | 0 |
| `infoseek_bal76k_train` | 76,265 | 1,192 | **2:06.03** | ~2.59 GiB | 0 |
| `evqa_train` | 167,369 | 2,616 | **4:16.15** | ~2.35 GiB | 0 |
| `okvqa_mm_train` | 8,253 | 129 | **0:35.92** | ~1.88 GiB | 0 |
"""


TRAIN = """\
|---|---:|---:|---|
| `oven_train` | 1.5284 | 0.8538 | r@1은 “최종 summary”가 아니라 \
**마지막 train log(epoch=1.0)** 에서 확인 |
| `infoseek_bal76k_train` | 1.7455 | 0.8151 | 최종 summary에 r@1 포함 |
| `evqa_train` | 1.6716 | 0.8046 | 최종 summary에 r@1 포함 |
| `okvqa_mm_train` | 3.6432 | 0.4884 | 최종 summary에 r@1 포함 |
"""


def test_the_weekly_reports_rows_to_the_character(weekly):
    cost = render_markdown(run_cost.cost_table(weekly.records))
    assert cost.startswith(
        "| subset | loaded samples | steps | 1 epoch wall-clock | max RSS | exit"
    )
    assert COST in cost
    train = render_markdown(run_cost.training_table(weekly.records, "ko", weekly.notes))
    heading = train.splitlines()[0]
    assert heading.startswith("| subset | train_loss (epoch=1) | train r@1 (epoch=1, batch 64, ")
    assert heading.endswith("우연 수준 0.0156) | 비고 |")
    assert TRAIN in train
    line = "총 소요: **약 14분 59초** (8:01 + 2:06 + 4:16 + 0:36)"
    assert run_cost.total_line(weekly.records, "ko") == line
    line = "Total, sequential: **about 14 min 59 s** (8:01 + 2:06 + 4:16 + 0:36)"
    assert run_cost.total_line(weekly.records) == line


def test_both_times_are_printed_when_both_were_measured(mixed):
    table = render_markdown(run_cost.cost_table(mixed.records))
    assert "| wall-clock | max RSS | exit | training of 1 epoch |" in table
    assert "| 4 | **1:21.25** | ~1.21 GiB | 0 | ≤ 0:14.40 (120) |" in table
    assert "published times are to be compared with it and with nothing else" in table


def _all_tables(records):
    yield from (
        run_cost.cost_table(records),
        run_cost.training_table(records),
        run_cost.failure_table(records),
    )
    yield from (
        steps_and_memory.step_table(records),
        steps_and_memory.memory_table(records),
        steps_and_memory.phase_table(records),
    )
    for split in tables_metrics.splits(records):
        yield tables_metrics.metrics(records, split)


@pytest.mark.parametrize("lang", translations.LANGS)
def test_no_table_drops_a_failed_run_or_its_flags(mixed, lang):
    failed = mixed.records[2]
    said = run_cells.flags(failed, lang)
    assert len(said) == 5
    for table in _all_tables(mixed.records):
        mine = [row for row in table.rows if row[0].text == "emoji_mm_train"]
        assert len(mine) == 1
        assert set(run_cells.flags(failed)) == set(mine[0][0].flags)
        assert f"**[{', '.join(mine[0][0].flags)}]**" in render_markdown(table)
        assert "oom-cuda, stub GPU, contaminated" in render_terminal(table)


def test_a_stand_in_library_never_gives_a_vram_figure(mixed):
    for record in mixed.records[2:], mixed.records:
        assert not re.search(
            r"\| 21\.00 GiB", render_markdown(steps_and_memory.memory_table(record))
        )
        assert "n/a (" in render_markdown(steps_and_memory.memory_table(record))
        assert "stub library said 21.00 GiB" in render_markdown(
            steps_and_memory.memory_table(record)
        )


def test_a_forecast_is_marked_in_its_cell_and_its_row(make):
    guess = Reading(value=300.0, method="forecast from 20 steps")
    record = make.record(
        timing=make.untimed(end_to_end_seconds=guess), facts={"forecast": "from 20 steps"}
    )
    table = render_markdown(run_cost.cost_table([record]))
    assert "| `oven_train` **[forecast]** |" in table
    assert "| **~5:00.00** **[forecast]** |" in table
    assert "computed from a cost probe, not measured" in table


@pytest.mark.parametrize(
    ("ended", "shown"),
    [
        (Exit(cause="completed", code=0), "0"),
        (Exit(cause="completed"), "0"),
        (Exit(cause="failed", code=1), "1 (failed)"),
        (Exit(cause="killed", signal=9), "SIGKILL (killed)"),
        (Exit(cause="hung", signal=250), "signal 250 (hung)"),
        (Exit(cause="skipped"), "skipped"),
        (Exit(cause="protocol-error", code=0), "0 (protocol-error)"),
    ],
)
def test_exit(make, ended, shown):
    assert run_cells.exit_cell(make.record(exit=ended)).text == shown


def test_unknown_is_never_zero(make):
    record = make.record(
        samples=0, steps=0, planned_steps=0, exit=Exit(cause="skipped"),
        timing=make.untimed(), memory=make.unknown_memory(),
    )  # fmt: skip
    table = render_markdown(run_cost.cost_table([record]))
    assert "| n/a (ended before the data were loaded) | 0 | n/a (the report timed" in table
    assert "n/a (no NVML library on this machine) | skipped |" in table
    assert run_cost.total_line([record]).endswith("(1 not measured; 1 not completed)")
    assert render_markdown(steps_and_memory.step_table([record])).startswith(
        "timed steps, median step"
    )


def test_columns_appear_when_they_tell_rows_apart(make):
    def titles(*identities):
        found = [make.record(f"0{i}-run", identity=who) for i, who in enumerate(identities)]
        return [c.title for c in run_cost.cost_table(found).columns][1:-5]

    assert titles({}) == []
    assert titles({"model": "a"}, {"model": "b"}) == ["model"]
    assert titles({"seed": 1}, {"seed": 2}) == ["seed"]
    assert titles({"label": "E5-v2"}, {}) == ["label"]
    assert titles({}, {}) == ["run"]
    assert titles({"params": {"lr": 1}}, {"params": {"lr": 3}}) == ["run"]


def test_epochs_change_the_heading(make):
    for epochs, heading in ((1, "1 epoch wall-clock"), (3, "wall-clock"), (0.5, "wall-clock")):
        record = make.record(identity={"params": {"epochs": epochs}})
        titles = [c.title for c in run_cost.cost_table([record]).columns]
        assert heading in titles
        assert ("epochs" in titles) == (epochs != 1)


def test_epochs_are_those_that_were_done(make):
    """A run of 8 epochs that `max_steps` has cut, beside one that was killed in its first."""
    cut = make.record(identity={"params": {"epochs": 8}}, epochs=2.40625, train={"loss": 1.0})
    table = run_cost.cost_table([cut])
    at = [c.title for c in table.columns].index("epochs")
    assert table.rows[0][at].text == "2.41"
    assert "train_loss (epoch=2.41)" in render_markdown(run_cost.training_table([cut]))
    killed = make.record(epochs=0.999, exit=Exit(cause="killed", signal=9))
    assert run_cells.epochs_done(killed) == 0.99, "not rounded up to all"
    assert run_cells.is_one_epoch([make.record(epochs=1.0), killed]), (
        "its steps and its flag say it"
    )
    assert not run_cells.is_one_epoch([make.record(epochs=0.5)])


def test_timed_steps_are_those_of_all_epochs(make):
    """236 steps of 8 epochs, 20 of them warm-up: the median is not of the last epoch's 32."""
    timing = make.untimed(
        epoch_wall_seconds=make.reading(value=3.0), epoch_steps=32, timed_steps=216,
        warmup_steps=20, step_median=make.reading(value=0.1),
    )  # fmt: skip
    assert "| 216 (+20 warm-up) |" in render_markdown(
        steps_and_memory.step_table([make.record(timing=timing)])
    )
    older = make.record(timing=timing.model_copy(update={"timed_steps": None}), steps=236)
    assert "| 216 (+20 warm-up) |" in render_markdown(steps_and_memory.step_table([older]))


def test_different_batches_are_shown_in_the_cells(make):
    found = [
        make.record(f"0{b}-run", identity={"seed": b}, train={"loss": 1.0, "r@1": 0.5, "batch": b})
        for b in (2, 8)
    ]
    table = render_markdown(run_cost.training_table(found))
    assert "train r@1 (epoch=1) |" in table
    assert "| 0.5000 (batch 2, chance 0.5000) |" in table
    assert "| 0.5000 (batch 8, chance 0.1250) |" in table


def test_a_long_suite_has_a_short_total_line(make):
    line = run_cost.total_line([make.record(f"{i:02d}-run") for i in range(40)])
    assert line.startswith("Total, sequential: **about 5 h 20 min 56 s** (8:01 + 8:01")
    assert line.endswith("… + 8:01; 40 runs)")


def test_imported_times_are_never_added_to_measured_ones(weekly):
    imported = published_runs.read_published("weekly-m2kr").records
    total = run_cost.total_line(weekly.records)
    assert run_cost.total_line([*weekly.records, *imported]) == total
    assert run_cost.total_line(imported) == total, "the report's own numbers"
