"""How much memory a VQA run would take: the model's real module tree, without its weights.

A step is rehearsed on fake tensors: vision tower, language model with 4-bit stand-ins and real
LoRA, loss, backward pass, optimizer. The tower takes its lengths precomputed, because it reads the
grid's numbers, and fake tensors have none. Where features are kept, it has one pass, over one
picture at a time, and is gone from then on.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any, Final, NamedTuple, Self

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from engines import model_catalog
from engines.emitter import EngineError
from engines.memory_query import MemoryEstimate, MemoryQuery, Phase
from engines.torchkit.memory import depth_extrapolation, fake_training_step, known_configs
from engines.torchkit.memory.allocation_tracker import AllocationTracker, track_model
from engines.torchkit.memory.depth_extrapolation import Measurement
from engines.torchkit.memory.fake_training_step import INPUTS, LOGITS, LORA, TrainingOptions
from engines.torchkit.modeling import pretrained
from engines.torchkit.modeling.model_config import ATTENTION
from engines.torchkit.runtime.precision import DTYPES
from engines.vqa.data import feature_cache
from engines.vqa.memory import max_lengths, model_from_config
from engines.vqa.memory.max_lengths import Longest
from engines.vqa.models.model import LEARNT, causal
from engines.vqa.params import Params

KNOWN: Final = "qwen2_5_vl"
RUNTIME_BYTES: Final = 1 << 30
"""Of Python and libraries on a CPU, measured with the nano."""
VISION: Final = "vision tower"
SEEN: Final = "vision activations"


class Eye(NamedTuple):
    """How the vision tower cuts a picture."""

    patch: int
    """Pixels a side."""
    merge: int
    """Patches a side that become one token."""
    frames: int
    """A still picture is shown so many times."""

    @classmethod
    def of(cls, config: dict[str, Any]) -> Self:
        """Of the model's configuration."""
        said = config["vision_config"]
        names = {"patch_size": 14, "spatial_merge_size": 2, "temporal_patch_size": 2}
        return cls(*(int(said.get(name, usual)) for name, usual in names.items()))

    @property
    def colours(self) -> int:
        """Numbers of a patch, once."""
        return 3 * self.patch**2

    def grid(self, height: int, width: int) -> tuple[int, int]:
        """Patches of a picture of so many pixels, rows and columns."""
        return height // self.patch, width // self.patch


@dataclass(frozen=True)
class Sizes:
    """One micro-batch in numbers."""

    batch: int
    grid: tuple[int, int]
    """Patches of a picture, rows and columns."""
    length: int
    """Tokens of the longest sample, its picture included."""
    eye: Eye

    @classmethod
    def of(cls, want: MemoryQuery, batch: str, eye: Eye, most: Longest) -> Sizes:
        """Of the longest sample. `batch`: the setting that says how many at once."""
        settings = want.params
        grid = eye.grid(*(most.train if batch == "batch" else most.predict))
        whole = grid[0] * grid[1] // eye.merge**2 + most.tokens
        return cls(int(settings[batch]), grid, min(whole, int(settings["max_length"])), eye)

    @property
    def merged(self) -> int:
        """Tokens of the picture."""
        return self.grid[0] * self.grid[1] // self.eye.merge**2


class Inputs(NamedTuple):
    """A micro-batch as it lies on the device."""

    ids: Tensor
    """[B, T]."""
    mask: Tensor
    """[B, T]."""
    places: Tensor
    """[3, B, T]."""
    rest: list[Tensor]
    """Labels [B, T]; order and places of patches."""
    shown: Tensor
    """Patches of all pictures, fp32; or their features."""


def estimate_memory(want: MemoryQuery) -> MemoryEstimate:
    """Bytes by part of a training step and of a prediction.

    Raises:
        EngineError: the model is not known here, or is of a kind that is not.
    """
    config, source = model_from_config.architecture(model_catalog.load(want.model))
    if config.get("model_type") != KNOWN:
        raise EngineError(
            f"model '{want.model}': memory of a '{config.get('model_type')}' cannot be forecast; "
            f"only of {KNOWN} so far"
        )
    return forecast(want, config, source)


