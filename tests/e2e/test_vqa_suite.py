"""Folds and their ensemble as a person runs them: killed in the middle of its answers, resumed.

Two folds of a very small Qwen2.5-VL on drawings, by the real warden and the real engine.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from engines.protocol import RunSpec
from engines.vqa.data.questions import SubmissionTemplate
from engines.vqa.evaluation import predictions, submission
from tests.engines import tiny_vqa
from tests.fixtures.wardens import Sandbox, until
from workbench.suites import suite, suite_reader

SETTINGS = {
    **tiny_vqa.SETTINGS, "folds": 2, "infer_on": "asks", "eval_batch_size": 1, "written": 6,
    "blank": True, "tta_options": True, "quantize": "none",
}  # fmt: skip


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("quiz")
    tiny_vqa.write(folder)
    return folder


@pytest.fixture
def sandbox(tmp_path: Path, tiny: Path) -> Iterator[Sandbox]:
    with Sandbox(tmp_path).knowing(tiny) as sandbox:
        yield sandbox


def workbench(sandbox: Sandbox, *words: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "workbench", *words],
        cwd=sandbox.root, env=sandbox.environment, capture_output=True, text=True, timeout=170,
        check=False,
    )  # fmt: skip


def plan(sandbox: Sandbox, tiny: Path) -> Path:
    import tomli_w

    path = sandbox.root / "quiz.toml"
    settings = {**SETTINGS, "data_root": str(tiny / "data")}
    table = {"engine": "vqa", "subsets": "asks", "models": "tiny-vlm", "settings": settings}
    path.write_text(tomli_w.dumps(table))
    return path


def ended(folder: Path) -> dict[str, str]:
    views = suite_reader.SuiteReader(folder).poll().runs
    return {view.spec.run_id[3:]: view.state.cause for view in views}


@pytest.mark.slow
@pytest.mark.timeout(400)
def test_folds_killed_while_answering_are_resumed_to_the_same_answers(
    sandbox: Sandbox, tiny: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    started = workbench(sandbox, "run", str(plan(sandbox, tiny)), "--detach")
    assert started.returncode == 0, started.stderr
    folder = suite.list_suites(sandbox.logs)[0]
    run = folder / "runs" / "01-vqa-asks-tiny-vlm-f1"
    file = run / "predictions" / "asks.jsonl"
    until(lambda: file.exists() and file.stat().st_size > 0, "the first answers", 100)
    os.kill(suite_reader.SuiteReader(folder).poll().runs[0].state.pid or 0, signal.SIGKILL)
    until(lambda: suite_reader.SuiteReader(folder).poll().ended, "the end of the suite", 100)
    assert ended(folder) == {
        "vqa-asks-tiny-vlm-f1": "killed", "vqa-asks-tiny-vlm-f2": "completed",
        "vqa-asks-tiny-vlm-ensemble": "skipped",
    }  # fmt: skip
    before = file.read_bytes()
    assert 0 < before.count(b"\n") < 18
    with file.open("ab") as torn:
        torn.write(b'{"id": "q1')

    resumed = workbench(sandbox, "resume", "--headless")
    assert resumed.returncode == 0, resumed.stderr
    assert set(ended(folder).values()) == {"completed"}
    assert file.read_bytes().startswith(before)

    monkeypatch.setenv("WORKBENCH_CONFIG", str(tiny / "config"))
    spec = RunSpec.model_validate_json((run / "spec.json").read_bytes())
    tiny_vqa.go(spec, tmp_path / "undisturbed")
    assert file.read_bytes() == (tmp_path / "undisturbed/predictions/asks.jsonl").read_bytes()

    assert len(list((folder / "folds").iterdir())) == 1
    together = folder / "runs" / "03-vqa-asks-tiny-vlm-ensemble"
    sample = SubmissionTemplate(("id", "answer"), tuple(row["id"] for row in tiny_vqa.rows()[:18]))
    assert submission.check_file(together / "submission.csv", sample) == []
    held, _ = predictions.read_answers(together / "predictions" / "out-of-fold.jsonl")
    assert sorted(answer.id for answer in held) == sorted(sample.ids)

    shown = workbench(sandbox, "report", "--out", str(tmp_path / "report"))
    assert shown.returncode == 0, shown.stderr
    text = (tmp_path / "report" / "report.md").read_text()
    assert "## Answers to questions" in text
    assert "Error analysis: " in text
    assert "### Memory, forecast and measured" in text
    assert '<img src="pictures/' in text
    summary = json.loads((together / "summary.json").read_bytes())
    assert {m["name"] for m in summary["metrics"]} >= {"accuracy", "gain[majority]"}
    assert summary["fit"] is None
    whole, resumed = (
        json.loads((folder / "runs" / name / "summary.json").read_bytes())["fit"]
        for name in ("02-vqa-asks-tiny-vlm-f2", run.name)
    )
    assert whole["measured"]["method"] == "VmHWM"
    assert abs(whole["error"]) < 0.35  # the forecast of a small model is its libraries' constant
    assert resumed["error"] is None
