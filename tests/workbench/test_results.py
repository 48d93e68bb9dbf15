"""`import workbench.results as wr`: frames of runs, metrics, steps, items and comparisons."""

import json
import subprocess
import sys

import pytest

import workbench.results as wr
from engines import messages
from results.records.schema import MetricRecord
from tests.workbench.reporting.test_run_groups import write_runs
from workbench.suites.journal import Journal
from workbench.suites.suite import SuiteError


@pytest.fixture
def log_root(tmp_path):
    write_runs(tmp_path)
    return tmp_path


def test_runs_and_metrics_are_all_of_the_log_root(log_root):
    assert wr.runs(log_root)["run_id"].tolist() == ["01-a", "02-a", "03-a", "04-a"]
    assert set(wr.metrics(log_root)["metric"]) == {"recall@1"}


def test_a_comparison_is_a_row_a_metric(log_root):
    frame = wr.compare("base", "high rate", log_root)
    assert frame["metric"].tolist() == ["recall@1"]
    assert frame["verdict"][0] in ("equal", "not distinguishable", "no interval")


def test_steps_come_from_the_journal(log_root):
    folder = log_root / "study" / "runs" / "x"
    folder.mkdir(parents=True)
    with Journal.open(folder / "events.jsonl") as journal:
        for step in (2, 4):
            message = messages.Step(t=step / 2, step=step, count=2, samples=8, seconds=0.5,
                                    loss=3.0 / step, lr=1e-3, metrics={"r@1": 0.5})  # fmt: skip
            journal.write("engine", message)
    frame = wr.steps("base", log_root)
    assert frame["step"].tolist() == [2, 4]
    assert frame["loss"].tolist() == [1.5, 0.75]
    assert frame["data_wait"].isna().all()
    assert frame.attrs["units"]["seconds"] == "s"


def test_queries_are_the_lines_of_score_files(make_scored):
    frame = wr.queries("base", log_root=make_scored)
    assert frame[["split", "id", "recall@1"]].values.tolist() == [
        ["val", "q0", 1.0], ["val", "q1", 0.0]
    ]  # fmt: skip


@pytest.fixture
def make_scored(log_root):
    lines = (log_root / "results.jsonl").read_text().splitlines()
    record = json.loads(lines[0])
    metric = MetricRecord(name="recall@1", value=0.5, split="val", n=2, scores_file="val.jsonl")
    record["metrics"] = [metric.model_dump()]
    (log_root / "results.jsonl").write_text(json.dumps(record) + "\n")
    folder = log_root / record["folder"]
    folder.mkdir(parents=True)
    scores = [{"id": "q0", "recall@1": 1}, {"id": "q1", "recall@1": 0}]
    (folder / "val.jsonl").write_text("\n".join(map(json.dumps, scores)) + "\n")
    return log_root


def test_a_label_of_several_seeds_is_no_single_run(log_root):
    with pytest.raises(SuiteError, match="has 2 seeds; give one of 02-a, 03-a"):
        wr.steps("high rate", log_root)


def test_no_column_is_of_objects_and_times_are_utc(log_root, make_scored):
    frames = [wr.runs(make_scored), wr.metrics(make_scored), wr.queries("base", None, make_scored)]
    for frame in frames:
        kinds = set(frame.dtypes.astype(str))
        assert kinds <= {"string", "Int64", "Float64", "boolean", "datetime64[us, UTC]"}
    assert str(frames[0]["started"].dtype) == "datetime64[us, UTC]"


def test_a_notebook_shows_what_a_terminal_would(log_root):
    frame = wr.runs(log_root)
    frame["timing.step_median"] = 0.25
    frame["timing.step_median.low"], frame["timing.step_median.high"] = 0.2, 0.3
    columns = ["run_id", "label", "samples", "timing.step_median", "timing.step_median.low",
               "timing.step_median.high", "timing.mfu", "timing.mfu.reason"]  # fmt: skip
    frame["samples"] = 339_137
    frame.loc[0, "label"] = "<b>"
    part = frame[columns]
    html = part._repr_html_()
    assert html.count("<th ") == 5, "bounds and reasons are in the cells of their numbers"
    assert "timing.step_median [s]" in html
    assert "0.2500 [0.2000, 0.3000]" in html
    assert "n/a (the record is from before it was measured)" in html
    assert "&lt;b&gt;" in html
    assert "339,137" in html
    assert html.endswith("<p>4 rows</p>")
    assert "more columns" in frame._repr_html_(), "of many only those that differ"


def test_importing_it_loads_neither_torch_nor_a_screen():
    check = "import sys, workbench.results; print({'torch', 'textual'} & set(sys.modules))"
    done = subprocess.run([sys.executable, "-c", check], capture_output=True, text=True, check=True)
    assert done.stdout == "set()\n"
