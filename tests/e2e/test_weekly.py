"""The weekly report's preset from a copy of M2KR to Markdown; only the data, the size of the run
and, for want of its weights, the model are named."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from tests.fixtures import thin_clip

ROWS = ["oven_train", "infoseek_bal76k_train", "evqa_train", "okvqa_mm_train"]
HEAD = "| subset | loaded samples | steps | 1 epoch wall-clock | max RSS | exit |"
SMALL = ["--set", "batch=8", "--set", "num_workers=1", "--set", "threads=1"]


def workbench(here: Path, *words: str) -> subprocess.CompletedProcess[str]:
    environment = {
        "PATH": os.environ["PATH"], "HOME": str(here), "LANG": "C.UTF-8",
        "WORKBENCH_CACHE": str(here / "cache"), "WORKBENCH_CONFIG": str(here / "config"),
        "WORKBENCH_LOCKS": str(here / "runtime"),
    }  # fmt: skip
    return subprocess.run(
        [sys.executable, "-m", "workbench", *words], cwd=here, env=environment,
        capture_output=True, text=True, timeout=600, check=False,
    )  # fmt: skip


@pytest.mark.slow
@pytest.mark.timeout(900)  # 30 s alone; four engine processes beside other work take minutes
def test_the_weekly_preset_runs_from_data_to_markdown(tmp_path: Path) -> None:
    pytest.importorskip("resvg_py", reason="the [demo] extra is not installed")
    thin_clip.write(tmp_path / "thin")
    data = tmp_path / "ret"
    copied = workbench(tmp_path, "data", "make-copy", "--out", str(data), "--rows", "40")
    assert copied.returncode == 0, copied.stderr
    given = ["--cpu", "-m", f"path:{tmp_path / 'thin'}", "--set", "data_root=ret"]
    done = workbench(tmp_path, "run", "--preset", "weekly-m2kr", *given, *SMALL, "--headless")
    assert done.returncode == 0, done.stderr
    report = workbench(tmp_path, "report").stdout
    lines = report.splitlines()
    cost = next(at for at, line in enumerate(lines) if line.startswith(HEAD))
    rows = [re.match(r"\| `(\w+)` \| (\d+) \| \d \|", line) for line in lines[cost + 2 : cost + 6]]
    assert [row and row.group(1) for row in rows] == ROWS
    assert [row and row.group(2) for row in rows][:3] == ["40", "20", "40"]
    assert re.search(r"\*\*about [^*]+ s\*\* \(\d:\d\d( \+ \d:\d\d){3}\)", report)
    assert "40 records; the recipe expects 339137" in report
    # Five steps are fewer than the 20 of the timing warm-up: said, and no failure.
    assert "not-timed: no step was timed: all were among the 20" in report
    assert "training of 1 epoch: n/a (" in report
    assert '- `CUDA_VISIBLE_DEVICES=""`, `' in report
    assert "train_loss (epoch=1, mean of the epoch)" in report
    again = report[report.index("## How to repeat it") :]
    assert "cpu = true" in again
    assert f'data_root = "{data}"' in again, "absolute, whatever was typed"
    records = [
        json.loads(x) for x in (tmp_path / "bench_logs/results.jsonl").read_text().splitlines()
    ]
    assert [r["identity"]["subset"] for r in records] == ROWS
    assert all(any(n.startswith("not-timed: ") for n in r["notices"]) for r in records)
    settings = records[0]["identity"]["params"]
    kept = {"layers": [3, 7, 11], "lr": 2e-5, "gradient_accumulation_steps": 1, "evaluate_on": []}
    assert {name: settings[name] for name in kept} == kept
