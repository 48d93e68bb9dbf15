"""The counts of a training step as upper bounds, and whether the counting itself is right."""

from __future__ import annotations

from collections import Counter

import pytest
import torch
from torch.profiler import ProfilerActivity, profile

from benchmarks import step_budget, step_count
from benchmarks.step_count import Counts, Meter

pytestmark = pytest.mark.timeout(600)
"""Each fixture simulates whole steps at true sizes: 20 s of CPU time, minutes on a busy machine."""

RETRIEVAL = {"kernels": 850, "casts": 25, "waits": 0, "bytes_to_device": 19_400_000}
"""The preset weekly-m2kr: `python -m benchmarks.step_budget retrieval`."""
AUTOCAST = {"kernels": 1_751, "casts": 737}
"""The same with mixed_precision = "autocast"."""


@pytest.fixture(scope="module")
def weekly() -> dict[str, Counts]:
    return step_count.whole_step(step_budget.retrieval())


@pytest.fixture(scope="module")
def autocast() -> dict[str, Counts]:
    return step_count.whole_step(step_budget.retrieval(mixed_precision="autocast"))


@pytest.fixture(scope="module")
def on_cuda() -> dict[str, Counts]:
    return step_count.forward_on_cuda(step_budget.retrieval(mixed_precision="autocast"))


@pytest.mark.parametrize("name", ["kernels", "casts", "waits"])
def test_a_weekly_step_stays_in_its_budget(weekly, name):
    assert step_budget.totals(weekly)[name] <= RETRIEVAL[name]


@pytest.mark.parametrize("name", AUTOCAST)
def test_a_weekly_step_by_autocast_stays_in_its_budget(autocast, name):
    assert step_budget.totals(autocast)[name] <= AUTOCAST[name]


def test_a_batch_is_copied_once_and_without_a_wait(on_cuda):
    assert 19_000_000 < on_cuda["transfer"].bytes_to_device <= RETRIEVAL["bytes_to_device"]
    assert on_cuda["forward"].bytes_to_device == 0
    assert sum(counts.waits for counts in on_cuda.values()) == 0


def test_stand_ins_count_what_fake_cuda_tensors_count(autocast, on_cuda):
    fake, cuda = autocast["forward"], on_cuda["forward"]
    assert fake.kernels == pytest.approx(cuda.kernels, rel=0.005)
    assert fake.casts == pytest.approx(cuda.casts, abs=4)


def test_the_profiler_sees_the_same_operations_of_a_real_step():
    """Thin, on the CPU: names that the dispatcher and the profiler both know."""
    step = step_budget.retrieval_step(
        torch.device("cpu"), thin=8, batch=4, image_size=32, precision="fp32"
    )
    batch = step.batches[0]
    meter = Meter()
    meter.part = "forward"
    with meter:
        step.job.forward(batch).loss.backward()
    with profile(activities=[ProfilerActivity.CPU]) as seen:
        step.job.forward(batch).loss.backward()
    names = Counter(event.name.replace("aten::", "aten.") for event in seen.events())
    ours = meter.parts["forward"].by_name
    shared = ("aten.addmm", "aten.native_layer_norm", "aten.native_layer_norm_backward",
              "aten.gelu", "aten.gelu_backward", "aten.embedding_dense_backward")  # fmt: skip
    assert {name: ours[name] for name in shared} == {name: names[name] for name in shared}
    assert ours["aten.addmm"] > 200


def counted(function, *tensors: torch.Tensor) -> Counts:
    meter = Meter()
    meter.part = "forward"
    with meter:
        function(*tensors)
    return meter.parts["forward"]


def test_what_counts_as_a_kernel_a_cast_and_a_wait():
    x = torch.ones(8, 8)
    mask = x > 2
    assert counted(lambda: x.view(64)[3:].view(61)).kernels == 0
    assert counted(lambda: torch.empty(3)).kernels == 0
    assert counted(lambda: x + 1).kernels == 1
    assert counted(x.bfloat16).casts == 1
    assert counted(lambda: x.to(torch.float32)).casts == 0
    assert counted(lambda: x.clone().copy_(torch.ones(8, 8, dtype=torch.half))).casts == 1
    assert counted(lambda: x.sum().item()).waits == 1
    assert counted(lambda: bool(mask.any())).waits == 1
    assert counted(lambda: x[mask]).waits == 1
    assert counted(mask.nonzero).waits == 1
    large = [torch.ones(65_536 * 321)]
    assert counted(lambda: torch._foreach_mul_(large, 2.0)).kernels == 2
    small = [torch.ones(1) for _ in range(111)]
    assert counted(lambda: torch._foreach_mul_(small, 2.0)).kernels == 2
    assert counted(lambda: torch._foreach_copy_(small[:65], small[:65])).kernels == 2


def test_copies_between_host_and_device_are_waited_for_unless_asynchronous():
    with step_count.allocation_tracker.fake_tensors():
        host = torch.zeros(10, dtype=torch.uint8)
        assert counted(lambda: host.to("cuda", non_blocking=True)).waits == 0
        sent = counted(lambda: host.to("cuda"))
        assert (sent.waits, sent.bytes_to_device, sent.casts) == (1, 10, 0)
        with torch.device("cuda"):
            there = torch.empty(10)
        assert counted(there.cpu).waits == 1
