"""A language model loaded in fp16 keeps its residual stream in fp32, and loading holds it once."""

import json

import pytest
import torch
from torch import nn

from engines.captioning.models import nano_model
from engines.torchkit.memory import fake_training_step
from engines.torchkit.memory.fake_training_step import TrainingOptions
from engines.torchkit.modeling import model_config, pretrained
from engines.torchkit.runtime.precision import Precision
from engines.vqa.memory import estimate
from engines.vqa.nano import model as vqa_base

transformers = pytest.importorskip("transformers")

SIZES = {"width": 64, "inner": 128, "layers": 2, "heads": 2, "key_value_heads": 1}
VLM = {
    **SIZES, "vision_depth": 2, "vision_width": 32, "vision_inner": 64, "vision_heads": 2,
    "patch": 14,
}  # fmt: skip
IDS = torch.arange(24).view(2, 12)


class Card:
    """A GPU by its type that computes on the CPU."""

    type = "cuda"

    def __str__(self) -> str:
        return "cpu"


class Fp16(Precision):
    """fp16 weights and autocast, as on a T4."""

    def __init__(self) -> None:
        super().__init__("fp16", torch.device("cpu"))
        self.device = Card()


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A model whose residual stream passes 65,504 in its first block."""
    torch.manual_seed(0)
    model = transformers.Qwen3ForCausalLM(nano_model.build_config(100, SIZES))
    with torch.no_grad():
        model.model.embed_tokens.weight.copy_(torch.randn(100, 64).sign() * 60_000)
        model.model.layers[0].self_attn.o_proj.weight.mul_(3e5)
        model.model.norm.weight.mul_(1e-3)
    path = tmp_path_factory.mktemp("model")
    model.save_pretrained(path)
    return path


def load(folder):
    return pretrained.load(folder, pretrained.CAUSAL, Fp16(), four_bit=False, double=False)


def logits(model) -> torch.Tensor:
    with torch.no_grad(), torch.autocast("cpu", torch.float16):
        return model(input_ids=IDS).logits


def test_a_residual_stream_beyond_fp16_stays_finite(folder, monkeypatch):
    model = load(folder)
    seen = []
    model.model.layers[1].register_forward_pre_hook(lambda _, args: seen.append(args[0]))
    assert logits(model).isfinite().all()
    assert seen[0].dtype == torch.float32
    assert seen[0].abs().max() > torch.finfo(torch.float16).max
    monkeypatch.setattr(pretrained, "widen_to_fp32", lambda _: None)
    assert not logits(load(folder)).isfinite().all(), "without it the same model is NaN"


def types(model, products: torch.dtype, whole: torch.dtype) -> None:
    """Whether linear layers and convolutions have the one type, and all else the other."""
    for name, module in model.named_modules():
        tied = name.endswith("lm_head")
        for parameter in module.parameters(recurse=False):
            product = isinstance(module, nn.Linear | nn.Conv3d) and not tied
            assert parameter.dtype == (products if product else whole), name


def test_products_stay_in_half_precision_and_all_else_is_whole(folder):
    types(load(folder), torch.float16, torch.float32)


def test_loading_allocates_no_second_block_for_the_whole_model(folder, monkeypatch):
    from transformers import modeling_utils

    blocks = []

    def block(*_) -> None:
        blocks.append(1)

    monkeypatch.setattr(modeling_utils, "caching_allocator_warmup", block)
    load(folder)
    assert blocks == []
    assert modeling_utils.caching_allocator_warmup is block, "others find it as it was"
    monkeypatch.delattr(modeling_utils, "caching_allocator_warmup")
    with pretrained.without_allocator_warmup():
        assert not hasattr(modeling_utils, "caching_allocator_warmup")


@pytest.mark.parametrize(("name", "whole"), [("fp16", torch.float32), ("bf16", torch.bfloat16)])
def test_the_forecast_counts_the_same_types(name, whole):
    """Of a small Qwen2.5-VL; bf16 has fp32's range, and nothing of it is widened."""
    options = TrainingOptions(precision=name, quantize="none", lora_rank=0)
    with fake_training_step.fake_mode(options):
        model, _ = estimate.build_trainable_model(vqa_base.build_config(VLM, 500), options)
        types(model, options.dtype, whole)


def test_a_llama_whose_width_is_no_multiple_of_its_heads_loads(tmp_path):
    """Kanana 1.5 2.1B: 24 heads of 128 at a width of 1792; transformers itself refuses it."""
    from safetensors.torch import save_file

    sizes = {
        "model_type": "llama", "hidden_size": 56, "num_attention_heads": 6, "head_dim": 8,
        "num_key_value_heads": 2, "intermediate_size": 64, "num_hidden_layers": 2,
        "vocab_size": 100,
    }  # fmt: skip
    with pytest.raises(Exception, match="not a multiple of the number of attention heads"):
        transformers.AutoConfig.for_model(**sizes)
    made = transformers.AutoModelForCausalLM.from_config(model_config.build_config(sizes)).eval()
    save_file(made.state_dict(), tmp_path / "model.safetensors", {"format": "pt"})
    (tmp_path / "config.json").write_text(json.dumps(sizes))
    precision = Precision("fp32", torch.device("cpu"))
    loaded = pretrained.load(
        tmp_path, pretrained.CAUSAL, precision, four_bit=False, double=False
    ).eval()
    assert loaded.model.layers[0].self_attn.q_proj.out_features == 6 * 8
    with torch.no_grad():
        torch.testing.assert_close(loaded(input_ids=IDS).logits, made(input_ids=IDS).logits)
