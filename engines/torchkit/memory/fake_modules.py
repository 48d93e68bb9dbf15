"""Fake modules for what fake tensors do not support: 4-bit layers and fused attention.

bitsandbytes' `Params4bit` refuses fake tensors (0.50), and attention on fake tensors would write
out all scores, as no GPU kernel does. A fake module allocates tensors of the same sizes at the same
moments as the real kernel; it computes nothing.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, Final
from unittest import mock

import torch
from torch import Tensor, nn
from torch.nn import functional

from engines.torchkit.modeling import rms_norm
from engines.torchkit.modeling.quantize import require_bitsandbytes

NF4_BLOCK: Final = 64
"""Weights that share a scale (bitsandbytes' default)."""
NF4_DOUBLE_BLOCK: Final = 256
"""Scales that share a scale of their own (Dettmers et al. 2023, section 3)."""


class _FourBitMatmul(torch.autograd.Function):
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
            """The unpacked weight for one product, after a temporary of its scales in fp32."""
            device: Any = self.weight.device
            count = math.ceil(self.shape.numel() / NF4_BLOCK)
            scales = torch.empty(count, dtype=torch.float32, device=device)
            weight = torch.empty(self.shape, dtype=dtype, device=device)
            del scales
            return weight

        def typed_bias(self, dtype: torch.dtype) -> Tensor | None:
            return None if self.bias is None else self.bias.to(dtype)

        def forward(self, x: Tensor) -> Tensor:
            return _FourBitMatmul.apply(x.to(self.compute_dtype), self).to(x.dtype)  # type: ignore[no-any-return]

    return Packed


def _scales(count: int, double: bool) -> dict[str, Tensor]:
    """Tensors of bitsandbytes' QuantState beside the packed weight."""
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


def pack_four_bit(
    model: nn.Module, is_quantized: Callable[[str], bool], compute: torch.dtype, *, double: bool
) -> int:
    """Replace the linear layers that `is_quantized` names by fake 4-bit ones; their number.

    Raises:
        EngineError: bitsandbytes is missing.
    """
    require_bitsandbytes()
    make_layer = _four_bit_class()
    model.is_loaded_in_4bit = True  # type: ignore[assignment]  # peft asks for it
    return _replace(model, is_quantized, lambda layer: make_layer(layer, compute, double))


def _replace(
    model: nn.Module,
    is_quantized: Callable[[str], bool],
    make_layer: Callable[[nn.Linear], nn.Module],
) -> int:
    """A function of its own: a logged ImportError would keep its caller's list of layers alive."""
    layers = [
        (n, m) for n, m in model.named_modules() if isinstance(m, nn.Linear) and is_quantized(n)
    ]
    for name, layer in layers:
        parent, _, last = name.rpartition(".")
        setattr(model.get_submodule(parent), last, make_layer(layer))
    return len(layers)


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
        running = torch.empty(q.shape, dtype=torch.float32) if accumulates_in_fp32(q) else None
        gradients = tuple(torch.empty_like(tensor) for tensor in (q, k, v))
        del delta, running
        return *gradients, None


def accumulates_in_fp32(q: Tensor) -> bool:
    """Whether the backward kernel sums dQ in fp32 beside its result: in half precision it does."""
    return q.dtype != torch.float32


def fused_attention(target: str = "cuda") -> Any:
    """Context in which attention allocates as torch's fused kernels do (Dao et al. 2022).

    On a CPU there is no fused kernel with dropout: all scores are written out then.

    By patching, not by a mode of torch: modes are not active in the backward pass, where gradient
    checkpointing computes attention again.
    """
    plain = functional.scaled_dot_product_attention

    def attention(*args: Any, **kwargs: Any) -> Tensor:
        dropout = args[4] if len(args) > 4 else kwargs.get("dropout_p", 0.0)
        output: Tensor = (plain if dropout and target == "cpu" else _fused_attention)(
            *args, **kwargs
        )
        return output

    return mock.patch.object(functional, "scaled_dot_product_attention", attention)


def unpack_for_dora() -> Any:
    """Context in which peft's DoRA unpacks fake 4-bit layers, as it does those of bitsandbytes."""
    from peft.tuners.lora import dora

    module: Any = dora  # the name is imported there from another module
    plain = module.dequantize_module_weight

    def dequantize(layer: Any) -> Tensor:
        is_packed = hasattr(layer, "unpacked")
        weight: Tensor = layer.unpacked(layer.compute_dtype) if is_packed else plain(layer)
        return weight

    return mock.patch.object(module, "dequantize_module_weight", dequantize)


def skip_weight_init() -> Any:
    """Context without truncated normal initialization, which fake tensors do not support."""
    return mock.patch.object(nn.init, "_no_grad_trunc_normal_", lambda tensor, *_, **__: tensor)


def fp32_layer_norms() -> Any:
    """Context in which autocast computes LayerNorm in fp32, as on a GPU and not on a CPU."""
    plain = functional.layer_norm

    def layer_norm(x: Tensor, *args: Any, **kwargs: Any) -> Tensor:
        if not torch.is_autocast_enabled(x.device.type):
            return plain(x, *args, **kwargs)
        with torch.autocast(x.device.type, enabled=False):
            return plain(x.float(), *args, **kwargs)

    return mock.patch.object(functional, "layer_norm", layer_norm)


def fused_dropout() -> Any:
    """Context in which dropout is one operation that keeps a byte a number, as on a GPU.

    On a CPU it keeps a factor for each number, in the number's dtype.
    """
    plain = functional.dropout

    def dropout(x: Tensor, p: float = 0.5, training: bool = True, inplace: bool = False) -> Tensor:
        if not (training and 0 < p < 1) or inplace:
            return plain(x, p, training, inplace)
        output: Tensor = torch.native_dropout(x, p, True)[0]
        return output

    return mock.patch.object(functional, "dropout", dropout)


@contextmanager
def fused_rms_norms() -> Iterator[None]:
    """Context in which RMSNorm is one operation, as on a GPU: LayerNorm stands for it.

    It keeps the mean of each row beside the root mean square.
    """

    def has_kernel(x: Tensor, weight: Tensor) -> bool:
        return x.dtype == weight.dtype

    def normalize(x: Tensor, shape: Any, weight: Tensor, eps: float) -> Tensor:
        return functional.layer_norm(x, shape, weight, None, eps)

    with (
        mock.patch.object(rms_norm, "has_kernel", has_kernel),
        mock.patch.object(functional, "rms_norm", normalize),
    ):
        yield


def _fused_attention(
    q: Tensor, k: Tensor, v: Tensor, attn_mask: Tensor | None = None, *_: Any, **__: Any
) -> Tensor:
    if torch.is_autocast_enabled(q.device.type):
        dtype = torch.get_autocast_dtype(q.device.type)
        q, k, v = q.to(dtype), k.to(dtype), v.to(dtype)
    if attn_mask is not None and attn_mask.dtype == torch.bool:
        attn_mask = torch.empty(attn_mask.shape, dtype=q.dtype)  # added to the scores as numbers
    output: Tensor = _Attention.apply(q, k, v, attn_mask)
    return output
