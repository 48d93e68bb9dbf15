"""What a run left, as paths: grouped into folders, in one order, in tables and lines."""

from engines import messages, protocol
from results.records.schema import ArtifactRecord, MetricRecord
from results.records.suite_view import SuiteView
from results.report import render, render_summary
from results.tables import run_cost, run_outputs
from results.text.table import render_markdown
from workbench.suites import run_summary, state

FILES = (
    ArtifactRecord(path="predictions/asks.jsonl", role="predictions", size=900),
    ArtifactRecord(path="checkpoints/last/model.safetensors", size=2 << 20),
    ArtifactRecord(path="checkpoints/last/state.json", size=1 << 20),
    ArtifactRecord(path="checkpoints/adapter/adapter_config.json", role="adapter", size=10),
    ArtifactRecord(path="submission.csv", role="submission", size=35),
    ArtifactRecord(path="submission.csv", role="submission", size=36),
)
SCORED = MetricRecord(
    name="recall@1", value=0.5, split="val", n=2, scores_file="predictions/val.jsonl"
)


def test_files_that_are_loaded_together_are_one_folder(make):
    record = make.record(artifacts=FILES, metrics=(SCORED, SCORED), folder="suite/runs/01")
    assert run_outputs.list_outputs(record) == [
        ("checkpoint", "checkpoints/last", 3 << 20),
        ("adapter", "checkpoints/adapter", 10),
        ("submission", "submission.csv", 36),
        ("predictions", "predictions/asks.jsonl", 900),
        ("predictions", "predictions/val.jsonl", None),
    ]
    assert run_outputs.list_outputs(make.record()) == [], "a record of version 0.1 names no files"


def test_tables_have_whole_paths_on_this_machine_and_relative_ones_in_reports(make):
    record = make.record("01-vqa", artifacts=FILES, folder="suite/runs/01-vqa")
    here = render_markdown(run_outputs.table([record], root="/logs/"))
    assert "| `01-vqa` | submission | `/logs/suite/runs/01-vqa/submission.csv` | 36 B |" in here
    report = render(SuiteView(name="suite", records=(record,)))
    assert "## Files" in report
    assert "`suite/runs/01-vqa/checkpoints/adapter`" in report
    assert "/logs" not in report
    summary = render_summary(SuiteView(name="suite", records=(record,)), "/logs")
    assert "`/logs/suite/runs/01-vqa/checkpoints/adapter`" in summary
    assert "제출 파일" in render(SuiteView(name="suite", records=(record,)), "ko")


def test_the_end_of_a_run_says_where_its_submission_is(tmp_path):
    spec = protocol.RunSpec(
        suite="s", run_id="01-a", engine="vqa", subset="asks", model="m", cache_root="/c"
    )
    sent = messages.Artifact(path="submission.csv", sha256="0", size=1, role="submission")
    view = state.RunView(spec, "01-a", state.RunState(artifacts=(sent,)))
    said = run_summary.output_lines(view, tmp_path)
    assert said == [f"    submission saved to {tmp_path}/runs/01-a/submission.csv"]


def test_a_trained_model_is_named_by_its_base_and_its_run(make):
    trained = {"model": "run:20260101-000000-week-1a2b/01-a", "base_model": "clip-nano"}
    records = [
        make.record("01-b", identity={"model": "clip-nano"}),
        make.record("02-b", identity=trained, folder="s/runs/02"),
    ]
    assert "`clip-nano of 01-a`" in render_markdown(run_cost.cost_table(records))
    assert "run:20260101" not in render_markdown(run_cost.cost_table(records))
