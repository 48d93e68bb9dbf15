"""The nano language model of captioners: a small Qwen3, trained from scratch on captions."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from engines.torchkit.training import nano_models


def build_recipe(captions: Sequence[str], sizes: dict[str, Any]) -> nano_models.LanguageModelRecipe:
    """Recipe of a language model of these sizes, trained on these captions."""
    return nano_models.LanguageModelRecipe(
        "qwen3", lambda vocabulary: _build_model(vocabulary, sizes), captions, sizes
    )


def build_config(vocabulary: int, sizes: dict[str, Any]) -> Any:
    """Configuration (transformers) of a model of these sizes.

    Raises:
        KeyError: a size is missing.
    """
    from transformers import Qwen3Config

    width, heads = int(sizes["width"]), int(sizes["heads"])
    return Qwen3Config(
        vocab_size=vocabulary, hidden_size=width, intermediate_size=int(sizes["inner"]),
        num_hidden_layers=int(sizes["layers"]), num_attention_heads=heads,
        num_key_value_heads=int(sizes["key_value_heads"]), head_dim=width // heads,
        max_position_embeddings=int(sizes.get("positions", 1024)), tie_word_embeddings=True,
        pad_token_id=nano_models.PAD, bos_token_id=nano_models.BEGIN, eos_token_id=nano_models.END,
    )  # fmt: skip


def _build_model(vocabulary: int, sizes: dict[str, Any]) -> Any:
    from transformers import Qwen3ForCausalLM

    return Qwen3ForCausalLM(build_config(vocabulary, sizes))