def forecast(want: MemoryQuery, config: dict[str, Any], source: str) -> MemoryEstimate:
    """`estimate_memory` for a model of these sizes, which were read from `source`."""
    tuning = tuning_of(want)
    eye = Eye.of(config)
    most = max_lengths.of(want, eye.patch * eye.merge)
    kept = feature_cache.wanted(Params.model_validate(want.params), trains=want.trains)
    text = config.get("text_config") or {}

    def measure(layers: int) -> Measurement:
        cut = (
            {**config, "text_config": depth_extrapolation.with_layers(text, layers)}
            if layers
            else config
        )
        return measured(want, cut, tuning, (eye, most, kept))

    small = {**config, "text_config": depth_extrapolation.with_layers(text, 1)} if text else config
    fake_training_step.import_libraries(
        tuning, str(config["model_type"]), lambda: made(small, tuning)
    )
    found = depth_extrapolation.measure_at_depth(depth_extrapolation.count_layers(text), measure)
    phases: dict[Phase, dict[str, int]] = {
        "predict": depth_extrapolation.largest_moment(found.peaks, "predict")
    }
    if want.trains:
        phases = {"train": depth_extrapolation.largest_moment(found.peaks, "train"), **phases}
    sizes, counts = Sizes.of(want, "predict_batch", eye, most), found.counts
    facts = {
        "sizes of the model": source,
        "longest sample": f"{sizes.length:,} tokens, {sizes.merged:,} of them the picture's "
        f"({most.predict[1]} x {most.predict[0]} pixels)",
        **most.facts,
        "trained parameters": f"{counts['learnt']:,}",
        "precision": fake_training_step.describe_precision(want, tuning),
        "vision tower": "one pass for each picture, then given back" if kept else "in every step",
    }
    if source == known_configs.SCRATCH:
        facts["left out"] = "the base that is trained first, with all its parameters"
    host = fake_training_step.estimate_host_memory(
        want, RUNTIME_BYTES, counts["files"], counts["waits"], phases
    )
    return MemoryEstimate(phases=phases, host=host, facts=facts)


def measured(
    want: MemoryQuery,
    config: dict[str, Any],
    tuning: TrainingOptions,
    reads: tuple[Eye, Longest, bool],
) -> Measurement:
    """A step and a prediction of a model of these sizes. `reads`: how it sees, what, and whether
    features are kept."""
    eye, most, kept = reads
    peaks: dict[str, dict[str, int]] = {}
    with fake_training_step.fake_mode(tuning) as ledger:
        model, files = build(config, tuning)
        track_model(ledger, model, part_of(model, tuning))
        sizes = Sizes.of(want, "predict_batch", eye, most)
        if kept:
            first = "train" if want.trains else "predict"
            peaks[f"{first}: features"] = keep(ledger, model, sizes)
        features = features_of(model, tuning, kept)
        if want.trains:
            batch = Sizes.of(want, "batch", eye, most)
            seen = inputs(ledger, batch, features)
            fake_training_step.measure_training_step(  # the loop holds its batch until the next one
                ledger, model, tuning, lambda: loss(ledger, model, batch, seen), seen
            )
            peaks |= {f"train: {at}": peak.parts for at, peak in ledger.peaks.items()}
            del seen
        predict(ledger, model, tuning, (sizes, features))
        peaks |= {f"predict: {at}": peak.parts for at, peak in ledger.peaks.items()}
        learnt = sum(p.numel() for p in model.parameters() if p.requires_grad)
        waits = sample_bytes(most, eye, features)
    return Measurement(peaks, {"learnt": learnt, "files": files, "waits": waits})


