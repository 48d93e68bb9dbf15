"""Weights of a local folder for a model of transformers: safetensors only, no missing tensors.

transformers initializes missing tensors at random and only logs so; a run would then report numbers
of an untrained model.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch

from engines import out_of_memory
from engines.emitter import EngineError, first_line
from engines.torchkit.modeling.model_config import ATTENTION


def load(
    kind: Any, folder: Path, config: Any, unused: tuple[str, ...] = (), **settings: Any
) -> Any:
    """A model of transformers' class `kind`, in float32 unless `settings` say otherwise.

    Args:
        kind: The class.
        folder: Of the weights.
        config: Of the class, without keys that choose code.
        unused: Beginnings of the names of tensors that nothing reads, which may be missing.
        settings: Further arguments of `from_pretrained`.

    Raises:
        EngineError: the folder's weights lack some of the model's tensors.
        Exception: of any class, where the folder's files are damaged.
    """
    model, loading_info = kind.from_pretrained(
        folder, config=config, attn_implementation=ATTENTION, local_files_only=True,
        use_safetensors=True, trust_remote_code=False, output_loading_info=True,
        **{"dtype": torch.float32, **settings},
    )  # fmt: skip
    missing = [name for name in loading_info["missing_keys"] if not name.startswith(unused)]
    refuse_missing(missing, folder)
    return model


@contextmanager
def unsound_as_errors(location: object, description: str) -> Iterator[None]:
    """Context that raises what damaged files or configurations raise as EngineError.

    `description`: what `location` should have been. Failures of the device pass.
    """
    try:
        yield
    except (EngineError, ImportError):  # of a package that is missing
        raise
    except Exception as error:  # libraries raise errors of many classes
        if out_of_memory.is_device_failure(error):
            raise
        raise EngineError(f"{location}: no sound {description} ({first_line(error)})") from None


def refuse_missing(names: Collection[str], folder: Path) -> None:
    """Raise EngineError if a file of weights lacked tensors of these names."""
    if names:
        count = "1 tensor" if len(names) == 1 else f"{len(names)} tensors"
        raise EngineError(
            f"{folder}: the weights lack {count} of the model ({min(names)}); complete the folder"
        )
