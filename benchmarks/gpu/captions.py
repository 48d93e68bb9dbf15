"""Captions in batches against one by one, with LoRA apart and merged, in blocks of Qwen3-8B."""

from __future__ import annotations

import time
from importlib.util import find_spec
from statistics import median
from typing import Any

import torch

from benchmarks.gpu.report import Report, Skip

BLOCKS: dict[str, Any] = {
    "hidden_size": 4096, "intermediate_size": 12288, "num_hidden_layers": 2,
    "num_attention_heads": 32, "num_key_value_heads": 8, "head_dim": 128,
}  # fmt: skip
"""Two of the 36 blocks of Qwen3-8B, in 4 bits."""
SMALL: dict[str, Any] = {"hidden_size": 64, "intermediate_size": 128, "head_dim": 16}
MEDIA = 32
TOKENS = 64
BATCHES = (1, 16, 32)
ROUNDS = 3


def generation(report: Report) -> None:
    """Seconds a caption by batch, and how many captions differ from those one by one.

    The weights are random and no caption ends before its last token.
    """
    from engines.captioning.models.captioner import Captioner
    from engines.torchkit.modeling import lora
    from tests.engines import captioning_step
    from tests.engines.captioning_step import Real, Shape

    if find_spec("bitsandbytes") is None or find_spec("peft") is None:
        raise Skip("bitsandbytes or peft is not installed")
    device = torch.device("cuda" if report.cuda else "cpu")
    longest, media = report.size(TOKENS, 4), report.size(MEDIA, 4)
    settings = {"precision": "fp32" if report.small else "bf16", "eval_batch_size": media}
    shape = Shape(
        "captions", settings, sizes=report.size(BLOCKS, SMALL), trains=False,
        target=device.type,
    )  # fmt: skip
    real = Real.of(shape, captioning_step.written(shape, report.scratch / "captions"), device)
    model: Captioner = real.model.eval()
    features = torch.randn_like(real.features(media), dtype=torch.float32)
    first: list[list[int]] = []
    for name in ("LoRA apart", "LoRA merged"):
        if name == "LoRA merged":
            lora.merge_adapters(model.llm)
        ones = None
        for batch in report.size(BATCHES, BATCHES[:2]):
            captions, seconds = _generate(real, features, batch, (longest, report.size(ROUNDS, 1)))
            first = first or captions
            ones = ones or seconds
            report.figure(f"{name}, batch {batch}: ms a caption", seconds / media * 1e3)
            report.figure(f"{name}, batch {batch}: times one by one", ones / seconds)
            differ = sum(ids != other for ids, other in zip(first, captions, strict=True))
            report.figure(f"{name}, batch {batch}: captions that differ", f"{differ} of {media}")


def _generate(
    real: Any, features: torch.Tensor, batch: int, limits: tuple[int, int]
) -> tuple[list[list[int]], float]:
    """Captions of all media, and the median of the seconds that they take.

    `limits`: tokens of a caption, and rounds.
    """
    seconds, captions = [], []
    longest, rounds = limits
    for _ in range(rounds + 1):  # the first one chooses kernels
        start = time.perf_counter()
        with real.tower.precision.autocast():
            captions = [
                ids for part in features.split(batch) for ids in real.model.generate(part, longest)
            ]
        seconds.append(time.perf_counter() - start)
    return captions, median(seconds[1:])
