"""Training steps of captioning and VQA at published sizes on fake tensors, for `step_budget.py`.

4-bit layers are stand-ins, which unpack a weight without a kernel: a real one is three more
launches for each product (the scales' own scale, their offset, the weight itself).
"""

from __future__ import annotations

import tempfile
from collections import Counter
from pathlib import Path
from typing import Any, Final

import numpy as np
import torch
from torch import nn
from torch._subclasses.fake_tensor import unset_fake_temporarily
from torch.overrides import TorchFunctionMode
from transformers.modeling_outputs import BaseModelOutputWithPooling

from benchmarks.step_count import Case, Step
from engines import captioning, model_catalog, vqa
from engines.captioning import training as captioning_training
from engines.captioning.data.captions import Captions
from engines.captioning.data.dataset import CaptioningData, Split
from engines.captioning.data.media import CaptionBatch, Frames
from engines.captioning.memory import estimate as captioning_fit
from engines.captioning.memory import max_lengths, model_from_config
from engines.captioning.prepare import PreparedCaptioner
from engines.emitter import Emitter
from engines.memory_query import MemoryQuery
from engines.model_catalog import ModelEntry
from engines.protocol import RunSpec
from engines.torchkit.data.prefetch import map_tensors
from engines.torchkit.memory.fake_training_step import TrainingOptions
from engines.torchkit.modeling import attention, rms_norm
from engines.torchkit.runtime.context import Context
from engines.torchkit.runtime.precision import Precision
from engines.vqa import training
from engines.vqa.data.dataset import VqaData
from engines.vqa.data.image_inputs import ImageInputs, ReleasedModule
from engines.vqa.data.questions import Questions
from engines.vqa.memory import estimate as vqa_fit
from engines.vqa.memory import model_from_config as memory_model_from_config
from engines.vqa.models.chat_template import IGNORED
from engines.vqa.models.model import ANSWER_TOKENS, FEATURES, PIXELS, Answerer, VqaBatch
from engines.vqa.models.qwen_layout import GRID, TYPES, QwenInputLayout
from engines.vqa.models.qwen_patches import QwenPatchProcessor
from engines.vqa.models.vision_output import Form
from engines.vqa.prepare import PreparedAnswerer

QWEN_VL: Final = "Qwen/Qwen2.5-VL-3B-Instruct"
SIDE, TEXT, IMAGE = 756, 192, 1
"""Pixels and text tokens of a sample: the sizes at which transformers' own tower was counted."""
CAPTIONER: Final = "qwen3-8b-clip-l14"
CAPTION = 20
NOWHERE: Final = Path(tempfile.gettempdir())
ROWS = 64


def context_of(engine: str, model: str, params: Any, device: torch.device) -> Context[Any]:
    """A run of these settings."""
    spec = RunSpec(suite="s", run_id="b", engine=engine, subset="s", model=model, cache_root="",
                   params=params.model_dump(mode="json"))  # fmt: skip
    precision = Precision(params.precision, device)
    return Context(spec, params, precision, Emitter(), NOWHERE, model_catalog.load(model))


def tuning_of(params: Any) -> TrainingOptions:
    """The settings of the language model, on a GPU."""
    want = MemoryQuery(
        engine="", model="", params=params.model_dump(mode="json"), capability=(9, 0)
    )
    return TrainingOptions.from_query(want, want.params)


def put(model: nn.Module, device: torch.device) -> None:
    """Fake parameters and buffers anew on a device: they cannot be moved to one."""
    fresh: dict[int, torch.Tensor] = {}
    for module in model.modules() if device.type != "cpu" else ():
        for tensors in (module._parameters, module._buffers):
            for name, tensor in tensors.items():
                if tensor is not None and id(tensor) not in fresh:
                    there = torch.empty(tensor.shape, dtype=tensor.dtype, device=device)
                    learnt = isinstance(tensor, nn.Parameter)
                    fresh[id(tensor)] = (
                        nn.Parameter(there, tensor.requires_grad) if learnt else there
                    )
                if tensor is not None:
                    tensors[name] = fresh[id(tensor)]  # type: ignore[assignment]


# -- vqa -------------------------------------------------------------------------------------------


def vqa_config(layers: int, blocks: int) -> dict[str, Any]:
    """Qwen2.5-VL-3B with so many decoder layers and blocks of its tower; 0: all."""
    entry = ModelEntry(name="published", family="vlm", hub=QWEN_VL)
    config = dict(memory_model_from_config.read_config(entry)[0])
    config["text_config"] = dict(config["text_config"])
    config["vision_config"] = dict(config["vision_config"])
    if layers:
        config["text_config"] |= {"num_hidden_layers": layers, "layer_types": None}
    if blocks:
        config["vision_config"] |= {"depth": blocks, "fullatt_block_indexes": [blocks - 1]}
    tokens = {"image_token_id": IMAGE, "video_token_id": 4, "vision_start_token_id": 2}
    return {**config, **tokens, "vision_end_token_id": 5}


