"""Fake training step: memory of a step as `quantize`, `lora` and the training loop do it."""

from __future__ import annotations

import gc
import importlib
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from typing import Any, Final, Literal, Self, TypeVar
from unittest import mock

import torch
from torch import Tensor, nn

from engines.memory_query import MAPPED, STEP, MemoryQuery, Phase
from engines.param_sections import LORA_TARGETS, effective_workers
from engines.protocol import count_ranks
from engines.torchkit.data.data_loader import DEPTH
from engines.torchkit.data.prefetch import AHEAD, map_tensors
from engines.torchkit.memory import allocation_tracker, fake_modules
from engines.torchkit.memory.allocation_tracker import AllocationTracker, Peak
from engines.torchkit.modeling import adapter_copies, lora, rms_norm
from engines.torchkit.modeling.gradient_checkpointing import enable_gradient_checkpointing
from engines.torchkit.modeling.master_weights import WeightCopies
from engines.torchkit.runtime.precision import (
    DTYPES,
    PrecisionName,
    best_precision,
    choose_product_dtype,
)

Batch = TypeVar("Batch")

PACKED: Final = "language model, 4-bit"
WHOLE: Final = "language model"
OTHER: Final = "embeddings, head, norms"
LORA: Final = "LoRA"
COPY: Final = "half-precision copy of the weights"
INPUTS: Final = "inputs"
LOGITS: Final = "logits and loss"
CACHE: Final = "KV cache"
GPU_RUNTIME: Final = 3 << 30
"""Max RSS of the weekly report's whole runs on a GPU: 1.9 to 3.2 GiB."""
FILE_BYTES: Final = 4 * 10**9
"""Files of published weights are 3.5 to 4.0 GB. Mapped, so the kernel may drop what was read."""


@dataclass(frozen=True)
class TrainingOptions:
    """Settings of an engine that decide on the memory of training a (language) model."""

    precision: PrecisionName = "bf16"
    quantize: Literal["nf4", "none"] = "nf4"
    double_quant: bool = True
    lora_rank: int = 16
    lora_alpha: int = 32
    lora_dropout: float = 0.05
    lora_targets: tuple[str, ...] = LORA_TARGETS
    use_dora: bool = False
    gradient_checkpointing: bool = True
    gradient_accumulation_steps: int = 1
    copies: int = 0
    """Averages of the trained weights that are kept: EMA, SWA."""
    target: Literal["cuda", "cpu"] = "cuda"
    ranks: int = 1

    @classmethod
    def from_query(cls, query: MemoryQuery, settings: Mapping[str, Any]) -> Self:
        """From an engine's settings, for the device of the query."""
        options = {key: settings[key] for key in cls.__dataclass_fields__ if key in settings}
        if options.get("precision") == "auto":
            half = "bf16" if query.has_bf16 else "fp16"
            options["precision"] = (
                half if query.target == "cuda" else best_precision(torch.device("cpu"))
            )
        # Several ranks keep gradients between steps, in the buckets in which they are averaged.
        ranks = count_ranks(query.params)
        options["gradient_accumulation_steps"] = max(
            int(options.get("gradient_accumulation_steps", 1)), ranks
        )
        return cls(**options, target=query.target, ranks=ranks)

    @property
    def dtype(self) -> torch.dtype:
        """dtype of weights that are not quantized."""
        return DTYPES[self.precision] if self.target == "cuda" else torch.float32

    @property
    def product_dtype(self) -> torch.dtype:
        """dtype of products with 4-bit weights."""
        return choose_product_dtype(self.precision, self.target)


def describe_precision(query: MemoryQuery, options: TrainingOptions) -> str:
    """The precision in words, with a remedy where the GPU lacks it and a run would be refused."""
    if query.target == "cuda" and options.precision == "bf16" and not query.has_bf16:
        return "bf16, which this GPU lacks; set precision = fp16, which takes as much"
    return options.precision


