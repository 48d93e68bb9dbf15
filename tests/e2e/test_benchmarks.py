"""Benchmarks that need a GPU, run here at a thousandth of their size so that they cannot rot."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]


def run(command: list[str]) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        command, check=False, cwd=ROOT, capture_output=True, text=True, timeout=300
    )


def test_the_gpu_epoch_at_a_thousandth(tmp_path: Path) -> None:
    out = tmp_path / "figures.json"
    command = [
        sys.executable, "benchmarks/gpu_epoch.py", "--pairs", "339", "--passages", "10",
        "--thin", "8", "--steps", "2", "--image-size", "64", "--precision", "fp32",
        "--folder", str(tmp_path), "--out", str(out),
    ]  # fmt: skip
    done = run(command)
    assert done.returncode == 0, done.stderr
    figures = json.loads(out.read_text())
    assert figures["epoch"]["steps"] == 6  # 339 pairs in batches of 64
    assert figures["epoch"]["seconds"] > 0
    assert figures["epoch"]["data_wait_share"] < 1
    assert set(figures["switches"]) >= {"all off", "sdpa", "fused"}
    assert figures["cache"]["bytes"] == 349 * 64 * 64 * 3
    assert list(tmp_path.iterdir()) == [out]  # the cache is gone again
    assert "epoch: 339 pairs, 6 steps" in done.stdout


def test_too_small_a_disk_is_said_before_anything_is_written(tmp_path: Path) -> None:
    command = [
        sys.executable, "benchmarks/gpu_epoch.py", "--pairs", "900000000", "--folder", str(tmp_path)
    ]  # fmt: skip
    done = run(command)
    assert done.returncode == 2
    assert "another --folder or fewer --pairs" in done.stderr
    assert not list(tmp_path.iterdir())
