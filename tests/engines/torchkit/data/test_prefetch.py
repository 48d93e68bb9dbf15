"""The way of batches to a GPU, on fake streams whose copies come as late as they may.

A fake device tensor is wrong (NaN) until its copy has run, and a copy runs only when somebody waits
for it: whoever forgets to wait computes with NaN.
"""

from __future__ import annotations

import math
import os
import subprocess
import sys
import time
from collections import deque
from contextlib import contextmanager
from dataclasses import dataclass, replace

import numpy as np
import pytest
import torch
from torch.profiler import ProfilerActivity, profile

from engines import param_sections
from engines.captioning.data.media import CaptionBatch
from engines.retrieval.data.pairs import ItemInputs, PairBatch
from engines.torchkit.data import prefetch
from engines.torchkit.data.data_loader import DEPTH, make_ahead, split_rows
from engines.torchkit.data.prefetch import IN_FLIGHT, InputPipeline, Prefetcher, map_tensors
from engines.torchkit.modeling.image_normalization import PixelNormalizer
from engines.torchkit.training import loop
from engines.vqa.models.model import VqaBatch
from tests.engines.torchkit.training.test_loop import job, plain_losses, run

GPU = torch.device("cuda", 0)
CPU = torch.device("cpu")


class FakeEvent:
    def __init__(self, blocking: bool = False) -> None:
        self.blocking, self.stream, self.place = blocking, None, 0

    def synchronize(self) -> None:
        self.stream.log.append(("host waits", self.stream.name))
        self.stream.run(self.place)


class FakeStream:
    def __init__(self, name: str, log: list) -> None:
        self.name, self.log, self.done, self.queue = name, log, 0, deque()

    def put(self, work) -> None:
        self.queue.append(work)

    def run(self, place: int | None = None) -> None:
        place = self.done + len(self.queue) if place is None else place
        while self.done < place:
            self.queue.popleft()()
            self.done += 1

    def record_event(self, event: FakeEvent | None = None) -> FakeEvent:
        event = event or FakeEvent()
        event.stream, event.place = self, self.done + len(self.queue)
        return event

    def wait_event(self, event: FakeEvent) -> None:
        self.log.append((self.name, "waits for", event.stream.name))
        self.put(lambda: event.stream.run(event.place))
        if self.name == "compute":  # whose kernels run as they are launched
            self.run()

    def wait_stream(self, other: FakeStream) -> None:
        self.wait_event(other.record_event())


class FakeCuda:
    """What `prefetch` uses of torch.cuda."""

    Event = FakeEvent

    def __init__(self) -> None:
        self.log: list = []
        self.compute = FakeStream("compute", self.log)
        self.current = self.compute

    def Stream(self, _device):
        return FakeStream("side", self.log)

    def current_stream(self, _device):
        return self.current

    @contextmanager
    def stream(self, stream):
        before, self.current = self.current, stream
        yield
        self.current = before

    def copy(self, host: torch.Tensor) -> torch.Tensor:
        """To the device, without waiting: what is there before the copy has run is wrong."""
        stream, target = self.current, torch.full_like(host, math.nan)
        self.log.append(("copy", stream.name))
        stream.put(lambda: target.copy_(host))
        return target


@pytest.fixture
def cuda(monkeypatch):
    fake = FakeCuda()
    monkeypatch.setattr(prefetch, "cuda", fake)
    prefetch.copy_stream.cache_clear()

    def record_stream(tensor, stream):
        fake.log.append(("recorded", id(tensor), stream.name))

    monkeypatch.setattr(torch.Tensor, "record_stream", record_stream)
    yield fake
    prefetch.copy_stream.cache_clear()


def feed(cuda, batches, pool=None) -> Prefetcher:
    pending = make_ahead([lambda one=one: one for one in batches], pool, 4)
    return Prefetcher(pending, lambda batch: map_tensors(batch, cuda.copy), GPU)


def numbers(count: int) -> list[torch.Tensor]:
    return [torch.full((2,), float(number)) for number in range(count)]


