"""A training run by one process and by two that share its batches: the same training."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from engines.protocol import RunSpec
from tests.fixtures.engine_process import Ended, engine


def trained(place: Path, batch: int, spec: Callable[[dict[str, Any]], RunSpec]) -> list[Ended]:
    """By one process with the joint batch, then by two; `spec` makes a run of settings."""
    ends = []
    for name, more in (
        ("one", {"batch": batch}),
        ("two", {"batch": batch // 2, "nproc_per_node": 2}),
    ):
        (place / name).mkdir()
        (place / name / "spec.json").write_text(spec(more).model_dump_json())
        ends.append(engine(place / name))
    return ends


def check_same(place: Path, ends: list[Ended], steps: int, samples: set[int]) -> None:
    """Equal losses, gradients and weights; steps of so many samples."""
    one, two = ends
    assert one.code == two.code == 0
    assert list(two.losses) == list(one.losses) == list(range(1, steps + 1))
    assert list(two.losses.values()) == pytest.approx(list(one.losses.values()), rel=1e-5)
    for first, second in zip(one.kinds("step"), two.kinds("step"), strict=True):
        assert first.samples == second.samples
        assert second.grad_norm == pytest.approx(first.grad_norm, rel=1e-4)
    assert {m.samples for m in one.kinds("step")} == samples
    found = load_file(place / "two/checkpoints/last/model.safetensors")
    for name, tensor in load_file(place / "one/checkpoints/last/model.safetensors").items():
        torch.testing.assert_close(found[name], tensor, rtol=1e-3, atol=1e-4, msg=name)
