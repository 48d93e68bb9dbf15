"""Memory estimate of a captioning run: the engine's own modules on fake tensors, without weights.

The phases of a run are carried out one by one: a pass of the vision tower, the calibration of the
projector, a training step, the loss of a batch without gradients, and generation with its key-value
cache. `generate` depends on the values of tokens, which fake tensors lack, so only its first and
its longest step are carried out. Of a deep language model some shallow ones are measured instead.
"""

from __future__ import annotations

import gc
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Final

import torch
from torch import Tensor, nn

from engines import model_catalog
from engines.captioning import components
from engines.captioning.memory import max_lengths, model_from_config
from engines.captioning.memory.max_lengths import CaptioningMaxLengths
from engines.captioning.memory.model_from_config import (
    ENCODER,
    SCORER,
    VISION,
    VISION_ACTIVATIONS,
)
from engines.captioning.models.captioner import Captioner, mean_loss
from engines.captioning.models.vision import VisionTower
from engines.captioning.params import Params
from engines.captioning.prepare import CALIBRATION_MEDIA
from engines.captioning.validation import LOSS_SAMPLE
from engines.memory_query import MemoryEstimate, MemoryQuery, Phase
from engines.torchkit.memory import depth_extrapolation, fake_training_step, known_configs
from engines.torchkit.memory.allocation_tracker import OPTIMIZER, AllocationTracker, track_model
from engines.torchkit.memory.depth_extrapolation import Measurement
from engines.torchkit.memory.fake_training_step import INPUTS, TrainingOptions
from engines.torchkit.modeling import lora
from engines.torchkit.training.early_stopping import Monitor

PartBytes = dict[str, int]
Peaks = dict[str, PartBytes]
"""Name of a moment of the run -> bytes by part at its peak."""

RUNTIME_BYTES: Final = 1_250 << 20
"""VmHWM on a CPU when the nano is loaded, 1,171 to 1,261 MiB: more than half of it is torch,
transformers, peft and bitsandbytes."""
KOREAN_BYTES: Final = 470 << 20
"""The morpheme model of kiwi, for the diversity of Korean captions: 454 and 481 MiB measured."""


@dataclass(frozen=True)
class FakeCaptioningRun:
    """A run on fake tensors: settings, sizes and the tracker of its allocations."""

    tracker: AllocationTracker
    params: Params
    options: TrainingOptions
    lengths: CaptioningMaxLengths
    tower: VisionTower

    def batch(self, size: int) -> tuple[Tensor, Tensor]:
        """Media (features or pixels) and caption ids of `size` samples on the device."""
        shape, frames = self.tower.shape, self.lengths.frames
        with self.tracker.part(INPUTS):
            ids = torch.zeros(size, self.lengths.tokens, dtype=torch.long)
            if self.params.feature_cache:
                dtype = getattr(torch, self.params.feature_dtype)
                return torch.zeros(size, frames, shape.patches, shape.width, dtype=dtype), ids
            side = shape.image_size
            return torch.zeros(size, frames, side, side, 3, dtype=torch.uint8), ids

    def features(self, media: Tensor) -> Tensor:
        """As `Prepared.encode_features`: pixels are encoded by the tower first."""
        if media.dtype.is_floating_point:
            return media
        with self.tracker.part(VISION_ACTIVATIONS):
            features = self.tower.encode(media.flatten(0, 1))
        return features.view(*media.shape[:2], *features.shape[1:])


def estimate_memory(query: MemoryQuery) -> MemoryEstimate:
    """Estimate the peak bytes of training, feature computation included, and of evaluation.

    Raises:
        EngineError: the sizes of the model are not known.
    """
    entry = model_catalog.load(query.model)
    params = Params.model_validate(query.params)
    vision, llm = (components.select_part(entry, params, name) for name in ("vision", "llm"))
    if not query.trains:
        return estimate_model(query, params, (vision, llm))
    estimates = {}
    for number, stage in largest_stages(params.stage_params()).items():
        stage_query = query.model_copy(update={"params": stage.model_dump(mode="json")})
        estimates[number] = estimate_model(stage_query, stage, (vision, llm))
    number = max(estimates, key=lambda n: sum(estimates[n].phases["train"].values()))
    if not params.stages:
        return estimates[number]
    facts = {**estimates[number].facts, "largest stage": f"{number} of {len(params.stages)}"}
    return estimates[number].model_copy(update={"facts": facts})