@pytest.mark.parametrize("num_workers", [0, 2])
@pytest.mark.parametrize("gradient_accumulation_steps", [1, 2])
def test_losses_over_copies_that_come_late_are_bitwise_the_plain_ones(
    cuda, monkeypatch, num_workers, gradient_accumulation_steps
):
    expected = run(job(gradient_accumulation_steps=gradient_accumulation_steps))

    def on_gpu(pending, _transfer, _device):
        return Prefetcher(pending, lambda batch: map_tensors(batch, cuda.copy), GPU)

    monkeypatch.setattr(loop, "Prefetcher", on_gpu)
    assert (
        run(job(num_workers=num_workers, gradient_accumulation_steps=gradient_accumulation_steps))
        == expected
    )
    if gradient_accumulation_steps == 1:
        assert expected == plain_losses()
    assert {line for line in cuda.log if line[0] == "copy"} == {("copy", "side")}


def test_a_batch_is_copied_aside_waited_for_and_kept_for_the_compute_stream(cuda):
    (batch,) = [{"pixels": torch.ones(3), "ids": (torch.zeros(2), 7)}]
    own = feed(cuda, [batch])
    assert cuda.log == [("side", "waits for", "compute")], "constants may be on their way"
    assert own.wait()
    assert cuda.log[1:] == [("copy", "side")] * 2, "and the host does not wait"
    moved = own.next_batch()
    assert cuda.log[3:] == [
        ("compute", "waits for", "side"),
        ("recorded", id(moved["pixels"]), "compute"),
        ("recorded", id(moved["ids"][0]), "compute"),
    ]
    assert moved["pixels"].tolist() == [1, 1, 1]
    assert moved["ids"][1] == 7
    assert not own.wait(), "there are no more"


@dataclass
class Slot:
    """A batch that a thread is making, or has made."""

    batch: torch.Tensor
    ready: bool

    def done(self) -> bool:
        return self.ready

    def result(self) -> torch.Tensor:
        assert self.ready, "nobody may wait for it yet"
        return self.batch


def test_what_is_ready_is_copied_ahead_and_nothing_is_waited_for(cuda):
    slots = [Slot(batch, number < 3) for number, batch in enumerate(numbers(4))]
    own = Prefetcher(iter(slots), cuda.copy, GPU)

    def copies() -> int:
        return cuda.log.count(("copy", "side"))

    own.wait()
    assert own.next_batch().tolist() == [0, 0]
    own.copy_ahead()
    own.copy_ahead()
    assert copies() == 2, "one ahead, whoever asks again"
    own.wait()
    assert copies() == 2, "it was copied"
    assert own.next_batch().tolist() == [1, 1]
    own.copy_ahead()
    own.wait()
    assert own.next_batch().tolist() == [2, 2]
    own.copy_ahead()
    assert copies() == 3, "the fourth is not ready"
    slots[3].ready = True
    own.wait()
    assert own.next_batch().tolist() == [3, 3]


def test_without_threads_nothing_is_made_before_it_is_asked_for(cuda):
    made = []
    own = Prefetcher(
        make_ahead([lambda: made.append(1) or torch.zeros(1)] * 2, None, 0), cuda.copy, GPU
    )
    own.wait()
    own.next_batch()
    own.copy_ahead()
    assert made == [1]


def test_the_host_runs_only_so_far_ahead(cuda):
    own = feed(cuda, numbers(IN_FLIGHT + 3))
    for number in range(IN_FLIGHT + 3):
        own.wait()
        own.next_batch()
        waits = cuda.log.count(("host waits", "compute"))
        assert waits == max(0, number + 1 - IN_FLIGHT)


def test_on_a_cpu_a_batch_is_handed_on_as_it_is(monkeypatch):
    monkeypatch.setattr(prefetch, "cuda", None)
    batch = torch.zeros(3)
    own = Prefetcher(make_ahead([lambda: batch], None, 0), lambda one: one, CPU)
    assert own.wait()
    assert own.next_batch() is batch
    own.copy_ahead()
    assert not own.wait()


def inputs() -> ItemInputs:
    return ItemInputs(2, *(torch.full((2,), float(n)) for n in range(4)))


