"""The memory forecast against torch's own count on a GPU, for a real 3B's sizes in NF4.

Needs 7.6 GB of disk: one model in bf16, which all shapes share.
"""

from __future__ import annotations

import pytest
import torch

from tests.engines.vqa_step import Shape, measured_on_gpu

QWEN = "Qwen/Qwen2.5-VL-3B-Instruct"
AUDIT = {"lora_rank": 32, "lora_alpha": 64, "batch": 2, "long_side": 768, "precision": "auto"}

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.slow,
    pytest.mark.timeout(1800),
    pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA GPU"),
]


SHAPES = (
    Shape("audit", AUDIT, 192, published=QWEN, target="cuda"),
    Shape("small picture", {**AUDIT, "long_side": 384}, 192, published=QWEN, target="cuda"),
    Shape("batch 1, kept", {**AUDIT, "batch": 1, "gradient_checkpointing": False}, 192,
          published=QWEN,
          target="cuda"),
    Shape("prediction", {**AUDIT, "eval_batch_size": 6}, 192, trains=False, published=QWEN,
          target="cuda"),
)  # fmt: skip


@pytest.mark.parametrize("shape", SHAPES, ids=lambda shape: shape.name)
def test_forecast_is_what_torch_counts_within_a_tenth(shape, model_folders):
    from engines.vqa.memory import estimate
    from workbench.memory_estimate.fit_check import WORKSPACE_BYTES

    capability = torch.cuda.get_device_capability()
    want = shape.want().model_copy(update={"capability": capability})
    need = estimate.estimate_model(want, shape.config(), "test")
    said = sum(need.phases["train" if shape.trains else "predict"].values())
    real = measured_on_gpu(shape, model_folders)
    assert said + WORKSPACE_BYTES[capability >= (9, 0)] == pytest.approx(real, rel=0.1)
