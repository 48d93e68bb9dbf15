"""Environment variables of the users' own scripts: honoured, and where a setting came from kept.

They stand between a plan and the command line: `--set` wins over them, they win over a plan file.
Each engine has the names of the script that it took over: VQA those of the memory audit, retrieval
those that the log of the weekly run prints.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from typing import Any, Final

from workbench.planning.plan import PlanError

Read = Callable[[str], Any]


def _truth(text: str) -> bool:
    """As Python, Hugging Face's arguments and shells write it.

    Raises:
        ValueError: it is neither.
    """
    try:
        return {"true": True, "1": True, "yes": True, "false": False, "0": False, "no": False}[
            text.lower()
        ]
    except KeyError:
        raise ValueError(text) from None


def _bf16(text: str) -> str:
    """Hugging Face's `bf16`: without it, and without fp16, training is in fp32."""
    return "bf16" if _truth(text) else "fp32"


AUDIT: Final[Mapping[str, tuple[str, Read]]] = {
    "PER_DEVICE_BATCH": ("batch", int),
    "LORA_R": ("lora_rank", int),
    "LORA_ALPHA": ("lora_alpha", int),
    "LORA_DROPOUT": ("lora_dropout", float),
    "PRED_BATCH_SIZE": ("predict_batch", int),
    "MAX_NEW_TOKENS": ("max_new_tokens", int),
    "IMAGE_SIZE": ("long_side", int),
    "MAX_SEQUENCE_LENGTH": ("max_length", int),
}
WEEKLY: Final[Mapping[str, tuple[str, Read]]] = {
    "NPROC_PER_NODE": ("nproc_per_node", int),
    "NUM_EPOCHS": ("epochs", float),
    "WARMUP_STEPS": ("timing_warmup_steps", int),
    "PER_DEVICE_TRAIN_BS": ("batch", int),
    "GRAD_ACCUM": ("accumulation", int),
    "NUM_WORKERS": ("workers", int),
    "PIN_MEMORY": ("pin_memory", _truth),
    "BF16": ("precision", _bf16),
    "TF32": ("tf32", _truth),
}
SETTINGS: Final = {"vqa": AUDIT, "retrieval": WEEKLY}
"""Setting by variable, by engine. Other engines' plans are left alone."""
EFFECTIVE: Final = "EFFECTIVE_BATCH_SIZE"
"""No setting of its own: accumulation follows from it and the micro-batch."""


def read(
    environment: Mapping[str, str] = os.environ, engine: str = "vqa"
) -> tuple[dict[str, Any], dict[str, str]]:
    """Settings that the environment asks for, and by which variable each.

    Raises:
        PlanError: a value is no number, or neither true nor false; all of them at once.
    """
    settings: dict[str, Any] = {}
    origins: dict[str, str] = {}
    problems: list[str] = []
    for name, (key, kind) in SETTINGS.get(engine, {}).items():
        if not (text := environment.get(name, "").strip()):
            continue
        try:
            settings[key] = kind(text)
        except ValueError:
            wanted = "no number" if kind in (int, float) else "neither true nor false"
            problems.append(f"environment: {name}={text} is {wanted}; correct or unset it")
            continue
        origins[key] = f"environment: {name}={text}"
    if problems:
        raise PlanError(problems)
    return settings, origins


def effective_batch(environment: Mapping[str, str] = os.environ) -> int | None:
    """The effective batch that the environment asks for.

    Raises:
        PlanError: it is no positive number.
    """
    text = environment.get(EFFECTIVE, "").strip()
    if not text:
        return None
    if not text.isdigit() or int(text) < 1:
        raise PlanError([f"environment: {EFFECTIVE}={text} is no positive number; correct it"])
    return int(text)
