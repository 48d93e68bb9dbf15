"""Sizes of a model whose memory is forecast, from wherever they are said; its weights are not read.

Apart from the rehearsal, which only needs a configuration.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any, Final

from engines.model_catalog import ModelEntry
from engines.torchkit.memory import known_configs
from engines.vqa.nano import model

SHAPES: Final = Path(__file__).parent / "known_configs.toml"


def architecture(entry: ModelEntry) -> tuple[dict[str, Any], str]:
    """Sizes of the model, and where they were read: its folder, its entry, the table that ships.

    Raises:
        EngineError: nothing says them.
    """
    found = known_configs.find_config(entry, SHAPES)
    if found is not None:
        return found
    if not entry.architecture or entry.hub or entry.path:
        raise known_configs.unknown_model_error(entry.name)
    with known_configs.missing_sizes_as_errors(entry.name):
        sizes = entry.architecture
        return model.configuration(sizes, int(sizes["vocabulary"])), known_configs.SCRATCH
