"""A real training step of the VQA model in small sizes, and what it really allocates.

The oracle of the memory forecast: bitsandbytes' own 4-bit layers, peft's own LoRA, the engine's own
model and optimizer, and the allocator's events as torch's profiler reports them.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import torch
from transformers.modeling_outputs import BaseModelOutputWithPooling

from engines.memory_query import MemoryQuery
from engines.torchkit.data.prefetch import map_tensors
from engines.torchkit.modeling import (
    adapter_copies,
    attention,
    lora,
    pretrained,
    quantize,
    rms_norm,
)
from engines.torchkit.modeling.gradient_checkpointing import enable_gradient_checkpointing
from engines.torchkit.modeling.master_weights import WeightCopies
from engines.torchkit.runtime.precision import DTYPES, Precision
from engines.torchkit.training.optimization import adamw
from engines.torchkit.training.weight_averaging import Ema
from engines.vqa.data import feature_cache
from engines.vqa.data.image_inputs import ReleasedModule
from engines.vqa.models.chat_template import IGNORED
from engines.vqa.models.model import ANSWER_TOKENS, FEATURES, PIXELS, Answerer, VqaBatch
from engines.vqa.models.qwen_layout import GRID, TYPES, QwenInputLayout
from engines.vqa.models.vision_output import Form
from engines.vqa.params import Params
from tests.engines import allocations
from tests.engines.random_models import ModelFolders

IMAGE, LOOK = 1, 2
AUTO = "AutoModelForImageTextToText"
TEXT: dict[str, Any] = {
    "vocab_size": 2048, "hidden_size": 256, "intermediate_size": 1024, "num_hidden_layers": 4,
    "num_attention_heads": 4, "num_key_value_heads": 2, "max_position_embeddings": 4096,
    "rope_parameters": {
        "rope_type": "default", "rope_theta": 10_000.0, "mrope_section": [8, 12, 12],
    },
    "bos_token_id": None, "eos_token_id": 3, "pad_token_id": 0,
}  # fmt: skip
VISION: dict[str, Any] = {
    "depth": 4, "hidden_size": 128, "intermediate_size": 256, "num_heads": 4, "patch_size": 14,
    "out_hidden_size": 256, "window_size": 112, "fullatt_block_indexes": [1, 3],
    "spatial_merge_size": 2, "temporal_patch_size": 2, "in_channels": 3,
}  # fmt: skip


@dataclass(frozen=True)
class Shape:
    """One thing to measure: settings of the engine, tokens of text beside the picture, sizes."""

    name: str
    settings: dict[str, Any]
    text: int = 60
    sizes: dict[str, Any] = field(default_factory=dict)
    trains: bool = True
    published: str = ""
    """Hub id of a model whose sizes are taken, with random weights."""
    target: Literal["cuda", "cpu"] = "cpu"

    @property
    def kept(self) -> bool:
        """Whether the model gets kept features, and has no tower."""
        return feature_cache.uses_feature_cache(self.params, trains=self.trains)

    @property
    def params(self) -> Params:
        return Params(**{"precision": "fp32", "batch": 2, "eval_batch_size": 4, **self.settings})

    def config(self) -> dict[str, Any]:
        """Sizes of the model: the tiny model's, or those of a published one."""
        if self.published:
            from engines import model_catalog
            from engines.vqa.memory import model_from_config

            entry = model_catalog.ModelEntry(name="published", family="vlm", hub=self.published)
            tokens = {"image_token_id": IMAGE, "video_token_id": 4, "vision_start_token_id": LOOK}
            return {**model_from_config.read_config(entry)[0], **tokens, "vision_end_token_id": 5}
        return {
            "model_type": "qwen2_5_vl", "text_config": {**TEXT, **self.sizes},
            "vision_config": {**VISION, "out_hidden_size": {**TEXT, **self.sizes}["hidden_size"]},
            "tie_word_embeddings": True, "image_token_id": IMAGE, "video_token_id": 4,
            "vision_start_token_id": LOOK, "vision_end_token_id": 5,
        }  # fmt: skip

    def want(self) -> MemoryQuery:
        """The question to the memory estimate."""
        params = self.params.model_dump(mode="json")
        return MemoryQuery(
            engine="vqa", model="", params=params, trains=self.trains, target=self.target,
            capability=(8, 6), text_tokens=self.text,
        )  # fmt: skip


def written(shape: Shape, folder: Path) -> Path:
    """A folder with random weights of these sizes, as a person would have one."""
    import transformers

    sizes = transformers.AutoConfig.for_model(**shape.config())
    getattr(transformers, AUTO).from_config(sizes).save_pretrained(folder)
    return folder


