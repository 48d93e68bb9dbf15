"""The base of a nano model: its loss is seen while it is trained."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from engines.torchkit.training.nano_models import train_all_parameters


def test_the_progress_of_a_base_has_its_falling_loss() -> None:
    torch.manual_seed(0)
    model, told = nn.Linear(1, 1), []

    def loss_at(step: int) -> torch.Tensor:
        return (model(torch.ones(4, 1)) - 3.0).square().mean()

    def report(done: int, total: int, unit: str) -> None:
        told.append((done, total, unit))

    last = train_all_parameters(model, loss_at, {"steps": 20, "lr": 0.2}, report, "steps")
    assert [(done, total) for done, total, _ in told] == [(n, 20) for n in range(1, 21)]
    losses = [float(unit.removeprefix("steps, loss ")) for _, _, unit in told]
    assert losses[-1] < losses[0] / 2
    assert losses[-1] == pytest.approx(last, rel=1e-2)
