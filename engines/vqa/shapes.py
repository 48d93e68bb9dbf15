"""Sizes of a model whose memory is forecast, from wherever they are said; its weights are not read.

Apart from the rehearsal, which only needs a configuration.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any, Final

from engines.models import ModelEntry
from engines.torchkit import shipped
from engines.vqa import base

SHAPES: Final = Path(__file__).parent / "shapes.toml"


def architecture(entry: ModelEntry) -> tuple[dict[str, Any], str]:
    """Sizes of the model, and where they were read: its folder, its entry, the table that ships.

    Raises:
        EngineError: nothing says them.
    """
    found = shipped.sizes(entry, SHAPES)
    if found is not None:
        return found
    if not entry.architecture or entry.hub or entry.path:
        raise shipped.unknown(entry.name)
    with shipped.described(entry.name):
        sizes = entry.architecture
        return base.configuration(sizes, int(sizes["vocabulary"])), shipped.SCRATCH
