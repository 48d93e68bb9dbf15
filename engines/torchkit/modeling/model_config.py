"""A model folder's config.json, without keys that choose code.

A folder from the internet should be data: sizes, names of activations, token ids. But transformers
also loads code by it: `auto_map` names Python files, `attn_implementation` may name a repository of
kernels that is fetched and run, `quantization_config` replaces layers. Such keys are dropped
at every depth, and the attention is passed explicitly, since names of such keys change from release
to release.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

from engines.emitter import EngineError

CODE_KEYS: Final = re.compile(
    r"_?attn_implementation.*|_?experts_implementation.*|.*_implementation_internal|auto_map"
    r"|.*remote_code.*|quantization_config|compression_config|custom_pipelines|.*kernels?(_config)?"
    r"|transformers_weights|_name_or_path|_commit_hash|base_model_name_or_path"
)
"""Keys that would choose code, files or repositories. `kernel_size` and the like are sizes."""

ATTENTION: Final = "sdpa"
"""torch's own attention; passed explicitly, so that no key can choose another."""

CONFIG_BYTES: Final = 1 << 20


def read_config(folder: Path) -> dict[str, Any]:
    """The folder's config.json as plain data.

    Raises:
        EngineError: it is missing, no JSON object, or too large.
    """
    cleaned: dict[str, Any] = drop_code_keys(_read_json(folder / "config.json"))
    return cleaned


def build_config(config: Mapping[str, Any]) -> Any:
    """The configuration as transformers' class.

    transformers 5.23 refuses a Llama whose width is no multiple of its number of heads, though
    `head_dim` states theirs (Kanana 1.5 2.1B: 1792 wide, 24 heads of 128). Heads are set after its
    check then; the model is built from `head_dim`.
    """
    from transformers import AutoConfig

    sizes = dict(config)
    model_type = str(sizes.pop("model_type", ""))
    heads, width = sizes.get("num_attention_heads"), sizes.get("hidden_size")
    if model_type == "llama" and sizes.get("head_dim") and heads and width and width % heads:
        checked = {**sizes, "num_attention_heads": 1, "num_key_value_heads": 1}
        described = AutoConfig.for_model(model_type, **checked)
        described.num_attention_heads = heads
        described.num_key_value_heads = sizes.get("num_key_value_heads") or heads
        return described
    return AutoConfig.for_model(model_type, **sizes)


def names_own_code(folder: Path) -> bool:
    """Whether the folder's config.json names Python files of its own (`auto_map`)."""
    return "auto_map" in _read_json(folder / "config.json")


def _read_json(path: Path) -> dict[str, Any]:
    try:
        if path.stat().st_size > CONFIG_BYTES:
            raise EngineError(f"{path}: larger than 1 MiB; that is no configuration")
        config = json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise EngineError(f"{path}: cannot be read ({error.strerror})") from None
    except (ValueError, RecursionError):
        raise EngineError(f"{path}: is not JSON; save the model again") from None
    if not isinstance(config, dict):
        raise EngineError(f"{path}: is no JSON object; save the model again")
    return config


def drop_code_keys(config: Any) -> Any:
    """A nested configuration without keys that choose code."""
    if isinstance(config, dict):
        return {
            key: drop_code_keys(value)
            for key, value in config.items()
            if not CODE_KEYS.fullmatch(str(key))
        }
    return [drop_code_keys(item) for item in config] if isinstance(config, list) else config
