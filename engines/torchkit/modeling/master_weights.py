"""Master weights: the optimizer keeps fp32, and a bf16 copy of the model computes.

Micikevicius et al. 2018 ("Mixed Precision Training", section 3.1), as Megatron-LM does it. Autocast
converts every weight anew in each step, and an activation for every layer that reads it: one launch
each. Here all weights are converted by one operation over lists after the optimizer's step, and all
gradients by another one before it.

The masters are what is optimized, averaged, saved and evaluated. Copies hold nothing that is not
derived from them, but for a replica's buffers: those of modules that are kept whole are shared.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

import torch
from torch import Tensor, nn

Model = TypeVar("Model", bound=nn.Module)


@dataclass(frozen=True)
class Slot:
    """Location of the copy of a master weight: a whole parameter, or rows of a fused one."""

    parameter: nn.Parameter
    rows: slice

    def values(self) -> Tensor:
        """View of the copy's values."""
        return (
            self.parameter.detach()[self.rows] if self.parameter.ndim else self.parameter.detach()
        )

    def gradient(self) -> Tensor | None:
        """View of the copy's gradient; None: it has none."""
        grad = self.parameter.grad
        return grad if grad is None or not self.parameter.ndim else grad[self.rows]


Slots = dict[str, Slot]
"""By the name of the parameter in the masters' model."""


class WeightCopies(Generic[Model]):
    """Copies of a model's weights in another dtype, which compute in their place.

    Args:
        masters: The model with the weights that learn, float32.
        model: The module that computes with the copies; may be `masters`.
        slots: The copies. A weight that is its own copy gets its gradient directly.
    """

    def __init__(self, masters: nn.Module, model: Model, slots: Slots) -> None:
        self.model: Model = model
        learnt = [(n, p) for n, p in masters.named_parameters() if p.requires_grad and n in slots]
        self._pairs = [(p, slots[n]) for n, p in learnt if slots[n].parameter is not p]
        shared = {id(parameter) for parameter in masters.parameters()}
        copies = {id(slot.parameter): slot.parameter for slot in slots.values()}
        self._own = [p for key, p in copies.items() if key not in shared]
        self._masters: list[Tensor] = [p.detach() for p, _ in self._pairs]
        self._copies = [slot.values() for _, slot in self._pairs]

    def parameters(self) -> Iterator[nn.Parameter]:
        """The copies that are not shared with the masters."""
        return iter(self._own)

    @torch.no_grad()
    def refresh(self) -> None:
        """Copy the masters' values, rounded, into the copies: one operation over lists."""
        torch._foreach_copy_(self._copies, self._masters)

    @torch.no_grad()
    def collect_gradients(self) -> None:
        """Add the copies' gradients to the masters' in float32, and drop them."""
        copied: tuple[list[Tensor], list[Tensor]] = ([], [])
        added: tuple[list[Tensor], list[Tensor]] = ([], [])
        for parameter, slot in self._pairs:
            gradient = slot.gradient()
            if gradient is None:
                continue
            totals, gradients = copied if parameter.grad is None else added
            if parameter.grad is None:
                parameter.grad = torch.empty_like(parameter)
            totals.append(parameter.grad)
            gradients.append(gradient)
        if copied[0]:
            torch._foreach_copy_(*copied)
        if added[0]:  # of two dtypes it would be a launch for each tensor
            totals, gradients = added
            widened = [torch.empty_like(total) for total in totals]
            torch._foreach_copy_(widened, gradients)
            torch._foreach_add_(totals, widened)
        self.drop_gradients()

    def drop_gradients(self) -> None:
        """Drop the copies' gradients; those of weights that are their own copy stay."""
        for parameter in self._own:
            parameter.grad = None


class Replica(WeightCopies[Model]):
    """A copy of a model in another dtype.

    Args:
        masters: The model with the weights that learn, float32.
        dtype: Of the copy's parameters and buffers.
        whole: Whether a module's own parameters and buffers stay as they are, shared with the
            masters: gradients of these arrive there directly.
        fuse: Rebuilds parts of the copy; returns the slots of their parameters.
    """

    def __init__(
        self,
        masters: Model,
        dtype: torch.dtype,
        whole: Callable[[nn.Module], bool],
        fuse: Callable[[nn.Module], Slots] | None = None,
    ) -> None:
        memo: dict[int, Any] = {}
        for module in masters.modules():
            for tensor in direct_tensors(module):
                kept = whole(module) or not tensor.is_floating_point()
                memo.setdefault(id(tensor), tensor if kept else convert(tensor, dtype))
        model = copy.deepcopy(masters, memo)
        slots = {name: Slot(p, slice(None)) for name, p in model.named_parameters()}
        if fuse is not None:
            slots |= fuse(model)
        super().__init__(masters, model, slots)


def direct_tensors(module: nn.Module) -> Iterable[Tensor]:
    """Parameters and buffers of a module itself, without its submodules'."""
    yield from module.parameters(recurse=False)
    yield from module.buffers(recurse=False)


def convert(tensor: Tensor, dtype: torch.dtype) -> Tensor:
    """A copy in another dtype; a parameter stays one."""
    values = tensor.detach().to(dtype)
    return (
        nn.Parameter(values, tensor.requires_grad) if isinstance(tensor, nn.Parameter) else values
    )
