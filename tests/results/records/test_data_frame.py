"""Records as data frames, joined with their notes, and the files that they become."""

from __future__ import annotations

import json

import pandas as pd
import pytest

from results.records import data_frame
from results.records.notes import Note, reduce_notes
from results.records.schema import MetricRecord


@pytest.fixture
def records(make):
    score = MetricRecord(name="recall@1", value=0.5, split="emoji_val", n=748, low=0.4, high=0.6)
    return [
        make.record("01-a", identity={"subset": "emoji_train"}, metrics=(score,)),
        make.record("02-b", identity={"params": {"lr": "auto", "layers": [3, 7]}}),
    ]


def test_a_row_has_settings_readings_and_metrics(records):
    frame = data_frame.build_frame(records)
    assert frame["run_id"].tolist() == ["01-a", "02-b"]
    assert frame["recall@1@emoji_val"][0] == 0.5
    assert frame["recall@1@emoji_val.low"][0] == 0.4
    assert pd.isna(frame["recall@1@emoji_val"][1])
    unmeasured = records[0].timing.step_p95
    assert unmeasured.value is None
    assert pd.isna(frame["timing.step_p95"][0])
    assert frame["timing.step_p95.reason"][0] == unmeasured.reason
    assert frame["params.layers"][1] == "3 7"


def test_notes_are_joined_by_run(records):
    suite = records[0].identity.suite
    noted = [
        Note(suite=suite, run_id="01-a", kind="tag", text="best"),
        Note(suite=suite, run_id="01-a", kind="finding", text="=1+1"),
        Note(suite="another", run_id="01-a", kind="tag", text="wrong"),
    ]
    frame = data_frame.build_frame(records, reduce_notes(noted))
    assert frame["note.tags"][0] == "best"
    assert frame["note.tags"].isna().tolist() == [False, True]


def test_selecting_is_by_patterns_and_names_unknown_columns(records):
    frame = data_frame.build_frame(records)
    assert data_frame.select_rows(frame, {"subset": "emoji_*"})["run_id"].tolist() == ["01-a"]
    assert data_frame.select_rows(frame, {"params.lr": "auto"})["run_id"].tolist() == ["02-b"]
    assert data_frame.select_rows(frame, {"seed": str(records[0].identity.seed)}).shape[0] == 2
    with pytest.raises(data_frame.UnknownColumnError, match="did you mean .*subset"):
        data_frame.select_rows(frame, {"subest": "x"})


@pytest.mark.parametrize("suffix", data_frame.FORMATS)
def test_a_file_gives_the_same_rows_back(records, tmp_path, suffix):
    frame = data_frame.build_frame(records)
    path = tmp_path / "new" / f"records{suffix}"
    data_frame.write_frame(frame, path)
    read = {
        ".csv": pd.read_csv,
        ".parquet": pd.read_parquet,
        ".jsonl": lambda file: pd.DataFrame(map(json.loads, file.read_text().splitlines())),
    }[suffix](path)
    assert read["run_id"].tolist() == ["01-a", "02-b"]
    assert read["recall@1@emoji_val"][0] == 0.5
    assert [p.name for p in path.parent.iterdir()] == [path.name]


def test_csv_has_numbers_with_their_unit_in_the_heading(make, tmp_path):
    score = MetricRecord(name="recall@1", value=0.5, split="emoji_val", n=748, low=0.4, high=0.6)
    timing = make.untimed(step_median=make.reading(value=0.0864, low=0.08, high=0.09),
                          phases={"train": 61.5})  # fmt: skip
    record = make.record("01-a", timing=timing, metrics=(score,), started_wall=1_795_000_000.0)
    note = Note(suite=record.identity.suite, run_id="01-a", kind="tag", text="best")
    frame = data_frame.build_frame([record], reduce_notes([note]))
    data_frame.write_frame(frame, tmp_path / "x.csv")
    (row,) = pd.read_csv(tmp_path / "x.csv").to_dict("records")
    numbers = {
        "timing.step_median [s]": 0.0864, "timing.step_median.low [s]": 0.08,
        "timing.phases.train [s]": 61.5, "memory.rss_main_peak [bytes]": 3.15 * 2**30,
        "recall@1@emoji_val": 0.5, "recall@1@emoji_val.high": 0.6, "params.lr": 2e-5, "seed": 42,
    }  # fmt: skip
    assert {name: row[name] for name in numbers} == numbers
    assert (row["run_id"], row["started"][:4]) == ("01-a", "2026")


