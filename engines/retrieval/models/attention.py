"""Fused attention: query, key and value of transformers' CLIP and SigLIP in one product.

For replicas only, whose weights are derived; the model keeps three weights, as in checkpoints.
Three products of [n, d] x [d, d] become one of [n, d] x [d, 3 d].
"""

from __future__ import annotations

from typing import Any, Final

import torch
from torch import Tensor, nn
from torch.nn import functional

from engines.torchkit.modeling.master_weights import Slot, Slots

PARTS: Final = ("q_proj", "k_proj", "v_proj")
CLASSES: Final = ("CLIPAttention", "SiglipAttention", "Siglip2Attention")
"""Attention classes of transformers 5.23, equal but for their names."""


class FusedAttention(nn.Module):
    """Replaces an attention module: [B, T, width] -> [B, T, width]."""

    def __init__(self, attention: Any) -> None:
        super().__init__()
        self.heads, self.dropout = int(attention.num_heads), float(attention.dropout)
        self.out_proj = attention.out_proj
        parts = [getattr(attention, name) for name in PARTS]
        self.weight = _stack_parameters([part.weight for part in parts])
        self.bias = _stack_parameters([part.bias for part in parts])

    def forward(
        self,
        hidden_states: Tensor,
        attention_mask: Tensor | None = None,
        *,
        is_causal: bool = False,
        **_: Any,
    ) -> tuple[Tensor, None]:
        """As transformers calls it; a causal mask of its own wins over `is_causal`."""
        rows, tokens, width = hidden_states.shape
        joint = functional.linear(hidden_states, self.weight, self.bias)
        joint = joint.view(rows, tokens, 3, self.heads, width // self.heads)
        # In this order the gradients are concatenated in place, without a copy.
        query, key, value = (part.transpose(1, 2) for part in joint.unbind(2))
        out = functional.scaled_dot_product_attention(
            query, key, value, attn_mask=attention_mask,
            dropout_p=self.dropout if self.training else 0.0,
            is_causal=is_causal and attention_mask is None,
        )  # fmt: skip
        return self.out_proj(out.transpose(1, 2).reshape(rows, tokens, width)), None


def fuse_attention(model: nn.Module) -> Slots:
    """Replace the attention modules of known classes, in place; slots of their parameters."""
    slots: Slots = {}
    for name, module in list(model.named_modules()):
        if type(module).__name__ not in CLASSES:
            continue
        fused = FusedAttention(module)
        for number, part in enumerate(PARTS):
            rows = slice(
                number * fused.out_proj.in_features, (number + 1) * fused.out_proj.in_features
            )
            slots[f"{name}.{part}.weight"] = Slot(fused.weight, rows)
            slots[f"{name}.{part}.bias"] = Slot(fused.bias, rows)
        parent, _, last = name.rpartition(".")
        setattr(model.get_submodule(parent), last, fused)
    return slots


def _stack_parameters(parts: list[nn.Parameter]) -> nn.Parameter:
    values = torch.cat([part.detach() for part in parts])
    return nn.Parameter(values, any(part.requires_grad for part in parts))
