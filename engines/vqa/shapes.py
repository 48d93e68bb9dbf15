"""Sizes of a model whose memory is forecast, from wherever they are said; its weights are not read.

Apart from the rehearsal, which only needs a configuration.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any, Final

from engines.emitter import EngineError
from engines.models import ModelEntry
from engines.torchkit import shipped
from engines.vqa import base

SHAPES: Final = Path(__file__).parent / "shapes.toml"
SCRATCH: Final = "the entry's architecture"


def architecture(entry: ModelEntry) -> tuple[dict[str, Any], str]:
    """Sizes of the model, and where they were read: its folder, its entry, the table that ships.

    Raises:
        EngineError: nothing says them.
    """
    found = shipped.sizes(entry, SHAPES)
    if found is not None:
        return found
    if entry.architecture and not entry.hub and not entry.path:
        return _from_scratch(entry), SCRATCH
    raise EngineError(
        f"model '{entry.name}': its sizes are not known here; name its folder as path:/abs/dir"
    )


def _from_scratch(entry: ModelEntry) -> dict[str, Any]:
    try:
        return base.configuration(entry.architecture, int(entry.architecture["vocabulary"]))
    except KeyError as error:
        lacking = error.args[0]
        raise EngineError(f"model '{entry.name}': its architecture lacks {lacking}") from None