def largest_stages(stages: Sequence[Params]) -> dict[int, Params]:
    """Stages by number (from 1), without those that surely need no more memory than another."""

    def covers(other: Params, stage: Params) -> bool:
        return (
            set(other.trained_parts) >= set(stage.trained_parts)
            and other.batch >= stage.batch
            and other.gradient_accumulation_steps >= min(2, stage.gradient_accumulation_steps)
        )

    kept: dict[int, Params] = {}
    for number, stage in reversed(list(enumerate(stages, 1))):
        if not any(covers(other, stage) for other in kept.values()):
            kept = {n: other for n, other in kept.items() if not covers(stage, other)}
            kept[number] = stage
    return kept


def estimate_model(query: MemoryQuery, params: Params, parts: tuple[Any, Any]) -> MemoryEstimate:
    """As `estimate_memory`, for a pair of vision tower and language model."""
    options = TrainingOptions.from_query(query, params.model_dump())
    lengths = max_lengths.find_max_lengths(query, params, parts[1])
    config, llm_source = model_from_config.read_llm_config(query.model, parts[1])
    layers = model_from_config.count_layers(config)
    shallow = model_from_config.with_layers(config, min(layers, 1))
    fake_training_step.import_libraries(
        options, str(config.model_type), lambda: model_from_config.build_llm(shallow, options)
    )

    def start_run(tracker: AllocationTracker) -> tuple[FakeCaptioningRun, str]:
        precision = model_from_config.cpu_precision(options.precision)
        tower, source = model_from_config.build_tower(query.model, parts[0], params, precision)
        return FakeCaptioningRun(tracker, params, options, lengths, tower), source

    with fake_training_step.fake_mode(options) as tracker:
        run, tower_source = start_run(tracker)
        frozen = measure_frozen_models(run)

    def measure(depth: int) -> Measurement:
        with fake_training_step.fake_mode(options) as tracker:
            cut = model_from_config.with_layers(config, depth)
            return measure_phases(query, start_run(tracker)[0], cut, frozen)

    measurement = depth_extrapolation.measure_at_depth(layers, measure)
    phases: dict[Phase, PartBytes] = {}
    vision: Phase = "train" if query.trains else "predict"
    moments = measurement.peaks | {f"{vision}: vision": frozen.vision_peak}
    if query.trains:
        phases["train"] = depth_extrapolation.largest_moment(moments, "train")
    phases["predict"] = depth_extrapolation.largest_moment(moments, "predict")
    facts = describe_estimate(run, measurement.counts, (llm_source, tower_source), frozen.omitted)
    facts["precision"] = fake_training_step.describe_precision(query, options)
    files = measurement.counts["files"], frozen.vision
    return MemoryEstimate(phases=phases, host=host_memory(query, run, files, phases), facts=facts)


@dataclass(frozen=True)
class FrozenModels:
    """Memory of the models whose size does not depend on the language model's depth, in bytes."""

    vision: int
    """Of the tower's parameters."""
    vision_peak: PartBytes
    """Of one pass of the tower."""
    scorer: int
    """Of the parameters of the image-text scorer; 0: none is loaded."""
    scorer_peak: PartBytes
    """Of the scorer's pass over a batch."""
    encoder_peak: PartBytes
    """Of BERTScore's encoder on a batch, which is loaded for each split anew; empty: none."""
    omitted: str
    """Scorer and encoder, if their sizes are not known."""


def measure_frozen_models(run: FakeCaptioningRun) -> FrozenModels:
    """Measure a pass of the tower, and then one of the scorer and one of the encoder alone."""
    params, lengths = run.params, run.lengths
    vision = track_module(run.tracker, run.tower.init_random(), lambda _: VISION)
    vision_peak = vision_phase(run)
    scorer_model, no_scorer = model_from_config.build_scorer(params)
    scorer, scorer_peak = measure_scorer(
        run.tracker, SCORER, scorer_model,
        lambda: model_from_config.run_scorer(scorer_model, lengths.frames),
    )  # fmt: skip
    encoder, no_encoder = model_from_config.build_encoder(params)
    _, encoder_peak = measure_scorer(
        run.tracker, ENCODER, encoder,
        lambda: model_from_config.run_encoder(encoder, lengths.score_pairs, lengths.score_tokens),
    )  # fmt: skip
    omitted = "; ".join(filter(None, (no_scorer, no_encoder)))
    return FrozenModels(vision, vision_peak, scorer, scorer_peak, encoder_peak, omitted)


