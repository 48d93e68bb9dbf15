"""The memory forecast of captioning against torch's own count on a GPU.

Needs 1.9 GB of disk: one pair of models in bf16, which all shapes share.
"""

from __future__ import annotations

import pytest
import torch

from engines.captioning.memory import estimate
from tests.engines.captioning_step import Shape, measured_on_gpu, shared

QWEN = {
    "hidden_size": 1024, "intermediate_size": 3072, "num_hidden_layers": 28,
    "num_attention_heads": 16, "num_key_value_heads": 8, "head_dim": 128, "vocab_size": 151_936,
    "tie_word_embeddings": True,
}  # fmt: skip
CLIP = {
    "hidden_size": 1024, "intermediate_size": 4096, "num_hidden_layers": 24,
    "num_attention_heads": 16, "image_size": 336, "projection_dim": 768,
}  # fmt: skip
BF16 = {"precision": "bf16", "batch": 8, "gradient_checkpointing": True, "eval_batch_size": 16}

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.slow,
    pytest.mark.timeout(1800),
    pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA GPU"),
]

SHAPES = tuple(
    Shape(name, {**BF16, **settings}, tokens=64, sizes=QWEN, vision=CLIP, trains=trains,
          target="cuda")
    for name, settings, trains in (
        ("linear, 4-bit", {}, True),
        ("kept, accumulation", {"gradient_checkpointing": False, "gradient_accumulation_steps": 2,
                                "batch": 4}, True),
        ("whole, c_abstractor", {"quantize": "none", "projector": "c_abstractor"}, True),
        ("perceiver from pixels", {"projector": "perceiver", "feature_cache": False}, True),
        ("captions", {"max_new_tokens": 64}, False),
    )
)  # fmt: skip


@pytest.mark.parametrize("shape", SHAPES, ids=lambda shape: shape.name)
def test_forecast_is_what_torch_counts_within_a_tenth(shape, model_folders):
    from workbench.memory_estimate.fit_check import WORKSPACE_BYTES

    capability = torch.cuda.get_device_capability()
    pair = shared(shape, model_folders)
    want = shape.want().model_copy(update={"capability": capability})
    need = estimate.estimate_model(want, shape.params, pair)
    said = sum(need.phases["train" if shape.trains else "predict"].values())
    real = measured_on_gpu(shape, pair)
    assert said + WORKSPACE_BYTES[capability >= (9, 0)] == pytest.approx(real, rel=0.1)
