"""Tower interface of the dual encoder, for layers, fusion and scoring of every family.

A tower is not a module: it refers to parts of the library's model, so parameter names (and
checkpoints) are the library's.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import torch
from torch import Tensor, nn


class EncoderTower:
    """One tower: text or vision.

    `blocks` is 0 where there are no blocks to choose from (a convolutional tower).
    """

    blocks: int = 0
    width: int = 0
    """Width of a block's output."""
    ignores_padding: bool = False
    """Whether padding at the end of a text changes no output."""

    def forward(self, inputs: Tensor) -> Tensor:
        """The tower's output, projected: [n, D]."""
        raise NotImplementedError

    def hidden_states(self, inputs: Tensor, layers: Sequence[int]) -> list[Tensor]:
        """Outputs of these blocks, before the final norm: [n, T, width] each."""
        raise NotImplementedError

    def pool(self, states: Sequence[Tensor], inputs: Tensor) -> Tensor:
        """Outputs of blocks, normed, averaged, pooled and projected: [n, D]."""
        raise NotImplementedError

    def tokens(self, states: Sequence[Tensor], inputs: Tensor) -> Tensor:
        """Outputs of blocks, normed, averaged and projected token by token: [n, T, D]."""
        raise NotImplementedError

    def last_tokens(self, inputs: Tensor) -> Tensor:
        """Tokens of the last block: [n, T, D]."""
        return self.tokens(self.hidden_states(inputs, (self.blocks - 1,)), inputs)

    def attention_mask(self, inputs: Tensor, tokens: int) -> Tensor:
        """Mask of the first `tokens` tokens, false for padding: bool [n, tokens]."""
        return torch.ones(len(inputs), tokens, dtype=torch.bool, device=inputs.device)

    def modules(self) -> Iterable[nn.Module]:
        """Its modules in the model."""
        return ()

    def extra_parameters(self) -> Iterable[nn.Parameter]:
        """Its parameters outside of its modules."""
        return ()

    def parameters(self) -> list[nn.Parameter]:
        """All its parameters, each once."""
        parameters = {id(p): p for part in self.modules() for p in part.parameters()}
        return list((parameters | {id(p): p for p in self.extra_parameters()}).values())


def mask_until_end(texts: Tensor, end: int) -> Tensor:
    """True up to and including the first end token of each row: bool [n, L]."""
    columns = torch.arange(texts.shape[1], device=texts.device)
    return columns <= (texts == end).int().argmax(1, keepdim=True)


def average_states(states: Sequence[Tensor]) -> Tensor:
    """Mean of the states."""
    return states[0] if len(states) == 1 else torch.stack(list(states)).mean(0)
