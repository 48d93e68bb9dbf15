"""Memory estimate of a VQA run: the real module tree of the model on fake tensors, without weights.

A training step is carried out on fake tensors: vision tower, language model with 4-bit stand-ins
and real LoRA, loss, backward pass, optimizer. The tower takes precomputed lengths, because it reads
the values of its grid, which fake tensors lack. With a feature cache it has one pass, over one
picture at a time, and is released afterwards.
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
from engines.vqa.memory.max_lengths import VqaMaxLengths
from engines.vqa.models.model import ANSWER_TOKENS, causal_mask
from engines.vqa.params import Params

SUPPORTED_TYPE: Final = "qwen2_5_vl"
RUNTIME_BYTES: Final = 1 << 30
"""Python and libraries on a CPU, measured with the nano model."""
VISION: Final = "vision tower"
VISION_ACTIVATIONS: Final = "vision activations"


class PatchGeometry(NamedTuple):
    """How a vision tower cuts a picture into patches."""

    patch: int
    """Side of a patch in pixels."""
    merge: int
    """Side of a token in patches."""
    frames: int
    """Frames that a still picture is repeated to."""

    @classmethod
    def from_config(cls, config: dict[str, Any]) -> Self:
        """The geometry in the configuration of a model."""
        vision = config["vision_config"]
        names = {"patch_size": 14, "spatial_merge_size": 2, "temporal_patch_size": 2}
        return cls(*(int(vision.get(name, default)) for name, default in names.items()))

    @property
    def colours(self) -> int:
        """Numbers of a patch in one frame."""
        return 3 * self.patch**2

    def grid(self, height: int, width: int) -> tuple[int, int]:
        """Rows and columns of patches of a picture of `height` x `width` pixels."""
        return height // self.patch, width // self.patch


@dataclass(frozen=True)
class BatchSizes:
    """Sizes of a micro-batch."""

    batch: int
    grid: tuple[int, int]
    """Rows and columns of patches of a picture."""
    length: int
    """Tokens of the longest sample, picture included."""
    geometry: PatchGeometry

    @classmethod
    def from_lengths(
        cls, query: MemoryQuery, batch: str, geometry: PatchGeometry, lengths: VqaMaxLengths
    ) -> BatchSizes:
        """Sizes of the longest sample. `batch`: the name of the setting of the batch size."""
        settings = query.params
        grid = geometry.grid(*(lengths.train if batch == "batch" else lengths.predict))
        total = grid[0] * grid[1] // geometry.merge**2 + lengths.tokens
        return cls(int(settings[batch]), grid, min(total, int(settings["max_length"])), geometry)

    @property
    def merged(self) -> int:
        """Tokens of a picture."""
        return self.grid[0] * self.grid[1] // self.geometry.merge**2


class BatchInputs(NamedTuple):
    """Tensors of a micro-batch on the device."""

    ids: Tensor
    """Token ids [B, T]."""
    mask: Tensor
    """Padding mask [B, T]."""
    positions: Tensor
    """Position ids [3, B, T]."""
    rest: list[Tensor]
    """Labels [B, T]; positions and window order of patches."""
    pictures: Tensor
    """Patches (fp32) or features of all pictures."""


def estimate_memory(query: MemoryQuery) -> MemoryEstimate:
    """Estimate the peak bytes of a training step and of a prediction.

    Raises:
        EngineError: the sizes of the model are not known, or its type is not supported.
    """
    config, source = model_from_config.read_config(model_catalog.load(query.model))
    if config.get("model_type") != SUPPORTED_TYPE:
        raise EngineError(
            f"model '{query.model}': memory of a '{config.get('model_type')}' cannot be forecast; "
            f"only of {SUPPORTED_TYPE} so far"
        )
    return estimate_model(query, config, source)


def estimate_model(query: MemoryQuery, config: dict[str, Any], source: str) -> MemoryEstimate:
    """As `estimate_memory`, for a model configuration, which was read from `source`."""
    tuning = make_options(query)
    geometry = PatchGeometry.from_config(config)
    lengths = max_lengths.find_max_lengths(query, geometry.patch * geometry.merge)
    cached = feature_cache.uses_feature_cache(
        Params.model_validate(query.params), trains=query.trains
    )
    text = config.get("text_config") or {}

    def measure(layers: int) -> Measurement:
        cut = (
            {**config, "text_config": depth_extrapolation.with_layers(text, layers)}
            if layers
            else config
        )
        return measure_phases(query, cut, tuning, (geometry, lengths, cached))

    small = {**config, "text_config": depth_extrapolation.with_layers(text, 1)} if text else config
    fake_training_step.import_libraries(
        tuning, str(config["model_type"]), lambda: build_model(small, tuning)
    )
    measurement = depth_extrapolation.measure_at_depth(
        depth_extrapolation.count_layers(text), measure
    )
    phases: dict[Phase, dict[str, int]] = {
        "predict": depth_extrapolation.largest_moment(measurement.peaks, "predict")
    }
    if query.trains:
        phases = {"train": depth_extrapolation.largest_moment(measurement.peaks, "train"), **phases}
    sizes, counts = (
        BatchSizes.from_lengths(query, "eval_batch_size", geometry, lengths),
        measurement.counts,
    )
    facts = {
        "sizes of the model": source,
        "longest sample": f"{sizes.length:,} tokens, {sizes.merged:,} of them the picture's "
        f"({lengths.predict[1]} x {lengths.predict[0]} pixels)",
        **lengths.facts,
        "trained parameters": f"{counts['learnt']:,}",
        "precision": fake_training_step.describe_precision(query, tuning),
        "vision tower": "one pass for each picture, then given back" if cached else "in every step",
    }
    if source == known_configs.SCRATCH:
        facts["left out"] = "the base that is trained first, with all its parameters"
    host = fake_training_step.estimate_host_memory(
        query, RUNTIME_BYTES, counts["files"], counts["waits"], phases
    )
    return MemoryEstimate(phases=phases, host=host, facts=facts)


def measure_phases(
    query: MemoryQuery,
    config: dict[str, Any],
    tuning: TrainingOptions,
    reads: tuple[PatchGeometry, VqaMaxLengths, bool],
) -> Measurement:
    """Peaks of a training step and of a prediction.

    `reads`: geometry of patches, largest sizes of samples, whether features are cached.
    """
    geometry, lengths, cached = reads
    peaks: dict[str, dict[str, int]] = {}
    with fake_training_step.fake_mode(tuning) as ledger:
        model, files = build_trainable_model(config, tuning)
        track_model(ledger, model, parameter_part(model, tuning))
        sizes = BatchSizes.from_lengths(query, "eval_batch_size", geometry, lengths)
        if cached:
            first = "train" if query.trains else "predict"
            peaks[f"{first}: features"] = vision_phase(ledger, model, sizes)
        features = feature_format(model, tuning, cached)
        if query.trains:
            batch = BatchSizes.from_lengths(query, "batch", geometry, lengths)
            batch_inputs = make_inputs(ledger, batch, features)
            fake_training_step.measure_training_step(  # the loop holds its batch until the next one
                ledger,
                model,
                tuning,
                lambda: training_loss(ledger, model, batch, batch_inputs),
                batch_inputs,
            )
            peaks |= {f"train: {at}": peak.parts for at, peak in ledger.peaks.items()}
            del batch_inputs
        predict_phase(ledger, model, tuning, (sizes, features))
        peaks |= {f"predict: {at}": peak.parts for at, peak in ledger.peaks.items()}
        learnt = sum(p.numel() for p in model.parameters() if p.requires_grad)
        waits = sample_bytes(lengths, geometry, features)
    return Measurement(peaks, {"learnt": learnt, "files": files, "waits": waits})


class FeatureFormat(NamedTuple):
    """Width and dtype of cached features."""

    width: int
    dtype: torch.dtype


def feature_format(model: Any, tuning: TrainingOptions, cached: bool) -> FeatureFormat | None:
    """The format of cached features; None: features are not cached."""
    if not cached:
        return None
    return FeatureFormat(model.config.vision_config.out_hidden_size, DTYPES[tuning.precision])


def sample_bytes(
    lengths: VqaMaxLengths, geometry: PatchGeometry, features: FeatureFormat | None
) -> int:
    """Bytes of a picture in the host memory of a batch: patches as uint8, or features."""
    patches = math.prod(geometry.grid(*lengths.train))
    if features is None:
        return patches * geometry.colours
    return patches // geometry.merge**2 * features.width * features.dtype.itemsize


def vision_phase(ledger: AllocationTracker, model: Any, sizes: BatchSizes) -> dict[str, int]:
    """Peak, by part, of the tower's pass over the largest picture; releases the tower afterwards.

    Adapters are not counted: a run attaches them later.
    """
    single = replace(sizes, batch=1)
    ledger.reset_peak()
    pixels = make_inputs(ledger, single, None).pictures
    with ledger.part(VISION_ACTIVATIONS), torch.no_grad():
        encode_pictures(model.model.visual, pixels, single)
    fake_training_step.drop_tensors(model.model.visual)
    model.model.visual = nn.Module()
    return {name: size for name, size in ledger.peak.parts.items() if name != LORA}


def make_options(query: MemoryQuery) -> TrainingOptions:
    """The settings that memory depends on."""
    copies = int(bool(query.params.get("ema") or query.params.get("swa")))
    return TrainingOptions.from_query(query, {**query.params, "copies": copies})


def build_model(config: dict[str, Any], tuning: TrainingOptions) -> Any:
    """A model of this configuration, built by transformers."""
    from transformers import AutoConfig, AutoModelForImageTextToText

    sizes = dict(config)
    described = AutoConfig.for_model(sizes.pop("model_type"), **sizes)
    seeing: Any = AutoModelForImageTextToText
    return seeing.from_config(described, dtype=tuning.dtype, attn_implementation=ATTENTION)


def build_trainable_model(config: dict[str, Any], tuning: TrainingOptions) -> tuple[Any, int]:
    """The model on fake tensors with adapters, and the bytes of its files."""
    model = build_model(config, tuning)
    model.requires_grad_(False)
    pretrained.widen_to_fp32(model)
    files = 2 * sum(parameter.numel() for parameter in model.parameters())
    fake_training_step.adapt_language_model(model.model.language_model, tuning)
    return model, files


def parameter_part(model: nn.Module, tuning: TrainingOptions) -> Any:
    """Function from the name of a parameter to the part that its bytes count for."""
    language = fake_training_step.name_parts(model, tuning)
    return lambda name: VISION if ".visual." in name else language(name)


def training_loss(
    ledger: AllocationTracker, model: Any, sizes: BatchSizes, batch: BatchInputs
) -> Tensor:
    """Loss (0-d) of a micro-batch, with the operations of `Answerer.forward`."""
    hidden = compute_hidden_states(ledger, model, (sizes, batch), cache=None)
    with ledger.part(LOGITS):
        labels = torch.zeros(sizes.batch * ANSWER_TOKENS, dtype=torch.long)
        logits = model.lm_head(hidden[:, -ANSWER_TOKENS - 1 :])[:, :-1].float()
        return functional.cross_entropy(logits.flatten(0, 1), labels)


@torch.no_grad()
def predict_phase(
    ledger: AllocationTracker,
    model: Any,
    tuning: TrainingOptions,
    batch_format: tuple[BatchSizes, FeatureFormat | None],
) -> dict[str, int]:
    """Peak, by part, of a batch of prompts and its first generated token."""
    model.eval()
    ledger.reset_peak()
    with fake_training_step.autocast(tuning):
        cache = fake_training_step.TrackedCache.create(ledger)
        batch = make_inputs(ledger, *batch_format)
        hidden = compute_hidden_states(ledger, model, (batch_format[0], batch), cache=cache)
        with ledger.part(LOGITS):
            model.lm_head(hidden[:, -1:]).float().softmax(-1)
    return ledger.peak.parts


def make_inputs(
    ledger: AllocationTracker, sizes: BatchSizes, features: FeatureFormat | None
) -> BatchInputs:
    """Allocate the tensors of a micro-batch, with pixels or features."""
    count, tokens = sizes.batch * sizes.grid[0] * sizes.grid[1], sizes.batch * sizes.merged
    with ledger.part(INPUTS):
        ids, mask, labels = (torch.zeros(sizes.batch, sizes.length).long() for _ in range(3))
        places = torch.zeros(3, sizes.batch, sizes.length, dtype=torch.long)
        if features is not None:
            pictures = torch.zeros(tokens, features.width, dtype=features.dtype)
            return BatchInputs(ids, mask, places, [labels], pictures)
        order = [torch.zeros(count, 2).long(), torch.zeros(tokens).long()]
        pictures = torch.zeros(count, sizes.geometry.colours * sizes.geometry.frames)
        return BatchInputs(ids, mask, places, [labels, *order], pictures)


def compute_hidden_states(
    ledger: AllocationTracker,
    model: Any,
    sizes_and_batch: tuple[BatchSizes, BatchInputs],
    cache: Any,
) -> Tensor:
    """Last hidden states [B, T, W] of a micro-batch."""
    sizes, batch = sizes_and_batch
    with ledger.part(INPUTS):
        mask = causal_mask(batch.mask)
    words = model.get_input_embeddings()(batch.ids)
    features = batch.pictures
    if hasattr(model.model.visual, "blocks"):
        with ledger.part(VISION_ACTIVATIONS), torch.no_grad():
            features = encode_pictures(model.model.visual, batch.pictures, sizes)
    features = features.to(words.dtype)
    with ledger.part(INPUTS):
        image_mask = torch.zeros(words.shape, dtype=torch.bool)
    embeddings = words.masked_scatter(image_mask, features)
    del words, features, image_mask
    hidden: Tensor = model.model.language_model(
        inputs_embeds=embeddings,
        attention_mask={"full_attention": mask},
        position_ids=batch.positions,
        past_key_values=cache,
        use_cache=cache is not None,
    ).last_hidden_state
    return hidden


def encode_pictures(tower: Any, pixels: Tensor, sizes: BatchSizes) -> Tensor:
    """Output of the vision tower for a batch of pictures, [B x tokens, W].

    Without gradients no layer keeps activations, so one block of each kind has the peak of all.
    """
    rows, columns = sizes.grid
    config = tower.config
    # numpy arrays: the tower reads these values, and fake tensors have none.
    picture_ends = np.arange(sizes.batch + 1) * rows * columns
    windows = np.cumsum([0, *_window_sizes(sizes.grid, config) * sizes.batch])
    with _one_block_of_each_kind(tower) as short:
        features: Tensor = short(
            pixels.to(tower.dtype),
            grid_thw=None,
            position_ids=torch.zeros(len(pixels), 2, dtype=torch.long),
            cu_seqlens=picture_ends,
            window_index=torch.zeros(sizes.batch * sizes.merged, dtype=torch.long),
            cu_window_seqlens=windows,
        ).pooler_output
    return features


@contextmanager
def _one_block_of_each_kind(tower: Any) -> Iterator[Any]:
    """The tower with only one block of window attention and one of full attention, if any."""
    blocks, full_attention = tower.blocks, tower.fullatt_block_indexes
    kinds = {number in full_attention: block for number, block in enumerate(blocks)}
    tower.blocks = nn.ModuleList(kinds.values())
    tower.fullatt_block_indexes = [index for index, is_full in enumerate(kinds) if is_full]
    try:
        yield tower
    finally:
        tower.blocks, tower.fullatt_block_indexes = blocks, full_attention


def _window_sizes(grid: tuple[int, int], config: Any) -> list[int]:
    """Patches of each window of a picture; windows at its edges are smaller."""
    merge = config.spatial_merge_size
    side = config.window_size // merge // config.patch_size * merge
    return [
        min(side, grid[0] - row) * min(side, grid[1] - column)
        for row in range(0, grid[0], side)
        for column in range(0, grid[1], side)
    ]
