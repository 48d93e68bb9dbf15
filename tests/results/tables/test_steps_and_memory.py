"""The table of steps."""

from results.records.schema import Reading
from results.tables import steps_and_memory
from results.text.table import (
    render_markdown,
)


def test_rates_that_disagree_are_flagged(mixed):
    table = render_markdown(steps_and_memory.step_table(mixed.records))
    assert "| 533.3 | 541.0 | yes |" in table
    assert "| 533.3 | 610.0 | **differ by 12.6 %** |" in table


def test_utilization_has_columns_where_it_is_known_and_a_reason_where_not(make):
    method = "model FLOPs 1, 2 steps counted; dense bf16 peak 312 TFLOP/s of X, table of 2026-11"
    known = make.untimed(
        mfu=Reading(value=0.31, method=method), hfu=Reading(value=0.4, method=method),
        tokens_per_second=Reading(value=12_345.6),
    )  # fmt: skip
    unknown = make.untimed(mfu=Reading(reason="Y is not in the table of peaks"))
    records = [make.record("01-a", timing=known), make.record("02-b", timing=unknown)]
    text = render_markdown(steps_and_memory.step_table(records))
    assert "| 12,346 | 31.0 % | 40.0 % |" in text
    assert "n/a (Y is not in the table of peaks)" in text
    assert method in text
    assert "MFU" not in render_markdown(steps_and_memory.step_table(records[1:]))
