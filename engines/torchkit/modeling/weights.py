"""Weights of a local folder in a model of transformers: safetensors only, and every tensor of it.

transformers fills what a file lacks with fresh random numbers and only logs so. A run would then
report numbers of a model that nobody has trained.
"""

from __future__ import annotations

from collections.abc import Collection
from pathlib import Path
from typing import Any

import torch

from engines.emitter import EngineError
from engines.torchkit.modeling.model_config import ATTENTION


def load(kind: Any, folder: Path, config: Any) -> Any:
    """A model of transformers' class `kind`, in float32.

    Raises:
        EngineError: the folder's weights lack some of the model's tensors.
        Exception: of any class, where the folder's files are damaged.
    """
    model, found = kind.from_pretrained(
        folder, config=config, attn_implementation=ATTENTION, local_files_only=True,
        use_safetensors=True, dtype=torch.float32, output_loading_info=True,
    )  # fmt: skip
    refuse_missing(found["missing_keys"], folder)
    return model


def unread(config: Any) -> Any:
    """The same model with whatever numbers: for a rehearsal, which only needs its sizes."""
    from transformers import AutoModel

    auto: Any = AutoModel
    return auto.from_config(config, attn_implementation=ATTENTION, dtype=torch.float32)


def refuse_missing(names: Collection[str], folder: Path) -> None:
    """Raise EngineError if a file of weights lacked tensors of these names."""
    if names:
        count = "1 tensor" if len(names) == 1 else f"{len(names)} tensors"
        raise EngineError(
            f"{folder}: the weights lack {count} of the model ({min(names)}); complete the folder"
        )
