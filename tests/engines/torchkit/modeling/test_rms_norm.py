"""RMSNorm by torch's function: which classes it stands for, and how near its results are."""

from __future__ import annotations

from importlib import import_module

import pytest
import torch
from torch import Tensor, nn

from engines.torchkit.modeling import rms_norm

pytest.importorskip("transformers")

EQUAL = ("llama.LlamaRMSNorm", "qwen2.Qwen2RMSNorm", "qwen3.Qwen3RMSNorm",
         "qwen2_5_vl.Qwen2_5_VLRMSNorm", "qwen3_vl.Qwen3VLTextRMSNorm")  # fmt: skip
OTHER = ("gemma.GemmaRMSNorm", "qwen3_5.Qwen3_5RMSNorm", "qwen3_5.Qwen3_5RMSNormGated")
WIDTH = 256


def norm_class(name: str) -> type[nn.Module]:
    family, _, kind = name.partition(".")
    return getattr(import_module(f"transformers.models.{family}.modeling_{family}"), kind)


def test_classes_are_known_by_what_they_compute():
    """Gemma's weight is 1 + weight, and others have a gate."""
    assert all(rms_norm.is_rms_norm(norm_class(name)) for name in EQUAL)
    assert not any(rms_norm.is_rms_norm(norm_class(name)) for name in OTHER)
    assert not rms_norm.is_rms_norm(nn.LayerNorm)


def normalized(norm: nn.Module, x: Tensor) -> tuple[Tensor, Tensor]:
    """Output and gradient of the input, under autocast."""
    x = x.clone().requires_grad_()
    with torch.autocast("cpu", torch.bfloat16):
        output = norm(x)
    output.float().square().sum().backward()
    return output.detach(), x.grad


def test_the_kernel_is_at_least_as_near_to_float64_as_the_models_own_code(monkeypatch):
    """Both in bf16, whose rounding is 2^-8 of a number: the kernel rounds once, the code twice."""
    torch.manual_seed(0)
    norm = norm_class("qwen3.Qwen3RMSNorm")(WIDTH, eps=1e-6)
    norm.weight.data.uniform_(0.5, 2)
    norm = norm.bfloat16().requires_grad_(False)
    x = torch.randn(64, WIDTH).bfloat16()
    plain, _ = normalized(norm, x)
    assert rms_norm.use_fused_rms_norm(nn.Sequential(norm)) == 1
    assert torch.equal(normalized(norm, x)[0], plain), "on a CPU the model's own code runs"
    monkeypatch.setattr(rms_norm, "has_kernel", lambda x, weight: x.dtype == weight.dtype)
    fused, gradient = normalized(norm, x)
    assert fused.dtype == gradient.dtype == torch.bfloat16
    exact = torch.rms_norm(x.double(), (WIDTH,), norm.weight.double(), 1e-6)

    def error(output: Tensor) -> float:
        return ((output - exact).abs() / exact.abs()).max().item()

    assert error(fused) <= 2**-8 * 1.001
    assert error(fused) < error(plain) <= 2**-7 * 1.01
    assert not torch.equal(fused, plain), "the kernel's way was taken"


def test_a_module_with_a_forward_pass_of_its_own_keeps_it():
    norm = norm_class("llama.LlamaRMSNorm")(4)
    norm.forward = lambda x: x + 1
    assert rms_norm.use_fused_rms_norm(nn.Sequential(norm)) == 0
    assert torch.equal(norm(torch.zeros(4)), torch.ones(4))
