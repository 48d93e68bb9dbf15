"""The table of steps."""

from results.tables import steps_and_memory
from results.text.table import (
    render_markdown,
)


def test_rates_that_disagree_are_flagged(mixed):
    table = render_markdown(steps_and_memory.step_table(mixed.records))
    assert "| 533.3 | 541.0 | yes |" in table
    assert "| 533.3 | 610.0 | **differ by 12.6 %** |" in table
