"""The nano Qwen2.5-VL: the true architecture in small sizes, with a processor made here.

Trained with all its parameters on questions whose pictures no fold ever sees, before it is
quantised: LoRA on random 4-bit weights learns nothing (torchkit/bases.py).
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

from engines.torchkit.training import nano_models
from engines.torchkit.training.nano_models import SEED, NanoBase, ReportProgress
from engines.vqa.data.images import Limits, Pictures
from engines.vqa.data.questions import Questions
from engines.vqa.models import chat_template
from engines.vqa.models.model import Answerer, to_device
from engines.vqa.models.qwen_patches import Patching
from engines.vqa.nano import curriculum

REVISION: Final = 1
"""Raised when equal questions and sizes give other weights: old bases are then left alone."""
PAD, TURN, END, IMAGE, VIDEO, LOOK, LOOKED = SPECIAL = (
    "<|endoftext|>", "<|im_start|>", "<|im_end|>", "<|image_pad|>", "<|video_pad|>",
    "<|vision_start|>", "<|vision_end|>",
)  # fmt: skip
"""Qwen's tokens; only their numbers are the nano's own."""
TEMPLATE: Final = (
    "{% for message in messages %}<|im_start|>{{ message['role'] }}\n"
    "{% for part in message['content'] %}{% if part['type'] == 'image' %}"
    "<|vision_start|><|image_pad|><|vision_end|>{% else %}{{ part['text'] }}{% endif %}"
    "{% endfor %}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
"""Qwen2.5-VL's, without its default system message."""


def trained(
    questions: Questions,
    sizes: dict[str, Any],
    root: Path,
    device: torch.device,
    say: ReportProgress,
) -> NanoBase:
    """The base for these questions and sizes, from the cache or trained now."""
    digest = hashlib.blake2b(digest_size=12)
    digest.update(json.dumps([REVISION, SEED, TEMPLATE, sizes], sort_keys=True).encode())
    asked = (questions.groups(), questions.texts, questions.options, questions.answers.tolist())
    for row in zip(*asked, strict=True):
        digest.update(json.dumps(row).encode() + b"\0")

    def write(folder: Path) -> tuple[float, int, int]:
        size = int(sizes["vocabulary"])
        processor = processor_of(_said(questions), size, int(sizes["patch"]))
        with torch.random.fork_rng():
            torch.manual_seed(SEED)
            model = fresh(processor, sizes).to(device)
            loss = _train(model, processor, questions, (sizes, root, say))
        folder.mkdir(mode=0o700)
        model.to("cpu").save_pretrained(folder)
        processor.save_pretrained(folder)
        return loss, int(sizes["steps"]), len(questions)

    return nano_models.get_or_train_base(root, digest.hexdigest(), write)


def _said(questions: Questions) -> list[str]:
    """Every text of a question once more with its options, as it is asked."""
    return [
        "\n".join([text, *(f"{a}. {o}" for a, o in zip("abcd", options, strict=True))])
        for text, options in zip(questions.texts, questions.options, strict=True)
    ]


def processor_of(texts: Sequence[str], vocabulary: int, patch: int) -> Any:
    """A Qwen2.5-VL processor with a tokenizer of its own, from these texts."""
    library: Any = importlib.import_module("transformers")  # its classes are not typed

    words = [*texts, *("user\nassistant\na\nb\nc\nd" for _ in range(8))]
    tokenizer = library.PreTrainedTokenizerFast(
        tokenizer_object=nano_models.train_byte_tokenizer(words, vocabulary, SPECIAL),
        pad_token=PAD, eos_token=END, padding_side="left",
        extra_special_tokens=[one for one in SPECIAL if one not in (PAD, END)],
    )  # fmt: skip
    kind: dict[str, Any] = {"patch_size": patch, "merge_size": 2, "temporal_patch_size": 2}
    return library.Qwen2_5_VLProcessor(
        image_processor=library.Qwen2VLImageProcessor(**kind), tokenizer=tokenizer,
        video_processor=library.Qwen2VLVideoProcessor(**kind), chat_template=TEMPLATE,
    )  # fmt: skip


def fresh(processor: Any, sizes: dict[str, Any]) -> Any:
    """The model with random weights."""
    library: Any = importlib.import_module("transformers")
    tokenizer = processor.tokenizer
    number = tokenizer.convert_tokens_to_ids
    named = configuration(sizes, len(tokenizer))
    del named["model_type"]
    named["text_config"] |= {"eos_token_id": number(END), "pad_token_id": number(PAD)}
    return library.Qwen2_5_VLForConditionalGeneration(
        library.Qwen2_5_VLConfig(
            **named, image_token_id=number(IMAGE), video_token_id=number(VIDEO),
            vision_start_token_id=number(LOOK), vision_end_token_id=number(LOOKED),
            eos_token_id=number(END), pad_token_id=number(PAD), bos_token_id=None,
        )
    )  # fmt: skip


def configuration(sizes: Mapping[str, Any], vocabulary: int) -> dict[str, Any]:
    """Sizes as Qwen2.5-VL's config.json says them; without the numbers of special tokens."""
    width, heads, depth = int(sizes["width"]), int(sizes["heads"]), int(sizes["vision_depth"])
    half = width // heads // 2
    thirds = [half - 2 * (half * 3 // 8), half * 3 // 8, half * 3 // 8]  # 16 : 24 : 24 as in Qwen's
    spread = width**-0.5  # 0.02 is for widths of thousands: at 128 it learns nothing for long
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


def _train(
    model: Any,
    processor: Any,
    questions: Questions,
    how: tuple[dict[str, Any], Path, ReportProgress],
) -> float:
    """All parameters, first without pictures, options in ever new orders."""
    sizes, root, say = how
    device = next(model.parameters()).device
    sight = Patching.of(processor, chat_template.of(processor, "", Path()))
    if sight is None:  # it is made here, so it is known
        raise AssertionError("the nano's own processor cuts other patches")
    limits = Limits(int(sizes["long_side"]), 784, 1 << 20, sight.factor)
    pictures = Pictures(sight, limits, root, say)
    pictures.add(questions.root, questions.paths)
    school = curriculum.school(sight, pictures, questions)
    answerer, steps = Answerer(model), int(sizes["steps"])
    generator = np.random.default_rng(SEED)

    def loss_at(step: int) -> Tensor:
        now = curriculum.stage(step / steps)
        made, rows = curriculum.batch(school, int(sizes["batch"]), now, generator)
        found = to_device(made, device, sight.values)
        if now == "looking":
            return curriculum.likeness(school, model, found, rows)
        nats, tokens, _ = answerer(found.inputs(), found.labels)
        loss: Tensor = nats.sum() / tokens.sum()
        return loss

    return nano_models.train_all_parameters(
        model, loss_at, sizes, say, "steps of the base on questions"
    )
