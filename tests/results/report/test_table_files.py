"""Tables of a report as files: every one of them, numbers as numbers, no row lost."""

import re
from pathlib import Path

import pandas as pd
import pytest

from results import report
from results.report import table_files
from results.report.table_files import ReportTable

GOLDEN = Path(__file__).parent / "golden"
PAGE = """# Report

## Cost & time

| subset | steps | wall | RSS | step | share | note |
|---|---:|---:|---:|---:|---:|---|
| `a_b` **[killed, OOM]** | 5,300 | **8:01.39** | ~3.15 GiB | 86.4 ms [85.9, 87.0] | 4.3 % | =1+1 |
| `c` | 12 | 1:00:02 **[forecast]** | 900 MiB | 1.25 s | n/a (too short) | \\|x\\| |
| `d` | n/a (not run) | – | 0 B | n/a | 0.0 % |  |

## None

| rule |
|---|
"""


def frame_of(page, at=0):
    return table_files.make_frame(list(table_files.read_tables(page))[at])


def test_quantities_become_numbers_in_si_units():
    frame = frame_of(PAGE)
    assert list(frame["steps"].dropna()) == [5300, 12]
    assert list(frame["steps.reason"].dropna()) == ["not run"]
    assert list(frame["wall"].dropna()) == [481.39, 3602.0]
    assert list(frame["RSS"]) == pytest.approx([3.15 * 2**30, 900 * 2**20, 0])
    assert list(frame["step"].dropna()) == pytest.approx([0.0864, 1.25])
    assert list(frame["step.low"].dropna()) == pytest.approx([0.0859])
    assert list(frame["step.high"].dropna()) == pytest.approx([0.0870])
    assert list(frame["share"].dropna()) == pytest.approx([0.043, 0.0])
    units = frame.attrs["units"]
    assert (units["wall"], units["RSS"], units["step.low"]) == ("s", "B", "s")


def test_flags_names_and_text_stay_what_they_are():
    frame = frame_of(PAGE)
    assert list(frame["subset"]) == ["a_b", "c", "d"]
    assert list(frame["flags"].dropna()) == ["killed, OOM"]
    assert list(frame["wall.flags"].dropna()) == ["forecast"]
    assert list(frame["note"].dropna()) == ["=1+1", "|x|"]


def test_a_column_with_one_word_is_text():
    rows = (("0",), ("137 (killed)",), ("n/a (lost)",))
    frame = table_files.make_frame(ReportTable("t", ("exit",), rows))
    assert list(frame["exit"].dropna()) == ["0", "137 (killed)"]
    assert list(frame["exit.reason"].dropna()) == ["lost"]


@pytest.mark.parametrize(
    ("cells", "columns"),
    [
        (("8:00.50", "~8:01 ± 0:09"), {"": [480.5, 481], ".low": [472], ".high": [490]}),
        (("8:00.50", "≤ 7:43.50"), {"": [480.5], ".high": [463.5]}),
        (("5,300", "40 of 5,300"), {"": [5300, 40], ".of": [5300]}),
        (("7", "0 / 7"), {"": [7, 0], ".of": [7]}),
        (("0.003", "0.001 / 0.003"), {"": ["0.003", "0.001 / 0.003"]}),
        (("245,952", "1.2 M", "8.03 B"), {"": [245_952, 1.2e6, 8.03e9]}),
        (("35 B", "1.00 GiB"), {"": [35, 2**30]}),
        (("1e-3", "null"), {"": [1e-3]}),
    ],
)
def test_forecasts_bounds_parts_and_sizes_are_numbers(cells, columns):
    rows = tuple((cell,) for cell in cells)
    frame = table_files.make_frame(ReportTable("t", ("x",), rows))
    assert {name: list(frame[name].dropna()) for name in frame.columns} == {
        f"x{part}": values for part, values in columns.items()
    }


def test_a_run_that_diverged_leaves_the_others_numbers():
    rows = (("0.500 [0.400, 0.600]",), ("NaN",), ("inf",))
    frame = table_files.make_frame(ReportTable("t", ("loss",), rows))
    assert frame["loss"].tolist()[::2] == [0.5, float("inf")]
    assert frame["loss"].isna().tolist() == [False, True, False]
    assert frame["loss.reason"].fillna("").tolist() == ["", "NaN", ""]
    words = table_files.make_frame(ReportTable("t", ("note",), (("NaN",), ("a word",))))
    assert words["note"].tolist() == ["NaN", "a word"]


def test_a_table_without_rows_keeps_its_columns():
    frame = frame_of(PAGE, 1)
    assert (list(frame.columns), len(frame)) == (["rule"], 0)


@pytest.mark.parametrize("name", ["week.en.md", "mixed.ko.md"])
def test_every_table_of_a_report_has_a_file_with_all_rows(name, tmp_path):
    page = (GOLDEN / name).read_text("utf-8")
    (tmp_path / "99-old.csv").write_text("of an earlier report")
    csv = table_files.write_tables(page, tmp_path, "csv")
    parquet = table_files.write_tables(page, tmp_path, "parquet")
    tables = re.findall(r"^\|[-:|]+\|$((?:\n\|.*)*)", page, flags=re.MULTILINE)
    assert len(csv) == len(parquet) == len(tables)
    assert not (tmp_path / "99-old.csv").exists()
    for rows, *files in zip(tables, csv, parquet, strict=True):
        shapes = {pd.read_csv(files[0]).shape, pd.read_parquet(files[1]).shape}
        assert len(shapes) == 1
        assert shapes.pop()[0] == rows.count("\n")


def test_a_report_writes_its_tables_beside_it(mixed, tmp_path):
    written = report.write(mixed, tmp_path, forms=("csv", "parquet"), figures=False)
    names = [p.relative_to(tmp_path).as_posix() for p in written]
    assert "tables/03-result-table.csv" in names
    frame = pd.read_parquet(tmp_path / "tables" / "03-result-table.parquet")
    assert list(frame["wall-clock"]) == pytest.approx([81.25, 81.25, 12.0])
    text = (tmp_path / "tables" / "03-result-table.csv").read_text()
    assert "wall-clock [s]" in text.splitlines()[0]
