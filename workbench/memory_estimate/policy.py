"""The audit's rules as tables: micro-batch and prediction batch by VRAM, and what to lower first.

`vqa_oom_check` set them for one GPU ("VRAM >= 22 GB: batch 2; 24 GB: predictions 6; effective batch
16 kept by accumulation"). Rows that go beyond it say so: they scale with memory, and change only
how a step is cut, not what it computes.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any, Final, NamedTuple

from engines.memory_query import Phase

GB: Final = 10**9
TARGET_EFFECTIVE_BATCH: Final = 16
"""Samples of an optimizer step in the audit, where a plan says nothing."""


AUDIT_PREDICTS: Final = (15, 17)
"""GB that the audit expects in prediction on an A10G; it does not say how it came to them."""
AUDITED: Final = frozenset({"qwen2.5-vl-3b"})
"""The model of its notebook."""


class Rule(NamedTuple):
    """From so many bytes of VRAM on: micro-batch and prediction batch, and who says so."""

    gigabytes: float
    batch: int
    predict_batch: int
    source: str


RULES: Final = (
    Rule(75, 8, 20, "ours: in proportion to memory"),
    Rule(38, 4, 10, "ours: in proportion to memory"),
    Rule(22, 2, 6, "audit: >= 22 GB -> 2; 24 GB -> 6"),
    Rule(14, 1, 4, "digest: T4 -> 1; predictions ours"),
    Rule(0, 1, 1, "audit: smaller -> 1"),
)


def rule(memory_bytes: int) -> Rule:
    """The row for a GPU's memory. Decimal gigabytes, as GPUs are sold."""
    return next(row for row in RULES if memory_bytes >= row.gigabytes * GB)


def accumulation(effective: int, batch: int) -> int:
    """Micro-batches in a step, so that at least the effective batch is kept."""
    return max(1, math.ceil(effective / batch))


class Lowering(NamedTuple):
    """One thing to lower: what a person would read, settings, and the model if it changes."""

    words: str
    settings: dict[str, Any]
    model: str = ""


CHUNK: Final = 16
"""Pairs computed at once where negatives must stay: GradCache keeps the batch and gradients."""


def smallest(params: Mapping[str, Any]) -> list[dict[str, Any]]:
    """The least that a run can hold at once; where a model cannot do the first, the second."""
    answers = dict.fromkeys((k for k in ("predict_batch", "evaluate_batch") if k in params), 1)
    chunked = [{"grad_cache_chunk": 1, **answers}] if "grad_cache_chunk" in params else []
    return [*chunked, {"batch": 1, **answers}]


SMALLER_MODELS: Final = {"qwen2.5-vl-7b": "qwen2.5-vl-3b"}
LORA_RANK: Final = 24
LONG_SIDE: Final = 384


def lowerings(
    params: Mapping[str, Any], model: str, phase: Phase = "train", *, trains: bool
) -> list[Lowering]:
    """What can still be lowered, in the order of the two reports; each one comes on top.

    Checkpointing comes first where it is off: both reports have it on from the start. Where
    prediction is the phase that needs most, what makes it smaller comes before all else.
    """
    training = _of_training(params) if trains else []
    answers = _of_answers(params)
    found = [*answers, *training] if phase == "predict" else [*training, *answers]
    if params.get("long_side", 0) > LONG_SIDE:
        found.append(Lowering(f"long_side = {LONG_SIDE}", {"long_side": LONG_SIDE}))
    if trains and params.get("lora_rank", 0) > LORA_RANK:
        found.append(Lowering(f"lora_rank = {LORA_RANK}", {"lora_rank": LORA_RANK}))
    if smaller := SMALLER_MODELS.get(model):
        found.append(Lowering(f"{smaller} instead of {model}", {}, smaller))
    if trains and "grad_cache_chunk" in params and params["batch"] > CHUNK:
        found.append(Lowering(f"batch = {CHUNK}, with fewer negatives", {"batch": CHUNK}))
    averages = {"ema": 0.0, "swa": False}
    if trains and any(params.get(key) for key in averages):
        settings = {key: value for key, value in averages.items() if key in params}
        found.append(Lowering("EMA and SWA off", settings))
    return found


def _of_training(params: Mapping[str, Any]) -> list[Lowering]:
    """What is computed at once in a step, the step itself left as it is."""
    found: list[Lowering] = []
    effective = int(params.get("batch", 1)) * int(params.get("accumulation", 1))
    if params.get("checkpointing") is False:
        found.append(Lowering("checkpointing = true", {"checkpointing": True}))
    if "grad_cache_chunk" in params:  # fewer pairs in a batch are fewer negatives
        if (params["grad_cache_chunk"] or params["batch"]) > CHUNK:
            found.append(Lowering(f"grad_cache_chunk = {CHUNK}", {"grad_cache_chunk": CHUNK}))
    elif params.get("batch", 1) > 1:
        settings = {"batch": 1, "accumulation": effective}
        found.append(Lowering(f"batch = 1, accumulation = {effective}", settings))
    return found


def _of_answers(params: Mapping[str, Any]) -> list[Lowering]:
    """What is answered or encoded at once."""
    found: list[Lowering] = []
    if params.get("predict_batch", 1) > 1:
        found.append(Lowering("predict_batch = 1", {"predict_batch": 1}))
    if params.get("evaluate_batch", 1) > CHUNK:
        found.append(Lowering(f"evaluate_batch = {CHUNK}", {"evaluate_batch": CHUNK}))
    return found


def hold_out(rows: int, share: float) -> tuple[int, int]:
    """Rows that are trained on and held out: the held out ones are rounded up, as in the audit.

    3,887 rows and 10 %: 3,498 and 389 (scikit-learn's `train_test_split`).
    """
    held = math.ceil(rows * share)
    return rows - held, held


def fold(rows: int, folds: int, number: int) -> tuple[int, int]:
    """The same for fold `number` of `folds`: the first ones are one row larger."""
    held = rows // folds + (number < rows % folds)
    return rows - held, held


def steps_per_epoch(rows: int, batch: int, accumulation: int) -> int:
    """Optimizer steps of an epoch; the last one may be short."""
    return math.ceil(rows / (batch * accumulation))
