"""Very small vision-language models of other kinds than Qwen's, in transformers' layout."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers as library
from transformers.models.smolvlm import processing_smolvlm

from engines.torchkit.training import nano_models
from engines.vqa.nano import model
from tests.engines import tiny_vqa

PAD, TURN, END = "<|endoftext|>", "<|im_start|>", "<|im_end|>"
SIDE, PATCH = 56, 14
VOCABULARY = 400
TEMPLATE = (
    "{% for message in messages %}<|im_start|>{{ message['role'] }}\n"
    "{% for part in message['content'] %}{% if part['type'] == 'image' %}PICTURE"
    "{% else %}{{ part['text'] }}{% endif %}{% endfor %}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
SMOLVLM_TEMPLATE = (
    "<|im_start|>{% for message in messages %}{{ message['role'] | capitalize }}"
    "{{ ':' if message['content'][0]['type'] == 'image' else ': ' }}"
    "{% for part in message['content'] %}{% if part['type'] == 'image' %}<image>"
    "{% else %}{{ part['text'] }}{% endif %}{% endfor %}<end_of_utterance>\n{% endfor %}"
    "{% if add_generation_prompt %}Assistant:{% endif %}"
)
THINKING_TEMPLATE = model.TEMPLATE.replace(
    "{% for part", "{{ '<think>\n\n</think>\n\n' if message['role'] == 'assistant' else '' }}"
    "{% for part", 1,
).replace(
    "assistant\n{% endif %}", "assistant\n{{ '<think>\n' if enable_thinking is not defined or "
    "enable_thinking else '<think>\n\n</think>\n\n' }}{% endif %}",
)  # fmt: skip
"""Qwen3.5's: the thought of an answer is empty, and open in a prompt unless it is switched off."""
QWEN_VISION = {
    "depth": 2, "hidden_size": 32, "intermediate_size": 64, "num_heads": 2, "patch_size": 16,
    "out_hidden_size": 32, "num_position_embeddings": 64,
}  # fmt: skip
TEXT = {
    "hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2, "num_attention_heads": 2,
    "num_key_value_heads": 1, "head_dim": 16, "max_position_embeddings": 512,
}  # fmt: skip
VISION = {
    "hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2, "num_attention_heads": 2,
    "image_size": SIDE, "patch_size": PATCH,
}  # fmt: skip


@pytest.fixture(scope="module", autouse=True)
def num2words() -> Iterator[None]:
    """SmolVLM's processor wants the package of this name, which it calls for videos only."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(processing_smolvlm, "num2words", str)
        yield


def tokenizer_of(*special: str, **named: str) -> Any:
    """With a token that opens every text; `named` tokens become attributes."""
    said = [" ".join(row.values()) for row in tiny_vqa.rows()]
    everything = ("<s>", PAD, TURN, END, *special, *named.values())
    return library.PreTrainedTokenizerFast(
        tokenizer_object=nano_models.train_byte_tokenizer(
            [*said, *("user\nassistant\na\nb\nc\nd" for _ in range(8))], VOCABULARY, everything
        ),
        bos_token="<s>", pad_token=PAD, eos_token=END,
        extra_special_tokens=dict(named) if named else [TURN, *special],
    )  # fmt: skip


def words_of(tokenizer: Any) -> dict[str, Any]:
    """Sizes of a text model, and its tokens."""
    number = tokenizer.convert_tokens_to_ids
    return {
        **TEXT, "vocab_size": len(tokenizer), "pad_token_id": number(PAD),
        "eos_token_id": number(END), "bos_token_id": number("<s>"),
    }  # fmt: skip


def llava(folder: Path) -> None:
    """LLaVA: CLIP's tower, a projector, Llama; every picture is the same number of tokens."""
    tokenizer = tokenizer_of("<image>")
    library.LlavaProcessor(
        image_processor=library.CLIPImageProcessor(
            size={"shortest_edge": SIDE}, crop_size={"height": SIDE, "width": SIDE}
        ),
        tokenizer=tokenizer, patch_size=PATCH, vision_feature_select_strategy="default",
        num_additional_image_tokens=1, chat_template=TEMPLATE.replace("PICTURE", "<image>\n"),
    ).save_pretrained(folder)  # fmt: skip
    save(folder, library.LlavaForConditionalGeneration, library.LlavaConfig(
        vision_config=library.CLIPVisionConfig(**VISION),
        text_config=library.LlamaConfig(**words_of(tokenizer)),
        image_token_id=tokenizer.convert_tokens_to_ids("<image>"),
    ))  # fmt: skip


