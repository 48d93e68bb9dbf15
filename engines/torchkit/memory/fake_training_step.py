"""A rehearsal: the stage on which fake modules train one step, and what every engine needs there.

Apart from `ledger`, which only counts, and `stand_ins`, which only replaces: here both are put
around a language model the way `quantize`, `lora` and the loop treat the real one.
"""

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

from engines.memory_query import MAPPED, STEP, Phase, Want
from engines.param_sections import effective_workers
from engines.torchkit.data.data_loader import DEPTH
from engines.torchkit.data.prefetch import AHEAD, map_tensors
from engines.torchkit.memory import allocation_tracker as books
from engines.torchkit.memory import fake_modules
from engines.torchkit.memory.allocation_tracker import Ledger, Peak
from engines.torchkit.modeling import lora, pretrained
from engines.torchkit.modeling.master_weights import Replica
from engines.torchkit.runtime.precision import DTYPES, Name, best, products_of

Batch = TypeVar("Batch")

PACKED: Final = "language model, 4-bit"
WHOLE: Final = "language model"
OTHER: Final = "embeddings, head, norms"
LORA: Final = "LoRA"
COPY: Final = "bf16 copy of the weights"
INPUTS: Final = "inputs"
LOGITS: Final = "logits and loss"
CACHE: Final = "KV cache"
GPU_RUNTIME: Final = 3 << 30
"""Max RSS of the weekly report's whole runs on a GPU: 1.9 to 3.2 GiB."""
FILE_BYTES: Final = 4 * 10**9
"""Files of published weights are 3.5 to 4.0 GB. Mapped, so the kernel may drop what was read."""


@dataclass(frozen=True)
class Tuning:
    """How a language model is trained, as the settings of every engine that has one say it."""

    precision: Name = "bf16"
    quantize: Literal["nf4", "none"] = "nf4"
    double_quant: bool = True
    lora_rank: int = 16
    lora_alpha: int = 32
    lora_dropout: float = 0.05
    lora_targets: tuple[str, ...] = lora.PROJECTIONS
    checkpointing: bool = True
    accumulation: int = 1
    copies: int = 0
    """Averages of the trained weights that are kept: EMA, SWA."""
    target: Literal["cuda", "cpu"] = "cuda"

    @classmethod
    def of(cls, want: Want, settings: Mapping[str, Any]) -> Self:
        """As an engine's settings say it on the device that is asked about."""
        named = {key: settings[key] for key in cls.__dataclass_fields__ if key in settings}
        if named.get("precision") == "auto":
            half = "bf16" if want.has_bf16 else "fp16"
            named["precision"] = half if want.target == "cuda" else best(torch.device("cpu"))
        # Several ranks keep gradients between steps, in the buckets in which they are averaged.
        ranks = int(want.params.get("nproc_per_node", 1))
        named["accumulation"] = max(int(named.get("accumulation", 1)), ranks)
        return cls(**named, target=want.target)

    @property
    def dtype(self) -> torch.dtype:
        """Of whole weights."""
        return DTYPES[self.precision] if self.target == "cuda" else torch.float32

    @property
    def products(self) -> torch.dtype:
        """Of products with 4-bit weights."""
        return products_of(self.precision, self.target)


def precision_said(want: Want, tuning: Tuning) -> str:
    """The precision, and that the GPU lacks it, where a run would be refused."""
    if want.target == "cuda" and tuning.precision == "bf16" and not want.has_bf16:
        return "bf16, which this GPU lacks; set precision = fp16, which takes as much"
    return tuning.precision


def host(
    want: Want, runtime: int, weights: int, sample: int, phases: Mapping[Phase, Mapping[str, int]]
) -> dict[str, int]:
    """Bytes of host memory by part.

    Args:
        want: The question.
        runtime: Of Python and libraries, as measured on a CPU.
        weights: Of the model's files.
        sample: Of one sample as it waits for its batch.
        phases: What the device needs, which without a GPU is the host.
    """
    workers = effective_workers(
        want.params.get("workers", "auto"), gpu=want.target == "cuda",
        ranks=int(want.params.get("nproc_per_node", 1)),
    )  # fmt: skip
    ahead = max(1, DEPTH * workers) * int(want.params["batch"])
    parts = {
        "Python and libraries": GPU_RUNTIME if want.target == "cuda" else runtime,
        "batches prepared ahead": ahead * sample,
    }
    if weights:
        parts[MAPPED] = min(weights, FILE_BYTES)
    if want.target == "cpu":
        parts[STEP] = max(sum(phase.values()) for phase in phases.values())
    return parts


def copied_ahead(ledger: Ledger, batch: Batch, tuning: Tuning) -> list[Batch]:
    """The batches that lie on a GPU beside the one that is computed; to be kept for the step."""
    if tuning.target != "cuda":
        return []
    with ledger.part(INPUTS):
        return [map_tensors(batch, torch.empty_like) for _ in range(AHEAD)]


def load_libraries(tuning: Tuning, kind: str, make: Callable[[], object]) -> None:
    """Import what a rehearsal uses while tensors are still real: under fake ones it takes longer.

    Args:
        tuning: Says whether peft and bitsandbytes are used.
        kind: Of the model; each is made once a process.
        make: Makes a model of the kind, on the meta device, so that its module is imported.
    """
    wanted = [*(["peft"] if tuning.lora_rank else [])]
    wanted += ["bitsandbytes"] if tuning.quantize == "nf4" else []
    if kind in _made:
        return
    gc.disable()  # what is imported stays: looking for garbage in it takes a tenth of the time
    try:
        for name in wanted:
            with suppress(ImportError):  # whoever needs it says what to install
                importlib.import_module(name)
        with torch.device("meta"):
            make()
        _made.add(kind)
    finally:
        gc.enable()


