"""The counts of a training step of captioning and VQA as upper bounds, two layers deep."""

from __future__ import annotations

import pytest

from benchmarks import language_steps, step_count
from benchmarks.step_budget import totals

pytest.importorskip("bitsandbytes")
pytest.importorskip("peft")

SHALLOW = {"layers": 2, "blocks": 2}
BOUNDS = {
    "vqa": {"kernels": 527, "casts": 8, "waits": 0},
    "vqa-tower": {"kernels": 611, "casts": 19, "waits": 0},
    "captioning": {"kernels": 398, "casts": 13, "waits": 0},
}
"""Qwen2.5-VL-3B and Qwen3-8B with two decoder layers (and blocks of the tower) in NF4 with LoRA."""
COPIED = {"vqa": 6_060_384, "vqa-tower": 3_622_608, "captioning": 18_879_488}
"""Bytes to the device: ids, places and features; or patches."""


def case(name: str) -> step_count.Case:
    if name == "captioning":
        return language_steps.captioning_case(layers=2)
    return language_steps.vqa_case(feature_cache=name == "vqa", **SHALLOW)


@pytest.mark.parametrize("name", BOUNDS)
def test_a_step_stays_in_its_budget(name):
    found = totals(step_count.whole_step(case(name)))
    for what, most in BOUNDS[name].items():
        assert found[what] <= most, what
    assert found["kernels"] > 300, "it counts"


@pytest.mark.parametrize("name", BOUNDS)
def test_a_batch_is_copied_once_and_nothing_waits_on_a_gpu(name):
    counts = step_count.forward_on_cuda(case(name))
    assert sum(part.waits for part in counts.values()) == 0
    assert counts["transfer"].bytes_to_device == COPIED[name]
    assert counts["forward"].bytes_to_device == 0