def vqa_step(device: torch.device, *, layers: int = 0, blocks: int = 0, **settings: Any) -> Step:
    """The engine's job and its micro-batches."""
    params = vqa.Params(
        **{"batch": 2, "gradient_accumulation_steps": 1, "precision": "bf16", **settings}
    )
    context = context_of("vqa", "qwen2.5-vl-3b", params, device)
    options = tuning_of(params)
    model, _ = vqa_fit.build_trainable_model(vqa_config(layers, blocks), options)
    put(model, device)
    tower = model.model.visual
    if params.feature_cache:
        model.model.visual = ReleasedModule()
    else:
        attention.use_packed_attention(tower)
        rms_norm.use_fused_rms_norm(tower)
    width = model.config.text_config.hidden_size
    form = Form(BaseModelOutputWithPooling, True, (width,), 0)
    answerer = Answerer(model, form)
    vision: Any = ImageInputs(_Sighted(), context.precision)  # type: ignore[arg-type]  # of no pictures
    nothing: Any = None  # no words, and nothing is answered
    ready = PreparedAnswerer(
        model=answerer, template=nothing, vision=vision, pipeline=nothing, batch=1, revision="",
        facts={},
    )  # fmt: skip
    none, empty = [("", "", "", "")] * ROWS, [""] * ROWS
    names = [str(row) for row in range(ROWS)]
    nobody = Questions(names, empty, NOWHERE, empty, none, np.zeros(ROWS, np.int64), empty)
    data = VqaData("", nobody, nobody.select([]), {}, "")
    setup = training.set_up_training(context, data, ready)
    job = training.create_training_job(setup, data, ready, _Unwatched())  # type: ignore[arg-type]
    layout = QwenInputLayout(model.model, None if params.feature_cache else tower)
    return Step(job, [vqa_batch(params, width, layout)] * params.gradient_accumulation_steps)


class _Sighted:
    """Stands for pictures that are in the batches already."""

    def __init__(self) -> None:
        half: Any = (0.5, 0.5, 0.5)
        template: Any = None  # no words are encoded
        self.processor = QwenPatchProcessor(template, 14, 2, 2, half, half)

    @staticmethod
    def contents(_root: object, _paths: object) -> str:
        """A digest of no pictures."""
        return ""


class _Unwatched:
    """Stands for the validation between epochs and does nothing."""

    enabled, latest, averages = False, {}, {}  # type: ignore[var-annotated]


def vqa_batch(params: Any, width: int, layout: QwenInputLayout) -> VqaBatch:
    """In host memory, made of true numbers and faked afterwards; its rows are equally long."""
    with unset_fake_temporarily():
        batch = layout.add_inputs(plain_batch(params, width))
    return map_tensors(batch, lambda tensor: torch.zeros(tensor.shape, dtype=tensor.dtype))