_made: set[str] = set()
"""Kinds of models whose modules this process has imported."""


@contextmanager
def stage(tuning: Tuning) -> Iterator[Ledger]:
    """Fake tensors, fused attention and an open ledger, for the time of the context."""
    autocast = tuning.precision != "fp32" and tuning.target == "cuda"
    rounding = books.CUDA_ROUNDING if tuning.target == "cuda" else 1
    with ExitStack() as stack:
        stack.enter_context(asked_of_cpu(autocast))
        stack.enter_context(books.faked())
        stack.enter_context(fake_modules.fused_attention(tuning.target))
        stack.enter_context(fake_modules.undrawn())
        if autocast:
            stack.enter_context(fake_modules.whole_norms())
        yield stack.enter_context(Ledger(rounding))


def asked_of_cpu(autocast: bool = True) -> Any:
    """A context in which a fake CPU stands for the GPU whose autocast peft asks for, by its old
    name."""
    return mock.patch.object(torch, "is_autocast_enabled", _answer(autocast))


def _answer(autocast: bool) -> Callable[..., bool]:
    real = torch.is_autocast_enabled

    def is_autocast_enabled(*device: str) -> bool:
        return real(*device) if device else autocast and real("cpu")

    return is_autocast_enabled


def autocast(tuning: Tuning) -> torch.autocast:
    """The forward pass's context, on the fake CPU."""
    on = tuning.precision != "fp32"
    return torch.autocast("cpu", DTYPES[tuning.precision] if on else torch.bfloat16, enabled=on)


def adapt(language: Any, tuning: Tuning) -> None:
    """4-bit linear layers, checkpointing and LoRA, in place, on a decoder without its head."""
    language.requires_grad_(False)
    if tuning.quantize == "nf4":
        fake_modules.pack(language, lambda _: True, tuning.products, double=tuning.double_quant)
    if tuning.checkpointing:
        pretrained.recompute(language, random=False)  # fake generators have no state to keep
    if tuning.lora_rank:
        with _unmoved():
            lora.attach(
                language, tuning.lora_rank, tuning.lora_alpha, tuning.lora_dropout,
                tuning.lora_targets,
            )  # fmt: skip


def _unmoved() -> Any:
    """peft moves what it adds to the base's device, and to fp32 in the end; it is there already."""
    return mock.patch.object(nn.Module, "to", lambda module, *_, **__: module)


def part_of(model: nn.Module, tuning: Tuning) -> Callable[[str], str]:
    """Which part a parameter or buffer of a model belongs to, by its name."""
    packed = {
        name for name, module in model.named_modules() if hasattr(module, "unpacked")
    }  # fmt: skip
    linear = WHOLE if tuning.quantize == "none" else PACKED

    def name_of(name: str) -> str:
        if ".lora_A." in name or ".lora_B." in name:
            return LORA
        owner = name.rpartition(".")[0]
        return linear if owner in packed or "_proj." in name else OTHER

    return name_of


def training(
    ledger: Ledger,
    model: nn.Module,
    tuning: Tuning,
    forward: Callable[[], Tensor],
    batch: object,
    replica: Replica[Any] | None = None,
) -> Peak:
    """The peak of a step that is not the first: moments exist, and gradients if accumulated.

    `batch` is what `forward` computes; the following ones lie beside it on a GPU. `replica`: what
    `forward` computes with, where `model` only keeps the weights that learn.
    """
    model.train()
    following = copied_ahead(ledger, batch, tuning)
    if replica is not None:
        replica.model.train()
        ledger.move(replica.parameters(), COPY)
        books.book_gradients(ledger, replica.parameters())
    optimizer = books.optimizer_with_state(ledger, model)
    kept = books.averages(ledger, model, tuning.copies)
    if tuning.accumulation > 1:
        books.gradients(ledger, model)
    ledger.forget_peak()
    with autocast(tuning):
        loss = forward()
    with ledger.part(books.BACKWARD):
        loss.backward()  # type: ignore[no-untyped-call]
    del loss
    if replica is not None:
        with ledger.part(books.GRADIENTS):
            replica.collect()
    with ledger.part(books.OPTIMIZER):
        optimizer.step()
    optimizer.zero_grad(set_to_none=True)
    peak = ledger.peak
    del kept, following
    return peak


def drop(model: nn.Module) -> None:
    """Give a model's tensors back at once: modules hold each other until the next collection."""
    for module in model.modules():
        module._parameters.clear()
        module._buffers.clear()


class BookedCache:
    """Makes the key-value cache of a prediction, whose tensors are booked as what they are."""

    @staticmethod
    def of(ledger: Ledger) -> Any:
        """An empty cache."""
        from transformers import DynamicCache

        # A class, as a closure in the cache would make it a cycle, which outlives its use.
        class Booked(DynamicCache):
            def update(self, *args: Any, **kwargs: Any) -> Any:
                with ledger.part(CACHE):
                    return super().update(*args, **kwargs)

        return Booked()
