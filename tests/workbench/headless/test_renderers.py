"""The table of a followed suite in any width."""

from __future__ import annotations

import pytest

from workbench.headless.renderers import COLUMN_GAP, fit_columns
from workbench.suites.run_summary import NUMBER_TITLES

HEADER = (("run", False), ("state", False), *((t, True) for t in NUMBER_TITLES.values()))
NUMBERS = ["1,000", "1.528", "0.8600", "86.4 ms", "12:06", "3.00 GiB", "5.00 GiB"]
NAME = "challenge_train qwen2.5-vl-7b-instruct fold {} of 3"


@pytest.mark.parametrize("width", [40, 80, 120, 200])
def test_no_column_is_squeezed_and_alike_names_stay_distinct(width: int) -> None:
    rows = [[NAME.format(fold), "train 700/1000 70%", *NUMBERS] for fold in (1, 2)]
    header, shown = fit_columns(HEADER, rows, width)
    assert [title for title, _ in header][:2] == ["run", "state"]
    assert shown[0][0] != shown[1][0]
    cells = sum(max(map(len, column)) + COLUMN_GAP for column in zip(*shown, strict=True))
    assert cells <= width
    assert all(len(row) == len(header) for row in shown)
    assert (len(header) == len(HEADER)) is (width == 200)
    if width >= 80:
        assert shown[0][1] == "train 700/1000 70%"
