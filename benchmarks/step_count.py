"""Counts of one training step on fake tensors: kernels, casts, synchronizations, bytes copied.

The framework of `step_budget.py`; nothing here knows an engine. A case hands over the `Training`
that the engine assembles, and `loop.train` itself runs one step of it under a dispatch mode.

Two passes, because torch's autograd engine refuses a CUDA device that is not there:
  cpu     the whole step on a fake CPU, with stand-ins for what CUDA's autocast does otherwise
  cuda    transfer and forward on fake CUDA tensors, with CUDA's own autocast
Both count the same forward; a test holds that, and so that the stand-ins are right.

A kernel here is an operation that computes. Most are one launch on a GPU; a backward of attention
or of an embedding is a few, so the true number is a little higher. An operation over a list of
tensors counts the launches of torch's multi_tensor_apply.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from functools import partial
from typing import Any, Final
from unittest import mock

import torch
from torch import Tensor
from torch.nn import functional
from torch.nn.utils import clip_grad
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from engines import messages
from engines.emitter import Emitter
from engines.torchkit.data.data_loader import PendingBatch, make_ahead
from engines.torchkit.memory import allocation_tracker, fake_modules, fake_training_step
from engines.torchkit.memory.fake_training_step import TrainingOptions
from engines.torchkit.training import loop
from engines.torchkit.training.step_timing import TimingSummary

PARTS: Final = ("transfer", "forward", "backward", "optimizer")
CHUNK: Final = 65_536
BLOCKS: Final = 320
TENSORS: Final = (110, 64, 48, 36, 30)
"""Elements of a block, blocks of a launch, and tensors of a launch by the number of lists, of
multi_tensor_apply (MultiTensorApply.cuh)."""

NO_KERNEL: Final = ("aten.empty", "aten.new_empty", "aten.detach", "aten.lift", "prim.device")
CASTS: Final = ("aten._to_copy", "aten.copy_", "aten._foreach_copy_")
WAITS: Final = (
    "aten._local_scalar_dense", "aten.nonzero", "aten.masked_select", "aten.equal", "aten._unique",
    "aten.unique", "aten.bincount",
)  # fmt: skip
"""Operations whose result the host waits for."""


@dataclass
class Counts:
    """Of one part of a step."""

    kernels: int = 0
    casts: int = 0
    waits: int = 0
    bytes_to_device: int = 0
    by_name: Counter[str] = field(default_factory=Counter)


class Meter(TorchDispatchMode):  # type: ignore[no-untyped-call]  # torch
    """Counts operations, and stands in for `step_timing.StepTimer`: `end_part` begins the next."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]  # torch
        self.parts = {name: Counts() for name in PARTS}
        self.part = ""
        self.running = False
        self.warmup_steps = self.warmup_until = self.skipped_in_a_row = 0

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Any = None
    ) -> Any:
        """Run the operation and count it."""
        kwargs = kwargs or {}
        name = str(func).rpartition(".")[0]
        counts = self.parts.get(self.part)
        if name == "aten._local_scalar_dense":  # fake tensors have no numbers
            if counts is not None:
                counts.waits += 1
            return 1 if args[0].dtype != torch.bool else True
        result = func(*args, **kwargs)
        if counts is not None:
            count(counts, func, name, args, kwargs, result)
        return result

    def open(self) -> None:
        """A window begins."""
        self.running, self.part = True, ""

    def end_part(self, name: str) -> None:
        """The part called `name` ends."""
        order = ("data_wait", *PARTS)
        following = order.index(name) + 1
        self.part = order[following] if following < len(order) else ""

    def end_step(self, *_: Any) -> None:
        """A step ends."""

    def is_due(self, _step: int, *, first: bool) -> bool:
        """A window is one step."""
        return first

    def close(self, step: int, lr: float) -> messages.Step:
        """A window without figures. After the first step counting starts: it made the moments."""
        self.running = False
        if step == 1:
            self.parts = {name: Counts() for name in PARTS}
        return messages.Step(step=step, count=1, samples=1, epoch=0, warmup=False, seconds=1,
                             step_seconds=(1.0,), loss=0.0, lr=lr)  # fmt: skip


