"""Weights of a local folder for a model of transformers: safetensors only, no missing tensors.

transformers initialises missing tensors at random and only logs so; a run would then report numbers
of an untrained model.
"""

from __future__ import annotations

from collections.abc import Collection
from pathlib import Path
from typing import Any

import torch

from engines.emitter import EngineError
from engines.torchkit.modeling.model_config import ATTENTION


def load(kind: Any, folder: Path, config: Any, unused: tuple[str, ...] = ()) -> Any:
    """A model of transformers' class `kind`, in float32.

    `unused`: beginnings of the names of tensors that nothing reads, which may be missing.

    Raises:
        EngineError: the folder's weights lack some of the model's tensors.
        Exception: of any class, where the folder's files are damaged.
    """
    model, loading_info = kind.from_pretrained(
        folder, config=config, attn_implementation=ATTENTION, local_files_only=True,
        use_safetensors=True, dtype=torch.float32, output_loading_info=True,
    )  # fmt: skip
    missing = [name for name in loading_info["missing_keys"] if not name.startswith(unused)]
    refuse_missing(missing, folder)
    return model


def build_random(config: Any) -> Any:
    """The model of a configuration with random weights, for a memory estimate."""
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
