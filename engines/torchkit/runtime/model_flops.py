"""FLOPs of training steps: the model's, and those that were computed; MFU and HFU.

Products are counted in real steps of the timing warm-up, with the formulas of torch's flop counter:
the batches' own shapes, 2 FLOPs a multiplication with its addition. From the forward pass follow
the model's FLOPs (`CONVENTION`): each factor of a product that needs a gradient costs the product
once more, so a trained weight counts 6 a parameter and token, a frozen one 4 if it is
differentiated through, else 2; causal attention counts half. The computed FLOPs are those of both
passes as they ran, with what gradient checkpointing computes again.
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass
from typing import Any, Final

import torch
from torch import Tensor
from torch.autograd.graph import saved_tensors_hooks
from torch.utils._python_dispatch import TorchDispatchMode

from engines import messages
from engines.torchkit.runtime import gpu_peaks
from engines.torchkit.runtime.matmul_precision import uses_tf32
from results.records.schema import Reading

CONVENTION: Final = "model FLOPs 1"
"""Name and number of the convention in docs/measuring.md."""
MOST_STEPS: Final = 8
"""Steps that are counted at most, of the first half of the timing warm-up."""
NO_WARMUP: Final = "no step of the timing warm-up to count products in; set timing_warmup_steps = 2"
COMPILED: Final = "torch.compile hides what is computed again"
NO_TOKENS: Final = "the model has no language model"
NOT_TRAINED: Final = "no step was done"
RESUMED: Final = "the run was resumed after the steps in which products are counted"

KERNEL_SHARE: Final = 4 / 5
"""Of torch's count for an attention kernel's backward pass: without the scores that the kernel
computes again, as the unfused backward pass has them."""
KNOWN_NAMESPACES: Final = (
    "aten", "prim", "prims", "c10d", "_c10d_functional", "profiler", "torchvision",
)  # fmt: skip
FOUR_BIT: Final = ("bitsandbytes::gemm_4bit", "bitsandbytes::gemv_4bit")
"""Products of bitsandbytes from 0.50 on; earlier it calls torch's with unpacked weights."""
UNCOUNTED: Final = ("aten::_grouped_mm",)
NO_PRODUCTS: Final = ("quantize", "dequantize")
"""Words in the names of other libraries' operations that multiply no matrices."""


class ProductCounter(TorchDispatchMode):  # type: ignore[no-untyped-call]  # torch
    """FLOPs of the products computed while it is active. It never raises in place of a step."""

    supports_higher_order_operators = True

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]  # torch
        from torch.utils.flop_counter import flop_registry  # loads Triton

        self._formulas = flop_registry
        self.model: defaultdict[str, float] = defaultdict(float)
        """The model's FLOPs by dtype, such as `bfloat16`."""
        self.computed = 0.0
        self.uncounted: set[str] = set()
        """Operations whose FLOPs are unknown."""
        self.is_backward = False

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Any = None
    ) -> Any:
        """Run the operation and count it."""
        kwargs = kwargs or {}
        formula = self._formulas.get(getattr(func, "_overloadpacket", func))
        name = func.name().partition(".")[0]
        if name in FOUR_BIT:
            formula = count_four_bit
        if formula is None and isinstance(func, torch._ops.OpOverload):
            with self:
                output = func.decompose(*args, **kwargs)
            if output is not NotImplemented:
                return output
        output = func(*args, **kwargs)
        if formula is not None:
            try:
                self._count(func, args, kwargs, formula(*args, **kwargs, out_val=output))
            except Exception:  # a formula that does not know these shapes must not end the run
                self.uncounted.add(name)
        elif may_multiply(name):
            self.uncounted.add(name)
        return output

    def _count(self, func: Any, args: Any, kwargs: Any, flops: float) -> None:
        name = func.name().partition("::")[2]
        if name.startswith("convolution_backward"):
            flops = count_convolution_backward(_bind(func, args, kwargs))
        fused = name.startswith("_scaled_dot_product")
        if fused:
            arguments = _bind(func, args, kwargs)
            halved = flops / 2 if arguments.get("is_causal") else flops
            self.computed += halved * (KERNEL_SHARE if "_backward" in name else 1)
        else:
            self.computed += flops
        if self.is_backward:
            return
        if fused:
            factor, flops = arguments["query"], count_attention(arguments)
        else:
            tensors = [arg for arg in args if isinstance(arg, Tensor)]
            factors = tensors[1:3] if name.startswith(("addmm", "baddbmm")) else tensors[:2]
            factor, flops = factors[0], flops * (1 + sum(f.requires_grad for f in factors))
        self.model[str(factor.dtype).removeprefix("torch.")] += flops


