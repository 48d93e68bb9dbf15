"""Details of one record."""

from __future__ import annotations

import random

from tests.workbench.tui import sample_suites
from workbench.tui.view_models import (
    record_detail,
)


def test_detail_shows_reasons_and_every_reading() -> None:
    made = sample_suites.record("s", 1, random.Random(1), cause="failed")
    groups = {
        g.title: {line.name: line for line in g.lines} for g in record_detail.build_groups(made)
    }
    assert groups["Memory"]["VRAM of the run"].value == "n/a (no GPU)"
    assert groups["Time"]["training of 1 epoch"].value == "n/a (no whole epoch)"
    assert groups["Time"]["step, median"].remark == "86.1 ms to 86.9 ms, block bootstrap"
    assert groups["End"]["why"].failed
    assert groups["Machine"]["GPUs"].value == "n/a (no GPU)"
    readings = {n for n, f in type(made.timing).model_fields.items() if "Reading" in str(f)}
    of_an_epoch = {"epoch_wall_seconds", "epoch_stall_seconds"}  # shown as what is left of it
    assert readings == {key for _, key, _ in record_detail.TIMES} | of_an_epoch
    assert set(type(made.memory).model_fields) == {key for _, key in record_detail.PEAKS}
