"""Details of one record."""

from __future__ import annotations

import random

from results.records.schema import EnergyUse, Reading, StageRecord
from tests.workbench.tui import sample_suites
from workbench.reporting import record_detail


def test_detail_shows_reasons_and_every_reading() -> None:
    built = sample_suites.record("s", 1, random.Random(1), cause="failed")
    groups = {
        g.title: {line.name: line for line in g.lines} for g in record_detail.build_groups(built)
    }
    assert groups["Memory"]["VRAM of the run"].value == "n/a (no GPU)"
    assert groups["Time"]["training of 1 epoch"].value == "n/a (no whole epoch)"
    assert groups["Time"]["step, median"].remark == "86.1 ms to 86.9 ms, block bootstrap"
    assert groups["End"]["why"].failed
    assert groups["Machine"]["GPUs"].value == "n/a (no GPU)"
    readings = {n for n, f in type(built.timing).model_fields.items() if "Reading" in str(f)}
    of_an_epoch = {"epoch_wall_seconds", "epoch_stall_seconds"}  # shown as what is left of it
    assert readings == {key for _, key, _ in record_detail.TIMES} | of_an_epoch
    assert set(type(built.memory).model_fields) == {key for _, key in record_detail.PEAKS}


def test_a_stage_is_a_line_with_its_length() -> None:
    built = sample_suites.record("s", 1, random.Random(1))
    unknown = Reading(reason="no whole epoch was run")
    stage = StageRecord(
        stage=1, name="align", trainable_parameters=8, planned_steps=6, steps=3, planned_epochs=2,
        epochs=1, wall_seconds=Reading(value=61.5), epoch_wall_seconds=unknown,
        step_median=unknown, samples_per_second=unknown,
    )  # fmt: skip
    groups = record_detail.build_groups(built.model_copy(update={"stages": (stage,)}))
    lines = {line.name: line for group in groups for line in group.lines}
    line = lines["stage 1 (align)"]
    assert (line.value, line.remark) == ("1:01.50", "1 of 2 epochs, 3 steps")


def test_scores_come_first_and_a_method_is_told_once() -> None:
    built = sample_suites.record("s", 1, random.Random(1))
    (metric,) = built.metrics
    names = ("recall@20", "recall@1", "mrr@10", "recall@1[text only]")
    metrics = [metric.model_copy(update={"name": n, "split": s}) for s in ("a", "b") for n in names]
    groups = record_detail.build_groups(built.model_copy(update={"metrics": tuple(metrics)}))
    titles = [group.title for group in groups]
    assert titles[:5] == ["Run", "End", "Scores", "Time", "Memory"]
    assert [line.name for line in groups[2].lines] == ["a", "b"]
    assert groups[2].lines[0].remark.startswith("recall@1, 0.3990 to 0.4260")
    split = next(g for g in groups if g.title.startswith("Metrics of a"))
    assert split.title == "Metrics of a, n 5,046; bootstrap over queries"
    assert [line.name for line in split.lines] == ["recall@1", "mrr@10", "recall@20", names[3]]
    assert not any("bootstrap" in line.remark for line in split.lines)


def test_energy_is_shown_where_there_is_a_figure() -> None:
    built = sample_suites.record("s", 1, random.Random(1))
    assert "Energy" not in {group.title for group in record_detail.build_groups(built)}
    energy = EnergyUse(run=Reading(value=1234.5), power=Reading(value=250.0))
    groups = record_detail.build_groups(built.model_copy(update={"energy": energy}))
    lines = {line.name: line.value for g in groups if g.title == "Energy" for line in g.lines}
    assert lines["energy of the run"] == "1234.500 J"
    assert lines["energy of a sample"].startswith("n/a (")
    assert lines["mean power in training"] == "250 W"
    assert set(EnergyUse.model_fields) == {key for _, key, _ in record_detail.ENERGY}


def test_lines_of_text_have_units_and_one_column() -> None:
    built = sample_suites.record("s", 1, random.Random(1), cause="failed")
    lines = list(record_detail.format_groups(record_detail.build_groups(built)))
    titles = [line for line in lines if not line.startswith(" ")]
    assert titles[:2] == ["Run:", "End:"]
    (median,) = [line for line in lines if line.startswith("    step, median ")]
    assert " 86.4 ms  (86.1 ms to 86.9 ms, block bootstrap)" in median
    unknown = next(line for line in lines if " n/a (no GPU)" in line)
    assert median.index("86.4 ms") == unknown.index("n/a (")
