"""Models from configurations alone, for memory estimates: the modules of a run, without weights."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from importlib.util import find_spec
from pathlib import Path
from typing import Final

import torch
from tokenizers import Tokenizer
from tokenizers.models import BPE
from torch import nn

from engines import model_catalog
from engines.emitter import EngineError
from engines.model_catalog import ModelEntry
from engines.retrieval.memory.embedding_model import FakeEmbedder
from engines.retrieval.models import clip, openclip, siglip, tokenizer
from engines.retrieval.models.encoder import DualEncoder
from engines.retrieval.models.frozen_towers import HeadEncoder
from engines.retrieval.models.tokenizer import TextTokenizer
from engines.retrieval.params import Params
from engines.torchkit.memory import known_configs

SHAPES: Final = Path(__file__).parent / "known_configs.toml"
SUFFIX: Final = "-OpenCLIP"
"""Suffix of the hub's names of open_clip's models."""
TEXT_TOKENS: Final = 64
"""Context of SigLIP, where the configuration has none."""


@dataclass(frozen=True)
class ModelShape:
    """Sizes of a model, and a function that makes it."""

    make: Callable[[], DualEncoder]
    """Makes the model with arbitrary weights."""
    source: str
    """Source of the sizes."""
    length: int = 0
    """Tokens to which texts are padded; 0: longest of the batch."""
    has_text_tower: bool = True
    """Whether it has a text tower, and so a tokenizer."""

    def build(self) -> DualEncoder:
        """Build the model on the meta device."""
        with torch.device("meta"):
            return self.make()

    @property
    def tokenizer(self) -> TextTokenizer | None:
        """An empty tokenizer with the model's length; None without a text tower."""
        return TextTokenizer(Tokenizer(BPE()), 0, self.length) if self.has_text_tower else None


def find_model_shape(entry: ModelEntry, params: Params) -> ModelShape:
    """Shape of a model of the catalog.

    Raises:
        EngineError: its sizes are not known, or its library is missing.
    """
    if entry.family == "frozen-towers":
        make = partial(HeadEncoder, entry.architecture, params.temperature)
        return ModelShape(make, known_configs.SCRATCH, has_text_tower=False)
    if entry.family == "clip-scratch":
        return _from_scratch(entry, params)
    if entry.family == "open-clip":
        return _open_clip(entry, params)
    config_and_source = known_configs.find_config(entry, SHAPES)
    if config_and_source is None:
        raise _unknown_sizes(entry)
    config, source = config_and_source
    if entry.family == "qwen-embedding":
        return ModelShape(partial(FakeEmbedder, config, params.temperature), source)
    if entry.family == "siglip":
        text = config.get("text_config") or {}
        length = int(text.get("max_position_embeddings", TEXT_TOKENS))
        return ModelShape(
            partial(siglip.from_config, config, params.temperature, 0), source, length
        )
    return ModelShape(partial(clip.from_config, config, params.temperature), source)


def materialize(model: nn.Module) -> None:
    """Replace meta tensors by allocated ones, which are fake in fake mode."""
    weights: dict[int, nn.Parameter] = {}  # towers may share one
    for module in model.modules():
        for name, old in module.named_parameters(recurse=False, remove_duplicate=False):
            if id(old) not in weights:
                new = torch.empty(old.shape, dtype=old.dtype)
                weights[id(old)] = nn.Parameter(new, old.requires_grad)
            module.register_parameter(name, weights[id(old)])
        for name, buffer in module.named_buffers(recurse=False):
            setattr(module, name, torch.empty(buffer.shape, dtype=buffer.dtype))


def _from_scratch(entry: ModelEntry, params: Params) -> ModelShape:
    """Shape with the largest vocabulary; a tokenizer of few texts may have fewer entries."""

    def make() -> DualEncoder:
        with known_configs.missing_sizes_as_errors(entry.name):
            return clip.from_scratch(
                entry.architecture, params.image_size, params.max_length, params.temperature
            )

    return ModelShape(make, known_configs.SCRATCH)


def _open_clip(entry: ModelEntry, params: Params) -> ModelShape:
    """Shape from a folder in open_clip's layout, or by the name of a known architecture."""
    if find_spec("open_clip") is None:
        raise EngineError(
            f"model '{entry.name}': open_clip is not here; {model_catalog.INSTALL_OPEN_CLIP}"
        )
    import open_clip

    folder = model_catalog.weights_folder(entry)
    if folder is not None and (folder / model_catalog.OPEN_CLIP).is_file():
        stated = json.loads((folder / model_catalog.OPEN_CLIP).read_text(encoding="utf-8"))[
            "model_cfg"
        ]
        name, source = f"local-dir:{folder}", model_catalog.OPEN_CLIP
    else:
        name = entry.hub.rpartition("/")[2].removesuffix(SUFFIX)
        stated, source = open_clip.get_model_config(name), "open_clip's own sizes"
    if stated is None:
        raise _unknown_sizes(entry)
    length = tokenizer.read_context_length(stated["text_cfg"], name)
    return ModelShape(partial(openclip.from_architecture, name, params.temperature), source, length)


def _unknown_sizes(entry: ModelEntry) -> EngineError:
    if entry.family == "run":
        return EngineError(f"model '{entry.name}': the sizes of another run's model are not known")
    return known_configs.unknown_model_error(entry.name)