def _bind(func: Any, args: Any, kwargs: Any) -> dict[str, Any]:
    """Arguments of an operation by their names."""
    names = (argument.name for argument in func._schema.arguments)
    return {**dict(zip(names, args, strict=False)), **kwargs}


def count_four_bit(inputs: Tensor, *_: Any, out_val: Tensor, **__: Any) -> float:
    """FLOPs of a product with 4-bit weights in one operation: [..., K] -> [..., N]."""
    return 2.0 * out_val.numel() * inputs.shape[-1]


def count_convolution_backward(arguments: Mapping[str, Any]) -> float:
    """FLOPs of a convolution's backward pass, by its arguments.

    torch's formula (2.15) counts the weight's gradient of grouped convolutions a multiple of times.
    """
    outer = arguments["input"] if arguments["transposed"] else arguments["grad_output"]
    forward = (
        2.0 * outer.shape[0] * math.prod(outer.shape[2:]) * math.prod(arguments["weight"].shape)
    )
    return float(forward * sum(arguments["output_mask"][:2]))


def count_attention(arguments: Mapping[str, Any]) -> float:
    """The model's FLOPs of fused attention, by its arguments: [..., H, L, E] and [..., S, E].

    Half where it is causal: by the argument, or by a mask that hides all later positions.
    """
    query: Tensor = arguments["query"]
    key: Tensor = arguments["key"]
    value: Tensor = arguments["value"]
    pairs = math.prod(query.shape[:-1]) * key.shape[-2]
    scores, sums = 2.0 * pairs * query.shape[-1], 2.0 * pairs * value.shape[-1]
    scores *= 1 + query.requires_grad + key.requires_grad
    sums *= 1 + (query.requires_grad or key.requires_grad) + value.requires_grad
    mask = arguments.get("attn_mask", arguments.get("attn_bias"))
    return (scores + sums) / (2 if arguments.get("is_causal") or hides_later(mask) else 1)


def hides_later(mask: Tensor | None) -> bool:
    """Whether an attention mask [..., L, L], bool or added, hides every later position."""
    if mask is None or mask.ndim < 2 or mask.shape[-2] != mask.shape[-1] or mask.shape[-1] < 2:
        return False
    is_open = mask if mask.dtype == torch.bool else mask > torch.finfo(mask.dtype).min / 2
    return not bool(is_open.triu(1).any())


def may_multiply(name: str) -> bool:
    """Whether an operation without a formula, `aten::mm`, may multiply matrices."""
    namespace, _, operation = name.partition("::")
    if namespace in KNOWN_NAMESPACES:
        return name in UNCOUNTED
    return not any(word in operation for word in NO_PRODUCTS)


@dataclass
class _Sums:
    """Sums over the counted micro-batches."""

    steps: int = 0
    samples: int = 0


