"""Environment variables of the audit's notebook: honoured, and where a setting came from kept.

They stand between a plan and the command line: `--set` wins over them, they win over a plan file.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import Any, Final

from workbench.plan import PlanError

SETTINGS: Final = {
    "PER_DEVICE_BATCH": ("batch", int),
    "LORA_R": ("lora_rank", int),
    "LORA_ALPHA": ("lora_alpha", int),
    "LORA_DROPOUT": ("lora_dropout", float),
    "PRED_BATCH_SIZE": ("predict_batch", int),
    "MAX_NEW_TOKENS": ("max_new_tokens", int),
    "IMAGE_SIZE": ("long_side", int),
    "MAX_SEQUENCE_LENGTH": ("max_length", int),
}
EFFECTIVE: Final = "EFFECTIVE_BATCH_SIZE"
"""No setting of its own: accumulation follows from it and the micro-batch."""


def read(environment: Mapping[str, str] = os.environ) -> tuple[dict[str, Any], dict[str, str]]:
    """Settings that the environment asks for, and by which variable each.

    Raises:
        PlanError: a value is no number; all of them at once.
    """
    settings: dict[str, Any] = {}
    origins: dict[str, str] = {}
    problems: list[str] = []
    for name, (key, kind) in SETTINGS.items():
        if not (text := environment.get(name, "").strip()):
            continue
        try:
            settings[key] = kind(text)
        except ValueError:
            problems.append(f"environment: {name}={text} is no number; correct or unset it")
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
