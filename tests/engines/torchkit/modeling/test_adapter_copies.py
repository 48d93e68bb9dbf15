"""Copies of adapter weights: the numbers of autocast to the last bit, and where there are none."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from benchmarks.step_count import Meter
from engines.torchkit.modeling import adapter_copies, lora
from engines.torchkit.runtime.precision import DTYPES

pytest.importorskip("peft")

WIDTH, STEPS, MICRO_BATCHES = 16, 4, 2


class Net(nn.Module):
    """Two linear layers, recomputed in the backward pass."""

    def __init__(self) -> None:
        super().__init__()
        self.q_proj, self.up_proj = nn.Linear(WIDTH, WIDTH), nn.Linear(WIDTH, WIDTH)

    def block(self, x: Tensor) -> Tensor:
        return self.up_proj(torch.tanh(self.q_proj(x)))

    def forward(self, x: Tensor) -> Tensor:
        return checkpoint(self.block, x, use_reentrant=False)


def adapted(dropout: float = 0.0, **settings) -> nn.Module:
    torch.manual_seed(0)
    net = lora.add_lora(Net(), 4, 8, dropout, ("q_proj", "up_proj"), **settings).train()
    with torch.no_grad():  # B is zero at first
        for name, parameter in net.named_parameters():
            if "lora_B" in name:
                parameter.normal_()
    return net


def train(precision: str, dropout: float, *, copied: bool) -> tuple[list[Tensor], list[Tensor]]:
    """Losses, and adapters afterwards."""
    net = adapted(dropout)
    copies = adapter_copies.copy_adapters(net, precision) if copied else None
    assert (copies is not None) == copied
    trained = [p for p in net.parameters() if p.requires_grad]
    optimizer, losses = torch.optim.AdamW(trained, lr=0.1), []
    for _ in range(STEPS):
        for _ in range(MICRO_BATCHES):
            x = torch.randn(8, WIDTH)
            with torch.autocast("cpu", DTYPES[precision]):
                loss = (net(x).float() - x).square().mean()
            loss.backward()
            losses.append(loss.detach())
            if copies is not None:
                copies.collect_gradients()
        nn.utils.clip_grad_norm_(trained, 1.0)
        optimizer.step()
        optimizer.zero_grad()
        if copies is not None:
            copies.refresh()
    return losses, [p.detach() for p in trained]


@pytest.mark.parametrize(("precision", "dropout"), [("bf16", 0.0), ("bf16", 0.3), ("fp16", 0.0)])
def test_a_training_has_the_numbers_of_autocast_to_the_last_bit(precision, dropout):
    plain, copied = (train(precision, dropout, copied=copies) for copies in (False, True))
    for tensors, others in zip(plain, copied, strict=True):
        assert all(map(torch.equal, tensors, others))
    assert plain[0][-1] < plain[0][0], "it learns"


def test_weights_alone_are_saved_and_evaluated():
    net = adapted()
    names, copies = set(net.state_dict()), adapter_copies.copy_adapters(net, "bf16")
    assert copies is not None
    assert set(net.state_dict()) == names
    assert {p.dtype for p in copies.parameters()} == {torch.bfloat16}
    assert len(list(copies.parameters())) == 4
    layer, x = net.get_submodule("base_model.model.q_proj.lora_A.default"), torch.ones(1, WIDTH)
    with torch.no_grad():
        layer.weight.zero_()
        assert layer(x.bfloat16()).any(), "a copy that nobody refreshed"
        assert not layer.eval()(x).any()


def test_other_adapters_compute_with_their_weights():
    net = adapted()
    assert adapter_copies.copy_adapters(net, "fp32") is None
    assert adapter_copies.copy_adapters(net, "bf16", ranks=2) is None
    assert adapter_copies.copy_adapters(adapted(use_dora=True), "bf16") is None


def test_copies_end_where_a_later_stage_trains_no_adapters():
    net, x = adapted(), torch.randn(3, WIDTH)
    own = net(x)
    assert adapter_copies.copy_adapters(net, "bf16") is not None
    net.requires_grad_(False)
    assert adapter_copies.copy_adapters(net, "bf16") is None
    assert torch.equal(net(x), own)


def test_a_forward_pass_in_half_precision_converts_nothing():
    net, x = adapted().bfloat16(), torch.ones(2, WIDTH, dtype=torch.bfloat16)
    for parameter in net.parameters():
        if parameter.requires_grad:
            parameter.data = parameter.data.float()
    casts = []
    for precision in ("fp32", "bf16"):  # without copies, and with them
        adapter_copies.copy_adapters(net, precision)
        meter = Meter()
        meter.part = "forward"
        with meter, torch.autocast("cpu", torch.bfloat16):
            net(x)
        casts.append(meter.parts["forward"].casts)
    assert casts[0] > 0
    assert casts[1] == 0
    assert net.eval()(x).dtype == torch.bfloat16, "outside of autocast, in evaluation mode"