def measure_scorer(
    tracker: AllocationTracker, part: str, model: Any, score: Callable[[], None]
) -> tuple[int, PartBytes]:
    """Bytes of a scorer's parameters, and its peak as it scores a batch; 0 and none without it."""
    if model is None:
        return 0, {}
    size = track_module(tracker, model, lambda _: part)
    tracker.reset_peak()
    with tracker.part(part):
        score()
    return size, {part: tracker.peak.parts[part]}


def measure_phases(
    query: MemoryQuery, run: FakeCaptioningRun, config: Any, frozen: FrozenModels
) -> Measurement:
    """Peaks of training and of evaluation with a language model of this configuration."""
    params, options, tracker = run.params, run.options, run.tracker
    if not params.feature_cache:
        track_module(tracker, run.tower.init_random(), lambda _: VISION)
    model, files = model_from_config.build_captioner(
        config, run.tower, params, options, run.lengths
    )
    if query.trains:
        model.train_parts(params.trained_parts)
    track_model(tracker, model, model_from_config.parameter_part(model, options))
    counts = {
        "files": files,
        "trained": sum(p.numel() for p in model.parameters() if p.requires_grad),
        "media": model.projector.length(run.lengths.frames),
    }
    peaks = prefix_names("train", training_peaks(run, model)) if query.trains else {}
    peaks |= prefix_names("predict", evaluation_peaks(run, model, frozen, trains=query.trains))
    return Measurement(peaks, counts)


def prefix_names(name: str, peaks: Peaks) -> Peaks:
    """The moments with `name: ` before their names."""
    return {f"{name}: {moment}": parts for moment, parts in peaks.items()}


def tracked_peaks(name: str, tracker: AllocationTracker) -> Peaks:
    """The peaks of the tracker since they were reset, as moments of the step `name`."""
    return prefix_names(name, {moment: peak.parts for moment, peak in tracker.peaks.items()})


def describe_estimate(
    run: FakeCaptioningRun, counts: dict[str, int], sources: tuple[str, str], omitted: str
) -> dict[str, str]:
    """The assumptions of an estimate. `sources`: of the sizes of language model and tower."""
    shape, lengths, media = run.tower.shape, run.lengths, counts["media"]
    length = len(lengths.template.before) + media + len(lengths.template.after) + lengths.tokens
    facts = {
        "sizes of the model": f"{sources[0]}; vision tower: {sources[1]}",
        "longest sample": f"{length:,} tokens, {media:,} of them the medium's",
        **lengths.facts,
        "vision": f"{shape.patches:,} patches of {shape.width:,} a frame",
        "trained parameters": f"{counts['trained']:,}",
    }
    scratch = sources[0] == known_configs.SCRATCH
    base = "the base that is trained first, with all its parameters" if scratch else ""
    omissions = "; ".join(filter(None, (omitted, base)))
    return facts | ({"left out": omissions} if omissions else {})


def track_module(tracker: AllocationTracker, model: nn.Module, part_of: Any) -> int:
    """Track the parameters of a frozen model; returns their bytes."""
    track_model(tracker, model, part_of)
    return sum(p.numel() * p.element_size() for p in model.parameters())


def vision_phase(run: FakeCaptioningRun) -> PartBytes:
    """Peak of one pass of the frozen tower, before the language model is loaded.

    With a feature cache the weights of the tower are released afterwards.
    """
    size, tower = run.tower.shape.image_size, run.tower
    with run.tracker.part(INPUTS):
        frames = torch.zeros(tower.at_once, size, size, 3, dtype=torch.uint8)
    run.tracker.reset_peak()
    with run.tracker.part(VISION_ACTIVATIONS):
        tower.encode(frames)
    if run.params.feature_cache:
        tower.release_weights()
        gc.collect()  # modules refer to each other in cycles
    return run.tracker.peak.parts


def training_peaks(run: FakeCaptioningRun, model: Captioner) -> Peaks:
    """Peaks of the calibration and of a training step."""
    tracker = run.tracker
    tracker.reset_peak()
    model.calibrate(run.features(run.batch(CALIBRATION_MEDIA)[0]))
    calibration = tracked_peaks("calibration", tracker)
    batch = run.batch(run.params.batch)  # the loop holds its batch until the next one

    def loss() -> Tensor:
        media, ids = batch
        with model_from_config.track_logits(tracker, model.llm):
            return mean_loss(*model(run.features(media), ids, ids))

    fake_training_step.measure_training_step(tracker, model, run.options, loss, batch)
    return calibration | tracked_peaks("step", tracker)