def estimate_host_memory(
    query: MemoryQuery,
    runtime: int,
    weights: int,
    sample: int,
    phases: Mapping[Phase, Mapping[str, int]],
) -> dict[str, int]:
    """Bytes of host memory by part.

    Args:
        query: The memory query.
        runtime: Of Python and libraries, as measured on a CPU.
        weights: Of the model's files.
        sample: Of one sample as it waits for its batch.
        phases: What the device needs, which without a GPU is the host.
    """
    num_workers = effective_workers(
        query.params.get("num_workers", "auto"), gpu=query.target == "cuda",
        ranks=int(query.params.get("nproc_per_node", 1)),
    )  # fmt: skip
    samples_ahead = max(1, DEPTH * num_workers) * int(query.params["batch"])
    parts = {
        "Python and libraries": GPU_RUNTIME if query.target == "cuda" else runtime,
        "batches prepared ahead": samples_ahead * sample,
    }
    if weights:
        parts[MAPPED] = min(weights, FILE_BYTES)
    if query.target == "cpu":
        parts[STEP] = max(sum(phase.values()) for phase in phases.values())
    return parts


def make_prefetched_batches(
    tracker: AllocationTracker, batch: Batch, options: TrainingOptions
) -> list[Batch]:
    """The prefetched batches on a GPU; to be kept alive during the step. On a CPU none."""
    if options.target != "cuda":
        return []
    with tracker.part(INPUTS):
        return [map_tensors(batch, torch.empty_like) for _ in range(AHEAD)]


def import_libraries(options: TrainingOptions, kind: str, make: Callable[[], object]) -> None:
    """Import the libraries of a fake run outside of fake mode, where importing takes longer.

    Args:
        options: Say whether peft and bitsandbytes are used.
        kind: Of the model; each is made once a process.
        make: Makes a model of the kind, on the meta device, so that its module is imported.
    """
    packages = [*(["peft"] if options.lora_rank else [])]
    packages += ["bitsandbytes"] if options.quantize == "nf4" else []
    if kind in _imported_kinds:
        return
    gc.disable()  # what is imported stays: looking for garbage in it takes a tenth of the time
    try:
        for name in packages:
            with suppress(ImportError):  # whoever needs it says what to install
                importlib.import_module(name)
        with torch.device("meta"):
            make()
        _imported_kinds.add(kind)
    finally:
        gc.enable()


_imported_kinds: set[str] = set()
"""Kinds of models whose modules this process has imported."""


@contextmanager
def fake_mode(options: TrainingOptions) -> Iterator[AllocationTracker]:
    """Context of fake tensors, fused attention and an active allocation tracker."""
    autocast = options.precision != "fp32" and options.target == "cuda"
    rounding = allocation_tracker.CUDA_ROUNDING if options.target == "cuda" else 1
    with ExitStack() as stack:
        stack.enter_context(answer_autocast_for_cpu(autocast))
        stack.enter_context(allocation_tracker.fake_tensors())
        stack.enter_context(fake_modules.fused_attention(options.target))
        stack.enter_context(fake_modules.skip_weight_init())
        if options.use_dora and options.lora_rank:
            stack.enter_context(fake_modules.unpack_for_dora())
        if options.target == "cuda":
            stack.enter_context(fake_modules.fused_rms_norms())
            stack.enter_context(fake_modules.fused_dropout())
        if autocast:
            stack.enter_context(fake_modules.fp32_layer_norms())
        yield stack.enter_context(AllocationTracker(rounding))


def answer_autocast_for_cpu(autocast: bool = True) -> Any:
    """Context in which `torch.is_autocast_enabled()`, which peft calls for CUDA, answers for the
    fake CPU."""
    return mock.patch.object(torch, "is_autocast_enabled", _autocast_answer(autocast))


def _autocast_answer(autocast: bool) -> Callable[..., bool]:
    real = torch.is_autocast_enabled

    def is_autocast_enabled(*device: str) -> bool:
        return real(*device) if device else autocast and real("cpu")

    return is_autocast_enabled


def autocast(options: TrainingOptions) -> torch.autocast:
    """Autocast of the forward pass, on the fake CPU."""
    enabled = options.precision != "fp32"
    return torch.autocast(
        "cpu", DTYPES[options.precision] if enabled else torch.bfloat16, enabled=enabled
    )


