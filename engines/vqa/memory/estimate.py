"""Memory estimate of a VQA run: the real module tree of the model on fake tensors, without weights.

A training step is carried out on fake tensors: vision tower, language model with 4-bit stand-ins
and real LoRA, loss, backward pass, optimizer. Towers: `patch_towers` and `tile_towers`. With a
feature cache the tower has one pass, over one picture at a time, and is released afterwards.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any, Final, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional

from engines import model_catalog
from engines.memory_query import MemoryEstimate, MemoryQuery, Phase
from engines.torchkit.memory import depth_extrapolation, fake_training_step, known_configs
from engines.torchkit.memory.allocation_tracker import AllocationTracker, track_model
from engines.torchkit.memory.depth_extrapolation import Measurement
from engines.torchkit.memory.fake_training_step import INPUTS, LOGITS, LORA, TrainingOptions
from engines.torchkit.memory.patch_towers import FakeTower, Size
from engines.torchkit.modeling import pretrained, rms_norm
from engines.torchkit.modeling.model_config import ATTENTION
from engines.torchkit.runtime.precision import DTYPES
from engines.vqa.data import feature_cache
from engines.vqa.memory import max_lengths, model_from_config
from engines.vqa.memory.max_lengths import VqaMaxLengths
from engines.vqa.models.model import ANSWER_TOKENS, causal_mask
from engines.vqa.params import Params

RUNTIME_BYTES: Final = 1 << 30
"""Python and libraries on a CPU, measured with the nano model."""
VISION: Final = "vision tower"
VISION_ACTIVATIONS: Final = "vision activations"
WEIGHTS: Final = (
    fake_training_step.PACKED, fake_training_step.WHOLE, fake_training_step.OTHER, LORA, VISION,
)  # fmt: skip
FEATURES: Final = "tower, one picture"
"""The tower's pass over the largest picture, before training."""


@dataclass(frozen=True)
class BatchSizes:
    """Sizes of a micro-batch."""

    batch: int
    picture: Size
    length: int
    """Tokens of the longest sample, picture included."""
    tower: FakeTower

    @classmethod
    def from_lengths(
        cls, query: MemoryQuery, batch: str, tower: FakeTower, lengths: VqaMaxLengths
    ) -> BatchSizes:
        """Sizes of the longest sample. `batch`: the name of the setting of the batch size."""
        settings = query.params
        picture = lengths.train if batch == "batch" else lengths.predict
        total = tower.tokens(picture) + lengths.tokens
        return cls(int(settings[batch]), picture, min(total, int(settings["max_length"])), tower)

    @property
    def rows(self) -> int:
        """Rows of features of all pictures."""
        return self.batch * self.tower.rows(self.picture)


class BatchInputs(NamedTuple):
    """Tensors of a micro-batch on the device."""

    ids: Tensor
    """Token ids [B, T]."""
    mask: Tensor
    """Padding mask [B, T]."""
    positions: Tensor
    """Position ids [3, B, T]."""
    labels: Tensor
    """[B, T]."""
    pixels: list[Tensor]
    """Inputs of the tower for all pictures; empty where features are cached."""
    features: Tensor | None
    """Cached features of all pictures."""


def estimate_memory(query: MemoryQuery) -> MemoryEstimate:
    """Estimate the peak bytes of a training step and of a prediction.

    Raises:
        EngineError: the sizes of the model are not known, or its type is not supported.
    """
    config, source = model_from_config.read_config(model_catalog.load(query.model))
    return estimate_model(query, config, source)


def estimate_model(query: MemoryQuery, config: dict[str, Any], source: str) -> MemoryEstimate:
    """As `estimate_memory`, for a model configuration, which was read from `source`."""
    options = make_options(query)
    tower = model_from_config.select_tower(config, query.model)
    lengths = max_lengths.find_max_lengths(query, tower.factor, tower.tokens)
    cached = feature_cache.uses_feature_cache(
        Params.model_validate(query.params), trains=query.trains
    )
    measurement = _measure_at_depth(query, config, options, (tower, lengths, cached))
    phases: dict[Phase, dict[str, int]] = {
        "predict": depth_extrapolation.largest_moment(measurement.peaks, "predict")
    }
    if query.trains:
        phases = {"train": depth_extrapolation.largest_moment(measurement.peaks, "train"), **phases}
    sizes, counts = (
        BatchSizes.from_lengths(query, "eval_batch_size", tower, lengths),
        measurement.counts,
    )
    facts = {
        "sizes of the model": source,
        **_describe_sample(sizes, lengths),
        "trained parameters": f"{counts['learnt']:,}",
        "precision": fake_training_step.describe_precision(query, options),
        "vision tower": "one pass for each picture, then given back" if cached else "in every step",
    }
    if source == known_configs.SCRATCH:
        facts["left out"] = "the base that is trained first, with all its parameters"
    host = fake_training_step.estimate_host_memory(
        query, RUNTIME_BYTES, counts["files"], counts["waits"], phases
    )
    features = measurement.peaks.get(f"{'train' if query.trains else 'predict'}: {FEATURES}")
    return MemoryEstimate(
        phases=phases,
        moments={FEATURES: features} if features else {},
        weights=WEIGHTS,
        avoided={
            "logits of every position": _all_logits_bytes(sizes, counts["vocabulary"], options)
        },
        host=host,
        facts=facts,
    )