BATCHES = {
    "retrieval": (PairBatch(inputs(), inputs(), torch.eye(2)), 9),
    "captioning": (CaptionBatch(torch.zeros(1), torch.zeros(2), torch.zeros(3), 5), 3),
    "vqa": (VqaBatch(*[torch.zeros(1)] * 3, {"a": torch.zeros(1), "b": torch.zeros(2)}, 4), 5),
}


@pytest.mark.parametrize("engine", BATCHES)
def test_every_tensor_of_every_engines_batch_is_moved_and_recorded(cuda, engine):
    batch, tensors = BATCHES[engine]
    own = feed(cuda, [batch])
    own.wait()
    moved = own.next_batch()
    assert cuda.log.count(("copy", "side")) == tensors
    recorded = {line[1] for line in cuda.log if line[0] == "recorded"}
    ids = []
    map_tensors(moved, lambda tensor: ids.append(id(tensor)))
    assert recorded == set(ids)
    assert len(recorded) == tensors
    assert type(moved) is type(batch)
    assert len(moved) == len(batch), "what is no tensor stays"
    mine = torch.tensor([0.0])
    assert map_tensors(replace(batch), lambda _: mine) is not batch, "and the batch itself too"


def test_evaluation_batches_come_in_order_from_several_threads():
    rows = np.arange(50)
    seen = []
    for num_workers in (0, 3):
        pipeline = InputPipeline(CPU, num_workers)
        found = pipeline.batches(split_rows(rows, 7), lambda part: torch.from_numpy(part) * 2)
        pairs = [(part.tolist(), batch.tolist()) for part, batch in found]
        assert [x for part, _ in pairs for x in part] == rows.tolist()
        assert all([2 * x for x in part] == batch for part, batch in pairs)
        seen.append(pairs)
    assert seen[0] == seen[1]


def test_evaluation_batches_are_made_ahead_and_no_more_than_that():
    made = []
    batches = InputPipeline(CPU, 2).batches(range(40), lambda one: made.append(one) or one)
    assert next(batches)[0] == 0
    deadline = time.monotonic() + 10
    while len(made) < 2 * DEPTH and time.monotonic() < deadline:
        time.sleep(0.01)
    assert 2 * DEPTH <= len(made) <= 2 * DEPTH + 1
    batches.close()


def test_an_error_while_an_evaluation_batch_is_made_reaches_who_asks():
    def gather(one: int) -> torch.Tensor:
        if one == 3:
            raise OSError(5, "the disk is gone")
        return torch.zeros(1)

    for num_workers in (0, 2):
        batches = InputPipeline(CPU, num_workers).batches(range(6), gather)
        with pytest.raises(OSError, match="disk is gone"):
            list(batches)


class OnDevice:
    """A result on the fake GPU: its numbers are there when the compute stream has come so far."""

    def __init__(self, cuda, value: float) -> None:
        self.device, self.shape, self.dtype = GPU, (2,), torch.float32
        self.cuda, self.value = cuda, value


def test_a_result_is_copied_back_while_the_next_one_is_computed(cuda, monkeypatch):
    order = []

    class Host(torch.Tensor):
        def copy_(self, result, non_blocking=False):
            assert non_blocking
            order.append(f"copy {result.value:g}")
            plain = self.as_subclass(torch.Tensor)
            cuda.compute.put(lambda: plain.fill_(result.value))
            return self

        def numpy(self):
            return self.as_subclass(torch.Tensor).numpy()

    def empty(shape, dtype, pin_memory):
        assert pin_memory
        return torch.full(shape, math.nan, dtype=dtype).as_subclass(Host)

    monkeypatch.setattr(torch, "empty", empty)

    def computed():
        for number in range(3):
            order.append(f"compute {number}")
            yield number, OnDevice(cuda, float(number))

    for key, array in prefetch.to_arrays(computed()):
        order.append(f"result {key}")
        assert array.tolist() == [key, key]
    assert order == [
        "compute 0", "copy 0", "compute 1", "copy 1", "result 0", "compute 2", "copy 2",
        "result 1", "result 2",
    ]  # fmt: skip