def test_a_formula_is_text_in_a_spreadsheet(tmp_path):
    data_frame.write_frame(
        pd.DataFrame({"a": ["=1+1", "-0.5 is a number"], "b": [-1.5, 2]}), tmp_path / "x.csv"
    )
    assert (tmp_path / "x.csv").read_text() == "a,b\n'=1+1,-1.5\n'-0.5 is a number,2.0\n"


def test_the_command_writes_what_it_is_asked_for(records, tmp_path):
    from typer.testing import CliRunner

    from results.records import store
    from workbench.cli.main import app

    for record in records:
        store.append_record(tmp_path / "results.jsonl", record)

    def export(*words: str):
        return CliRunner().invoke(app, ["results", "export", "--log-root", str(tmp_path), *words])

    file = tmp_path / "x.csv"
    assert export(str(file), "--where", "subset=emoji_*", "--column", "run_id").exit_code == 0
    assert file.read_text() == "run_id\n01-a\n"
    for wrong in (["--where", "subset"], ["--column", "nothing"]):
        assert export(str(file), *wrong).exit_code == 2
    assert file.read_text() == "run_id\n01-a\n"


def test_no_records_are_an_empty_table(tmp_path):
    frame = data_frame.build_frame([])
    data_frame.write_frame(frame, tmp_path / "x.csv")
    assert (tmp_path / "x.csv").read_text() == "suite,run_id\n"


def test_another_ending_is_refused(tmp_path):
    with pytest.raises(ValueError, match=r"the ending must be one of \.csv, \.parquet, \.jsonl"):
        data_frame.write_frame(pd.DataFrame(), tmp_path / "x.xlsx")


def test_types_are_nullable_and_units_and_times_survive_a_file(records, tmp_path):
    frame = data_frame.build_frame([r.model_copy(update={"started_wall": 1.5e9}) for r in records])
    assert {str(dtype) for dtype in frame.dtypes} <= {
        "string", "Int64", "Float64", "boolean", "datetime64[us, UTC]"
    }  # fmt: skip
    assert str(frame["started"][0]) == "2017-07-14 02:40:00+00:00"
    assert frame["params.lr"].tolist() == ["2e-05", "auto"]
    data_frame.write_frame(frame, tmp_path / "runs.parquet")
    read = pd.read_parquet(tmp_path / "runs.parquet")
    assert read.attrs["units"]["timing.step_median"] == "s"
    assert read.attrs["units"]["memory.rss_main_peak"] == "bytes"
    assert read.dtypes.astype(str).tolist() == frame.dtypes.astype(str).tolist()


def test_a_metric_is_a_row_of_its_run(records):
    frame = data_frame.build_metric_frame(records)
    assert frame[["run_id", "split", "metric", "value", "low", "n"]].values.tolist() == [
        ["01-a", "emoji_val", "recall@1", 0.5, 0.4, 748]
    ]


def test_small_numbers_keep_their_digits_in_json_lines(tmp_path):
    """pandas' own writer makes 0.0 of 1e-12."""
    values = [1e-12, 1 / 3, None, float("inf")]
    data_frame.write_frame(data_frame.set_types([{"eps": v} for v in values]), tmp_path / "x.jsonl")
    lines = (tmp_path / "x.jsonl").read_text().splitlines()
    assert [json.loads(line)["eps"] for line in lines] == [1e-12, 1 / 3, None, None]


def test_an_item_with_a_line_separator_in_its_text_is_a_row(make, tmp_path):
    """U+2028 and U+0085 are lines to `str.splitlines`, not to JSON."""
    lines = [{"id": "q1", "caption": "a\u2028{b}"}, {"id": "q2", "caption": "a\x85b"}]
    text = "".join(json.dumps(line, ensure_ascii=False) + "\n" for line in lines)
    (tmp_path / "val.jsonl").write_text(text + '{"id": "torn', "utf-8")
    metric = MetricRecord(name="cider", value=0.5, split="val", n=2, scores_file="val.jsonl")
    frame = data_frame.build_item_frame(make.record(metrics=(metric,), folder="."), tmp_path)
    assert frame["id"].tolist() == ["q1", "q2"]
