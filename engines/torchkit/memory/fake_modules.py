"""Stand-ins for what cannot be faked: 4-bit layers and fused attention, true in shape.

bitsandbytes' `Params4bit` refuses fake tensors (0.50), and a fake attention would take the path
that writes out all scores, which no GPU takes. A stand-in makes the tensors that the real kernel
makes, of the same sizes, at the same moments; it computes nothing.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any, Final
from unittest import mock

import torch
from torch import Tensor, nn
from torch.nn import functional

from engines.torchkit.modeling.quantize import need_bitsandbytes

NF4_BLOCK: Final = 64
"""Weights that share a scale (bitsandbytes' default)."""
NF4_DOUBLE_BLOCK: Final = 256
"""Scales that share a scale of their own (Dettmers et al. 2023, section 3)."""


class _Product(torch.autograd.Function):
    """x W^T with W unpacked for the product, and once more for the gradient (MatMul4Bit)."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, layer: Any) -> Tensor:
        ctx.layer = layer
        with torch.autocast(x.device.type, enabled=False):
            return functional.linear(x, layer.unpacked(x.dtype), layer.typed_bias(x.dtype))

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, None]:
        (grad,) = grads
        return torch.matmul(grad, ctx.layer.unpacked(grad.dtype)), None


def _four_bit_class() -> type[nn.Module]:
    """A subclass of bitsandbytes' layer, so that peft puts the same LoRA around it."""
    from bitsandbytes.nn.modules import Linear4bit

    class Packed(Linear4bit):
        """A 4-bit layer of fake tensors."""

        def __init__(self, layer: nn.Linear, compute: torch.dtype, double: bool) -> None:
            nn.Module.__init__(self)
            count = layer.weight.numel()
            self.in_features, self.out_features = layer.in_features, layer.out_features
            self.compute_dtype, self.shape = compute, layer.weight.shape
            packed = torch.empty((count + 1) // 2, 1, dtype=torch.uint8)
            weight: Any = nn.Parameter(packed, requires_grad=False)
            weight.compress_statistics, weight.quant_type = double, "nf4"
            self.weight = weight
            self.bias = layer.bias
            for name, tensor in _scales(count, double).items():
                self.register_buffer(name, tensor)

        def unpacked(self, dtype: torch.dtype) -> Tensor:
            """The weight for one product; with it, for a moment, its scales in fp32."""
            place: Any = self.weight.device
            count = math.ceil(self.shape.numel() / NF4_BLOCK)
            scales = torch.empty(count, dtype=torch.float32, device=place)
            weight = torch.empty(self.shape, dtype=dtype, device=place)
            del scales
            return weight

        def typed_bias(self, dtype: torch.dtype) -> Tensor | None:
            return None if self.bias is None else self.bias.to(dtype)

        def forward(self, x: Tensor) -> Tensor:
            return _Product.apply(x.to(self.compute_dtype), self).to(x.dtype)  # type: ignore[no-any-return]

    return Packed


def _scales(count: int, double: bool) -> dict[str, Tensor]:
    """What bitsandbytes' QuantState keeps beside the packed weight."""
    blocks = math.ceil(count / NF4_BLOCK)
    code = torch.empty(16, dtype=torch.float32)
    if not double:
        return {"absmax": torch.empty(blocks, dtype=torch.float32), "code": code}
    return {
        "absmax": torch.empty(blocks, dtype=torch.uint8),
        "code": code,
        "double_absmax": torch.empty(math.ceil(blocks / NF4_DOUBLE_BLOCK), dtype=torch.float32),
        "double_code": torch.empty(256, dtype=torch.float32),
        "offset": torch.empty((), dtype=torch.float32),
    }


def pack(
    model: nn.Module, meant: Callable[[str], bool], compute: torch.dtype, *, double: bool
) -> int:
    """Replace the linear layers whose names are `meant` by 4-bit ones; returns how many.

    Raises:
        EngineError: bitsandbytes is missing.
    """
    need_bitsandbytes()
    made = _four_bit_class()
    model.is_loaded_in_4bit = True  # type: ignore[assignment]  # peft asks for it
    return _replace(model, meant, lambda layer: made(layer, compute, double))


def _replace(
    model: nn.Module, meant: Callable[[str], bool], made: Callable[[nn.Linear], nn.Module]
) -> int:
    """Apart from the import: an error that a log keeps would hold its caller's list of layers."""
    found = [(n, m) for n, m in model.named_modules() if isinstance(m, nn.Linear) and meant(n)]
    for name, layer in found:
        parent, _, last = name.rpartition(".")
        setattr(model.get_submodule(parent), last, made(layer))
    return len(found)


class _Attention(torch.autograd.Function):
    """softmax(QK^T)V without the scores: keeps its inputs, its output and one fp32 a row."""

    @staticmethod
    def forward(ctx: Any, q: Tensor, k: Tensor, v: Tensor, mask: Tensor | None) -> Tensor:
        batch, heads, rows, _ = q.shape
        out = torch.empty(batch, rows, heads, v.shape[-1], dtype=q.dtype).transpose(1, 2)
        sums = torch.empty(batch, heads, rows, dtype=torch.float32)
        ctx.save_for_backward(q, k, v, out, sums, mask)
        return out

    @staticmethod
    def backward(ctx: Any, *_: Tensor) -> tuple[Tensor | None, ...]:
        q, k, v, _out, sums, _mask = ctx.saved_tensors
        delta = torch.empty_like(sums)
        running = torch.empty(q.shape, dtype=torch.float32) if accumulates(q) else None
        made = tuple(torch.empty_like(tensor) for tensor in (q, k, v))
        del delta, running
        return *made, None


def accumulates(q: Tensor) -> bool:
    """Whether the backward kernel sums dQ in fp32 beside its result: in half precision it does."""
    return q.dtype != torch.float32


def fused_attention(target: str = "cuda") -> Any:
    """A context in which attention allocates as torch's fused kernels do (Dao et al. 2022).

    On a CPU there is none with dropout: all scores are written out then.

    By name, and not by a mode of torch: modes are away in the backward pass, where checkpointing
    computes attention again.
    """
    plain = functional.scaled_dot_product_attention

    def attention(*given: Any, **named: Any) -> Tensor:
        dropout = given[4] if len(given) > 4 else named.get("dropout_p", 0.0)
        made: Tensor = (plain if dropout and target == "cpu" else _fused)(*given, **named)
        return made

    return mock.patch.object(functional, "scaled_dot_product_attention", attention)


def undrawn() -> Any:
    """A context in which truncated normal weights are not drawn: torch reads what it has drawn."""
    return mock.patch.object(nn.init, "_no_grad_trunc_normal_", lambda tensor, *_, **__: tensor)


def whole_norms() -> Any:
    """A context in which autocast computes LayerNorm in fp32: a GPU's does, a CPU's does not."""
    plain = functional.layer_norm

    def layer_norm(x: Tensor, *args: Any, **kwargs: Any) -> Tensor:
        if not torch.is_autocast_enabled(x.device.type):
            return plain(x, *args, **kwargs)
        with torch.autocast(x.device.type, enabled=False):
            return plain(x.float(), *args, **kwargs)

    return mock.patch.object(functional, "layer_norm", layer_norm)


def _fused(
    q: Tensor, k: Tensor, v: Tensor, attn_mask: Tensor | None = None, *_: Any, **__: Any
) -> Tensor:
    if torch.is_autocast_enabled(q.device.type):
        dtype = torch.get_autocast_dtype(q.device.type)
        q, k, v = q.to(dtype), k.to(dtype), v.to(dtype)
    if attn_mask is not None and attn_mask.dtype == torch.bool:
        attn_mask = torch.empty(attn_mask.shape, dtype=q.dtype)  # added to the scores as numbers
    made: Tensor = _Attention.apply(q, k, v, attn_mask)
    return made
