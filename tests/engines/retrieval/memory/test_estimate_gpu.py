"""The memory forecast of retrieval against torch's own count on a GPU, for published sizes.

Needs 2.2 GB of disk: two models in fp32, one folder for all shapes of a model.
"""

from __future__ import annotations

import pytest
import torch

from tests.engines.retrieval_step import Shape, measured_on_gpu, said

WEEKLY = {"batch": 64, "precision": "auto", "layers": (3, 7, 11)}
SHAPES = (
    Shape("weekly report", "tinyclip-61m", WEEKLY, target="cuda"),
    Shape("weekly report, fp32", "tinyclip-61m", {**WEEKLY, "precision": "fp32"}, target="cuda"),
    Shape("batch 512, GradCache", "tinyclip-61m",
          {**WEEKLY, "batch": 512, "grad_cache_chunk": 64}, target="cuda"),
    Shape("L/14, accumulation, EMA", "clip-vit-l14",
          {"batch": 16, "precision": "auto", "gradient_accumulation_steps": 2, "ema": 0.99},
          target="cuda"),
    Shape("evaluation", "tinyclip-61m", {"precision": "auto", "eval_batch_size": 256},
          phase="predict", target="cuda"),
)  # fmt: skip

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.slow,
    pytest.mark.timeout(1800),
    pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA GPU"),
]


@pytest.mark.parametrize("shape", SHAPES, ids=lambda shape: shape.name)
def test_forecast_is_what_torch_counts_within_a_tenth(shape, model_folders):
    from engines.retrieval.memory import estimate
    from workbench.memory_estimate.fit_check import WORKSPACE_BYTES

    capability = torch.cuda.get_device_capability()
    folder = model_folders.root / shape.family
    want = shape.want(folder).model_copy(update={"capability": capability})
    forecast = said(estimate.estimate_memory(want), shape)
    real = measured_on_gpu(shape, folder)
    assert forecast + WORKSPACE_BYTES[capability >= (9, 0)] == pytest.approx(real, rel=0.1)
