"""Captioning with what all training engines share: cost probes, and several processes."""

import pytest

from engines.protocol import Probe
from tests.engines import engine_runs
from tests.engines import tiny_captioning as tiny
from tests.engines.tiny_captioning import go, losses, spec

pytest.importorskip("bitsandbytes")
pytest.importorskip("peft")


folder = engine_runs.subset_fixture(tiny.write)


@pytest.mark.usefixtures("single_steps")
def test_a_costing_run_is_the_start_of_the_run_and_leaves_nothing(folder, tmp_path):
    settings = {"epochs": 4, "early_stopping": True, "validation_share": 0.1, "evaluate_on": [],
                "evaluate_train": 0, "gradient_accumulation_steps": 1, "batch": 1}  # fmt: skip
    whole = go(spec(folder, settings=settings), tmp_path / "whole")
    sent = go(
        spec(folder, settings=settings, task="probe", probe=Probe(steps=6)), tmp_path / "probe"
    )
    forecast = next(m for m in sent if m.kind == "forecast")
    assert (forecast.steps, forecast.run_steps) == (6, 64)
    assert forecast.run_seconds > forecast.start_seconds
    names = {"weights kept", "checkpoints on the way", "adapter folder", "image cache",
             "feature cache"}  # fmt: skip
    assert forecast.disk.keys() == names
    assert forecast.disk["image cache"] == 18 * 32 * 32 * 3
    assert forecast.disk["feature cache"] == 18 * 16 * 32 * 2
    for name, file in (("weights kept", "last/model"), ("adapter folder", "adapter/adapter_model")):
        kept = (tmp_path / f"whole/checkpoints/{file}.safetensors").read_bytes()
        header = 8 + int.from_bytes(kept[:8], "little")
        assert forecast.disk[name] == len(kept) - header
    assert [p for p in (tmp_path / "probe").rglob("*") if p.is_file()] == []
    assert not [m for m in sent if m.kind == "metric" or (m.kind == "phase" and m.name == "eval")]
    assert losses(sent)[0] == losses(whole)[0]
