"""`workbench plan --by --vram --write`: its inputs, and its answer from records."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
import typer
from typer.testing import CliRunner

from engines.memory_query import MemoryEstimate
from tests.workbench.tui import sample_suites
from workbench.cli import main
from workbench.cli.plans import budget
from workbench.memory_estimate import estimator_process
from workbench.planning import expand, plan

NOW = datetime(2026, 11, 30, 14, 0, tzinfo=UTC)
RUNNER = CliRunner()


@pytest.fixture
def log_root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A log root with a record of 100 s of each run of the demo but the last."""
    for name in ("CACHE", "LOCKS", "CONFIG"):
        monkeypatch.setenv(f"WORKBENCH_{name}", str(tmp_path / name.lower()))
    root = tmp_path / "bench_logs"
    root.mkdir()
    monkeypatch.setenv("WORKBENCH_LOG_ROOT", str(root))
    for spec in sample_suites.demo_specs(root, tmp_path / "cache")[:3]:
        sample_suites.append_record(root, sample_suites.record_of(spec, seconds=100.0))
    return root


@pytest.mark.parametrize(
    ("text", "expected"),
    [("18:00", "2026-11-30T18:00"), ("2026-12-01T09:30", "2026-12-01T09:30"),
     ("2026-12-01 09:30", "2026-12-01T09:30")],
)  # fmt: skip
def test_times(text: str, expected: str) -> None:
    parsed = budget.parse_deadline(text, NOW.astimezone())
    local = datetime.fromisoformat(expected).astimezone()
    if text == "18:00":
        local = NOW.astimezone().replace(hour=18, minute=0)
    assert parsed == local


@pytest.mark.parametrize(
    ("text", "problem"),
    [("13:00", "has passed, it is 14:00; that of tomorrow is 2026-12-01T13:00"),
     ("2020-01-01T00:00", "has passed"), ("2099-01-01T00:00", "days away"),
     ("24:00", "is no time"), ("12:60", "is no time"), ("6pm", "is no time"),
     ("9999-12-31T23:59-12:00", "is no time"), ("2026-13-01T00:00", "is no time"),
     ("", "is no time"), ("-1:00", "is no time"),
     ("١٨:٠٠", "")],
)  # fmt: skip
def test_times_that_are_none(text: str, problem: str) -> None:
    if not problem:  # digits of another script are digits
        assert budget.parse_deadline(text, NOW) == NOW + timedelta(hours=4)
        return
    with pytest.raises(typer.BadParameter, match=problem):
        budget.parse_deadline(text, NOW)


def test_sizes() -> None:
    assert budget.parse_memory("24GB") == 24 * 10**9
    assert budget.parse_memory("24 GiB") == budget.parse_memory("24") == 24 << 30
    assert budget.parse_memory("40960mib") == 40 << 30
    for text in ("", "GB", "24XB", "-24GB", "0", "1e9GB", "24GB24GB", "nan", "9999TB", "1MB"):
        with pytest.raises(typer.BadParameter):
            budget.parse_memory(text)


def invoke(*arguments: str) -> tuple[int, str]:
    return invoke_preset("demo", *arguments)


def invoke_preset(preset: str, *arguments: str) -> tuple[int, str]:
    answer = RUNNER.invoke(main.app, ["plan", "-p", preset, *arguments])
    return answer.exit_code, answer.output


def tomorrow(hours: float) -> str:
    return (datetime.now().astimezone() + timedelta(hours=hours)).strftime("%Y-%m-%dT%H:%M")


def test_what_fits_is_printed_and_written(log_root: Path, tmp_path: Path) -> None:
    fitted = tmp_path / "fitted.toml"
    code, text = invoke("--by", tomorrow(30), "--write", str(fitted))
    assert code == 0, text
    assert "3 of 4 runs fit" in text, "the last was never run"
    assert "prices without an interval" in text
    assert "`workbench run … --cost-probe 200`" in text
    specs = expand.expand(plan.load(fitted), tmp_path / "cache", log_root)
    whole = sample_suites.demo_specs(log_root, tmp_path / "cache")
    assert [s.run_id for s in specs] == [s.run_id for s in whole[:3]]
    assert "its time is not known" in fitted.read_text("utf-8")
    code, text = invoke("--by", tomorrow(30), "--write", str(fitted))
    assert (code, "exists; give another" in text) == (2, True)


def test_what_would_end_too_late_is_left_out(log_root: Path) -> None:
    """Three runs of 100 s in at least 240 and at most 300 s: two fit."""
    code, text = invoke("--by", tomorrow(5 / 60), "--json")
    report = json.loads(text[text.index("{") :])
    assert code == 0
    assert [row["kept"] for row in report["runs"]] == [True, True, False, False]
    assert report["runs"][2]["reason"].startswith("it would end ")
    assert [row["seconds"] for row in report["runs"]] == [100.0, 100.0, 100.0, None]
    assert [row["end_seconds"] for row in report["runs"]] == [100.0, 200.0, None, None]


def test_nothing_known_fits_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WORKBENCH_LOG_ROOT", str(tmp_path / "empty"))
    code, text = invoke("--by", tomorrow(1), "--write", str(tmp_path / "none.toml"), "--lang", "ko")
    assert code == 1
    assert "run 4개 중 0개 가능" in text
    assert "run 4개는 비용을 알 수 없음" in text
    assert not (tmp_path / "none.toml").exists()


def test_gpu_memory_is_estimated_where_no_gpu_has_measured_it(
    log_root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The records' peaks are of a CPU: they are no VRAM."""

    batches = []

    def estimate(queries, cache_root):
        batches.extend(q.params["eval_batch_size"] for q in queries if q.engine == "vqa")
        sizes = [3 << 30 if query.model == "clip-nano" else 30 << 30 for query in queries]
        return [MemoryEstimate(phases={"train": {"weights": size}}, host={}) for size in sizes]

    monkeypatch.setattr(estimator_process, "request_estimates", estimate)
    config = log_root.parent / "gpu.toml"
    config.write_text(
        plan.dump(plan.load_preset("demo").model_copy(update={"cpu": False})), "utf-8"
    )
    answer = RUNNER.invoke(main.app, ["plan", str(config), "--vram", "24GB", "--json"])
    report = json.loads(answer.output[answer.output.index("{") :])
    assert [row["kept"] for row in report["runs"]] == [True, True, False, False]
    assert "22.35 GiB are given" in report["runs"][2]["reason"]
    assert any("compute capability 8.6" in line for line in report["remarks"])
    code, text = invoke_preset("vqa-quick", "--vram", "24GB")
    assert code == 1, "30 GiB each"
    assert "qwen2.5-vl-3b" in text, "its data and weights are not here, and need not be"
    assert invoke_preset("vqa-quick", "--vram", "80GB")[0] == 0
    assert batches == [6, 20], "as `workbench run` chooses it on such a GPU"


def test_options_that_do_not_go_together(log_root: Path, tmp_path: Path) -> None:
    for arguments, problem in (
        (["--write", "x.toml"], "writes the plan"),
        (["--vram", "24GB", "--cpu"], "hides every GPU"),
        (["--by", "00:00"], "passed"),
        (["--by", tomorrow(1), "--write", str(tmp_path / "no" / "such" / "x.toml")], "no folder"),
    ):
        code, text = invoke(*arguments)
        assert code == 2, text
        assert problem in " ".join(text.split())
