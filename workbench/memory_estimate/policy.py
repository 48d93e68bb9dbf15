"""GPU presets (micro-batch and evaluation batch by VRAM) and the order of memory reductions.

`vqa_oom_check` set the preset of one GPU ("VRAM >= 22 GB: batch 2; 24 GB: predictions 6; effective
batch 16 kept by accumulation"). Presets beyond it scale with memory, as their `source` says; they
change the split of a step into micro-batches, not what it computes.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any, Final, NamedTuple

from engines import catalog
from engines.memory_query import Phase

GB: Final = 10**9
TARGET_EFFECTIVE_BATCH: Final = 16
"""Samples of an optimizer step in the audit; used where a plan sets none."""


AUDIT_PREDICTION_GB: Final = (15, 17)
"""Lowest and highest GB that the audit expects in prediction on an A10G; without derivation."""
AUDITED_MODELS: Final = frozenset({"qwen2.5-vl-3b"})
"""The model of the audit's notebook."""


class GpuPreset(NamedTuple):
    """Micro-batch and evaluation batch from `gigabytes` of VRAM on, and their source."""

    gigabytes: float
    batch: int
    eval_batch_size: int
    source: str


GPU_PRESETS: Final = (
    GpuPreset(75, 8, 20, "ours: in proportion to memory"),
    GpuPreset(38, 4, 10, "ours: in proportion to memory"),
    GpuPreset(22, 2, 6, "audit: >= 22 GB -> 2; 24 GB -> 6"),
    GpuPreset(14, 1, 4, "digest: T4 -> 1; predictions ours"),
    GpuPreset(0, 1, 1, "audit: smaller -> 1"),
)


def select_preset(memory_bytes: int) -> GpuPreset:
    """The preset for a GPU's memory. Decimal gigabytes, as GPUs are sold."""
    return next(preset for preset in GPU_PRESETS if memory_bytes >= preset.gigabytes * GB)


def accumulation_steps(effective: int, batch: int) -> int:
    """Micro-batches per step that give at least the effective batch."""
    return max(1, math.ceil(effective / batch))


class MemoryReduction(NamedTuple):
    """One memory reduction: its description, the settings, and the model if that changes."""

    description: str
    settings: dict[str, Any]
    model: str = ""


MINIMAL_CHUNK: Final = 16
"""Pairs computed at once with GradCache, which keeps the batch, its negatives and gradients."""


def minimal_settings(params: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Settings of the smallest memory; the second where a model does not support the first."""
    batch_sizes = {"eval_batch_size": 1} if "eval_batch_size" in params else {}
    chunked = [{"grad_cache_chunk": 1, **batch_sizes}] if "grad_cache_chunk" in params else []
    smallest = catalog.limit_batch(params, 1) if params.get("stages") else {"batch": 1}
    return [*chunked, {**smallest, **batch_sizes}]


SMALLER_MODELS: Final = {"qwen2.5-vl-7b": "qwen2.5-vl-3b"}
LORA_RANK: Final = 24
LONG_SIDE: Final = 384


def list_reductions(
    params: Mapping[str, Any], model: str, phase: Phase = "train", *, trains: bool
) -> list[MemoryReduction]:
    """The memory reductions that are left, in the order to apply them, each on top of the others.

    Activation checkpointing comes first if it is off: both audit reports have it on from the start.
    Reductions of inference come before those of training if prediction needs most memory.
    """
    training = _training_reductions(params) if trains else []
    inference = _inference_reductions(params)
    reductions = [*inference, *training] if phase == "predict" else [*training, *inference]
    if params.get("long_side", 0) > LONG_SIDE:
        reductions.append(MemoryReduction(f"long_side = {LONG_SIDE}", {"long_side": LONG_SIDE}))
    if trains and params.get("lora_rank", 0) > LORA_RANK:
        reductions.append(MemoryReduction(f"lora_rank = {LORA_RANK}", {"lora_rank": LORA_RANK}))
    if smaller := SMALLER_MODELS.get(model):
        reductions.append(MemoryReduction(f"{smaller} instead of {model}", {}, smaller))
    if trains and "grad_cache_chunk" in params and params["batch"] > MINIMAL_CHUNK:
        reductions.append(
            MemoryReduction(
                f"batch = {MINIMAL_CHUNK}, with fewer negatives", {"batch": MINIMAL_CHUNK}
            )
        )
    averages = {"ema": 0.0, "swa": False}
    if trains and any(params.get(key) for key in averages):
        settings = {key: value for key, value in averages.items() if key in params}
        reductions.append(MemoryReduction("EMA and SWA off", settings))
    return reductions


def _training_reductions(params: Mapping[str, Any]) -> list[MemoryReduction]:
    """Reductions of the samples computed at once in a step, which keep the effective batch."""
    reductions: list[MemoryReduction] = []
    effective = int(params.get("batch", 1)) * int(params.get("gradient_accumulation_steps", 1))
    if params.get("gradient_checkpointing") is False:
        settings: dict[str, Any] = {"gradient_checkpointing": True}
        reductions.append(MemoryReduction("gradient_checkpointing = true", settings))
    if "grad_cache_chunk" in params:  # fewer pairs in a batch are fewer negatives
        if (params["grad_cache_chunk"] or params["batch"]) > MINIMAL_CHUNK:
            reductions.append(
                MemoryReduction(
                    f"grad_cache_chunk = {MINIMAL_CHUNK}", {"grad_cache_chunk": MINIMAL_CHUNK}
                )
            )
    elif any(table.get("batch", 1) > 1 for table in catalog.stage_params(params)):
        text = f"batch = 1, gradient_accumulation_steps = {effective}"
        text = "batch = 1 in every stage" if params.get("stages") else text
        reductions.append(MemoryReduction(text, catalog.limit_batch(params, 1)))
    return reductions


def _inference_reductions(params: Mapping[str, Any]) -> list[MemoryReduction]:
    """Reductions of the samples answered or encoded at once."""
    smallest = 1 if "long_side" in params else MINIMAL_CHUNK  # VQA answers questions one by one
    if params.get("eval_batch_size", 1) <= smallest:
        return []
    return [MemoryReduction(f"eval_batch_size = {smallest}", {"eval_batch_size": smallest})]


def hold_out_sizes(rows: int, share: float) -> tuple[int, int]:
    """Training rows and held-out rows; the latter are rounded up, as in the audit.

    3,887 rows and 10 %: 3,498 and 389 (scikit-learn's `train_test_split`).
    """
    held_out = math.ceil(rows * share)
    return rows - held_out, held_out


def fold_sizes(rows: int, folds: int, number: int) -> tuple[int, int]:
    """Training rows and held-out rows of fold `number`; the first folds are one row larger."""
    held_out = rows // folds + (number < rows % folds)
    return rows - held_out, held_out


def steps_per_epoch(rows: int, batch: int, gradient_accumulation_steps: int) -> int:
    """Optimizer steps of an epoch, a short last one included."""
    return math.ceil(rows / (batch * gradient_accumulation_steps))
