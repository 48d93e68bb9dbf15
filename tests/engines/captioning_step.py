"""A real training step of the captioner in small sizes, and what it really allocates.

The oracle of the memory forecast: bitsandbytes' own 4-bit layers, peft's own LoRA, the engine's own
tower, projector, model and optimizer, and the allocator's events as torch's profiler reports them.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any, Literal

import torch
from tokenizers import Tokenizer
from tokenizers.models import BPE

from engines.captioning import prepare
from engines.captioning.models import llm, projectors
from engines.captioning.models.captioner import Captioner, mean_loss
from engines.captioning.models.llm import PromptTemplate
from engines.captioning.models.vision import VisionTower
from engines.captioning.params import Params
from engines.memory_query import MemoryQuery
from engines.model_catalog import ModelPart
from engines.torchkit.modeling import adapter_copies, lora, quantize
from engines.torchkit.modeling.master_weights import WeightCopies
from engines.torchkit.runtime.precision import Precision
from engines.torchkit.training.optimization import decay_groups
from tests.engines import allocations
from tests.engines.random_models import ModelFolders

TEXT: dict[str, Any] = {
    "model_type": "qwen3", "vocab_size": 2048, "hidden_size": 256, "intermediate_size": 1024,
    "num_hidden_layers": 4, "num_attention_heads": 4, "num_key_value_heads": 2, "head_dim": 64,
    "max_position_embeddings": 4096, "eos_token_id": 3, "bos_token_id": 1, "pad_token_id": 0,
}  # fmt: skip
VISION: dict[str, Any] = {
    "model_type": "clip_vision_model", "hidden_size": 128, "intermediate_size": 512,
    "num_hidden_layers": 4, "num_attention_heads": 4, "image_size": 84, "patch_size": 14,
    "projection_dim": 64,
}  # fmt: skip


@dataclass(frozen=True)
class Shape:
    """One thing to measure: settings of the engine, tokens of a caption, frames of a medium."""

    name: str
    settings: dict[str, Any]
    tokens: int = 40
    frames: int = 1
    """Above 1: the subset is one of videos."""
    sizes: dict[str, Any] = field(default_factory=dict)
    vision: dict[str, Any] = field(default_factory=dict)
    """Sizes of the language model and of the tower that differ from those above."""
    trains: bool = True
    target: Literal["cuda", "cpu"] = "cpu"

    @property
    def params(self) -> Params:
        small = {
            "precision": "fp32", "batch": 4, "gradient_accumulation_steps": 1, "eval_batch_size": 6,
            "vision_batch": 4, "frames": self.frames, "validate_every_epochs": 0, "scorers": (),
        }  # fmt: skip
        return Params(**{**small, **self.settings})

    def configs(self) -> tuple[tuple[str, dict[str, Any]], tuple[str, dict[str, Any]]]:
        """Class of transformers and configuration of the tower and of the language model."""
        return ("AutoModel", VISION | self.vision), ("AutoModelForCausalLM", TEXT | self.sizes)

    def want(self, subsets: tuple[str, ...] = ()) -> MemoryQuery:
        """The question to the memory estimate."""
        return MemoryQuery(
            engine="captioning", model="small", params=self.params.model_dump(mode="json"),
            trains=self.trains, target=self.target, capability=(8, 6), text_tokens=self.tokens,
            subsets=subsets,
        )  # fmt: skip


def written(shape: Shape, folder: Path) -> tuple[ModelPart, ModelPart]:
    """Folders of a tower and a language model with random weights, as a person would have them."""
    import transformers

    made = []
    for name, (auto, config) in zip(("v", "l"), shape.configs(), strict=True):
        sizes = transformers.AutoConfig.for_model(**config)
        getattr(transformers, auto).from_config(sizes).save_pretrained(folder / name)
        made.append(ModelPart(path=str(folder / name)))
    return made[0], made[1]


def shared(shape: Shape, folders: ModelFolders) -> tuple[ModelPart, ModelPart]:
    """The same in folders that shapes of equal sizes share; weights are drawn on the target."""
    tower, language = (folders.get(*named, shape.target) for named in shape.configs())
    return ModelPart(path=str(tower)), ModelPart(path=str(language))


def measured(shape: Shape, pair: tuple[ModelPart, ModelPart]) -> int:
    """Bytes of tensors that live at once, at most, in a later step, or in the calibration."""
    real = Real.of(shape, pair, torch.device("cpu"))
    if not shape.trains:
        real.predict()
        return real.kept + allocations.peak(real.predict)
    before = real.kept + allocations.peak(real.calibrate)
    optimizer, copies = real.optimizer(), real.copies()
    step = partial(real.train, optimizer, copies)
    step()  # the first one makes the optimizer's moments, and caches
    kept = real.kept + (allocations.of(copies.parameters()) if copies else 0)
    return max(before, kept + allocations.of_state(optimizer) + allocations.peak(step))


def measured_on_gpu(shape: Shape, pair: tuple[ModelPart, ModelPart]) -> int:
    """The same by torch's own count, which has cuBLAS's workspace in it."""
    real = Real.of(shape, pair, torch.device("cuda"))
    if not shape.trains:
        real.predict()
        return allocations.peak_on_gpu(real.predict)
    before = allocations.peak_on_gpu(real.calibrate)
    step = partial(real.train, real.optimizer(), real.copies())
    step()
    return max(before, allocations.peak_on_gpu(step))


def looked(part: ModelPart, params: Params) -> int:
    """Bytes of a tower and of one of its passes."""
    tower = VisionTower(part, params, Precision("fp32", torch.device("cpu")))
    side = tower.shape.image_size
    frames = torch.zeros(tower.at_once, side, side, 3, dtype=torch.uint8)
    tower.encode(frames)
    model = tower._model
    kept = allocations.of([*model.parameters(), *model.buffers(), frames])
    return kept + allocations.peak(lambda: tower.encode(frames))


@dataclass(frozen=True)
class Real:
    """The engine's own model and tower, and what is done with them."""

    shape: Shape
    model: Captioner
    tower: VisionTower
    kept: int
    """Bytes of both."""

    @classmethod
    def of(cls, shape: Shape, pair: tuple[ModelPart, ModelPart], device: torch.device) -> Real:
        params, precision = shape.params, Precision(shape.params.precision, device)
        tower = VisionTower(pair[0], params, precision)
        found = llm.attach_adapters(llm.load_model(Path(pair[1].path), params, precision), params)
        sizes = prepare.select_projector_sizes(
            params, tower, shape.frames, llm.embedding_width(found)
        )
        if params.merge_lora:
            lora.merge_adapters(found.eval())
        words = PromptTemplate(Tokenizer(BPE()), (1, 1, 1), (1,) * 10, -1, "")  # no caption ends
        model = Captioner(projectors.build_projector(sizes), found, words).to(device)
        kept = quantize.weight_bytes(model) + allocations.of(model.buffers())
        if not params.feature_cache:
            side = tower.shape.image_size
            tower.encode(torch.zeros(1, side, side, 3, dtype=torch.uint8, device=device))
            kept += allocations.of(tower._model.parameters())
        return cls(shape, model, tower, kept)

    def features(self, size: int) -> torch.Tensor:
        """Of so many media, from the cache or through the tower."""
        seen, frames = self.tower.shape, self.shape.frames
        device = self.tower.precision.device
        if self.shape.params.feature_cache:
            kept = torch.float16
            return torch.zeros(size, frames, seen.patches, seen.width, dtype=kept, device=device)
        side = seen.image_size
        pixels = torch.zeros(size * frames, side, side, 3, dtype=torch.uint8, device=device)
        found = self.tower.encode(pixels)
        return found.view(size, frames, *found.shape[1:])

    def ids(self, size: int) -> torch.Tensor:
        """Captions of the longest kind."""
        device = self.tower.precision.device
        return torch.ones(size, self.shape.tokens, dtype=torch.long, device=device)

    def calibrate(self) -> None:
        self.model.calibrate(self.features(prepare.CALIBRATION_MEDIA))

    def optimizer(self) -> torch.optim.AdamW:
        groups = decay_groups(self.model.named_parameters(), 0.01)
        return torch.optim.AdamW(groups, lr=1e-4, fused=True)

    def copies(self) -> WeightCopies[Any] | None:
        return adapter_copies.copy_adapters(self.model, self.tower.precision.name)

    def train(self, optimizer: torch.optim.Optimizer, copies: WeightCopies[Any] | None) -> None:
        """A step of the loop."""
        params = self.shape.params
        self.model.train()
        for _ in range(params.gradient_accumulation_steps):
            with self.tower.precision.autocast():
                features, ids = self.features(params.batch), self.ids(params.batch)
                loss = mean_loss(*self.model(features, ids, ids))
            loss.backward()
            del loss
            if copies:
                copies.collect_gradients()
        allocations.end_step(self.model, optimizer)
        if copies:
            copies.refresh()

    @torch.no_grad()
    def predict(self) -> None:
        """Loss and captions of a batch."""
        self.model.eval()
        params = self.shape.params
        ids = self.ids(params.eval_batch_size)
        with self.tower.precision.autocast():
            self.model(self.features(params.eval_batch_size), ids, ids)
            self.model.generate(self.features(params.eval_batch_size), params.max_new_tokens)
