"""Configuration of a VQA model for its memory estimate; weights are not read."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Final

from engines.model_catalog import ModelEntry
from engines.torchkit.memory import known_configs
from engines.vqa.nano import model

KNOWN_CONFIGS: Final = Path(__file__).parent / "known_configs.toml"


def read_config(entry: ModelEntry) -> tuple[dict[str, Any], str]:
    """Configuration of a model, and its source: its folder, its entry, or `known_configs.toml`.

    Raises:
        EngineError: the sizes of the model are not known.
    """
    config_and_source = known_configs.find_config(entry, KNOWN_CONFIGS)
    if config_and_source is not None:
        return config_and_source
    if not entry.architecture or entry.hub or entry.path:
        raise known_configs.unknown_model_error(entry.name)
    with known_configs.missing_sizes_as_errors(entry.name):
        sizes = entry.architecture
        return model.build_config(sizes, int(sizes["vocabulary"])), known_configs.SCRATCH
