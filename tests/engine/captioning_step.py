"""A real training step of the captioner in small sizes, and what it really allocates.

The oracle of the memory forecast: bitsandbytes' own 4-bit layers, peft's own LoRA, the engine's own
tower, projector, model and optimizer, and the allocator's events as torch's profiler reports them.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from tokenizers import Tokenizer
from tokenizers.models import BPE

from engines.captioning import llm, prepare, projectors
from engines.captioning.llm import Wording
from engines.captioning.model import Captioner, mean_loss
from engines.captioning.params import Params
from engines.captioning.vision import Tower
from engines.fitting import Want
from engines.models import Part
from engines.torchkit import quantize
from engines.torchkit.optimizers import decay_groups
from engines.torchkit.precision import Precision
from tests.engine import allocations

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
    trains: bool = True

    @property
    def params(self) -> Params:
        small = {
            "precision": "fp32", "batch": 4, "accumulation": 1, "evaluate_batch": 6,
            "vision_batch": 4, "frames": self.frames, "evaluate_every_epochs": 0, "scorers": (),
        }  # fmt: skip
        return Params(**{**small, **self.settings})

    def want(self, subsets: tuple[str, ...] = ()) -> Want:
        """The question that the ledger is asked."""
        return Want(
            engine="captioning", model="small", params=self.params.model_dump(mode="json"),
            trains=self.trains, target="cpu", text_tokens=self.tokens, subsets=subsets,
        )  # fmt: skip


def written(shape: Shape, folder: Path) -> tuple[Part, Part]:
    """Folders of a tower and a language model with random weights, as a person would have them."""
    from transformers import AutoConfig, AutoModel, AutoModelForCausalLM

    made = []
    kinds: tuple[Any, Any] = (AutoModel, AutoModelForCausalLM)
    for name, config, kind in zip(("v", "l"), (VISION, TEXT | shape.sizes), kinds, strict=True):
        sizes = AutoConfig.for_model(**config)
        kind.from_config(sizes).save_pretrained(folder / name)
        made.append(Part(path=str(folder / name)))
    return made[0], made[1]


def measured(shape: Shape, pair: tuple[Part, Part]) -> int:
    """Bytes of tensors that live at once, at most, in a later step, or in the calibration."""
    model, tower, kept = made(shape, pair)
    if not shape.trains:
        step = _predicting(model, tower, shape)
        step()
        return kept + allocations.peak(step)

    def calibrate() -> None:
        model.calibrate(_features(tower, _media(tower, shape, prepare.CALIBRATED_ON)))

    before = kept + allocations.peak(calibrate)
    groups = decay_groups(model.named_parameters(), 0.01)
    optimizer = torch.optim.AdamW(groups, lr=1e-4, fused=True)
    step = _training(model, tower, optimizer, shape)
    step()  # the first one makes the optimizer's moments, and caches
    return max(before, kept + allocations.of_state(optimizer) + allocations.peak(step))


def made(shape: Shape, pair: tuple[Part, Part]) -> tuple[Captioner, Tower, int]:
    """The engine's own model and tower, and their bytes."""
    params, precision = shape.params, Precision("fp32", torch.device("cpu"))
    tower = Tower(pair[0], params, precision)
    found = llm.adapt(llm.load(Path(pair[1].path), params, precision), params)
    sizes = prepare.projector_sizes(params, tower, shape.frames, llm.width(found))
    words = Wording(Tokenizer(BPE()), (1, 1, 1), (1,) * 10, 3, "")
    model = Captioner(projectors.build(sizes), found, words)
    kept = quantize.weight_bytes(model) + allocations.of(model.buffers())
    if not params.feature_cache:
        tower.encode(torch.zeros(1, VISION["image_size"], VISION["image_size"], 3).byte())
        kept += allocations.of(tower._model.parameters())
    return model, tower, kept


def _media(tower: Tower, shape: Shape, size: int) -> torch.Tensor:
    side, seen = VISION["image_size"], tower.shape
    if shape.params.feature_cache:
        return torch.zeros(size, shape.frames, seen.patches, seen.width, dtype=torch.float16)
    return torch.zeros(size, shape.frames, side, side, 3, dtype=torch.uint8)


def _features(tower: Tower, media: torch.Tensor) -> torch.Tensor:
    if media.dtype.is_floating_point:
        return media
    found = tower.encode(media.flatten(0, 1))
    return found.view(*media.shape[:2], *found.shape[1:])


def _training(model: Captioner, tower: Tower, optimizer: Any, shape: Shape) -> Callable[[], None]:
    params = shape.params
    model.train()

    def step() -> None:
        for _ in range(params.accumulation):
            media = _media(tower, shape, params.batch)
            ids = torch.ones(params.batch, shape.tokens, dtype=torch.long)
            loss = mean_loss(*model(_features(tower, media), ids, ids))
            loss.backward()
            del loss
        trained = [p for p in model.parameters() if p.requires_grad]
        torch.nn.utils.clip_grad_norm_(trained, 1.0)
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)

    return step


def _predicting(model: Captioner, tower: Tower, shape: Shape) -> Callable[[], None]:
    """Loss and captions of a batch; no caption ends before its last word."""
    params = shape.params
    model._end = -1

    @torch.no_grad()
    def step() -> None:
        model.eval()
        size = params.evaluate_batch
        ids = torch.ones(size, shape.tokens, dtype=torch.long)
        model(_features(tower, _media(tower, shape, size)), ids, ids)
        model.generate(_features(tower, _media(tower, shape, size)), params.max_new_tokens)

    return step
