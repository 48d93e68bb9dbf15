"""The tensors of a model that training changes: what checkpoints hold."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from pathlib import Path

from torch import Tensor, nn

from engines.emitter import EngineError


def load_trained(
    model: nn.Module, tensors: Mapping[str, Tensor], folder: Path,
    trained_before: Collection[str] = (), *, partly: bool = False,
) -> None:  # fmt: skip
    """Load a checkpoint's tensors: exactly those that training changes, `partly`: or fewer.

    Raises:
        EngineError: names or shapes differ; torch would ignore other names.
    """
    expected = trainable_tensors(model, trained_before)
    missing = set() if partly else expected.keys() - tensors.keys()
    different = sorted((tensors.keys() - expected.keys()) | missing)
    different += [name for name in expected.keys() & tensors.keys()
            if expected[name].shape != tensors[name].shape]  # fmt: skip
    if different:
        raise EngineError(
            f"{folder}: is a checkpoint of another model ({len(different)} tensors differ, first "
            f"{different[0]}); restore the model, or start a new suite"
        )
    model.load_state_dict(tensors, strict=False)


def trainable_tensors(model: nn.Module, trained_before: Collection[str] = ()) -> dict[str, Tensor]:
    """Tensors that training changes, by name: trained parameters and running statistics.

    Frozen weights are not saved with every run. `trained_before`: frozen ones that are.
    """
    kept = model.state_dict().keys()
    statistics = {n: b for n, b in model.named_buffers() if n in kept}
    parameters = {
        name: parameter.detach()
        for name, parameter in model.named_parameters()
        if parameter.requires_grad or name in trained_before
    }
    return parameters | statistics
