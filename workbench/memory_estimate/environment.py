"""Settings from environment variables of the users' own scripts, with the source of each.

They override a plan file, and `--set` overrides them. Each engine reads the names of the script
that it replaces: VQA those of the memory audit, retrieval those in the log of the weekly run.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from typing import Any, Final

from workbench.planning.plan import PlanError

Parser = Callable[[str], Any]


def _parse_bool(text: str) -> bool:
    """A boolean as Python, Hugging Face's arguments and shells write it.

    Raises:
        ValueError: the text is neither true nor false.
    """
    try:
        return {"true": True, "1": True, "yes": True, "false": False, "0": False, "no": False}[
            text.lower()
        ]
    except KeyError:
        raise ValueError(text) from None


def _parse_bf16(text: str) -> str:
    """The precision of Hugging Face's `bf16` argument: without it training is in fp32."""
    return "bf16" if _parse_bool(text) else "fp32"


AUDIT_VARIABLES: Final[Mapping[str, tuple[str, Parser]]] = {
    "PER_DEVICE_BATCH": ("batch", int),
    "LORA_R": ("lora_rank", int),
    "LORA_ALPHA": ("lora_alpha", int),
    "LORA_DROPOUT": ("lora_dropout", float),
    "PRED_BATCH_SIZE": ("eval_batch_size", int),
    "MAX_NEW_TOKENS": ("max_new_tokens", int),
    "IMAGE_SIZE": ("long_side", int),
    "MAX_SEQUENCE_LENGTH": ("max_length", int),
}
WEEKLY_VARIABLES: Final[Mapping[str, tuple[str, Parser]]] = {
    "NPROC_PER_NODE": ("nproc_per_node", int),
    "NUM_EPOCHS": ("epochs", float),
    "WARMUP_STEPS": ("timing_warmup_steps", int),
    "PER_DEVICE_TRAIN_BS": ("batch", int),
    "GRAD_ACCUM": ("gradient_accumulation_steps", int),
    "NUM_WORKERS": ("num_workers", int),
    "PIN_MEMORY": ("pin_memory", _parse_bool),
    "BF16": ("precision", _parse_bf16),
    "TF32": ("tf32", _parse_bool),
}
SETTINGS: Final = {"vqa": AUDIT_VARIABLES, "retrieval": WEEKLY_VARIABLES}
"""By engine, then by variable: the setting and the parser of its value."""
EFFECTIVE_BATCH: Final = "EFFECTIVE_BATCH_SIZE"
"""No setting itself: `gradient_accumulation_steps` follows from it and the micro-batch."""


def read_settings(
    environment: Mapping[str, str] = os.environ, engine: str = "vqa"
) -> tuple[dict[str, Any], dict[str, str]]:
    """Settings that the environment asks for, and the variable behind each.

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
            complaint = "no number" if kind in (int, float) else "neither true nor false"
            problems.append(f"environment: {name}={text} is {complaint}; correct or unset it")
            continue
        origins[key] = f"environment: {name}={text}"
    if problems:
        raise PlanError(problems)
    return settings, origins


def effective_batch(environment: Mapping[str, str] = os.environ) -> int | None:
    """Samples of an optimizer step that the environment asks for; None: not set.

    Raises:
        PlanError: it is no positive number.
    """
    text = environment.get(EFFECTIVE_BATCH, "").strip()
    if not text:
        return None
    if not text.isdecimal() or int(text) < 1:
        raise PlanError(
            [f"environment: {EFFECTIVE_BATCH}={text} is no positive number; correct it"]
        )
    return int(text)
