"""Models that ship as GGUF files in packages, as folders in transformers' layout.

A file is converted once and kept in the cache: transformers takes ten seconds and more for it, and
the folder is then loaded as any other, in 4 bits too.
"""

from __future__ import annotations

import hashlib
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from datasets_mm.atomic_files import atomic_folder, folder_lock, locked
from datasets_mm.sources.fingerprint import package_folder
from engines import out_of_memory
from engines.emitter import EngineError, first_line
from engines.model_catalog import ModelPart
from engines.torchkit.modeling.model_config import ATTENTION

REVISION = 1
"""Incremented when equal files give other folders."""


def get_or_convert(part: ModelPart, cache_root: Path) -> Path:
    """Folder with the causal language model of a part's GGUF file, in float32.

    Raises:
        EngineError: the package `gguf` or the file is missing, or it cannot be converted.
    """
    source = find_file(part)
    if find_spec("gguf") is None:
        raise EngineError(f"{source.name}: package `gguf` reads it and is missing; {part.install}")
    with source.open("rb") as file:
        digest = hashlib.file_digest(file, lambda: hashlib.blake2b(digest_size=12)).hexdigest()
    folder = cache_root / "gguf" / f"{source.stem}-{digest}-{REVISION}"
    with locked(folder_lock(folder)):  # a second run waits and then finds it
        if not folder.is_dir():
            with atomic_folder(folder) as draft:
                _convert(source, draft)
    return folder


def find_file(part: ModelPart) -> Path:
    """The GGUF file of a part, in the first of its packages.

    Raises:
        EngineError: the package is missing, or has no such file.
    """
    folder = package_folder(part.packages[0])
    path = folder / part.gguf if folder else None
    if path is None or not path.is_file():
        raise EngineError(
            f"package `{part.packages[0]}` has no file {part.gguf}; {part.install or 'install it'}"
        )
    return path


def _convert(source: Path, folder: Path) -> None:
    import torch
    import transformers

    model_class: Any = transformers.AutoModelForCausalLM
    tokenizer_class: Any = transformers.AutoTokenizer
    source_file = {"gguf_file": source.name, "local_files_only": True, "trust_remote_code": False}
    try:
        model = model_class.from_pretrained(
            source.parent, dtype=torch.float32, attn_implementation=ATTENTION, **source_file
        )
        tokenizer = tokenizer_class.from_pretrained(source.parent, **source_file)
    except Exception as error:  # a damaged file raises errors of many classes
        if out_of_memory.is_device_failure(error):
            raise
        raise EngineError(f"{source}: cannot be converted ({first_line(error)})") from None
    config = model.config
    del config.quantization_config  # the weights are not packed any more
    whole = model_class.from_config(config, dtype=torch.float32, attn_implementation=ATTENTION)
    whole.load_state_dict(model.state_dict())
    whole.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