def evaluation_peaks(
    run: FakeCaptioningRun, model: Captioner, frozen: FrozenModels, *, trains: bool
) -> Peaks:
    """Peaks of evaluation and of the validation between epochs."""
    params, size = run.params, run.params.eval_batch_size
    peaks = eval_phase(run, model, size, size)
    validation: Peaks = {}
    trained = [p for p in model.parameters() if p.requires_grad]
    optimizer_bytes = {OPTIMIZER: 2 * sum(p.nbytes for p in trained)}
    if trains and params.validate_every_epochs:
        batches = min(size, LOSS_SAMPLE), min(size, params.evaluate_sample)
        validation = peaks if batches == (size, size) else eval_phase(run, model, *batches)
        validation = {moment: parts | optimizer_bytes for moment, parts in validation.items()}
    if params.merge_lora and params.lora_rank:  # at the end only, after the validations
        peaks = merge_phase(run, model) | eval_phase(run, model, size, size)
    scorer = {SCORER: frozen.scorer} if frozen.scorer else {}
    if scorer:  # it stays loaded while captions of the next subset are generated
        peaks = {moment: parts | scorer for moment, parts in peaks.items()}
        peak = dict(+run.tracker.parts) | frozen.scorer_peak
        peaks["judge"] = peak
        monitor = Monitor.from_params(params)
        monitored = monitor.active and "siglip" in monitor.metrics
        if validation and monitored:
            validation["judge"] = peak | optimizer_bytes
    if frozen.encoder_peak:
        peaks["BERTScore"] = dict(+run.tracker.parts) | scorer | frozen.encoder_peak
    return peaks | prefix_names("validation", validation)


def merge_phase(run: FakeCaptioningRun, model: Captioner) -> Peaks:
    """Peak of merging LoRA into the weights, which stay merged."""
    model.eval()
    run.tracker.reset_peak()
    with run.tracker.part(fake_training_step.WHOLE):
        lora.merge_adapters(model.llm)
    gc.collect()  # modules refer to each other in cycles
    return tracked_peaks("merge", run.tracker)


@torch.no_grad()
def eval_phase(run: FakeCaptioningRun, model: Captioner, losses: int, captions: int) -> Peaks:
    """Peaks of the loss of `losses` media at once and of generating `captions` captions at once."""
    tracker = run.tracker
    model.eval()
    tracker.reset_peak()
    media, ids = run.batch(losses)
    logits = model_from_config.track_logits(tracker, model.llm)
    with logits, fake_training_step.autocast(run.options):
        model(run.features(media), ids, ids)
    loss = tracked_peaks("loss", tracker)
    media, _ = run.batch(captions)
    tracker.reset_peak()
    logits = model_from_config.track_logits(tracker, model.llm)
    with logits, fake_training_step.autocast(run.options):
        return loss | generate_phase(run, model, media)


def generate_phase(run: FakeCaptioningRun, model: Captioner, media: Tensor) -> Peaks:
    """Peaks of the first step of generation and of the last one of captions of full length."""
    cache = fake_training_step.TrackedCache.create(run.tracker)
    inputs = model.embed_prompt(run.features(media))
    token = model.next_token(inputs, cache)
    first = tracked_peaks("first token", run.tracker)
    if run.params.max_new_tokens == 1:
        return first
    run.tracker.reset_peak()
    for index, layer in enumerate(cache.layers):
        batch, heads, _, width = layer.keys.shape
        shape = (batch, heads, run.params.max_new_tokens - 2, width)
        filled = torch.zeros(shape, dtype=layer.keys.dtype)
        cache.update(filled, filled, index)
    embedded = model.llm.get_input_embeddings()(token)[:, None].to(inputs.dtype)
    del inputs
    model.next_token(embedded, cache)
    return first | tracked_peaks("last token", run.tracker)


def host_memory(
    query: MemoryQuery, run: FakeCaptioningRun, files: tuple[int, int],
    phases: dict[Phase, PartBytes],
) -> PartBytes:  # fmt: skip
    """Bytes of host memory by part. `files`: language model in half precision, vision tower."""
    params, shape = run.params, run.tower.shape
    frame_bytes = 3 * shape.image_size**2
    if params.feature_cache:
        frame_bytes = shape.patches * shape.width * getattr(torch, params.feature_dtype).itemsize
    parts = fake_training_step.estimate_host_memory(
        query, RUNTIME_BYTES, files[0], run.lengths.frames * frame_bytes, phases
    )
    if "ko" in run.lengths.languages:
        parts["morphemes of Korean captions"] = KOREAN_BYTES
    if query.target == "cuda":
        parts["vision tower, on its way to the GPU"] = files[1]
    return parts
