"""Configuration of a VQA model for its memory estimate; weights are not read."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Final

from engines.emitter import EngineError
from engines.model_catalog import ModelEntry
from engines.torchkit.memory import known_configs
from engines.torchkit.memory.patch_towers import DeepPatchTower, FakeTower, PatchTower
from engines.vqa.memory.tile_towers import InternVlTower, LlavaOneVisionTower, SmolVlmTower
from engines.vqa.nano import model

KNOWN_CONFIGS: Final = Path(__file__).parent / "known_configs.toml"
TOWERS: Final[Mapping[str, Callable[[Mapping[str, Any]], FakeTower]]] = {
    "qwen2_5_vl": PatchTower, "qwen3_vl": DeepPatchTower, "qwen3_5": DeepPatchTower,
    "internvl": InternVlTower, "smolvlm": SmolVlmTower, "idefics3": SmolVlmTower,
    "llava_onevision": LlavaOneVisionTower,
}  # fmt: skip
"""Vision towers by type of model."""


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


def select_tower(config: Mapping[str, Any], name: str = "") -> FakeTower:
    """The vision tower of a configuration of model `name`.

    Raises:
        EngineError: its type is not supported.
    """
    kind = str(config.get("model_type"))
    if kind not in TOWERS:
        raise EngineError(
            f"model '{name}': memory of a '{kind}' cannot be forecast; only of "
            f"{', '.join(TOWERS)} so far"
        )
    return TOWERS[kind](config)
