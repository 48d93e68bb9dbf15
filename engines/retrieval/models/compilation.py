"""torch.compile for a dual encoder: compiled shapes, and eager execution of all others.

Everything is compiled before the first step, in the phase `compile`, with real batches of the run:
one for each combination of text lengths that its full batches will have. Afterwards nothing is
compiled: any other shape (the short batch at the end of an epoch, a remainder of GradCache,
evaluation) runs the same functions eagerly, since compiling takes longer than it saves.

Shapes are few because texts are padded to multiples of TEXT_MULTIPLE. Where items may lack a text
or an image their numbers differ from batch to batch: then sizes are left open (`dynamic`), and one
compilation serves all batches.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from functools import partial
from typing import Any, Final

import torch
from torch import Tensor

from engines.emitter import Emitter, EngineError
from engines.retrieval.context import Context
from engines.retrieval.data.items import Rows
from engines.retrieval.data.pairs import PairBatch, PairCollator
from engines.retrieval.models import master_weights
from engines.retrieval.models.encoder import DualEncoder
from engines.retrieval.params import Params
from engines.torchkit.data.data_loader import EpochPermutation
from engines.torchkit.runtime.device import preserved_state
from engines.torchkit.training import loop

TEXT_MULTIPLE: Final = 16
"""77 tokens are 5 lengths: 16, 32, 48, 64 and 77 itself."""

RECOMPILE_LIMIT: Final = 64
"""Compilations of one function. torch's 8 are for all towers together, as they share their code;
beyond it everything runs uncompiled, with a line in the log. 512 tokens are 32 lengths."""

GRAPH_CALLS: Final = 3
"""Of a shape before it is a CUDA graph: one warms up, one records, one shows that it replays."""


@dataclass
class TowerCompiler:
    """Calls functions of a tower, compiled for known shapes and eagerly for others."""

    dynamic: bool = False
    """Whether sizes are left open, for one compilation of all shapes."""
    graphs: bool = False
    backend: str = "inductor"
    compiles_new_shapes: bool = False
    """Whether unknown shapes are compiled and become known."""
    shapes: set[tuple[Any, ...]] = field(default_factory=set)
    _compiled: dict[tuple[Any, ...], Callable[..., Any]] = field(default_factory=dict)

    def __call__(self, function: Callable[..., Any], rows: Tensor, *fixed: Any) -> Any:
        """`function(*fixed, rows)`; one compiled function for each `fixed`."""
        name = (function.__name__, *map(_identity, fixed))
        key = (*name, *self._shape(rows), torch.is_grad_enabled())
        if key not in self.shapes:
            # With open sizes torch compiles size 1 separately.
            if not self.compiles_new_shapes or (self.dynamic and len(rows) < 2):
                return function(*fixed, rows)
            self.shapes.add(key)
        if name not in self._compiled:
            self._compiled[name] = torch.compile(
                lambda rows: function(*fixed, rows),
                dynamic=self.dynamic,
                backend=self.backend,
                mode="reduce-overhead" if self.graphs else None,
            )
        return self._compiled[name](rows)

    def _shape(self, rows: Tensor) -> tuple[Any, ...]:
        if not self.dynamic:
            return tuple(rows.shape)
        return ("open" if len(rows) > 1 else len(rows), rows.ndim)


def _identity(value: Any) -> Any:
    return value if isinstance(value, tuple) else id(value)


def make_compiler(
    params: Params, device: torch.device, emit: Emitter, *, uniform: bool
) -> TowerCompiler:
    """Compiler by the settings. `uniform`: all items of a side have the same modalities.

    Raises:
        EngineError: CUDA graphs without compiling, or with what needs their memory for longer.
    """
    graphs = params.cuda_graphs
    if not params.compile:
        raise EngineError(
            "cuda_graphs = true: graphs are made of compiled towers; set compile = true"
        )
    if graphs and (params.grad_cache_chunk or params.gradient_accumulation_steps > 1):
        name = "grad_cache_chunk" if params.grad_cache_chunk else "gradient_accumulation_steps"
        raise EngineError(
            f"cuda_graphs = true with {name} = {getattr(params, name)}: the next replay of a graph "
            "overwrites what the step still needs; set cuda_graphs = false"
        )
    if graphs and (device.type != "cuda" or not uniform):
        reason = (
            "this run computes on the CPU"
            if device.type != "cuda"
            else "items lack a text or an image here and there, so no two batches have one shape"
        )
        emit.notice("cuda-graphs-off", f"cuda_graphs = true does nothing: {reason}")
        graphs = False
    # Set globally: the limit is read where a function is compiled.
    torch._dynamo.config.recompile_limit = RECOMPILE_LIMIT
    return TowerCompiler(dynamic=not uniform, graphs=graphs)


def find_representatives(
    collator: PairCollator, order: EpochPermutation, steps: range, *, joined: bool, dynamic: bool
) -> Iterator[tuple[Rows, int]]:
    """Rows and epoch of a full micro-batch for each combination of text lengths in these steps."""
    keys: set[tuple[int, ...]] = set()
    for step in steps:
        epoch = order.epoch(step)
        for rows in order.micro_batches(step):
            if len(rows) < order.batch:
                continue
            widths = collator.text_widths(rows, epoch)
            key = (max(widths),) if joined else tuple(sorted(set(widths)))
            if key not in keys:
                keys.add(key)
                yield rows, epoch
                if dynamic:
                    return


def enable_compilation(
    run: Context,
    job: loop.TrainingJob[PairBatch],
    model: DualEncoder,
    collator: PairCollator,
    *,
    uniform: bool,
) -> None:
    """Set up compilation of the model's towers before the first step of `job`."""
    if model.pixel_normalizer is None:
        run.emit.notice("compile-off", "compile = true does nothing: heads alone are too small")
        return
    compiler = make_compiler(run.params, run.device, run.emit, uniform=uniform)
    model.compiler = compiler
    if uniform and model.text_tower.ignores_padding:
        collator.pad_texts(TEXT_MULTIPLE)
    plain: Callable[..., Any] = model
    if job.weight_copies is not None:
        plain = master_weights.without_autocast(model, run.device.type)

    def encode(batch: PairBatch) -> tuple[Tensor, ...]:
        with job.precision.autocast():
            vectors: tuple[Tensor, ...] = plain(batch.queries, batch.passages)
        return vectors

    def prepare(start: int, emit: Emitter) -> None:
        steps = range(start, job.last_step)
        joined = model.one_pass and model.sides_share
        kinds = list(
            find_representatives(
                collator, job.loader.order, steps, joined=joined, dynamic=not uniform
            )
        )
        emit.phase("compile", f"{len(kinds)} kinds of batches")
        batches = (job.transfer(collator(rows, epoch)) for rows, epoch in kinds)
        with preserved_state(model):
            for number, batch in enumerate(batches):
                emit.check_stop()
                _compile_shapes(compiler, partial(encode, batch), model)
                emit.progress(number + 1, len(kinds), "kinds of batches")

    job.prepare = prepare
    if compiler.graphs:
        forward = job.forward

        def beginning(batch: PairBatch) -> loop.LossOutput:
            mark_step_begin()
            return forward(batch)

        job.forward = beginning


def _compile_shapes(compiler: TowerCompiler, encode: Callable[[], Any], model: DualEncoder) -> None:
    """Compile forward and backward for the shapes of `encode`."""
    if not compiler.shapes:
        # Once eagerly: transformers adds hooks to its blocks when their outputs are first used,
        # behind a lock, which would be a graph break.
        with torch.no_grad():
            encode()
    compiler.compiles_new_shapes = True
    for _ in range(GRAPH_CALLS if compiler.graphs else 1):
        mark_step_begin()
        queries, passages, _ = encode()
        (queries.sum() + passages.sum()).backward()
        model.zero_grad(set_to_none=True)
    compiler.compiles_new_shapes = False


def mark_step_begin() -> None:
    """Mark a step begin for CUDA graphs: outputs of the last step may be overwritten."""
    torch.compiler.cudagraph_mark_step_begin()  # type: ignore[no-untyped-call]  # torch