class Features(NamedTuple):
    """Of a picture, as they are kept: what stands for its pixels."""

    width: int
    dtype: torch.dtype


def features_of(model: Any, tuning: TrainingOptions, kept: bool) -> Features | None:
    """In the number format that the tower computes in; None where none are kept."""
    if not kept:
        return None
    return Features(model.config.vision_config.out_hidden_size, DTYPES[tuning.precision])


def sample_bytes(most: Longest, eye: Eye, features: Features | None) -> int:
    """Of a picture as it waits in host memory: patches as uint8, or features."""
    patches = math.prod(eye.grid(*most.train))
    if features is None:
        return patches * eye.colours
    return patches // eye.merge**2 * features.width * features.dtype.itemsize


def keep(ledger: AllocationTracker, model: Any, sizes: Sizes) -> dict[str, int]:
    """Parts at the peak of the tower's one pass over the largest picture; no tower afterwards.

    There are no adapters yet when a run does this.
    """
    alone = replace(sizes, batch=1)
    ledger.reset_peak()
    shown = inputs(ledger, alone, None).shown
    with ledger.part(SEEN), torch.no_grad():
        look(model.model.visual, shown, alone)
    fake_training_step.drop_tensors(model.model.visual)
    model.model.visual = nn.Module()
    return {name: size for name, size in ledger.peak.parts.items() if name != LORA}


def tuning_of(want: MemoryQuery) -> TrainingOptions:
    """The settings of the engine that decide about memory."""
    copies = int(bool(want.params.get("ema") or want.params.get("swa")))
    return TrainingOptions.from_query(want, {**want.params, "copies": copies})


def made(config: dict[str, Any], tuning: TrainingOptions) -> Any:
    """A model of these sizes, as transformers makes it."""
    from transformers import AutoConfig, AutoModelForImageTextToText

    sizes = dict(config)
    described = AutoConfig.for_model(sizes.pop("model_type"), **sizes)
    seeing: Any = AutoModelForImageTextToText
    return seeing.from_config(described, dtype=tuning.dtype, attn_implementation=ATTENTION)


def build(config: dict[str, Any], tuning: TrainingOptions) -> tuple[Any, int]:
    """The model on fake tensors, as training finds it, and the bytes of its files."""
    model = made(config, tuning)
    model.requires_grad_(False)
    pretrained.widen_to_fp32(model)
    files = 2 * sum(parameter.numel() for parameter in model.parameters())
    fake_training_step.adapt_language_model(model.model.language_model, tuning)
    return model, files


def part_of(model: nn.Module, tuning: TrainingOptions) -> Any:
    """Which part a parameter belongs to, by its name."""
    language = fake_training_step.name_parts(model, tuning)
    return lambda name: VISION if ".visual." in name else language(name)


def loss(ledger: AllocationTracker, model: Any, sizes: Sizes, seen: Inputs) -> Tensor:
    """Forward pass of one micro-batch, as the engine's own."""
    hidden = hidden_states(ledger, model, (sizes, seen), cache=None)
    with ledger.part(LOGITS):
        labels = torch.zeros(sizes.batch * LEARNT, dtype=torch.long)
        said = model.lm_head(hidden[:, -LEARNT - 1 :])[:, :-1].float()
        return functional.cross_entropy(said.flatten(0, 1), labels)


@torch.no_grad()
def predict(
    ledger: AllocationTracker,
    model: Any,
    tuning: TrainingOptions,
    given: tuple[Sizes, Features | None],
) -> dict[str, int]:
    """Parts at the peak of reading a batch of prompts and saying the first token."""
    model.eval()
    ledger.reset_peak()
    with fake_training_step.autocast(tuning):
        cache = fake_training_step.TrackedCache.create(ledger)
        seen = inputs(ledger, *given)
        hidden = hidden_states(ledger, model, (given[0], seen), cache=cache)
        with ledger.part(LOGITS):
            model.lm_head(hidden[:, -1:]).float().softmax(-1)
    return ledger.peak.parts