def count(
    counts: Counts, func: Any, name: str, args: tuple[Any, ...], kwargs: dict[str, Any], result: Any
) -> None:
    """Add one operation that has run."""
    inputs = [leaf for leaf in tree_leaves((args, kwargs)) if isinstance(leaf, Tensor)]
    outputs = [leaf for leaf in tree_leaves(result) if isinstance(leaf, Tensor)]
    if not is_kernel(func, name, inputs, outputs):
        return
    launches = launches_of(name, args)
    counts.kernels += launches
    counts.by_name[name] += launches
    if name in CASTS:
        target = args[0] if func._schema.is_mutable else outputs
        source = args[1] if func._schema.is_mutable else inputs
        count_copy(counts, tensors(source), tensors(target), launches, kwargs)
    elif name in WAITS or is_mask(name, args):
        counts.waits += 1


def count_copy(
    counts: Counts, source: list[Tensor], target: list[Tensor], launches: int, kwargs: Any
) -> None:
    """Add a copy: a cast where the type changes, bytes and waits where the device does."""
    before, after = source[0], target[0]
    if before.dtype != after.dtype:
        counts.casts += launches
    if before.device.type != after.device.type:
        if after.device.type == "cuda":
            counts.bytes_to_device += sum(t.numel() * t.element_size() for t in target)
        if after.device.type == "cpu" or not kwargs.get("non_blocking"):
            counts.waits += 1


def tensors(value: Any) -> list[Tensor]:
    """All tensors in a nest of lists."""
    return [leaf for leaf in tree_leaves(value) if isinstance(leaf, Tensor)]


def is_kernel(func: Any, name: str, inputs: list[Tensor], outputs: list[Tensor]) -> bool:
    """Whether an operation computes: not a view, and not an allocation."""
    if name.startswith(NO_KERNEL):
        return False
    if func._schema.is_mutable:
        return bool(inputs)
    storages = {tensor.untyped_storage()._cdata for tensor in inputs}
    return bool(outputs) and not any(t.untyped_storage()._cdata in storages for t in outputs)


def is_mask(name: str, args: tuple[Any, ...]) -> bool:
    """Whether an index holds booleans: their number has to be known on the host."""
    if name not in ("aten.index", "aten.index_put", "aten.index_put_"):
        return False
    return any(t.dtype in (torch.bool, torch.uint8) for t in tensors(args[1]))