def test_on_a_cpu_a_result_is_the_tensors_own_memory():
    result = torch.ones(2)
    ((_, array),) = prefetch.to_arrays([(0, result)])
    result[0] = 5
    assert array.tolist() == [5, 1]


@pytest.mark.parametrize(
    ("cores", "ranks", "gpu", "threads"),
    [(1, 1, True, 1), (2, 1, True, 2), (16, 1, True, 8), (16, 4, True, 4), (2, 8, True, 1),
     (16, 1, False, 0)],
)  # fmt: skip
def test_auto_takes_threads_by_device_and_cores(monkeypatch, cores, ranks, gpu, threads):
    monkeypatch.setattr("os.sched_getaffinity", lambda _: range(cores))
    runtime = param_sections.Runtime()
    device = GPU if gpu else CPU
    pipeline = InputPipeline.from_settings(runtime, device, ranks)
    assert (pipeline.num_workers, pipeline.pin) == (threads, gpu)
    assert pipeline.facts == {"num_workers": str(threads), "pin_memory": "true" if gpu else "false"}


@pytest.mark.parametrize("gpu", [True, False])
def test_what_a_user_sets_wins(gpu):
    device = GPU if gpu else CPU
    for num_workers, pin in ((12, False), (0, True), (3, True)):
        pipeline = InputPipeline.from_settings(
            param_sections.Runtime(num_workers=num_workers, pin_memory=pin), device
        )
        assert pipeline.num_workers == num_workers
        assert pipeline.pin == (pin and gpu), "without a GPU there is no page-locked memory"


# -- memory traffic of a step on a CPU -----------------------------------------------------


FAULTS = """
import resource, torch
from engines.torchkit.runtime import device
def step():
    parts = [torch.ones(n, 1 << 20) for n in (10, 12, 9, 3, 1)]
    return sum(float(part[0, 0]) for part in parts)
def faults():
    for _ in range(5):
        step()  # until the heap is as large as a step needs
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    for _ in range(5):
        step()
    return (resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before) // 5
plain = faults()
device.reuse_freed_memory()
print(plain, faults())
"""


def faults_of_a_step(**environment: str) -> tuple[int, int]:
    """Page faults of a step that allocates 140 MB, before and after the call that is tested."""
    done = subprocess.run(
        [sys.executable, "-c", FAULTS], capture_output=True, text=True, check=True,
        env={**os.environ, **environment},
    )  # fmt: skip
    plain, reused = map(int, done.stdout.split())
    return plain, reused


def test_a_step_does_not_fetch_the_same_pages_from_the_kernel_again():
    plain, reused = faults_of_a_step()
    assert plain > 5000, "glibc gives what is freed back"
    assert reused < plain / 50
    _, reused = faults_of_a_step(MALLOC_TRIM_THRESHOLD_="131072")
    assert reused > 5000, "a person's choice"


@pytest.mark.parametrize("shape", [(3, 32, 32, 3), (1, 20, 28, 3), (0, 8, 8, 3)])
def test_pixels_are_bitwise_those_of_the_plain_expression(shape):
    pixels = PixelNormalizer(
        (0.48145466, 0.4578275, 0.40821073), (0.26862954, 0.26130258, 0.27577711)
    )
    images = torch.from_numpy(np.random.default_rng(0).integers(0, 256, shape, np.uint8))
    before = images.clone()
    for _ in range(2):
        plain = ((images.float() - pixels.shift) * pixels.gain).permute(0, 3, 1, 2)
        made = pixels(images)
        assert torch.equal(made, plain)
        assert made.stride() == plain.stride()
    assert torch.equal(images, before)


def test_pixels_need_no_tensor_beside_the_one_they_return():
    pixels, images = (
        PixelNormalizer((0.5,) * 3, (0.5,) * 3),
        torch.zeros(2, 64, 64, 3, dtype=torch.uint8),
    )
    pixels(images)
    with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as seen:
        pixels(images)
    allocated = sum(max(0, event.self_cpu_memory_usage) for event in seen.key_averages())
    assert allocated == images.numel() * 4