def inputs(ledger: AllocationTracker, sizes: Sizes, features: Features | None) -> Inputs:
    """A micro-batch as it lies on the device, of pixels or of features."""
    count, tokens = sizes.batch * sizes.grid[0] * sizes.grid[1], sizes.batch * sizes.merged
    with ledger.part(INPUTS):
        ids, mask, labels = (torch.zeros(sizes.batch, sizes.length).long() for _ in range(3))
        places = torch.zeros(3, sizes.batch, sizes.length, dtype=torch.long)
        if features is not None:
            shown = torch.zeros(tokens, features.width, dtype=features.dtype)
            return Inputs(ids, mask, places, [labels], shown)
        order = [torch.zeros(count, 2).long(), torch.zeros(tokens).long()]
        shown = torch.zeros(count, sizes.eye.colours * sizes.eye.frames)
        return Inputs(ids, mask, places, [labels, *order], shown)


def hidden_states(
    ledger: AllocationTracker, model: Any, given: tuple[Sizes, Inputs], cache: Any
) -> Tensor:
    """Last hidden states [B, T, W] of pictures and texts."""
    sizes, batch = given
    with ledger.part(INPUTS):
        mask = causal(batch.mask)
    words = model.get_input_embeddings()(batch.ids)
    seen = batch.shown
    if hasattr(model.model.visual, "blocks"):
        with ledger.part(SEEN), torch.no_grad():
            seen = look(model.model.visual, batch.shown, sizes)
    seen = seen.to(words.dtype)
    with ledger.part(INPUTS):
        spots = torch.zeros(words.shape, dtype=torch.bool)
    whole = words.masked_scatter(spots, seen)
    del words, seen, spots
    hidden: Tensor = model.model.language_model(
        inputs_embeds=whole,
        attention_mask={"full_attention": mask},
        position_ids=batch.places,
        past_key_values=cache,
        use_cache=cache is not None,
    ).last_hidden_state
    return hidden


def look(tower: Any, pixels: Tensor, sizes: Sizes) -> Tensor:
    """The vision tower's output for a batch of pictures, [B tokens, W].

    Without gradients no layer keeps anything, so one block of each kind has the peak of all 32.
    """
    rows, columns = sizes.grid
    config = tower.config
    # Plain arrays: the tower reads these numbers, and a fake tensor has none.
    whole = np.arange(sizes.batch + 1) * rows * columns
    windows = np.cumsum([0, *_windows(sizes.grid, config) * sizes.batch])
    with _one_of_each(tower) as short:
        seen: Tensor = short(
            pixels.to(tower.dtype),
            grid_thw=None,
            position_ids=torch.zeros(len(pixels), 2, dtype=torch.long),
            cu_seqlens=whole,
            window_index=torch.zeros(sizes.batch * sizes.merged, dtype=torch.long),
            cu_window_seqlens=windows,
        ).pooler_output
    return seen


@contextmanager
def _one_of_each(tower: Any) -> Iterator[Any]:
    """The tower with one of its blocks that see windows and one of those that see all, if any."""
    blocks, everywhere = tower.blocks, tower.fullatt_block_indexes
    kinds = {number in everywhere: block for number, block in enumerate(blocks)}
    tower.blocks = nn.ModuleList(kinds.values())
    tower.fullatt_block_indexes = [place for place, whole in enumerate(kinds) if whole]
    try:
        yield tower
    finally:
        tower.blocks, tower.fullatt_block_indexes = blocks, everywhere


def _windows(grid: tuple[int, int], config: Any) -> list[int]:
    """Patches in each window of a picture; those at its edges are smaller."""
    merge = config.spatial_merge_size
    side = config.window_size // merge // config.patch_size * merge
    return [
        min(side, grid[0] - row) * min(side, grid[1] - column)
        for row in range(0, grid[0], side)
        for column in range(0, grid[1], side)
    ]
