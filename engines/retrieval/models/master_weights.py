"""Master weights of a dual encoder: a bf16 replica that computes, with parts in float32.

float32: pixels until they are normalized, batch norms with their statistics, the temperature and
the bias of the loss; vectors are brought to unit length and compared in float32 anyway. Between
blocks activations are bf16, where autocast adds them up in float32: the difference of the losses is
in docs/retrieval.md.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final

import torch
from torch import nn

from engines.retrieval.models import attention
from engines.retrieval.models.encoder import DualEncoder
from engines.retrieval.params import Params
from engines.torchkit.modeling.image_normalization import PixelNormalizer
from engines.torchkit.modeling.master_weights import Replica
from engines.torchkit.runtime.precision import PrecisionName

DTYPE: Final = torch.bfloat16
WHOLE: Final = (PixelNormalizer, nn.modules.batchnorm._BatchNorm)


def make_replica(
    model: DualEncoder, params: Params, precision: PrecisionName
) -> Replica[DualEncoder] | None:
    """The bf16 replica for training; None with autocast or float32."""
    if precision != "bf16" or params.mixed_precision != "master_weights":
        return None
    replica = Replica(
        model, DTYPE, lambda m: m is model or isinstance(m, WHOLE), attention.fuse_attention
    )
    replica.model.dtype = DTYPE
    if replica.model.pixel_normalizer is not None:
        replica.model.pixel_normalizer.dtype = DTYPE
    return replica


def without_autocast(encode: Callable[..., Any], kind: str) -> Callable[..., Any]:
    """The same function with autocast off on this type of device."""

    def plain(*args: Any) -> Any:
        with torch.autocast(kind, enabled=False):
            return encode(*args)

    return plain
