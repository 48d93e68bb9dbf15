"""Tokens a picture, as `data describe` counts them, against the model's own processor."""

from __future__ import annotations

from datasets_mm.media import qwen_image_tokens


def test_tokens_are_those_of_the_models_own_processor() -> None:
    """Independent oracle: transformers' smart_resize, over sizes of every kind."""
    from transformers.models.qwen2_vl.image_processing_qwen2_vl import smart_resize

    sizes = [(w, h) for w in (20, 64, 224, 333, 640, 1999, 4000) for h in (25, 100, 480, 3000)]
    for width, height in sizes:
        assert qwen_image_tokens.smart_resize(height, width) == smart_resize(
            height, width, 28, qwen_image_tokens.MIN_PIXELS, qwen_image_tokens.MAX_PIXELS
        )