def smolvlm(folder: Path) -> None:
    """SmolVLM, which is Idefics3: a picture becomes tiles, each with tokens around it."""
    tiles = [f"<row_{row}_col_{column}>" for row in range(1, 5) for column in range(1, 5)]
    around = ("<fake_token_around_image>", "<image>", "<global-img>", "<end_of_utterance>")
    tokenizer = tokenizer_of(*around, *tiles)
    library.SmolVLMProcessor(
        image_processor=library.SmolVLMImageProcessor(
            size={"longest_edge": 2 * SIDE}, max_image_size={"longest_edge": SIDE}
        ),
        tokenizer=tokenizer, video_processor=library.SmolVLMVideoProcessor(), image_seq_len=4,
        chat_template=SMOLVLM_TEMPLATE,
    ).save_pretrained(folder)  # fmt: skip
    save(folder, library.SmolVLMForConditionalGeneration, library.SmolVLMConfig(
        vision_config=VISION,
        text_config=library.LlamaConfig(**words_of(tokenizer)), scale_factor=2,
        image_token_id=tokenizer.convert_tokens_to_ids("<image>"),
        pad_token_id=tokenizer.pad_token_id,
    ))  # fmt: skip


def llava_onevision(folder: Path) -> None:
    """LLaVA-OneVision, as VARCO-VISION 2.0: tiles of any resolution, SigLIP's tower, Qwen3."""
    tokenizer = tokenizer_of("<image>", "<video>")
    grid = [[SIDE * rows, SIDE * columns] for rows in (1, 2) for columns in (1, 2)]
    library.LlavaOnevisionProcessor(
        image_processor=library.LlavaOnevisionImageProcessor(
            size={"height": SIDE, "width": SIDE}, image_grid_pinpoints=grid
        ),
        tokenizer=tokenizer, video_processor=library.LlavaOnevisionVideoProcessor(),
        num_image_tokens=(SIDE // PATCH) ** 2, vision_feature_select_strategy="full",
        chat_template=TEMPLATE.replace("PICTURE", "<image>\n"),
    ).save_pretrained(folder)  # fmt: skip
    number = tokenizer.convert_tokens_to_ids
    save(folder, library.LlavaOnevisionForConditionalGeneration, library.LlavaOnevisionConfig(
        vision_config=library.SiglipVisionConfig(**VISION, vision_use_head=False),
        text_config=library.Qwen3Config(**words_of(tokenizer)), image_grid_pinpoints=grid,
        image_token_index=number("<image>"), video_token_index=number("<video>"),
    ))  # fmt: skip


def gemma3(folder: Path) -> None:
    """Gemma 3: pictures see both ways, so tokens have types."""
    named = {
        "boi_token": "<start_of_image>", "eoi_token": "<end_of_image>",
        "image_token": "<image_soft_token>",
    }  # fmt: skip
    tokenizer = tokenizer_of(**named)
    library.Gemma3Processor(
        image_processor=library.Gemma3ImageProcessor(size={"height": SIDE, "width": SIDE}),
        tokenizer=tokenizer, image_seq_length=4,
        chat_template=TEMPLATE.replace("PICTURE", "<start_of_image>"),
    ).save_pretrained(folder)  # fmt: skip
    number = tokenizer.convert_tokens_to_ids
    save(folder, library.Gemma3ForConditionalGeneration, library.Gemma3Config(
        vision_config=library.SiglipVisionConfig(**VISION),
        text_config=library.Gemma3TextConfig(**words_of(tokenizer)), mm_tokens_per_image=4,
        boi_token_index=number("<start_of_image>"), eoi_token_index=number("<end_of_image>"),
        image_token_id=number("<image_soft_token>"),
    ))  # fmt: skip


def internvl(folder: Path) -> None:
    """InternVL 3.5: tiles again, tokens of a picture from a shuffle of its pixels, Qwen3."""
    named = {
        "start_image_token": "<img>", "end_image_token": "</img>",
        "context_image_token": "<IMG_CONTEXT>", "video_token": "<video>",
    }  # fmt: skip
    tokenizer = tokenizer_of(**named)
    library.InternVLProcessor(
        image_processor=library.GotOcr2ImageProcessor(
            size={"height": SIDE, "width": SIDE}, crop_to_patches=True, min_patches=1, max_patches=4
        ),
        tokenizer=tokenizer, video_processor=library.InternVLVideoProcessor(), image_seq_length=4,
        chat_template=TEMPLATE.replace("PICTURE", "<IMG_CONTEXT>\n"),
    ).save_pretrained(folder)  # fmt: skip
    sides = {"image_size": (SIDE, SIDE), "patch_size": (PATCH, PATCH)}
    save(folder, library.InternVLForConditionalGeneration, library.InternVLConfig(
        vision_config=library.InternVLVisionConfig(**VISION | sides),
        text_config=library.Qwen3Config(**words_of(tokenizer)), image_seq_length=4,
        image_token_id=tokenizer.convert_tokens_to_ids("<IMG_CONTEXT>"),
    ))  # fmt: skip


def paligemma(folder: Path) -> None:
    """PaliGemma: a prompt's tokens see each other both ways; its processor makes labels."""
    tokenizer = tokenizer_of(image_token="<image>")
    eye = library.SiglipImageProcessor(size={"height": SIDE, "width": SIDE})
    eye.image_seq_length = (SIDE // PATCH) ** 2
    library.PaliGemmaProcessor(
        image_processor=eye, tokenizer=tokenizer,
        chat_template=TEMPLATE.replace("PICTURE", "<image>"),
    ).save_pretrained(folder)  # fmt: skip
    width = VISION["hidden_size"]
    save(folder, library.PaliGemmaForConditionalGeneration, library.PaliGemmaConfig(
        vision_config=library.SiglipVisionConfig(**VISION),
        text_config=library.GemmaConfig(**words_of(tokenizer)), projection_dim=width,
        hidden_size=width, image_token_index=tokenizer.convert_tokens_to_ids("<image>"),
    ))  # fmt: skip


def mllama(folder: Path) -> None:
    """Llama 3.2 Vision: layers that look at the picture, with a mask of their own."""
    tokenizer = tokenizer_of("<|image|>")
    library.MllamaProcessor(
        image_processor=library.MllamaImageProcessor(
            size={"height": SIDE, "width": SIDE}, max_image_tiles=4
        ),
        tokenizer=tokenizer, chat_template=TEMPLATE.replace("PICTURE", "<|image|>"),
    ).save_pretrained(folder)  # fmt: skip
    eye = VISION | {
        "num_global_layers": 1, "attention_heads": 2, "max_num_tiles": 4,
        "intermediate_layers_indices": [0], "vision_output_dim": 2 * VISION["hidden_size"],
        "supported_aspect_ratios": [
            [wide, tall] for wide in range(1, 5) for tall in range(1, 5) if wide * tall <= 4
        ],
    }  # fmt: skip
    words = words_of(tokenizer) | {
        "cross_attention_layers": [1],
        "rope_parameters": {"rope_type": "default", "rope_theta": 10_000.0},
    }
    words.pop("head_dim")
    save(folder, library.MllamaForConditionalGeneration, library.MllamaConfig(
        vision_config=eye, text_config=words,
        image_token_index=tokenizer.convert_tokens_to_ids("<|image|>"),
    ))  # fmt: skip


def qwen3_vl(folder: Path) -> None:
    """Qwen3-VL: patches as Qwen2.5-VL's, 16 pixels a side, other colours, deep stacks."""
    tokenizer = qwen_processor(folder, model.TEMPLATE)
    eye = QWEN_VISION | {"deepstack_visual_indexes": [0, 1]}
    save(folder, library.Qwen3VLForConditionalGeneration, library.Qwen3VLConfig(
        vision_config=eye, text_config=qwen_words(tokenizer), **qwen_numbers(tokenizer),
    ))  # fmt: skip


def qwen3_5(folder: Path) -> None:
    """Qwen3.5: three of four layers are linear attention, and its template opens a thought."""
    tokenizer = qwen_processor(folder, THINKING_TEMPLATE)
    linear = {
        "layer_types": ["linear_attention", "full_attention"], "linear_key_head_dim": 8,
        "linear_value_head_dim": 8, "linear_num_key_heads": 2, "linear_num_value_heads": 4,
    }  # fmt: skip
    words = qwen_words(tokenizer)
    words["rope_parameters"] |= {"partial_rotary_factor": 0.5, "mrope_section": [2, 1, 1]}
    save(folder, library.Qwen3_5ForConditionalGeneration, library.Qwen3_5Config(
        vision_config=QWEN_VISION, text_config=words | linear, **qwen_numbers(tokenizer),
    ))  # fmt: skip


def qwen_processor(folder: Path, template: str) -> Any:
    """Write Qwen3-VL's processor with this chat template; its tokenizer."""
    said = [" ".join(row.values()) for row in tiny_vqa.rows()]
    tokenizer = model.build_processor(said, VOCABULARY, 16).tokenizer
    cut = {"patch_size": 16, "merge_size": 2, "temporal_patch_size": 2}
    library.Qwen3VLProcessor(
        image_processor=library.Qwen2VLImageProcessor(
            **cut, image_mean=[0.5, 0.5, 0.5], image_std=[0.5, 0.5, 0.5]
        ),
        tokenizer=tokenizer, video_processor=library.Qwen3VLVideoProcessor(**cut),
        chat_template=template,
    ).save_pretrained(folder)  # fmt: skip
    return tokenizer


def qwen_words(tokenizer: Any) -> dict[str, Any]:
    """Sizes of a text model of Qwen3-VL."""
    places = {"rope_type": "default", "rope_theta": 10_000.0, "mrope_section": [4, 2, 2]}
    return words_of(tokenizer) | {"bos_token_id": None, "rope_parameters": places}


def qwen_numbers(tokenizer: Any) -> dict[str, int]:
    """Tokens of pictures and videos."""
    names = {
        "image_token_id": model.IMAGE, "video_token_id": model.VIDEO,
        "vision_start_token_id": model.LOOK, "vision_end_token_id": model.LOOKED,
    }  # fmt: skip
    return {name: tokenizer.convert_tokens_to_ids(token) for name, token in names.items()}


def save(folder: Path, model: Any, config: Any) -> None:
    """A model of these sizes with random weights."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        made = model(config)
        for weight in made.parameters():  # Gemma's projector begins at zero, and sees nothing
            torch.nn.init.normal_(weight, std=0.1) if weight.dim() > 1 else None
        for name, weight in made.named_parameters():  # and Llama's gates are shut
            torch.nn.init.ones_(weight) if name.endswith("_gate") else None
        made.save_pretrained(folder)


KINDS: dict[str, Callable[[Path], None]] = {
    "llava": llava, "smolvlm": smolvlm, "llava_onevision": llava_onevision, "gemma3": gemma3,
    "internvl": internvl, "paligemma": paligemma, "mllama": mllama, "qwen3_vl": qwen3_vl,
    "qwen3_5": qwen3_5,
}  # fmt: skip
