"""The fake training step against what a real one allocates."""

from __future__ import annotations

import pytest
import torch
from torch import nn
from torch.nn import functional

from engines.torchkit.memory import allocation_tracker, fake_training_step
from engines.torchkit.memory.fake_training_step import TrainingOptions
from engines.torchkit.modeling import rms_norm
from engines.torchkit.training.optimization import adamw
from tests.engines import allocations

WIDTH, BATCH = 512, 8


def build_model() -> nn.Sequential:
    return nn.Sequential(*[nn.Linear(WIDTH, WIDTH) for _ in range(6)])


def estimate(gradient_accumulation_steps: int) -> int:
    options = TrainingOptions(
        precision="fp32", quantize="none", lora_rank=0, gradient_checkpointing=False, target="cpu",
        gradient_accumulation_steps=gradient_accumulation_steps,
    )  # fmt: skip
    with fake_training_step.fake_mode(options) as tracker:
        model, batch = build_model(), torch.zeros(BATCH, WIDTH)
        allocation_tracker.track_model(tracker, model, lambda _: "model")
        return fake_training_step.measure_training_step(
            tracker, model, options, lambda: model(batch).square().mean(), batch
        ).total


def allocated(gradient_accumulation_steps: int) -> int:
    model, batch = build_model(), torch.zeros(BATCH, WIDTH)
    optimizer = adamw(model, 1e-4, 0.0, (0.9, 0.999), fused=True)

    def step() -> None:
        for _ in range(gradient_accumulation_steps):
            model(batch).square().mean().backward()
        allocations.end_step(model, optimizer)

    step()
    between = allocations.of((*model.parameters(), batch)) + allocations.of_state(optimizer)
    return between + allocations.peak(step)


@pytest.mark.parametrize("gradient_accumulation_steps", [1, 2])
def test_estimate_equals_what_a_step_allocates_where_gradients_are_a_quarter(
    gradient_accumulation_steps,
):
    assert estimate(gradient_accumulation_steps) == pytest.approx(
        allocated(gradient_accumulation_steps), rel=0.02
    )


@pytest.mark.parametrize(("target", "mask"), [("cuda", 1), ("cpu", 2)])
def test_dropout_keeps_a_byte_a_number_on_a_gpu_and_a_factor_on_a_cpu(target, mask):
    with fake_training_step.fake_mode(TrainingOptions(target=target)) as tracker:
        x = torch.zeros(WIDTH, WIDTH, dtype=torch.bfloat16, requires_grad=True)
        before = tracker.total
        output = functional.dropout(x, 0.1)
        assert output.requires_grad
        assert tracker.total - before == x.numel() * (2 + mask)


def test_rms_norm_keeps_no_tensor_in_float32_on_a_gpu():
    qwen3 = pytest.importorskip("transformers.models.qwen3.modeling_qwen3")
    kept = {}
    for target in ("cuda", "cpu"):
        with fake_training_step.fake_mode(TrainingOptions(target=target)) as tracker:
            norm = qwen3.Qwen3RMSNorm(WIDTH)
            norm.weight = nn.Parameter(torch.ones(WIDTH, dtype=torch.bfloat16), False)
            assert rms_norm.use_fused_rms_norm(norm) == 1
            x = torch.zeros(WIDTH, WIDTH, dtype=torch.bfloat16, requires_grad=True)
            before = tracker.total
            output = norm(x)
            assert output.requires_grad
            kept[target] = (tracker.total - before) / x.nbytes
    assert kept["cuda"] == pytest.approx(1, abs=0.02), "the output, and a number a row"
    assert kept["cpu"] > 3
