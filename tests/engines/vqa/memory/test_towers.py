"""Towers of other models than Qwen2.5-VL: tokens of a picture, and what a real step allocates."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from transformers import AutoProcessor

from engines.emitter import EngineError
from engines.memory_query import MemoryQuery
from engines.torchkit.modeling import lora, pretrained, quantize
from engines.torchkit.runtime.precision import Precision
from engines.torchkit.training.optimization import adamw
from engines.vqa.memory import estimate, model_from_config
from engines.vqa.models import chat_template, processor
from engines.vqa.models.chat_template import ChoicePrompt
from engines.vqa.models.model import PIXELS, Answerer, VqaBatch, to_device
from engines.vqa.params import Params
from tests.engines import allocations, vlm_kinds, vqa_step

pytest.importorskip("bitsandbytes")
pytest.importorskip("peft")

num2words = vlm_kinds.num2words
KINDS = ("qwen3_vl", "qwen3_5", "smolvlm", "internvl", "llava_onevision")
WIDER = {"hidden_size": 128, "intermediate_size": 512, "num_attention_heads": 8}
PICTURES = {"qwen3_vl": (64, 96), "qwen3_5": (64, 96), "internvl": (56, 56)}
"""In whole tokens; of a square InternVL's tiny model makes as many tiles as a published one may."""
CPU = torch.device("cpu")


@pytest.fixture(scope="module", params=KINDS)
def folder(request, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model of the kind, wide enough that its layers are most of a step's memory."""
    place = tmp_path_factory.mktemp(request.param)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(vlm_kinds, "TEXT", vlm_kinds.TEXT | WIDER | {"num_key_value_heads": 4})
        patch.setattr(vlm_kinds, "VISION", vlm_kinds.VISION | WIDER)
        eye = {"hidden_size": 128, "intermediate_size": 512, "out_hidden_size": 128}
        patch.setattr(vlm_kinds, "QWEN_VISION", vlm_kinds.QWEN_VISION | eye)
        vlm_kinds.KINDS[request.param](place)
    return place


@pytest.fixture(scope="module")
def config(folder: Path) -> dict[str, Any]:
    """With the size to which SmolVLM enlarges a picture, as published ones state it."""
    stated = json.loads((folder / "config.json").read_text("utf-8"))
    if stated["model_type"] == "smolvlm":
        stated["vision_config"]["size"] = {"longest_edge": 2 * vlm_kinds.SIDE}
    return stated


@pytest.fixture(scope="module")
def picture(config: dict[str, Any]) -> tuple[int, int]:
    """Height and width."""
    return PICTURES.get(config["model_type"], (56, 84))


@pytest.fixture(scope="module")
def batch(folder: Path, picture: tuple[int, int]) -> VqaBatch:
    """Two equal questions, so that none is padded."""
    hf_processor = AutoProcessor.from_pretrained(folder)
    template = chat_template.read_chat_template(hf_processor, "One letter.", folder)
    built = processor.create_processor(hf_processor, template, folder)
    pictures = [np.random.default_rng(0).integers(0, 256, (*picture, 3), np.uint8)] * 2
    said = [ChoicePrompt("what colour is the disc?", ("red", "green", "blue", "black"), "b")] * 2
    return to_device(built.batch(said, pictures), CPU, built.normalize_pixels)


def image_tokens(config: dict[str, Any], batch: VqaBatch) -> int:
    number = config.get("image_token_id", config.get("image_token_index"))
    return int((batch.ids[0] == number).sum())


def test_a_picture_has_as_many_tokens_and_pixels(config, batch, picture):
    tower = model_from_config.select_tower(config)
    assert tower.rows(picture) == pytest.approx(image_tokens(config, batch), abs=1)
    assert tower.rows(picture) <= tower.tokens(picture) <= batch.ids.shape[1]
    pixels = tower.pixels(2, picture)[0]
    assert pixels.numel() == batch.vision[PIXELS].numel()


def real(folder: Path, params: Params, batch: VqaBatch) -> int:
    """Most bytes of tensors in a training step that is not the first."""
    precision = Precision("fp32", CPU)
    loaded = pretrained.load(
        folder, pretrained.VISION_LANGUAGE, precision, four_bit=False, double=False
    )
    name = pretrained.language_module_name(loaded)
    adapted = lora.add_lora(loaded, params.lora_rank, 8, 0.0, params.lora_targets, name)
    model = Answerer(adapted)
    kept = quantize.weight_bytes(model) + allocations.of(model.buffers())
    optimizer = adamw(model, 1e-4, 0.0, (0.9, 0.999), fused=True)
    step = vqa_step._training(model, (optimizer, None, None, 1), batch, precision)
    step()
    return kept + allocations.of_state(optimizer) + allocations.peak(step)


def forecast(config: dict[str, Any], params: Params, picture: tuple[int, int], text: int) -> int:
    query = MemoryQuery(
        engine="vqa", model="", params=params.model_dump(mode="json"), trains=True, target="cpu",
        capability=(8, 6), text_tokens=text, image_size=picture,
    )  # fmt: skip
    return sum(estimate.estimate_model(query, config, "test").phases["train"].values())


PARAMS = Params(
    precision="fp32", quantize="none", batch=2, gradient_accumulation_steps=1, lora_rank=8,
    lora_dropout=0.0, gradient_checkpointing=False, feature_cache=False, long_side=0,
)  # fmt: skip


def test_the_forecast_is_what_a_real_step_allocates(folder, config, batch, picture):
    params, tower = PARAMS, model_from_config.select_tower(config)
    said = forecast(config, params, picture, batch.ids.shape[1] - tower.tokens(picture))
    assert said == pytest.approx(real(folder, params, batch), rel=0.1)


def test_a_type_without_a_tower_is_a_sentence():
    with pytest.raises(EngineError, match="memory of a 'mllama' cannot be forecast; only of qwen2"):
        model_from_config.select_tower({"model_type": "mllama"}, "other")


def test_cached_features_take_the_place_of_the_tower(tmp_path):
    """Those of Qwen3-VL are three times as wide here: its first two decoder layers get some."""
    vlm_kinds.qwen3_vl(tmp_path)
    config = json.loads((tmp_path / "config.json").read_text("utf-8"))
    kept = PARAMS.model_copy(update={"feature_cache": True, "batch": 64})
    whole = PARAMS.model_copy(update={"batch": 64})
    assert forecast(config, kept, (64, 96), 60) < forecast(config, whole, (64, 96), 60)
