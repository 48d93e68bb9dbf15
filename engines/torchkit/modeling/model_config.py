"""A model folder's config.json, without what would choose code.

A folder from the internet is data: sizes, names of activations, token ids. But transformers also
takes orders from it: `auto_map` names Python files, `attn_implementation` may name a repository of
kernels that is fetched and run, `quantization_config` replaces layers. Here such keys are dropped
at every depth before transformers sees them, and the attention is stated by us: names of such keys
change from release to release.
"""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any, Final

from engines.emitter import EngineError

ORDERS: Final = re.compile(
    r"_?attn_implementation.*|_?experts_implementation.*|.*_implementation_internal|auto_map"
    r"|.*remote_code.*|quantization_config|compression_config|custom_pipelines|.*kernels?(_config)?"
    r"|transformers_weights|_name_or_path|_commit_hash|base_model_name_or_path"
)
"""Keys that would choose code, files or repositories. `kernel_size` and the like are sizes."""

ATTENTION: Final = "sdpa"
"""torch's own; passed explicitly, so that no key can choose another."""

CONFIG_BYTES: Final = 1 << 20


def read_config(folder: Path) -> dict[str, Any]:
    """The folder's config.json as plain data.

    Raises:
        EngineError: it is missing, no JSON object, or too large.
    """
    path = folder / "config.json"
    try:
        if path.stat().st_size > CONFIG_BYTES:
            raise EngineError(f"{path}: larger than 1 MiB; that is no configuration")
        found = json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise EngineError(f"{path}: cannot be read ({error.strerror})") from None
    except (ValueError, RecursionError):
        raise EngineError(f"{path}: is not JSON; save the model again") from None
    if not isinstance(found, dict):
        raise EngineError(f"{path}: is no JSON object; save the model again")
    cleaned: dict[str, Any] = without_orders(found)
    return cleaned


def without_orders(config: Any) -> Any:
    """A nested configuration without keys that choose code."""
    if isinstance(config, dict):
        return {
            key: without_orders(value)
            for key, value in config.items()
            if not ORDERS.fullmatch(str(key))
        }
    return [without_orders(item) for item in config] if isinstance(config, list) else config
