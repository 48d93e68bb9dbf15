"""Two attention functions for transformers: packed sequences, and causal without a mask.

Packed: vision towers of Qwen2-VL and its successors see all pictures of a batch as one sequence,
cut into windows. For SDPA transformers (5.23) calls the attention function once a window and reads
the window lengths on the host once a block: at 756 px and batch 2 that is 2,752 calls and 96 waits
for the GPU in one forward pass. A function whose name has "flash" in it gets the whole sequence
with its boundaries instead; so this one has such a name.

Causal: where no mask is given, transformers searches the position ids for packed sequences, which
waits for the device. It does not for a function without a registered mask function.
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
"""More runs of one length than this are joined (three copies and one call), not called singly."""


class SequenceRun(NamedTuple):
    """Consecutive sequences of equal length."""

    start: int
    length: int
    number: int


def find_runs(ends: list[int]) -> list[SequenceRun]:
    """Runs of equal lengths from cumulative lengths `[0, …, total]`, without empty sequences."""
    result: list[SequenceRun] = []
    for start, end in pairwise(ends):
        length = end - start
        if result and result[-1].length == length:
            result[-1] = result[-1]._replace(number=result[-1].number + 1)
        elif length:
            result.append(SequenceRun(start, length, 1))
    return result


def group_runs(sequence_runs: list[SequenceRun]) -> list[list[SequenceRun]]:
    """Groups of runs to compute together: joining costs three copies, so it pays from five on."""
    alike: dict[int, list[SequenceRun]] = {}
    for run in sequence_runs:
        alike.setdefault(run.length, []).append(run)
    return [
        part
        for equal in alike.values()
        for part in ([equal] if len(equal) > JOINED else [[r] for r in equal])
    ]


def packed_attention(
    _: Any, query: Tensor, key: Tensor, value: Tensor, **settings: Any
) -> tuple[Tensor, None]:
    """Attention within each sequence: [1, H, S, D] each -> [1, S, H, D].

    `settings`: those of transformers' attention functions; `cu_seq_lens_q` has the cumulative
    lengths, on the host: on a GPU reading them would wait for it. There is no mask.
    """
    outs: dict[int, Tensor] = {}
    for group in group_runs(find_runs(settings["cu_seq_lens_q"].tolist())):
        q, k, v = (_select_runs(tensor[0], group) for tensor in (query, key, value))
        output = functional.scaled_dot_product_attention(
            q, k, v, dropout_p=settings.get("dropout", 0.0), scale=settings.get("scaling")
        )
        parts = torch.split(output.transpose(1, 2), [run.number for run in group])
        outs |= {run.start: part.flatten(0, 1) for run, part in zip(group, parts, strict=True)}
    ordered = [outs[start] for start in sorted(outs)]
    return torch.cat(ordered)[None] if len(ordered) > 1 else ordered[0][None], None


def _select_runs(packed: Tensor, group: list[SequenceRun]) -> Tensor:
    """[H, S, D] -> the sequences of these runs, [number, H, length, D]; of one run a view."""
    views = [
        packed[:, start : start + length * number]
        .view(len(packed), number, length, -1)
        .transpose(0, 1)
        for start, length, number in group
    ]
    return torch.cat(views) if len(views) > 1 else views[0]


def use_packed_attention(tower: Any) -> None:
    """Set packed attention on a vision tower of transformers."""
    from transformers import AttentionInterface

    AttentionInterface.register(PACKED, packed_attention)
    tower.config._attn_implementation = PACKED


def use_causal_attention(model: Any) -> None:
    """Set causal attention without a mask on a language model; padding must be at the end.

    A model with sliding windows, which are masks, is unchanged.
    """
    from transformers import AttentionInterface
    from transformers.integrations.sdpa_attention import sdpa_attention_forward

    kinds = set(getattr(model.config, "layer_types", None) or ())
    if kinds == {"full_attention"} or (not kinds and not hasattr(model.config, "sliding_window")):
        AttentionInterface.register(CAUSAL, sdpa_attention_forward)
        model.config._attn_implementation = CAUSAL
