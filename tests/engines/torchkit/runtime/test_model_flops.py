"""FLOPs of real steps of every family against torch's own counter; MFU and HFU; the table."""

import math
from contextlib import nullcontext
from unittest import mock

import bitsandbytes  # noqa: F401 - registers its operations
import pytest
import torch
from torch import nn
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils import flop_counter
from torch.utils.flop_counter import FlopCounterMode, flop_registry

from engines import messages
from engines.torchkit.runtime import gpu_peaks, model_flops
from engines.torchkit.runtime.model_flops import ProductCounter, WorkMeter
from tests.engines import captioning_step, retrieval_step, vqa_step
from workbench.memory_estimate.gpus import load_gpu_table

CPU = torch.device("cpu")


def counted(step) -> ProductCounter:
    """A counter that was active in a whole step, and knew when its backward pass ran."""
    counter = ProductCounter()
    inner = torch.Tensor.backward

    def backward(*args, **kwargs):
        counter.is_backward = True
        inner(*args, **kwargs)
        counter.is_backward = False

    with mock.patch.object(torch.Tensor, "backward", backward), counter:
        step()
    return counter


def of_convolution(*args, out_val, **kwargs) -> int:
    """torch's formula, whose gradient of a grouped weight is a multiple of the real one."""
    formula = flop_registry[torch.ops.aten.convolution_backward]
    *given, groups, mask = args
    of_input, of_weight = (formula(*given, groups, [n == k and wanted for n, wanted in
                                                    enumerate(mask)], out_val=out_val)
                           for k in (0, 1))  # fmt: skip
    return of_input + of_weight // groups


def of_four_bit(inputs, packed, shape, *_, **__) -> int:
    """bitsandbytes' product, of which torch knows nothing, by the weight's shape."""
    return 2 * math.prod(inputs) * shape[0]


def by_torch(step) -> int:
    four_bit = torch.ops.bitsandbytes.gemm_4bit
    own = {torch.ops.aten.convolution_backward: of_convolution, four_bit: of_four_bit}
    of_convolution._get_raw = True
    with (
        sdpa_kernel(SDPBackend.MATH),
        FlopCounterMode(display=False, custom_mapping=own) as counter,
    ):
        step()
    return counter.get_total_flops()


def total(counter: ProductCounter) -> float:
    return sum(counter.model.values())


def check(step) -> None:
    """Model FLOPs and computed ones are torch's count of both passes, with unfused attention."""
    expected = by_torch(step)
    with sdpa_kernel(SDPBackend.MATH):
        counter = counted(step)
    assert expected > 0
    assert (total(counter), counter.computed) == (expected, expected)
    assert not counter.uncounted


@pytest.mark.parametrize("family", ["siglip", "plain-vit", "fastvit", "frozen"])
def test_a_retrieval_step_is_torchs_count(tmp_path, family):
    shape = retrieval_step.Shape(family, family, {"batch": 2})
    step, _ = retrieval_step._training(retrieval_step.Bench.of(shape, tmp_path, CPU))
    check(step)


@pytest.mark.parametrize("settings", [{}, {"quantize": "none", "lora_rank": 0}])
def test_a_captioning_step_is_torchs_count(tmp_path, settings):
    """A frozen language model, 4-bit or not, with LoRA or without, and a trained projector."""
    shape = captioning_step.Shape(
        "", {"gradient_checkpointing": False, "batch": 2, **settings}, tokens=8
    )
    real = captioning_step.Real.of(shape, captioning_step.written(shape, tmp_path), CPU)
    optimizer = real.optimizer()
    check(lambda: real.train(optimizer, None))


def test_a_vqa_step_is_torchs_count_and_checkpointing_is_none_of_the_models(tmp_path):
    """4-bit, LoRA, a vision tower; recomputation is in the computed FLOPs alone."""
    plain = {"long_side": 56, "quantize": "nf4"}
    small = {"text": 20, "sizes": {"num_hidden_layers": 2}}
    shape = vqa_step.Shape("", {**plain, "gradient_checkpointing": False}, **small)
    folder = vqa_step.written(shape, tmp_path)
    step, _ = vqa_step.real(shape, folder, CPU)
    check(step)
    recomputing = vqa_step.Shape("", {**plain, "gradient_checkpointing": True}, **small)
    again, _ = vqa_step.real(recomputing, folder, CPU)
    with sdpa_kernel(SDPBackend.MATH):
        counter = counted(again)
    assert total(counter) == by_torch(step)
    assert counter.computed == by_torch(again) > total(counter)


def attention(**given):
    q, k, v = (torch.randn(2, 3, 16, 8, requires_grad=True) for _ in range(3))
    return lambda: nn.functional.scaled_dot_product_attention(q, k, v, **given).sum().backward()


@pytest.mark.parametrize(
    ("given", "share", "computed"),
    [
        ({}, 1, 1),
        ({"is_causal": True}, 0.5, 0.5),
        ({"attn_mask": torch.ones(16, 16, dtype=torch.bool).tril()}, 0.5, 1),
        ({"attn_mask": torch.full((16, 16), -math.inf).triu(1)}, 0.5, 1),
        ({"attn_mask": torch.ones(16, 16, dtype=torch.bool).tril(3)}, 1, 1),
    ],
)
def test_causal_attention_counts_half(given, share, computed):
    """By the argument, or by a mask; a mask's hidden half is computed all the same."""
    whole = by_torch(attention())
    counter = counted(attention(**given))
    assert (total(counter), counter.computed) == (share * whole, computed * whole)


