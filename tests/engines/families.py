"""Folders of thin models of every family that retrieval loads, and each one's own model."""

import json
from pathlib import Path

import pytest
import torch
from tokenizers import Tokenizer, pre_tokenizers, processors
from tokenizers import models as token_models
from transformers import (
    CLIPConfig,
    CLIPModel,
    MetaClip2Config,
    MetaClip2Model,
    Siglip2Config,
    Siglip2Model,
    SiglipConfig,
    SiglipModel,
)

THIN = {"hidden_size": 64, "intermediate_size": 96, "num_attention_heads": 2}
TEXTS = ["a red disc.", "What noise does this make?", "X"]
"""The only texts whose words the tokenizers know."""


def words_file(folder: Path, *, pad: str, clip: bool = False, end: int = 1) -> int:
    """A word tokenizer with special tokens like the family's; returns its size.

    `end`: number of the end token, 1 or 2.
    """
    special = ["<pad>", "</s>", "<unk>", "<s>"] if end == 1 else ["<s>", "<pad>", "</s>", "<unk>"]
    known = sorted({w for t in TEXTS for w in t.replace(".", "").replace("?", "").split()})
    entries = [*special, *known, *(w.lower() for w in known if w.lower() not in known)]
    vocabulary = {word: number for number, word in enumerate(dict.fromkeys([*entries, ".", "?"]))}
    closing = "</s>"
    if clip:  # the end token has the highest number
        vocabulary["<|endoftext|>"], closing = len(vocabulary), "<|endoftext|>"
    tokenizer = Tokenizer(token_models.WordLevel(vocabulary, unk_token="<unk>"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    tokenizer.post_processor = processors.TemplateProcessing(
        single=f"$A {closing}", special_tokens=[(closing, vocabulary[closing])]
    )
    tokenizer.save(str(folder / "tokenizer.json"))
    stated = {"pad_token": pad, "tokenizer_class": "SiglipTokenizer"}
    (folder / "tokenizer_config.json").write_text(json.dumps(stated))
    return len(vocabulary)


def clip_folder(folder: Path) -> CLIPModel:
    size = words_file(folder, pad="<pad>", clip=True)
    (folder / "tokenizer_config.json").unlink()
    text = {**THIN, "num_hidden_layers": 9, "vocab_size": size, "eos_token_id": size - 1}
    vision = {**THIN, "num_hidden_layers": 12, "image_size": 64, "patch_size": 32}
    model = CLIPModel(CLIPConfig(text_config=text, vision_config=vision, projection_dim=48))
    model.eval().save_pretrained(folder)
    return model


def metaclip_folder(folder: Path) -> MetaClip2Model:
    """MetaCLIP 2, whose end token is 2, the number that in old CLIPs means another one."""
    size = words_file(folder, pad="<pad>", end=2)
    text = {**THIN, "num_hidden_layers": 3, "vocab_size": size, "eos_token_id": 2,
            "pad_token_id": 1}  # fmt: skip
    vision = {**THIN, "num_hidden_layers": 3, "image_size": 64, "patch_size": 32}
    model = MetaClip2Model(
        MetaClip2Config(text_config=text, vision_config=vision, projection_dim=48)
    )
    model.eval().save_pretrained(folder)
    return model


def siglip_folder(folder: Path) -> SiglipModel:
    size = words_file(folder, pad="</s>")
    text = {**THIN, "num_hidden_layers": 3, "vocab_size": size, "max_position_embeddings": 16,
            "pad_token_id": 1, "eos_token_id": 1, "bos_token_id": 3}  # fmt: skip
    vision = {**THIN, "num_hidden_layers": 4, "image_size": 48, "patch_size": 16}
    model = SiglipModel(SiglipConfig(text_config=text, vision_config=vision))
    torch.nn.init.constant_(model.logit_bias, -12.5)
    torch.nn.init.constant_(model.logit_scale, 4.7)
    model.eval().save_pretrained(folder)
    (folder / "preprocessor_config.json").write_text(
        json.dumps({"image_mean": [0.5, 0.4, 0.3], "image_std": [0.5, 0.25, 0.2]})
    )
    return model


def naflex_folder(folder: Path) -> Siglip2Model:
    size = words_file(folder, pad="<pad>")
    text = {**THIN, "num_hidden_layers": 2, "vocab_size": size, "max_position_embeddings": 16}
    vision = {**THIN, "num_hidden_layers": 2, "num_patches": 16, "patch_size": 16}
    model = Siglip2Model(Siglip2Config(text_config=text, vision_config=vision))
    model.eval().save_pretrained(folder)
    return model


def open_clip_folder(folder: Path, vision: dict, *, both_ways: bool) -> torch.nn.Module:
    """As `save_for_hf` of open_clip writes a folder, with a thin text tower."""
    open_clip = pytest.importorskip("open_clip")
    from open_clip.push_to_hf_hub import save_config_for_hf
    from safetensors.torch import save_file

    config = {
        "embed_dim": 48,
        "vision_cfg": vision,
        "text_cfg": {"context_length": 77, "vocab_size": 49408, "width": 32, "heads": 2,
                     "layers": 3, "no_causal_mask": both_ways},
        "custom_text": True,
    }  # fmt: skip
    torch.manual_seed(0)
    model = open_clip.model.CustomTextCLIP(
        **{k: v for k, v in config.items() if k != "custom_text"}
    )
    open_clip.model.set_model_preprocess_cfg(
        model, {"mean": (0.0, 0.0, 0.0), "std": (1.0, 1.0, 1.0), "interpolation": "bilinear",
                "resize_mode": "shortest", "size": vision["image_size"]}
    )  # fmt: skip
    save_config_for_hf(model, folder / "open_clip_config.json", config)
    save_file(model.state_dict(), folder / "open_clip_model.safetensors")
    return model.eval()


def fastvit_folder(folder: Path) -> torch.nn.Module:
    """MobileCLIP2-S0's image tower, as open_clip configures it, but for 64 instead of 256 px."""
    vision = {"timm_model_name": "fastvit_mci0", "timm_model_pretrained": False,
              "timm_pool": "avg", "timm_proj": None, "timm_drop": 0.0, "timm_drop_path": 0.0,
              "image_size": 64}  # fmt: skip
    return open_clip_folder(folder, vision, both_ways=True)


def plain_vit_folder(folder: Path) -> torch.nn.Module:
    vision = {"image_size": 64, "layers": 3, "width": 64, "patch_size": 32, "head_width": 32}
    return open_clip_folder(folder, vision, both_ways=False)


def timm_vit_folder(folder: Path) -> torch.nn.Module:
    """A vision transformer of timm pooled at its class token, as MobileCLIP-B's."""
    vision = {"timm_model_name": "test_vit", "timm_model_pretrained": False,
              "timm_pool": "token", "timm_proj": None, "image_size": 160}  # fmt: skip
    return open_clip_folder(folder, vision, both_ways=False)


def pe_core_folder(folder: Path) -> torch.nn.Module:
    """Perception Encoder's kind of tower: rotary positions, pooled by attention."""
    vision = {"timm_model_name": "vit_pe_core_tiny_patch16_384", "timm_model_pretrained": False,
              "timm_pool": "map", "timm_proj": None, "image_size": 384}  # fmt: skip
    return open_clip_folder(folder, vision, both_ways=False)


FOLDERS = {
    "clip": clip_folder, "metaclip": metaclip_folder, "siglip": siglip_folder,
    "naflex": naflex_folder, "fastvit": fastvit_folder, "plain-vit": plain_vit_folder,
    "timm-vit": timm_vit_folder, "pe-core": pe_core_folder,
}  # fmt: skip
