"""Benchmarks that need a GPU, run here at a thousandth of their size so that they cannot rot."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from benchmarks import weekly
from engines.torchkit.runtime import matmul_precision
from workbench.planning import plan

ROOT = Path(__file__).resolve().parents[2]


def run(command: list[str]) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        command, check=False, cwd=ROOT, capture_output=True, text=True, timeout=600
    )


SMALL = ["--passages", "10", "--thin", "8", "--image-size", "64", "--steps", "2"]


@pytest.mark.slow
@pytest.mark.timeout(600)  # half a minute alone
def test_the_gpu_epoch_at_a_thousandth(tmp_path: Path) -> None:
    out = tmp_path / "figures.json"
    command = [
        sys.executable, "-m", "benchmarks.gpu_epoch", "--pairs", "339", *SMALL,
        "--set", "precision=fp32", "--set", "threads=1", "--set", "num_workers=1",
        "--folder", str(tmp_path), "--out", str(out),
    ]  # fmt: skip
    done = run(command)
    assert done.returncode == 0, done.stderr
    figures = json.loads(out.read_text())
    assert figures["epoch"]["steps"] == 6  # 339 pairs in batches of 64
    assert figures["epoch"]["seconds"] > 0
    assert figures["epoch"]["data_wait_share"] < 1
    assert figures["switches"].keys() == {"preset"}  # the others are for a GPU
    assert figures["cache"]["bytes"] == 349 * 64 * 64 * 3
    assert list(tmp_path.iterdir()) == [out]  # the cache is gone again
    assert "epoch: 339 pairs, 6 steps" in done.stdout
    chosen = plan.load_preset("weekly-m2kr").settings | {"precision": "fp32", "num_workers": 1}
    shown = {name: figures["settings"][name] for name in chosen}
    assert shown == chosen


def test_the_gpu_epoch_is_the_weekly_preset(tmp_path: Path) -> None:
    """Settings, layers, TF32, schedule and loader threads of a run of the preset."""
    chosen = plan.load_preset("weekly-m2kr")
    sizes = weekly.Sizes(pairs=129, passages=10, image_size=64, thin=8)
    array, _ = weekly.make_images(tmp_path / "rows.u8", sizes)
    bench = weekly.Bench(sizes, array, tmp_path)
    assert {n: getattr(weekly.settings(sizes, {}), n) for n in ("num_workers", "batch", "lr")} == {
        n: chosen.settings[n] for n in ("num_workers", "batch", "lr")
    }
    with bench.job({}) as (params, job):
        assert params.model_dump(mode="json", include=chosen.settings.keys()) == chosen.settings
        assert job.model.vision_layers == (3, 7, 11)
        assert job.model.text_layers == (2, 5, 8)
        assert torch.backends.cuda.matmul.allow_tf32
        assert job.precision.name == "bf16"
        assert job.steps == 3
        assert job.lr_at(2) < job.lr_at(1)  # a cosine, as a run has it
    matmul_precision.allow_tf32(False)


def test_speed_switches_change_settings_that_there_are() -> None:
    switches = weekly.speed_switches()
    assert switches.keys() >= {"preset", "fp32, ieee", "fp16, autocast", "pinned", "compile"}
    for changes in switches.values():
        weekly.settings(weekly.Sizes(), changes)


def test_too_small_a_disk_is_named_before_anything_is_written(tmp_path: Path) -> None:
    command = [
        sys.executable, "-m", "benchmarks.gpu_epoch", "--pairs", "900000000",
        "--folder", str(tmp_path),
    ]  # fmt: skip
    done = run(command)
    assert done.returncode == 2
    assert "another --folder or fewer --pairs" in done.stderr
    assert not list(tmp_path.iterdir())
