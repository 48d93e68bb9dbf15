"""Trained today, evaluated in the same plan; next week used on another machine, its logs copied."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.engines import conftest

PLAN = """
name = "week"
engine = "retrieval"
[settings]
data_root = "{data}"
threads = 1
timing_warmup_steps = 1
evaluate_on = ["tiny_val"]
[[run]]
label = "train"
model = "pico"
subset = "tiny_train"
settings = {{ epochs = 2 }}
[[run]]
label = "test"
task = "evaluate"
model = "run:train"
subset = "tiny_val"
"""


def workbench(machine: Path, tiny: Path, *words: str) -> subprocess.CompletedProcess[str]:
    environment = {
        "PATH": os.environ["PATH"], "HOME": str(machine), "LANG": "C.UTF-8",
        "WORKBENCH_CACHE": str(machine / "cache"), "WORKBENCH_LOCKS": str(machine),
        "WORKBENCH_CONFIG": str(tiny / "config"),
    }  # fmt: skip
    return subprocess.run(
        [sys.executable, "-m", "workbench", *words], cwd=machine, env=environment,
        capture_output=True, text=True, timeout=170, check=False,
    )  # fmt: skip


@pytest.mark.slow
@pytest.mark.timeout(400)
def test_a_model_is_trained_evaluated_and_used_next_week_elsewhere(tmp_path: Path) -> None:
    tiny, here, there = (tmp_path / name for name in ("tiny", "here", "there"))
    conftest.write_tiny_subset(tiny)
    here.mkdir()
    there.mkdir()
    (here / "week.toml").write_text(PLAN.format(data=tiny / "data"))
    done = workbench(here, tiny, "run", "week.toml", "--headless", "--cpu")
    assert done.returncode == 0, done.stderr
    logs = here / "bench_logs"
    kept = next(logs.glob("*/runs/01-*")) / "checkpoints/last"
    assert f"    checkpoint saved to {kept}" in done.stderr
    assert f"`{kept}`" in done.stdout
    shown = workbench(here, tiny, "results", "show", "01-retrieval")
    assert f"checkpoint   {kept}" in shown.stdout

    logs.rename(there / "bench_logs")
    words = ["-d", "tiny_val", "-m", "run:train", "--task", "evaluate", "--cpu"]
    given = ["--set", f"data_root={tiny / 'data'}", "--set", "threads=1", "--name", "next"]
    used = workbench(there, tiny, "run", *words, *given, "--headless")
    assert used.returncode == 0, used.stderr
    lines = (there / "bench_logs/results.jsonl").read_text()
    records = [json.loads(line) for line in lines.splitlines()]
    found = [{m["name"]: m["value"] for m in record["metrics"]} for record in records]
    assert found[0] == found[1] == found[2]
    assert records[2]["identity"]["base_model"] == "pico"
    suite = records[0]["identity"]["suite"]
    trained = f"run:{suite}/{records[0]['identity']['run_id']}"
    assert records[2]["identity"]["model"] == trained
    assert records[2]["identity"]["params"]["image_size"] == 32, "as it was trained"
    assert str(here) not in json.dumps(records[2]["facts"])
    last = next((there / "bench_logs").glob("*-next-*/plan.toml"))
    assert trained in last.read_text(), "the plan that is repeated means the same weights"
