"""Two ways of attending, registered with transformers: packed sequences, and causal without a mask.

Packed: vision towers of Qwen2-VL and its successors see all pictures of a batch as one sequence,
cut into windows. For SDPA transformers (5.23) calls the attention function once a window and reads
the window lengths on the host once a block: at 756 px and batch 2 that is 2,752 calls and 96 waits
for the GPU in one forward pass. A function whose name has "flash" in it is handed the whole
sequence with its boundaries instead, which is how this one is attached.

Causal: where no mask is given, transformers looks for packed sequences in the positions of tokens
and waits for the answer. For a function that has no mask function beside it, it does not.
"""

from __future__ import annotations

from itertools import pairwise
from typing import Any, Final, NamedTuple

import torch
from torch import Tensor
from torch.nn import functional

PACKED: Final = "workbench_flash_packed_sdpa"
"""transformers decides by the word "flash" in it (utils/generic.py, is_flash_attention_requested).
"""
CAUSAL: Final = "workbench_causal_sdpa"

JOINED: Final = 4
"""More runs of one length than this are joined, three copies and a call, rather than called one by
one."""


class Run(NamedTuple):
    """Sequences of equal length that follow each other."""

    start: int
    length: int
    number: int


def runs(ends: list[int]) -> list[Run]:
    """Of cumulative lengths `[0, …, total]`; empty sequences are left out."""
    found: list[Run] = []
    for start, end in pairwise(ends):
        length = end - start
        if found and found[-1].length == length:
            found[-1] = found[-1]._replace(number=found[-1].number + 1)
        elif length:
            found.append(Run(start, length, 1))
    return found


def groups(found: list[Run]) -> list[list[Run]]:
    """Runs that are computed together: joining costs three copies, so it pays from five on."""
    alike: dict[int, list[Run]] = {}
    for run in found:
        alike.setdefault(run.length, []).append(run)
    return [
        part
        for one in alike.values()
        for part in ([one] if len(one) > JOINED else [[r] for r in one])
    ]


def attend(
    _: Any, query: Tensor, key: Tensor, value: Tensor, **settings: Any
) -> tuple[Tensor, None]:
    """Attention within each sequence: [1, H, S, D] each -> [1, S, H, D].

    `settings`: those of transformers' attention functions; `cu_seq_lens_q` has the cumulative
    lengths, on the host: on a GPU reading them would wait for it. There is no mask.
    """
    outs: dict[int, Tensor] = {}
    for some in groups(runs(settings["cu_seq_lens_q"].tolist())):
        q, k, v = (_taken(one[0], some) for one in (query, key, value))
        seen = functional.scaled_dot_product_attention(
            q, k, v, dropout_p=settings.get("dropout", 0.0), scale=settings.get("scaling")
        )
        parts = torch.split(seen.transpose(1, 2), [run.number for run in some])
        outs |= {run.start: part.flatten(0, 1) for run, part in zip(some, parts, strict=True)}
    ordered = [outs[start] for start in sorted(outs)]
    return torch.cat(ordered)[None] if len(ordered) > 1 else ordered[0][None], None


def _taken(packed: Tensor, some: list[Run]) -> Tensor:
    """[H, S, D] -> the sequences of these runs, [number, H, length, D]; of one run a view."""
    views = [
        packed[:, start : start + length * number]
        .view(len(packed), number, length, -1)
        .transpose(0, 1)
        for start, length, number in some
    ]
    return torch.cat(views) if len(views) > 1 else views[0]


def pack(tower: Any) -> None:
    """Make a vision tower of transformers attend to packed sequences."""
    from transformers import AttentionInterface

    AttentionInterface.register(PACKED, attend)
    tower.config._attn_implementation = PACKED


def unmask(model: Any) -> None:
    """Make a language model attend to all that is earlier, and look for no mask: for sequences
    without padding before their end. One with sliding windows, which are masks, stays as it is.
    """
    from transformers import AttentionInterface
    from transformers.integrations.sdpa_attention import sdpa_attention_forward

    kinds = set(getattr(model.config, "layer_types", None) or ())
    if kinds == {"full_attention"} or (not kinds and not hasattr(model.config, "sliding_window")):
        AttentionInterface.register(CAUSAL, sdpa_attention_forward)
        model.config._attn_implementation = CAUSAL