def _describe_sample(sizes: BatchSizes, lengths: VqaMaxLengths) -> dict[str, str]:
    """Tokens and pixels of the longest sample of a prediction, and how they were determined."""
    (height, width), picture = lengths.predict, sizes.tower.tokens(sizes.picture)
    text = f"{sizes.length:,} tokens, {picture:,} of them the picture's ({width} x {height} pixels)"
    return {"longest sample": text, **lengths.facts}


def _all_logits_bytes(sizes: BatchSizes, vocabulary: int, options: TrainingOptions) -> int:
    """Bytes of logits [B, T, V] in the precision of the weights, and of a copy in float32."""
    itemsize = options.dtype.itemsize + torch.float32.itemsize
    return sizes.batch * sizes.length * vocabulary * itemsize


def _measure_at_depth(
    query: MemoryQuery,
    config: dict[str, Any],
    options: TrainingOptions,
    reads: tuple[FakeTower, VqaMaxLengths, bool],
) -> Measurement:
    """`measure_phases` at the model's depth, from shallow ones."""
    text = config.get("text_config") or {}

    def measure(layers: int) -> Measurement:
        cut = (
            {**config, "text_config": depth_extrapolation.with_layers(text, layers)}
            if layers
            else config
        )
        return measure_phases(query, cut, options, reads)

    small = {**config, "text_config": depth_extrapolation.with_layers(text, 1)} if text else config
    fake_training_step.import_libraries(
        options, str(config["model_type"]), lambda: build_model(small, options)
    )
    return depth_extrapolation.measure_at_depth(depth_extrapolation.count_layers(text), measure)


def measure_phases(
    query: MemoryQuery,
    config: dict[str, Any],
    options: TrainingOptions,
    reads: tuple[FakeTower, VqaMaxLengths, bool],
) -> Measurement:
    """Peaks of a training step and of a prediction.

    `reads`: the vision tower, largest sizes of samples, whether features are cached.
    """
    tower, lengths, cached = reads
    peaks: dict[str, dict[str, int]] = {}
    with fake_training_step.fake_mode(options) as tracker:
        model, files = build_trainable_model(config, options)
        tower.prepare(model)
        track_model(tracker, model, parameter_part(model, options))
        sizes = BatchSizes.from_lengths(query, "eval_batch_size", tower, lengths)
        if cached:
            first = "train" if query.trains else "predict"
            peaks[f"{first}: {FEATURES}"] = vision_phase(tracker, model, sizes)
        else:
            rms_norm.use_fused_rms_norm(model)
        features = feature_format(model, config, options) if cached else None
        if query.trains:
            batch = BatchSizes.from_lengths(query, "batch", tower, lengths)
            batch_inputs = make_inputs(tracker, batch, features)
            fake_training_step.measure_training_step(  # the loop holds its batch until the next one
                tracker,
                model,
                options,
                lambda: training_loss(tracker, model, batch, batch_inputs),
                batch_inputs,
            )
            peaks |= {f"train: {at}": peak.parts for at, peak in tracker.peaks.items()}
            del batch_inputs
        predict_phase(tracker, model, options, (sizes, features))
        peaks |= {f"predict: {at}": peak.parts for at, peak in tracker.peaks.items()}
        learnt = sum(p.numel() for p in model.parameters() if p.requires_grad)
        waits = sample_bytes(lengths, tower, features)
    vocabulary = int(model.config.get_text_config().vocab_size)
    return Measurement(
        peaks, {"learnt": learnt, "files": files, "waits": waits, "vocabulary": vocabulary}
    )


class FeatureFormat(NamedTuple):
    """Width and dtype of cached features."""

    width: int
    dtype: torch.dtype


def feature_format(model: Any, config: dict[str, Any], options: TrainingOptions) -> FeatureFormat:
    """The format of cached features: the language model's width, once more for each deep layer."""
    deep = config["vision_config"].get("deepstack_visual_indexes") or ()
    width = model.config.get_text_config().hidden_size * (1 + len(deep))
    return FeatureFormat(width, DTYPES[options.precision])


def sample_bytes(lengths: VqaMaxLengths, tower: FakeTower, features: FeatureFormat | None) -> int:
    """Bytes of a picture in the host memory of a batch: pixels, or features."""
    if features is None:
        return tower.sample_bytes(lengths.train)
    return tower.rows(lengths.train) * features.width * features.dtype.itemsize


def vision_phase(tracker: AllocationTracker, model: Any, sizes: BatchSizes) -> dict[str, int]:
    """Peak, by part, of the tower's pass over the largest picture; releases the tower afterwards.

    Adapters are not counted: a run attaches them later.
    """
    single = replace(sizes, batch=1)
    tracker.reset_peak()
    pixels = make_inputs(tracker, single, None).pixels
    with tracker.part(VISION_ACTIVATIONS), torch.no_grad():
        single.tower.encode(model, pixels, 1, single.picture)
    single.tower.release(model)
    return {name: size for name, size in tracker.peak.parts.items() if name != LORA}