class WorkMeter:
    """Counts FLOPs in the first steps of a training, and the tokens of all of them."""

    def __init__(self, device: torch.device, warmup_steps: int, ranks: int = 1) -> None:
        """`warmup_steps`: of the timing warm-up; `ranks`: that share the samples of a step."""
        self._device = device
        self._ranks = ranks
        self._steps = min(MOST_STEPS, -(-warmup_steps // 2))
        self._counter = ProductCounter()
        self._sums = _Sums()
        self._step = 0
        self._is_compiled = False
        self._tokens: Tensor | int = 0
        self._token_samples = 0

    @property
    def is_counting(self) -> bool:
        """Whether the products of the next step are counted."""
        return not self._is_compiled and self._step < self._steps

    def forward(self) -> AbstractContextManager[Any]:
        """Context of a forward pass."""
        return self._counting(is_backward=False) if self.is_counting else nullcontext()

    def backward(self) -> AbstractContextManager[Any]:
        """Context of a backward pass."""
        return self._counting(is_backward=True) if self.is_counting else nullcontext()

    def add(self, samples: int, tokens: Tensor | None) -> None:
        """Add a micro-batch. `tokens` (0-d): of its sequences, without padding; None: none."""
        self._sums.samples += samples if self.is_counting else 0
        if tokens is not None:
            self._tokens = self._tokens + tokens.detach()
            self._token_samples += samples

    def begin(self, start: int) -> None:
        """Begin after step `start`.

        The counted steps are the first ones of a training, also of a resumed one: under a dispatch
        mode torch composes some functions otherwise, which changes the last bits of a step.
        """
        self._step = start

    def end_step(self) -> None:
        """End a step."""
        self._sums.steps += self.is_counting
        self._step += 1

    def count_compiled(self, forward: Callable[[], int]) -> None:
        """Count a forward pass ahead, as compiled code hides its products.

        `forward` computes a micro-batch and returns its samples. It runs uncompiled and keeps
        nothing for a backward pass, so it takes less memory than a step.
        """
        if not self._steps:
            return
        self._step = 0
        with (
            torch.compiler.set_stance("force_eager"),
            saved_tensors_hooks(lambda _: None, _refuse),
            self.forward(),
        ):
            self._sums.samples += forward()
        self._sums.steps, self._is_compiled = 1, True

    @contextmanager
    def _counting(self, *, is_backward: bool) -> Iterator[None]:
        self._counter.is_backward = is_backward
        with self._counter:
            yield

    def complete(self, timing: messages.Timing) -> messages.Timing:
        """The timing with FLOPs a sample, tokens a second, MFU and HFU, or reasons."""
        speed = timing.samples_per_second
        untimed = timing.reasons.get("samples_per_second") or "not timed"
        missing = untimed if speed is None else ""
        values = {
            "tokens_per_second": self._read_tokens(speed, missing),
            **self._read_flops(speed, missing),
        }
        return timing.model_copy(update={
            **{name: reading.value for name, reading in values.items()},
            "reasons": timing.reasons
            | {name: reading.reason for name, reading in values.items() if reading.reason},
            "methods": timing.methods
            | {name: reading.method for name, reading in values.items() if reading.method},
        })  # fmt: skip

    def _read_tokens(self, speed: float | None, missing: str) -> Reading:
        if not self._token_samples:
            return Reading(reason=NO_TOKENS)
        if speed is None:
            return Reading(reason=missing)
        tokens = float(self._tokens) / self._token_samples
        return Reading(value=speed * tokens, method="padding left out")

    def _read_flops(self, speed: float | None, missing: str) -> dict[str, Reading]:
        names = ("model_flops_per_sample", "mfu", "hfu")
        if not self._sums.samples or not self._counter.model:
            reason = NO_WARMUP if not self._steps else NOT_TRAINED
            if self._steps and self._step > self._sums.steps:
                reason = RESUMED
            return dict.fromkeys(names, Reading(reason=reason))
        # A rank computes its share of the samples of all.
        per_sample = self._ranks / self._sums.samples
        model = sum(self._counter.model.values()) * per_sample
        method = self._method()
        readings = {"model_flops_per_sample": Reading(value=model, method=method)}
        dtype, peak = self._find_peak()
        if speed is None or peak.reason:
            reason = peak.reason or missing
            return readings | dict.fromkeys(names[1:], Reading(reason=reason))
        method = f"{method}; {peak.describe(dtype)}"
        available = self._ranks * peak.flops / speed
        readings["mfu"] = Reading(value=model / available, method=method)
        computed = self._counter.computed * per_sample / available
        hfu = Reading(value=computed, method=method)
        return readings | {"hfu": Reading(reason=COMPILED) if self._is_compiled else hfu}

    def _method(self) -> str:
        counted = f"{CONVENTION}, {self._sums.steps} steps counted"
        unknown = ", ".join(sorted(self._counter.uncounted))
        return f"{counted}, without {unknown}" if unknown else counted

    def _find_peak(self) -> tuple[str, gpu_peaks.Peak]:
        """The dtype of most products, and its peak on the device."""
        name = max(self._counter.model, key=lambda dtype: self._counter.model[dtype])
        tf32 = name == "float32" and uses_tf32(self._device)
        dtype = "tf32" if tf32 else gpu_peaks.DTYPES.get(name, name)
        return dtype, gpu_peaks.find_peak(gpu_peaks.read_card_name(self._device), dtype)


def _refuse(_: Any) -> Tensor:
    raise RuntimeError("this forward pass has no backward pass")
