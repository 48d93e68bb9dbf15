"""The captioner's language model from scratch: Qwen3-shaped, one for all runs with equal texts."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from engines.torchkit.training import nano_models


def recipe(captions: Sequence[str], sizes: dict[str, Any]) -> nano_models.LanguageModelRecipe:
    """A language model of these sizes that has read these captions."""
    return nano_models.LanguageModelRecipe(
        "qwen3", lambda vocabulary: _fresh(vocabulary, sizes), captions, sizes
    )


def configuration(vocabulary: int, sizes: dict[str, Any]) -> Any:
    """transformers' configuration of a model of these sizes.

    Raises:
        KeyError: a size is lacking.
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


def _fresh(vocabulary: int, sizes: dict[str, Any]) -> Any:
    from transformers import Qwen3ForCausalLM

    return Qwen3ForCausalLM(configuration(vocabulary, sizes))