def make_options(query: MemoryQuery) -> TrainingOptions:
    """The settings that memory depends on."""
    copies = int(bool(query.params.get("ema") or query.params.get("swa")))
    return TrainingOptions.from_query(query, {**query.params, "copies": copies})


def build_model(config: dict[str, Any], options: TrainingOptions) -> Any:
    """A model of this configuration, built by transformers."""
    from transformers import AutoConfig, AutoModelForImageTextToText

    sizes = dict(config)
    described = AutoConfig.for_model(sizes.pop("model_type"), **sizes)
    seeing: Any = AutoModelForImageTextToText
    return seeing.from_config(described, dtype=options.dtype, attn_implementation=ATTENTION)


def build_trainable_model(config: dict[str, Any], options: TrainingOptions) -> tuple[Any, int]:
    """The model on fake tensors with adapters, and the bytes of its files."""
    model = build_model(config, options)
    model.requires_grad_(False)
    pretrained.widen_to_fp32(model)
    files = 2 * sum(parameter.numel() for parameter in model.parameters())
    fake_training_step.adapt_language_model(model.get_decoder(), options)
    return model, files


def parameter_part(model: nn.Module, options: TrainingOptions) -> Any:
    """Function from the name of a parameter to the part that its bytes count for."""
    language = fake_training_step.name_parts(model, options)
    decoder = f"{pretrained.language_module_name(model)}."
    return lambda name: language(name) if decoder in name or "lm_head" in name else VISION


def training_loss(
    tracker: AllocationTracker, model: Any, sizes: BatchSizes, batch: BatchInputs
) -> Tensor:
    """Loss (0-d) of a micro-batch, with the operations of `Answerer.forward`."""
    hidden = compute_hidden_states(tracker, model, (sizes, batch), cache=None)
    with tracker.part(LOGITS):
        labels = torch.zeros(sizes.batch * ANSWER_TOKENS, dtype=torch.long)
        logits = model.lm_head(hidden[:, -ANSWER_TOKENS - 1 :])[:, :-1].float()
        return functional.cross_entropy(logits.flatten(0, 1), labels)


@torch.no_grad()
def predict_phase(
    tracker: AllocationTracker,
    model: Any,
    options: TrainingOptions,
    batch_format: tuple[BatchSizes, FeatureFormat | None],
) -> dict[str, int]:
    """Peak, by part, of a batch of prompts and its first generated token."""
    model.eval()
    tracker.reset_peak()
    with fake_training_step.autocast(options):
        cache = fake_training_step.TrackedCache.create(tracker, model.config.get_text_config())
        batch = make_inputs(tracker, *batch_format)
        hidden = compute_hidden_states(tracker, model, (batch_format[0], batch), cache=cache)
        with tracker.part(LOGITS):
            model.lm_head(hidden[:, -1:]).float().softmax(-1)
    return tracker.peak.parts


def make_inputs(
    tracker: AllocationTracker, sizes: BatchSizes, features: FeatureFormat | None
) -> BatchInputs:
    """Allocate the tensors of a micro-batch, with pixels or features."""
    with tracker.part(INPUTS):
        ids, mask, labels = (torch.zeros(sizes.batch, sizes.length).long() for _ in range(3))
        places = torch.zeros(3, sizes.batch, sizes.length, dtype=torch.long)
        if features is None:
            pixels = sizes.tower.pixels(sizes.batch, sizes.picture)
            return BatchInputs(ids, mask, places, labels, pixels, None)
        rows = torch.zeros(sizes.rows, features.width, dtype=features.dtype)
    return BatchInputs(ids, mask, places, labels, [], rows)


def compute_hidden_states(
    tracker: AllocationTracker,
    model: Any,
    sizes_and_batch: tuple[BatchSizes, BatchInputs],
    cache: Any,
) -> Tensor:
    """Last hidden states [B, T, W] of a micro-batch."""
    sizes, batch = sizes_and_batch
    with tracker.part(INPUTS):
        mask = causal_mask(batch.mask)
    words = model.get_input_embeddings()(batch.ids)
    features, vision = batch.features, None
    if features is None:
        with tracker.part(VISION_ACTIVATIONS), torch.no_grad():
            vision = sizes.tower.encode(model, batch.pixels, sizes.batch, sizes.picture)
        features = vision.features
    shown, *deep = torch.split(features.to(words.dtype), words.shape[-1], 1)
    with tracker.part(INPUTS):
        image_mask = torch.zeros(words.shape, dtype=torch.bool)
    embeddings = words.masked_scatter(image_mask, shown)
    arguments = sizes.tower.decoder_arguments(mask, batch.positions, [d.contiguous() for d in deep])
    del words, features, shown, deep, image_mask
    hidden: Tensor = model.get_decoder()(
        inputs_embeds=embeddings, past_key_values=cache, use_cache=cache is not None, **arguments
    ).last_hidden_state
    del vision  # held until here, as the library's forward pass holds it
    return hidden