def batch_of(shape: Shape, model: Any, batch: int) -> VqaBatch:
    """On the host; its second half is a token shorter, so that there is a mask.

    Where features are kept, a model without a tower gets them instead of patches.
    """
    from engines.vqa.memory import max_lengths

    rows, columns = (
        edge // 14 for edge in max_lengths.find_largest_picture(shape.params.model_dump(), [], 28)
    )
    merged = rows * columns // 4
    ids = torch.full((batch, merged + shape.text), 7)
    ids[:, 10 : 10 + merged] = IMAGE
    mask = torch.ones_like(ids)
    mask[1::2, 0] = 0
    labels = torch.full_like(ids, IGNORED)
    labels[:, -ANSWER_TOKENS:] = 7
    shown = {PIXELS: torch.randn(batch * rows * columns, 3 * 2 * 14 * 14)}
    if shape.kept:
        kept = DTYPES[Precision(shape.params.precision, torch.device(shape.target)).name]
        width = model.config.text_config.hidden_size
        shown = {FEATURES: torch.randn(batch * merged, width, dtype=kept)}
    grid = torch.tensor([[1, rows, columns]] * batch)
    seen = {TYPES: (ids == IMAGE).long(), GRID: grid, **shown}
    tower = None if shape.kept else model.model.visual
    return QwenInputLayout(model.model, tower).add_inputs(VqaBatch(ids, mask, labels, seen))


def on(batch: VqaBatch, device: torch.device) -> VqaBatch:
    """A copy of the batch on a device."""
    return map_tensors(batch, lambda tensor: tensor.to(device, copy=True))


def measured(shape: Shape, folder: Path) -> int:
    """Bytes of tensors that live at once, at most, in a step that is not the first.

    What lives between the steps is added up tensor by tensor; what comes and goes in one is what
    torch's profiler saw of the allocator.
    """
    step, kept = real(shape, written(shape, folder), torch.device("cpu"))
    return kept + allocations.peak(step)


def measured_on_gpu(shape: Shape, folders: ModelFolders) -> int:
    """The same by torch's own count, which has cuBLAS's workspace in it."""
    folder = folders.get(AUTO, shape.config(), "cuda")
    step, _ = real(shape, folder, torch.device("cuda"))
    return allocations.peak_on_gpu(step)


def real(shape: Shape, folder: Path, device: torch.device) -> tuple[Callable[[], None], int]:
    """A step whose first time is over, and the bytes of what lives between the steps.

    `folder` holds the model.
    """
    params, precision = shape.params, Precision(shape.params.precision, device)
    found = pretrained.load(
        folder, pretrained.VISION_LANGUAGE, precision, four_bit=params.quantize == "nf4",
        double=params.double_quant,
    )  # fmt: skip
    if params.gradient_checkpointing:
        enable_gradient_checkpointing(found)
    if shape.kept:
        found.model.visual = ReleasedModule()
    else:
        attention.use_packed_attention(found.model.visual)
    rms_norm.use_fused_rms_norm(found)
    adapted = lora.add_lora(
        found, params.lora_rank, params.lora_alpha, params.lora_dropout, params.lora_targets,
        "language_model",
    )  # fmt: skip
    form = Form(BaseModelOutputWithPooling, True, (found.config.text_config.hidden_size,), 0)
    model = Answerer(adapted, form).to(device)
    size = params.batch if shape.trains else params.eval_batch_size
    host = batch_of(shape, found, size)
    kept = quantize.weight_bytes(model) + allocations.of(model.buffers())
    if not shape.trains:
        step = _predicting(model, host, precision)
        step()
        return step, kept
    optimizer = adamw(model, 1e-4, 0.0, (0.9, 0.999), fused=True)
    ema = Ema(model, params.ema) if params.ema else None
    copies = adapter_copies.copy_adapters(model, precision.name)
    step = _training(
        model, (optimizer, ema, copies, params.gradient_accumulation_steps), host, precision
    )
    step()  # the first one makes the optimizer's moments, and caches
    kept += allocations.of_state(optimizer)
    kept += allocations.of(copies.parameters()) if copies else 0
    return step, kept + (allocations.of(ema.tensors().values()) if ema else 0)


def _training(
    model: Answerer,
    how: tuple[Any, Ema | None, WeightCopies[Any] | None, int],
    host: VqaBatch,
    precision: Precision,
) -> Callable[[], None]:
    optimizer, ema, copies, gradient_accumulation_steps = how
    model.train()

    def step() -> None:
        for _ in range(gradient_accumulation_steps):
            batch = on(host, precision.device)
            with precision.autocast():
                nats, tokens, _ = model(batch.inputs(), batch.labels)
                loss = nats.sum() / tokens.sum()
            loss.backward()
            del batch, loss, nats, tokens
            if copies:
                copies.collect_gradients()
        allocations.end_step(model, optimizer, ema)
        if copies:
            copies.refresh()

    return step


def _predicting(model: Answerer, host: VqaBatch, precision: Precision) -> Callable[[], None]:
    @torch.no_grad()
    def step() -> None:
        model.eval()
        batch = on(host, precision.device)
        with precision.autocast():
            named = model.model_arguments(batch.inputs())
            model.model(**named, logits_to_keep=1, use_cache=True).logits.float().softmax(-1)

    return step