def adapt_language_model(language: Any, options: TrainingOptions) -> None:
    """Add 4-bit layers, fused norms, gradient checkpointing and LoRA to a decoder without its head,
    in place."""
    language.requires_grad_(False)
    rms_norm.use_fused_rms_norm(language)
    if options.quantize == "nf4":
        fake_modules.pack_four_bit(
            language, lambda _: True, options.product_dtype, double=options.double_quant
        )
    if options.gradient_checkpointing:
        enable_gradient_checkpointing(
            language, random=False
        )  # fake generators have no state to keep
    if options.lora_rank:
        with _without_moves():
            lora.add_lora(
                language, options.lora_rank, options.lora_alpha, options.lora_dropout,
                options.lora_targets, use_dora=options.use_dora,
            )  # fmt: skip


def _without_moves() -> Any:
    """Context without `Module.to`: peft would move what it adds, which is on the device already."""
    return mock.patch.object(nn.Module, "to", lambda module, *_, **__: module)


def name_parts(model: nn.Module, options: TrainingOptions) -> Callable[[str], str]:
    """Function from the name of a parameter or buffer to its part."""
    packed = {
        name for name, module in model.named_modules() if hasattr(module, "unpacked")
    }  # fmt: skip
    linear = WHOLE if options.quantize == "none" else PACKED

    def name_of(name: str) -> str:
        if ".lora_" in name:
            return LORA
        owner = name.rpartition(".")[0]
        return linear if owner in packed or "_proj." in name else OTHER

    return name_of


def measure_training_step(
    tracker: AllocationTracker,
    model: nn.Module,
    options: TrainingOptions,
    forward: Callable[[], Tensor],
    batch: object,
    weight_copies: WeightCopies[Any] | None = None,
) -> Peak:
    """Peak of a step after the first: moments exist, and gradients if accumulated.

    `batch`: the input of `forward`; prefetched ones are beside it on a GPU. `weight_copies`: of the
    module that `forward` computes with, where `model` only holds master weights. Without any,
    adapters compute with copies, as in a run.
    """
    model.train()
    weight_copies = weight_copies or adapter_copies.copy_adapters(
        model, options.precision, options.ranks
    )
    next_batches = make_prefetched_batches(tracker, batch, options)
    if weight_copies is not None:
        weight_copies.model.train()
        tracker.assign(weight_copies.parameters(), COPY)
        allocation_tracker.track_gradients(tracker, weight_copies.parameters())
    optimizer = allocation_tracker.make_optimizer_with_state(tracker, model)
    averages = allocation_tracker.add_weight_averages(tracker, model, options.copies)
    if options.gradient_accumulation_steps > 1:
        allocation_tracker.add_accumulated_gradients(tracker, model)
    tracker.reset_peak()
    with autocast(options):
        loss = forward()
    with tracker.part(allocation_tracker.BACKWARD):
        loss.backward()  # type: ignore[no-untyped-call]
    del loss
    if weight_copies is not None:
        with tracker.part(allocation_tracker.GRADIENTS):
            weight_copies.collect_gradients()
    with tracker.part(allocation_tracker.OPTIMIZER):
        optimizer.step()
    optimizer.zero_grad(set_to_none=True)
    peak = tracker.peak
    del averages, next_batches
    return peak


class TrackedCache:
    """Makes key-value caches whose tensors are tracked as part `CACHE`."""

    @staticmethod
    def create(tracker: AllocationTracker, config: Any = None) -> Any:
        """An empty cache; `config`: of a decoder with other layers than full attention."""
        from transformers import DynamicCache

        # A class, as a closure in the cache would make it a cycle, which outlives its use.
        class TrackedDynamicCache(DynamicCache):
            def update(self, *args: Any, **kwargs: Any) -> Any:
                with tracker.part(CACHE):
                    return super().update(*args, **kwargs)

        hybrid = len(set(getattr(config, "layer_types", None) or ())) > 1
        return TrackedDynamicCache(config=config) if hybrid else TrackedDynamicCache()