def launches_of(name: str, args: tuple[Any, ...]) -> int:
    """Kernels of an operation; of one over a list, those of multi_tensor_apply at least."""
    if not (name.startswith(("aten._foreach", "aten._fused")) and isinstance(args[0], list)):
        return 1
    blocks = sum(-(-tensor.numel() // CHUNK) for tensor in args[0])
    lists = sum(isinstance(arg, list) and bool(tensors(arg)) for arg in args)
    lists -= name.startswith("aten._fused")  # the counters of steps travel with the tensors
    most = TENSORS[min(lists, len(TENSORS)) - 1]
    return max(1, -(-blocks // BLOCKS), -(-len(args[0]) // most))


class OneBatch:
    """A loader of one batch."""

    def __init__(self, order: Any, batches: list[Any]) -> None:
        self.order, self._batches = order, batches

    def batches(self, start: int, end: int) -> Iterator[PendingBatch[Any]]:
        """The same micro-batches in every step."""
        steps = (batch for _ in range(start, end) for batch in self._batches)
        return make_ahead((partial(_identity, batch) for batch in steps), None, 0)


def _identity(batch: Any) -> Any:
    return batch


@dataclass(frozen=True)
class Step:
    """What a case hands over: the engine's own job, and its micro-batches in host memory."""

    job: loop.TrainingJob[Any]
    batches: list[Any]


@dataclass(frozen=True)
class Case:
    """One training step to count. `make(device)` is called among fake tensors."""

    name: str
    about: str
    make: Callable[[torch.device], Step]
    options: TrainingOptions


def whole_step(case: Case, meter: Meter | None = None) -> dict[str, Counts]:
    """Counts by part of a step that is not the first, on a fake CPU that stands for the GPU."""
    with staged(case.options), one_kernel_attention():
        step = case.make(torch.device("cpu"))
        job, emit = step.job, Emitter()
        job.loader = OneBatch(job.loader.order, step.batches)  # type: ignore[assignment]
        job.stop_at, job.checkpoint_root = 2, None
        meter = meter or Meter()
        with meter:
            loop.train(job, meter, TimingSummary(2, 0), emit)  # type: ignore[arg-type]
    return meter.parts


def forward_on_cuda(case: Case) -> dict[str, Counts]:
    """Counts of transfer and forward on fake CUDA tensors, with CUDA's autocast.

    Of a step that is not the first, in which constants are copied to the device.
    """
    with staged(case.options, norms=False), one_kernel_attention(), seen_gpu():
        step = case.make(torch.device("cuda", 0))
        step.job.model.train()
        meter = Meter()
        autocast = step.job.precision.autocast()
        step.job.transfer(step.batches[0])
        with meter:
            for host in step.batches:
                meter.part = "transfer"
                batch = step.job.transfer(host)
                meter.part = "forward"
                with autocast:
                    step.job.forward(batch)
            meter.part = ""
    return {name: meter.parts[name] for name in ("transfer", "forward")}


@contextmanager
def staged(options: TrainingOptions, *, norms: bool = True) -> Iterator[None]:
    """`fake_training_step.fake_mode` without its tracker; its LayerNorm may stay as it is."""
    with ExitStack() as stack:
        stack.enter_context(allocation_tracker.fake_tensors())
        stack.enter_context(fake_modules.skip_weight_init())
        # Gradients on a GPU are clipped by operations over lists; a fake CPU stands for one.
        listed = mock.patch.object(clip_grad, "_has_foreach_support", return_value=True)
        stack.enter_context(listed)
        if norms and options.precision != "fp32":
            stack.enter_context(fake_modules.fp32_layer_norms())
            stack.enter_context(fake_modules.fused_rms_norms())
            stack.enter_context(fake_modules.fused_dropout())
            stack.enter_context(fake_training_step.answer_autocast_for_cpu())
        yield


@contextmanager
def seen_gpu() -> Iterator[None]:
    """torch says that there is a GPU with bf16."""
    answers = {
        "is_available": True, "is_bf16_supported": True, "device_count": 1,
        "get_device_capability": (9, 0),
    }  # fmt: skip
    with ExitStack() as stack:
        for name, answer in answers.items():
            stack.enter_context(mock.patch.object(torch.cuda, name, return_value=answer))
        yield


def one_kernel_attention() -> Any:
    """A context in which attention is one operation, as torch's fused kernels are."""

    def attention(q: Tensor, k: Tensor, v: Tensor, *args: Any, **named: Any) -> Tensor:
        kind = q.device.type
        if torch.is_autocast_enabled(kind):
            q, k, v = (t.to(torch.get_autocast_dtype(kind)) for t in (q, k, v))
        causal = bool(named.get("is_causal", args[2] if len(args) > 2 else False))
        ops = torch.ops.aten
        fused = (
            ops._scaled_dot_product_flash_attention
            if kind == "cuda"
            else ops._scaled_dot_product_flash_attention_for_cpu
        )
        output: Tensor = fused(q, k, v, 0.0, causal)[0]
        return output

    return mock.patch.object(functional, "scaled_dot_product_attention", attention)
