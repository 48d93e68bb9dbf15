"""Folders of models with random weights for the tests that need a GPU: written once, then removed.

The weights of Qwen2.5-VL-3B are 7.5 GB in bf16. A folder for each test, kept by pytest as its
`tmp_path` is, would fill a disk of 64 GB: 4 shapes in fp32 are 60 GB.
"""

from __future__ import annotations

import hashlib
import json
import shutil
import tempfile
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import torch

SPARE_BYTES = 1 << 30
"""Left free on the disk beside a model."""


class ModelFolders:
    """One folder for each configuration, under a temporary one that is removed at the end."""

    def __init__(self, root: Path) -> None:
        self._temporary = tempfile.TemporaryDirectory(prefix="models-", dir=root)
        self.root = Path(self._temporary.name)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:  # fmt: skip
        self._temporary.cleanup()

    def new(self) -> Path:
        """An empty folder of no model in particular."""
        return Path(tempfile.mkdtemp(dir=self.root))

    def get(self, auto: str, config: dict[str, Any], device: str = "cpu") -> Path:
        """The folder of a model in bf16; written by the first call with this configuration.

        Args:
            auto: class of transformers that finds the model's class by its configuration.
            config: as in config.json, `model_type` included.
            device: where the weights are drawn: 3.75e9 numbers take a minute on a CPU.

        Raises:
            OSError: the disk has no room for it.
        """
        text = json.dumps([auto, config], sort_keys=True)
        folder = self.root / hashlib.blake2b(text.encode(), digest_size=8).hexdigest()
        if not folder.is_dir():
            size = bytes_of(auto, config)
            free = shutil.disk_usage(self.root).free
            if free < size + SPARE_BYTES:
                raise OSError(
                    f"{self.root}: {size / 1e9:.1f} GB are needed for the model and "
                    f"{free / 1e9:.1f} GB are free; run pytest with --basetemp on another disk"
                )
            _model(auto, config, device).save_pretrained(folder)
        return folder


def bytes_of(auto: str, config: dict[str, Any]) -> int:
    """Bytes of the model's file in bf16."""
    return 2 * sum(parameter.numel() for parameter in _model(auto, config, "meta").parameters())


def _model(auto: str, config: dict[str, Any], device: str) -> Any:
    import transformers

    sizes = transformers.AutoConfig.for_model(**config)
    with torch.device(device):
        return getattr(transformers, auto).from_config(sizes, dtype=torch.bfloat16)
