"""The nano Qwen2.5-VL: the same architecture in small sizes, with a processor built here.

All parameters are trained on questions whose pictures are in no fold, before quantization: LoRA on
random 4-bit weights learns nothing.
"""

from __future__ import annotations

import hashlib
import importlib
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Final

import numpy as np
import torch
from torch import Tensor

from datasets_mm.recipes.record_classes import LETTERS
from engines.torchkit.training import nano_models
from engines.torchkit.training.nano_models import SEED, NanoBase, ReportProgress
from engines.vqa.data.images import Pictures, SizeLimits
from engines.vqa.data.questions import Questions
from engines.vqa.models import chat_template
from engines.vqa.models.model import Answerer, to_device
from engines.vqa.models.qwen_patches import QwenPatchProcessor
from engines.vqa.nano import curriculum

REVISION: Final = 1
"""Incremented when equal questions and sizes give other weights, so that old bases are not used."""
PAD, TURN, END, IMAGE, VIDEO, LOOK, LOOKED = SPECIAL = (
    "<|endoftext|>", "<|im_start|>", "<|im_end|>", "<|image_pad|>", "<|video_pad|>",
    "<|vision_start|>", "<|vision_end|>",
)  # fmt: skip
"""Special tokens of Qwen; their ids differ."""
TEMPLATE: Final = (
    "{% for message in messages %}<|im_start|>{{ message['role'] }}\n"
    "{% for part in message['content'] %}{% if part['type'] == 'image' %}"
    "<|vision_start|><|image_pad|><|vision_end|>{% else %}{{ part['text'] }}{% endif %}"
    "{% endfor %}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
"""The chat template of Qwen2.5-VL, without its default system message."""


def get_or_train_nano_model(
    questions: Questions,
    sizes: dict[str, Any],
    root: Path,
    device: torch.device,
    report_progress: ReportProgress,
) -> NanoBase:
    """The base for these questions and sizes, from the cache or trained."""
    digest = hashlib.blake2b(digest_size=12)
    digest.update(json.dumps([REVISION, SEED, TEMPLATE, sizes], sort_keys=True).encode())
    fields = (questions.groups(), questions.texts, questions.options, questions.answers.tolist())
    for row in zip(*fields, strict=True):
        digest.update(json.dumps(row).encode() + b"\0")

    def write(folder: Path) -> tuple[float, int, int]:
        size = int(sizes["vocabulary"])
        processor = build_processor(_list_texts(questions), size, int(sizes["patch"]))
        with torch.random.fork_rng():
            torch.manual_seed(SEED)
            model = build_model(processor, sizes).to(device)
            loss = _train_curriculum(model, processor, questions, (sizes, root, report_progress))
        model.to("cpu").save_pretrained(folder)
        processor.save_pretrained(folder)
        return loss, int(sizes["steps"]), len(questions)

    return nano_models.get_or_train_base(root, digest.hexdigest(), write)


def _list_texts(questions: Questions) -> list[str]:
    """Texts of all questions with their options."""
    return [
        "\n".join([text, *(f"{a}. {o}" for a, o in zip(LETTERS, options, strict=True))])
        for text, options in zip(questions.texts, questions.options, strict=True)
    ]


def build_processor(texts: Sequence[str], vocabulary: int, patch: int) -> Any:
    """A Qwen2.5-VL processor with a tokenizer that is trained on these texts."""
    library: Any = importlib.import_module("transformers")  # its classes are not typed

    words = [*texts, *("user\nassistant\na\nb\nc\nd" for _ in range(8))]
    tokenizer = library.PreTrainedTokenizerFast(
        tokenizer_object=nano_models.train_byte_tokenizer(words, vocabulary, SPECIAL),
        pad_token=PAD, eos_token=END, padding_side="left",
        extra_special_tokens=[token for token in SPECIAL if token not in (PAD, END)],
    )  # fmt: skip
    sizes: dict[str, Any] = {"patch_size": patch, "merge_size": 2, "temporal_patch_size": 2}
    return library.Qwen2_5_VLProcessor(
        image_processor=library.Qwen2VLImageProcessor(**sizes), tokenizer=tokenizer,
        video_processor=library.Qwen2VLVideoProcessor(**sizes), chat_template=TEMPLATE,
    )  # fmt: skip


def build_model(processor: Any, sizes: dict[str, Any]) -> Any:
    """Build the model with random weights."""
    library: Any = importlib.import_module("transformers")
    tokenizer = processor.tokenizer
    number = tokenizer.convert_tokens_to_ids
    named = build_config(sizes, len(tokenizer))
    del named["model_type"]
    named["text_config"] |= {"eos_token_id": number(END), "pad_token_id": number(PAD)}
    return library.Qwen2_5_VLForConditionalGeneration(
        library.Qwen2_5_VLConfig(
            **named, image_token_id=number(IMAGE), video_token_id=number(VIDEO),
            vision_start_token_id=number(LOOK), vision_end_token_id=number(LOOKED),
            eos_token_id=number(END), pad_token_id=number(PAD), bos_token_id=None,
        )
    )  # fmt: skip


def build_config(sizes: Mapping[str, Any], vocabulary: int) -> dict[str, Any]:
    """Configuration as in Qwen2.5-VL's config.json, without ids of special tokens."""
    width, heads, depth = int(sizes["width"]), int(sizes["heads"]), int(sizes["vision_depth"])
    half = width // heads // 2
    thirds = [half - 2 * (half * 3 // 8), half * 3 // 8, half * 3 // 8]  # 16 : 24 : 24 as in Qwen's
    spread = width**-0.5  # 0.02 suits widths of thousands; at 128 training stalls
    text = {
        "vocab_size": vocabulary, "hidden_size": width,
        "intermediate_size": int(sizes["inner"]), "num_hidden_layers": int(sizes["layers"]),
        "num_attention_heads": heads,
        "num_key_value_heads": int(sizes["key_value_heads"]), "max_position_embeddings": 1024,
        "initializer_range": spread,
        "rope_parameters": {
            "rope_type": "default", "rope_theta": 10_000.0, "mrope_section": thirds,
        },
        "bos_token_id": None, "eos_token_id": None, "pad_token_id": None,
    }  # fmt: skip
    vision = {
        "depth": depth, "hidden_size": int(sizes["vision_width"]),
        "intermediate_size": int(sizes["vision_inner"]), "num_heads": int(sizes["vision_heads"]),
        "out_hidden_size": width, "patch_size": int(sizes["patch"]), "window_size": 112,
        "fullatt_block_indexes": list(range(1, depth, 2)), "initializer_range": spread,
    }  # fmt: skip
    return {
        "model_type": "qwen2_5_vl", "text_config": text, "vision_config": vision,
        "tie_word_embeddings": True,
    }  # fmt: skip


def _train_curriculum(
    model: Any,
    processor: Any,
    questions: Questions,
    setup: tuple[dict[str, Any], Path, ReportProgress],
) -> float:
    """Train all parameters by the curriculum, with random orders of options; returns the loss."""
    sizes, root, report_progress = setup
    device = next(model.parameters()).device
    patch_processor = QwenPatchProcessor.from_hf_processor(
        processor, chat_template.read_chat_template(processor, "", Path())
    )
    if patch_processor is None:  # the processor is built here, so it is supported
        raise AssertionError("the nano's own processor cuts other patches")
    limits = SizeLimits(int(sizes["long_side"]), 784, 1 << 20, patch_processor.factor)
    pictures = Pictures(patch_processor, limits, root, report_progress)
    pictures.add(questions.root, questions.paths)
    lessons = curriculum.build_curriculum(patch_processor, pictures, questions)
    answerer, steps = Answerer(model), int(sizes["steps"])
    generator = np.random.default_rng(SEED)

    def loss_at(step: int) -> Tensor:
        stage = curriculum.stage_at(step / steps)
        batch, rows = curriculum.sample_batch(lessons, int(sizes["batch"]), stage, generator)
        moved = to_device(batch, device, patch_processor.normalize_pixels)
        if stage == "vision":
            return curriculum.image_text_alignment_loss(lessons, model, moved, rows)
        nats, tokens, _ = answerer(moved.inputs(), moved.labels)
        loss: Tensor = nats.sum() / tokens.sum()
        return loss

    return nano_models.train_all_parameters(
        model, loss_at, sizes, report_progress, "steps of the base on questions"
    )
