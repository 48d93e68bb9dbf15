"""Training of one epoch: one number in table, list and screen, and what it leaves out."""

import json

import pytest

from results.listing.run_filter import ListedRun
from results.listing.summary import summarize_record
from results.listing.views import ResultView
from results.records import epoch_time
from results.records.schema import Environment, ForecastRecord, Reading, RunRecord
from results.report import sections
from results.tables import run_cost
from results.text.table import render_markdown
from workbench.reporting import record_detail, run_listing
from workbench.tui.view_models.results import rows


def timed(make, device="cpu", **known):
    timing = make.untimed(
        end_to_end_seconds=Reading(value=60.63), epoch_wall_seconds=Reading(value=40.0),
        epoch_steps=100, **known,
    )  # fmt: skip
    return make.record(timing=timing, environment=Environment(device=device))


def test_waiting_for_data_is_subtracted_and_both_are_shown(make):
    record = timed(make, epoch_stall_seconds=Reading(value=2.5))
    assert epoch_time.training_reading(record).value == pytest.approx(37.5)
    assert epoch_time.cell_text(record) == "0:37.50 (100; + 0:02.50)"


def test_list_screen_and_report_have_the_same_two_times(make, tmp_path):
    record = timed(make, epoch_stall_seconds=Reading(value=2.5))
    table = render_markdown(run_cost.cost_table([record]))
    assert "| **1:00.63** |" in table
    assert "| 0:37.50 (100; + 0:02.50) |" in table
    (tmp_path / "results.jsonl").write_text(record.model_dump_json() + "\n")
    (run,), _ = run_listing.read_runs(tmp_path, tmp_path / "cache")
    listed = run_listing.describe_run(run)
    assert "1:00.63 wall-clock" in listed
    assert "0:37.50 training of 1 epoch" in listed
    batch = rows.RunBatch((ListedRun(summarize_record(record)),))
    table = rows.make_table(batch, ResultView(columns=("epoch", "wall")))
    (_, *cells), *_ = rows.TableRows(table, [], "")
    shown = dict(zip([c.grid.title for c in table.columns], cells, strict=True))
    assert (shown["wall-clock"], shown["training of 1 epoch"]) == ("1:00.63", "0:37.50")
    times = next(g for g in record_detail.build_groups(record) if g.title == "Time").lines
    lines = {line.name: line.value for line in times}
    assert lines["training of 1 epoch"] == "0:37.50"
    assert lines["left out: waiting for data"] == "0:02.50"


def test_a_record_of_the_first_version_opens_and_says_what_it_cannot_tell(make):
    old = json.loads(timed(make, data_wait_share=Reading(value=0.1)).model_dump_json())
    for name in ("epoch_stall_seconds", "data_stall_share", "epoch_loss_steps"):
        del old["timing"][name]
    record = RunRecord.model_validate(old)
    assert epoch_time.cell_text(record) == "≤ 0:40.00 (100)"
    assert "before waiting for data" in epoch_time.stall_reading(record).reason
    old["timing"]["timed_steps"] = 100  # on a CPU, and all timed steps are of this epoch
    assert epoch_time.cell_text(RunRecord.model_validate(old)) == "0:36.00 (100; + 0:04.00)"
    old["environment"]["device"] = "NVIDIA A10G"  # where the host waits while the GPU computes
    assert epoch_time.cell_text(RunRecord.model_validate(old)) == "≤ 0:40.00 (100)"


def test_a_forecast_takes_off_the_share_that_its_steps_waited(make):
    record = timed(make, data_stall_share=Reading(value=0.25))
    guess = Reading(value=400.0, low=380.0, high=420.0, method="forecast from 200 timed steps")
    whole = ForecastRecord(
        steps=200, epoch_steps=5280, epoch_seconds=guess, run_seconds=guess,
        start_seconds=Reading(value=20.0),
    )  # fmt: skip
    probe = record.model_copy(update={"forecast": whole})
    assert epoch_time.format_training(probe) == "~5:00 ± 0:15"
    assert epoch_time.format_training(record.model_copy(update={"forecast": None})) == "≤ 0:40.00"


def test_the_mean_of_the_epoch_and_the_last_window_are_named(make):
    train = {"loss": 3.324, "epoch_loss": 3.8, "epoch": 0.5, "r@1": 0.4, "batch": 64.0}
    record = make.record(train=train)
    table = render_markdown(run_cost.training_table([record]))
    assert "| train_loss (epoch=1, mean of the epoch) | last window (epoch=0.5) |" in table
    assert "| 3.8000 | 3.3240 | 0.4000 |" in table
    older = make.record("02-old", train={"loss": 2.0, "r@1": 0.5, "batch": 64.0})
    both = render_markdown(run_cost.training_table([record, older]))
    assert "| 3.8000 | 3.3240 (epoch=0.5) | 0.4000 (epoch=0.5) |" in both
    assert "| n/a (not logged) | 2.0000 (epoch=1) | 0.5000 (epoch=1) |" in both
    assert "mean of the epoch" not in render_markdown(run_cost.training_table([older]))


def test_the_fixed_settings_begin_with_the_devices_that_cuda_was_shown(make):
    zero = make.record(environment=Environment(cuda_visible_devices="0"))
    assert sections.fixed_settings([zero], "en").startswith("- `CUDA_VISIBLE_DEVICES=0`, ")
    none = make.record(environment=Environment(cuda_visible_devices=""))
    assert '`CUDA_VISIBLE_DEVICES=""`' in sections.fixed_settings([none], "en")
    for others in ([make.record()], [zero, none]):
        assert "CUDA" not in sections.fixed_settings(others, "en")
