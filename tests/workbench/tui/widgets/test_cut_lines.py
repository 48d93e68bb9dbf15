"""Lines that are longer than their widget."""

from __future__ import annotations

import pytest
from rich.segment import Segment
from rich.style import Style

from workbench.tui.widgets.cut_lines import fit_line


@pytest.mark.parametrize(
    ("text", "shown"),
    [("remedy", "remedy  "), ("remedies", "remedies"), ("a remedy of two", "a remed…"),
     ("가나다라마", "가나다 …")],
)  # fmt: skip
def test_a_line_that_is_cut_says_so_and_fills_its_width(text: str, shown: str) -> None:
    strip = fit_line([Segment(text[:2]), Segment(text[2:], Style(bold=True))], 8, Style())
    assert strip.text == shown
    assert strip.cell_length == 8
