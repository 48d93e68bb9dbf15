"""Projectors: published parameter counts, shapes, and the building blocks against timm's."""

from __future__ import annotations

from typing import get_args

import pytest
import torch
from transformers import AutoModelForCausalLM

from engines.captioning.memory import model_from_config
from engines.captioning.models import projectors
from engines.captioning.models.projectors import Kind, ProjectorSizes
from engines.model_catalog import ModelPart
from engines.param_sections import LORA_TARGETS
from engines.torchkit.modeling import lora

REFERENCE = {"vision_width": 1024, "patches": 576, "llm_width": 4096}
"""CLIP ViT-L/14 at 336 px without CLS, and an LLM of 4096."""


@pytest.mark.parametrize(
    ("sizes", "count"),
    [
        ({"kind": "linear"}, 4_198_400),
        ({"kind": "mlp2x"}, 20_979_712),
        ({"kind": "c_abstractor"}, 37_398_016),
        ({"kind": "perceiver"}, 67_217_408),
        ({"kind": "cross_attention"}, 205_840_384),
        ({"kind": "qformer"}, 541_495_296),
        ({"kind": "c_abstractor", "hidden": 3328, "readout": 3}, 206_158_656),
        ({"kind": "perceiver", "hidden": 1792, "depth": 4, "head_width": 96}, 134_122_752),
    ],
)
def test_reference_sizes_have_the_published_counts(sizes: dict[str, object], count: int) -> None:
    with torch.device("meta"):
        model = projectors.build_projector(ProjectorSizes.model_validate({**REFERENCE, **sizes}))
    assert sum(p.numel() for p in model.parameters()) == count


def small(kind: str, **more: int) -> ProjectorSizes:
    sizes = {"vision_width": 24, "patches": 16, "llm_width": 40, "hidden": 32, "depth": 2,
             "tokens": 4, "heads": 2, "head_width": 8, "frames": 3}  # fmt: skip
    return ProjectorSizes.model_validate({"kind": kind, **sizes, **more})


@pytest.mark.parametrize("kind", get_args(Kind))
@pytest.mark.parametrize("frames", [1, 3])
def test_shapes_and_gradients(kind: str, frames: int) -> None:
    projector = projectors.build_projector(small(kind))
    made = projector(torch.randn(2, frames, 16, 24))
    assert made.shape == (2, projector.length(frames), 40)
    made.square().sum().backward()
    without = [n for n, p in projector.named_parameters() if p.grad is None]
    assert without == (["frame_at"] if kind == "perceiver" and frames == 1 else [])


def test_lengths_are_those_that_the_kinds_promise() -> None:
    lengths = {kind: projectors.build_projector(small(kind)).length(3) for kind in get_args(Kind)}
    assert lengths == {"linear": 48, "mlp2x": 48, "c_abstractor": 12, "perceiver": 4,
                       "cross_attention": 4, "qformer": 4}  # fmt: skip


def test_frames_are_told_apart_and_stay_in_order() -> None:
    torch.manual_seed(0)
    clip = torch.randn(1, 3, 16, 24)
    for kind in ("linear", "mlp2x", "c_abstractor", "perceiver"):
        projector = projectors.build_projector(small(kind))
        forward, backward = projector(clip), projector(clip.flip(1))
        assert not torch.allclose(forward, backward, atol=1e-4), kind
        if kind != "perceiver":  # frame by frame: the same tokens in the other order
            frames = backward.unflatten(1, (3, -1)).flip(1).flatten(1, 2)
            torch.testing.assert_close(forward, frames)


@pytest.mark.parametrize(("patches", "tokens"), [(17, 4), (16, 5)])
def test_an_abstractor_that_is_no_square_is_refused(patches: int, tokens: int) -> None:
    with pytest.raises(ValueError, match="must both be square numbers"):
        projectors.build_projector(small("c_abstractor", patches=patches, tokens=tokens))


@pytest.mark.parametrize("kind", ["cross_attention", "qformer"])
def test_heads_that_do_not_divide_the_width_are_refused(kind: str) -> None:
    with pytest.raises(ValueError, match="3 heads do not divide .* width of 40; set"):
        projectors.build_projector(small(kind, heads=3))


def test_lora_on_qwen3_8b_has_the_studys_count() -> None:
    pytest.importorskip("peft")
    part = ModelPart(hub="Qwen/Qwen3-8B")
    sizes, _ = model_from_config.read_llm_config("qwen3-8b-clip-l14", part)
    with torch.device("meta"):
        llm = AutoModelForCausalLM.from_config(model_from_config.with_layers(sizes, 1))
        adapted = lora.add_lora(llm, 16, 32, 0.05, LORA_TARGETS)
    trained = sum(p.numel() for p in adapted.parameters() if p.requires_grad)
    assert sizes.num_hidden_layers * trained == 43_646_976


def test_the_regnet_stage_computes_what_timms_does() -> None:
    regnet = pytest.importorskip("timm.models.regnet")
    layers = pytest.importorskip("timm.layers")
    torch.manual_seed(0)
    theirs = regnet.RegStage(
        2, 24, 32, 1, 1, act_layer=torch.nn.SiLU, norm_layer=layers.LayerNorm2d,
        group_size=1, bottle_ratio=1.0, se_ratio=0.25,
    )  # fmt: skip
    for module in theirs.modules():  # timm starts the last norm of a block at zero
        if isinstance(module, torch.nn.LayerNorm):
            torch.nn.init.normal_(module.weight)
            torch.nn.init.normal_(module.bias)
    ours = projectors._stage(24, 32, 2)
    assert _count(theirs) == _count(ours)
    with torch.no_grad():
        for mine, other in zip(ours, theirs.children(), strict=True):
            _copy_block(mine, other)
    x = torch.randn(2, 24, 6, 6)
    torch.testing.assert_close(ours(x), theirs(x), rtol=1e-4, atol=1e-5)


def _count(module: torch.nn.Module) -> int:
    return sum(p.numel() for p in module.parameters())


def _copy_block(mine: torch.nn.Module, other: torch.nn.Module) -> None:
    pairs = [
        (mine.widen, other.conv1.conv), (mine.widen_norm, other.conv1.bn),
        (mine.mix, other.conv2.conv), (mine.mix_norm, other.conv2.bn),
        (mine.squeeze, other.se.fc1), (mine.excite, other.se.fc2),
        (mine.close, other.conv3.conv), (mine.close_norm, other.conv3.bn),
    ]  # fmt: skip
    if isinstance(mine.around, torch.nn.Sequential):
        pairs += [(mine.around[0], other.downsample.conv), (mine.around[1], other.downsample.bn)]
    for target, source in pairs:
        target.load_state_dict(source.state_dict())