def plain_batch(params: Any, width: int) -> VqaBatch:
    """The same as the gatherer makes it, before anything is computed ahead."""
    rows = SIDE // 14
    merged = (rows // 2) ** 2
    ids = torch.full((params.batch, merged + TEXT), 7)
    ids[:, 10 : 10 + merged] = IMAGE
    labels = torch.full_like(ids, IGNORED)
    labels[:, -ANSWER_TOKENS:] = 7
    grid = torch.tensor([[1, rows, rows]] * params.batch)
    shown = {PIXELS: torch.zeros(params.batch * rows * rows, 3, 14, 14, dtype=torch.uint8)}
    if params.feature_cache:
        shown = {FEATURES: torch.zeros(params.batch * merged, width, dtype=torch.bfloat16)}
    vision = {TYPES: (ids == IMAGE).long(), GRID: grid, **shown}
    return VqaBatch(ids, torch.ones_like(ids), labels, vision)


# -- captioning ------------------------------------------------------------------------------------


def captioning_step(device: torch.device, *, layers: int = 0, **settings: Any) -> Step:
    """The engine's job for Qwen3-8B behind CLIP ViT-L/14-336, and one micro-batch."""
    named = {"batch": 16, "gradient_accumulation_steps": 1, "precision": "bf16", **settings}
    params = captioning.Params(**named)
    context = context_of("captioning", CAPTIONER, params, device)
    options, entry = tuning_of(params), model_catalog.load(CAPTIONER)
    parts = [
        captioning_fit.components.select_part(entry, params, name) for name in ("vision", "llm")
    ]
    sizes, _ = model_from_config.read_llm_config(CAPTIONER, parts[1])
    if layers:
        sizes.num_hidden_layers, sizes.layer_types = layers, ["full_attention"] * layers
    want = MemoryQuery(engine="captioning", model=CAPTIONER, params=params.model_dump(mode="json"),
                text_tokens=CAPTION, capability=(9, 0))  # fmt: skip
    most = max_lengths.find_max_lengths(want, params, parts[1])
    tower, _ = model_from_config.build_tower(CAPTIONER, parts[0], params, context.precision)
    model, _ = model_from_config.build_captioner(sizes, tower, params, options, most)
    put(model, device)
    features = Frames([np.zeros((ROWS, 1, 1), np.float16)], np.zeros((ROWS, 1, 2), np.int64))
    ready = PreparedCaptioner(
        model=model, template=most.template, tower=tower, items=features, revision="", facts={}
    )
    captions = Captions([""] * ROWS, [[""]] * ROWS, [""] * ROWS, "en", NOWHERE, False)
    data = CaptioningData(
        "", Split("s", captions, np.arange(ROWS)), None, [], features, [], "", ROWS
    )
    nobody: Any = None  # nothing is evaluated
    (stage,) = captioning_training.set_up_stages(context, data, ready, nobody)
    job = stage.create()
    shape, kept = tower.shape, getattr(torch, params.feature_dtype)
    media = torch.zeros(params.batch, most.frames, shape.patches, shape.width, dtype=kept)
    ids = torch.zeros(params.batch, most.tokens, dtype=torch.long)
    return Step(job, [CaptionBatch(media, ids, ids.clone())] * params.gradient_accumulation_steps)


# -- cases -----------------------------------------------------------------------------------------


def vqa_case(**settings: Any) -> Case:
    """With kept features, unless settings say otherwise."""
    options = tuning_of(vqa.Params(precision="bf16"))
    how = "features kept" if settings.get("feature_cache", True) else "tower in every step"
    about = f"Qwen2.5-VL-3B in NF4, LoRA 16, batch 2, bf16, 756 px, {TEXT} tokens of text, {how}"
    return Case("vqa", about, lambda device: vqa_step(device, **settings), options)


def captioning_case(**settings: Any) -> Case:
    """On kept features."""
    options = tuning_of(captioning.Params(precision="bf16"))
    about = "Qwen3-8B in NF4, LoRA 16, linear projector, batch 16, bf16, 336 px, features kept"
    return Case("captioning", about, lambda device: captioning_step(device, **settings), options)


# -- transformers' own -----------------------------------------------------------------------------


class Reads(TorchFunctionMode):
    """Counts the calls that read a tensor's numbers, and those of attention."""

    def __init__(self) -> None:
        super().__init__()
        self.found: Counter[str] = Counter()

    def __torch_function__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Any = None
    ) -> Any:
        """Count, and call."""
        self.found[getattr(func, "__name__", "")] += 1
        return func(*args, **(kwargs or {}))


def own_pass(*, ahead: bool) -> dict[str, int]:
    """Attention calls and reads of one forward pass of Qwen2.5-VL at true depth and lengths, thin,
    on the CPU; `ahead` = False: as transformers makes it. On a GPU every read waits."""
    config = vqa_config(0, 0)
    thin = {"hidden_size": 64, "intermediate_size": 64, "num_attention_heads": 2,
            "num_key_value_heads": 1, "vocab_size": 16}  # fmt: skip
    config["text_config"] |= {**thin, "layer_types": None, "rope_parameters": {
        "rope_type": "default", "rope_theta": 1e4, "mrope_section": [4, 6, 6]}}  # fmt: skip
    config["vision_config"] |= {"hidden_size": 32, "intermediate_size": 32, "num_heads": 2,
                                "out_hidden_size": 64}  # fmt: skip
    options = TrainingOptions(
        precision="fp32", quantize="none", lora_rank=0, gradient_checkpointing=False
    )
    model, _ = vqa_fit.build_trainable_model(config, options)
    params = vqa.Params(batch=2, feature_cache=False)
    batch = plain_batch(params, 64)
    if ahead:
        attention.use_packed_attention(model.model.visual)
        batch = QwenInputLayout(model.model, model.model.visual).add_inputs(batch)
    vision = {**batch.vision, PIXELS: _Sighted().processor.normalize_pixels(batch.vision[PIXELS])}
    with torch.no_grad(), Reads() as reads:
        Answerer(model)(batch.with_vision(vision).inputs(), batch.labels)
    reads_seen = reads.found
    waits = sum(
        reads_seen[name] for name in ("tolist", "item", "__bool__", "nonzero", "unique_consecutive")
    )
    return {"attention calls": reads_seen["scaled_dot_product_attention"], "reads": waits}


if __name__ == "__main__":
    for way in (False, True):
        print("computed ahead:" if way else "transformers' own:", own_pass(ahead=way))