def test_weights_count_by_what_needs_gradients():
    """6 a parameter and token if trained, 4 if differentiated through, 2 if neither."""
    x = torch.randn(5, 8)
    first, second, last = (nn.Linear(8, 8, bias=False) for _ in range(3))
    for layer in (first, last):
        layer.requires_grad_(False)
    counter = counted(lambda: last(second(first(x))).sum().backward())
    assert total(counter) == 5 * 64 * (2 + 4 + 4), "the second's input needs none"
    second_input = x.clone().requires_grad_()
    assert total(counted(lambda: second(second_input).sum().backward())) == 5 * 64 * 6


def test_a_formula_that_fails_does_not_end_the_step():
    def broken(*args, **kwargs):
        raise AssertionError

    registry = {**flop_counter.flop_registry, torch.ops.aten.mm: broken}
    with mock.patch.object(flop_counter, "flop_registry", registry):
        counter = counted(lambda: torch.ones(2, 2) @ torch.ones(2, 2))
    assert counter.uncounted == {"aten::mm"}


def trained(warmup: int, ranks: int = 1, *, compiled: bool = False) -> WorkMeter:
    """A meter after three steps of four samples with 10 tokens each: 384 FLOPs a sample."""
    layer, meter = nn.Linear(8, 8, bias=False), WorkMeter(CPU, warmup, ranks)
    x = torch.randn(4, 8, requires_grad=True)
    if compiled:
        meter.count_compiled(lambda: len(layer(x)))
    for _ in range(3):
        with meter.forward():
            loss = layer(x).sum()
        with meter.backward():
            loss.backward()
        meter.add(4, torch.tensor(40))
        meter.end_step()
    return meter


SPEED = messages.Timing(samples_per_second=100.0)


def named(card: str):
    return mock.patch.object(gpu_peaks, "read_card_name", return_value=card)


def test_utilization_is_flops_over_the_dense_peak_of_all_ranks():
    with named("NVIDIA A100-SXM4-80GB"):
        timing = trained(warmup=4).complete(SPEED)
        two = trained(warmup=4, ranks=2).complete(SPEED)
    assert timing.model_flops_per_sample == 384
    assert timing.mfu == timing.hfu == pytest.approx(384 * 100 / 19.5e12)
    assert timing.tokens_per_second == 1000
    assert timing.methods["mfu"] == (
        "model FLOPs 1, 2 steps counted; dense fp32 peak 19.5 TFLOP/s of NVIDIA A100-SXM4-80GB, "
        "table of 2026-11"
    )
    assert (two.model_flops_per_sample, two.mfu) == (768, pytest.approx(timing.mfu))


@pytest.mark.parametrize(
    ("card", "reason"),
    [
        ("", gpu_peaks.NO_GPU),
        ("NVIDIA A100-SXM4-40GB MIG 1g.5gb", gpu_peaks.SLICE),
        ("NVIDIA GeForce RTX 4090 D", "NVIDIA GeForce RTX 4090 D is not in the table of peaks"),
    ],
)
def test_without_a_peak_there_is_a_reason(card, reason):
    with named(card):
        timing = trained(warmup=1).complete(SPEED)
    assert timing.model_flops_per_sample == 384
    assert timing.mfu is None
    assert timing.hfu is None
    assert timing.reasons["mfu"] == timing.reasons["hfu"] == reason


def test_a_dtype_that_a_card_lacks_has_a_reason():
    reason = "the table has no bf16 peak of Tesla T4"
    assert gpu_peaks.find_peak("Tesla T4", "bf16").reason == reason


def test_nothing_is_counted_without_a_warm_up_or_a_speed():
    timing = trained(warmup=0).complete(SPEED)
    assert timing.reasons["model_flops_per_sample"] == model_flops.NO_WARMUP
    slow = messages.Timing().with_reason("no step after the 5 of the timing warm-up")
    with named("Tesla T4"):
        timing = trained(warmup=5).complete(slow)
    assert timing.reasons["mfu"] == timing.reasons["tokens_per_second"] == slow.reasons["mfu"]
    assert timing.model_flops_per_sample == 384


def test_compiled_code_is_counted_ahead_without_a_backward_pass():
    with named("Tesla T4"):
        timing = trained(warmup=5, compiled=True).complete(SPEED)
    assert timing.model_flops_per_sample == 384
    assert timing.mfu is not None
    assert timing.reasons["hfu"] == model_flops.COMPILED


def test_a_resumed_run_counts_the_same_steps_or_none():
    meter = WorkMeter(CPU, 4)
    meter.begin(1)
    assert meter.is_counting, "step 2 of 2"
    meter.end_step()
    assert not meter.is_counting
    late = WorkMeter(CPU, 4)
    late.begin(2)
    assert not late.is_counting
    late.add(4, None)
    late.end_step()
    assert late.complete(SPEED).reasons["mfu"] == model_flops.RESUMED


def test_a_meter_that_does_not_count_costs_nothing():
    meter = WorkMeter(CPU, 0)
    assert isinstance(meter.forward(), nullcontext)


def test_every_card_that_torch_supports_and_estimates_know_has_a_peak():
    for card in load_gpu_table().values():
        for name in card.names:
            dtype = "bf16" if card.capability >= (8, 0) else "fp16"
            assert gpu_peaks.find_peak(name, dtype).flops > gpu_peaks.find_peak(name, "fp32").flops
