"""How much memory a captioning run would take: the engine's own modules, without their weights.

What a run does is rehearsed on fake tensors: a pass of the vision tower, the projector's
calibration, a training step, the loss of a batch without gradients, and captions with their
key-value cache. `generate` reads the numbers that it makes, so its first and its longest step are
rehearsed by themselves.
"""

from __future__ import annotations

import gc
import math
from dataclasses import dataclass
from typing import Any, Final

import torch
from torch import Tensor, nn

from engines import model_catalog
from engines.captioning import components
from engines.captioning.memory import max_lengths, model_from_config
from engines.captioning.memory.max_lengths import Longest
from engines.captioning.memory.model_from_config import JUDGE, SEEN, VISION
from engines.captioning.models.captioner import Captioner, mean_loss
from engines.captioning.models.vision import Tower
from engines.captioning.params import Params
from engines.captioning.prepare import CALIBRATED_ON
from engines.captioning.validation import LOSS_SAMPLE
from engines.memory_query import MemoryEstimate, MemoryQuery, Phase
from engines.torchkit.memory import allocation_tracker as books
from engines.torchkit.memory import fake_training_step, known_configs
from engines.torchkit.memory.allocation_tracker import OPTIMIZER, AllocationTracker
from engines.torchkit.memory.fake_training_step import INPUTS, TrainingOptions
from engines.torchkit.training.early_stopping import Monitor

Parts = dict[str, int]

RUNTIME_BYTES: Final = 1_250 << 20
"""VmHWM on a CPU when the nano is loaded, 1,171 to 1,261 MiB: more than half of it is torch,
transformers, peft and bitsandbytes."""
KOREAN_BYTES: Final = 470 << 20
"""kiwi's model of Korean morphemes, which diversity is counted in: 454 and 481 MiB in two runs."""


@dataclass(frozen=True)
class Scene:
    """Everything that a rehearsal needs."""

    ledger: AllocationTracker
    params: Params
    tuning: TrainingOptions
    most: Longest
    tower: Tower

    @property
    def share(self) -> int:
        """Media of a micro-batch that one process computes."""
        return math.ceil(self.params.batch / self.params.nproc_per_node)

    def batch(self, size: int) -> tuple[Tensor, Tensor]:
        """Media and caption ids of so many samples, as they lie on the device."""
        shape, frames = self.tower.shape, self.most.frames
        with self.ledger.part(INPUTS):
            ids = torch.zeros(size, self.most.tokens, dtype=torch.long)
            if self.params.feature_cache:
                kept = getattr(torch, self.params.feature_dtype)
                return torch.zeros(size, frames, shape.patches, shape.width, dtype=kept), ids
            side = shape.image_size
            return torch.zeros(size, frames, side, side, 3, dtype=torch.uint8), ids

    def features(self, media: Tensor) -> Tensor:
        """As `Prepared.features`: pixels go through the tower first."""
        if media.dtype.is_floating_point:
            return media
        with self.ledger.part(SEEN):
            found = self.tower.encode(media.flatten(0, 1))
        return found.view(*media.shape[:2], *found.shape[1:])


def estimate_memory(want: MemoryQuery) -> MemoryEstimate:
    """Bytes by part of training, the making of features included, and of evaluation.

    Raises:
        EngineError: the model is not known here.
    """
    entry = model_catalog.load(want.model)
    params = Params.model_validate(want.params)
    seeing, speaking = (components.meant(entry, params, name) for name in ("vision", "llm"))
    return forecast(want, params, (seeing, speaking))


def forecast(want: MemoryQuery, params: Params, pair: tuple[Any, Any]) -> MemoryEstimate:
    """`estimate_memory` for this vision tower and this language model."""
    tuning = tuning_of(want, params)
    most = max_lengths.of(want, params, pair[1])
    sizes, spoken_by = model_from_config.sizes_of(want.model, pair[1])
    kind = str(sizes.model_type)
    fake_training_step.import_libraries(
        tuning, kind, lambda: model_from_config.spoken(sizes, tuning)
    )
    with fake_training_step.fake_mode(tuning) as ledger:
        precision = model_from_config.on_cpu(tuning.precision)
        tower, seen_by = model_from_config.tower(want.model, pair[0], params, precision)
        scene = Scene(ledger, params, tuning, most, tower)
        vision_bytes = book(ledger, tower.imagine(), lambda _: VISION)
        looked = look(scene)
        model, files = model_from_config.captioner(sizes, tower, params, tuning, most)
        books.track_model(ledger, model, model_from_config.part_of(model, tuning))
        phases: dict[Phase, Parts] = {}
        if want.trains:
            phases["train"] = largest(looked, *training(scene, model))
        told, lacking = evaluation(scene, model, trains=want.trains)
        phases["predict"] = largest(*([] if want.trains else [looked]), *told)
        facts = facts_of(scene, model, (spoken_by, seen_by), lacking)
        facts["precision"] = fake_training_step.describe_precision(want, tuning)
    return MemoryEstimate(
        phases=phases, host=host(want, scene, (files, vision_bytes), phases), facts=facts
    )


def facts_of(
    scene: Scene, model: Captioner, sources: tuple[str, str], lacking: str
) -> dict[str, str]:
    """What it was computed for. `sources`: of the language model's sizes and the tower's."""
    shape, most = scene.tower.shape, scene.most
    media = model.projector.length(most.frames)
    whole = len(most.wording.before) + media + len(most.wording.after) + most.tokens
    trained = sum(p.numel() for p in model.parameters() if p.requires_grad)
    facts = {
        "sizes of the model": f"{sources[0]}; vision tower: {sources[1]}",
        "longest sample": f"{whole:,} tokens, {media:,} of them the medium's",
        **most.facts,
        "vision": f"{shape.patches:,} patches of {shape.width:,} a frame",
        "trained parameters": f"{trained:,}",
    }
    base = "the base that is trained first, with all its parameters"
    left_out = [lacking, base if sources[0] == known_configs.SCRATCH else ""]
    if any(left_out):
        facts["left out"] = "; ".join(filter(None, left_out))
    return facts


def tuning_of(want: MemoryQuery, params: Params) -> TrainingOptions:
    """The settings of the engine that decide about memory."""
    return TrainingOptions.from_query(want, params.model_dump())


def largest(*peaks: Parts) -> Parts:
    """The one with most bytes."""
    return max(peaks, key=lambda peak: sum(peak.values()))


def book(ledger: AllocationTracker, model: nn.Module, part_of: Any) -> int:
    """Book a frozen model; its bytes."""
    books.track_model(ledger, model, part_of)
    return sum(p.numel() * p.element_size() for p in model.parameters())


def look(scene: Scene) -> Parts:
    """One pass of the frozen tower, before any language model is loaded; kept without a cache."""
    size, tower = scene.tower.shape.image_size, scene.tower
    with scene.ledger.part(INPUTS):
        frames = torch.zeros(tower.at_once, size, size, 3, dtype=torch.uint8)
    scene.ledger.reset_peak()
    with scene.ledger.part(SEEN):
        tower.encode(frames)
    if scene.params.feature_cache:
        tower.drop()
        gc.collect()  # modules hold each other
    return scene.ledger.peak.parts


def training(scene: Scene, model: Captioner) -> list[Parts]:
    """Peaks of the calibration and of a step."""
    ledger = scene.ledger
    ledger.reset_peak()
    model.calibrate(scene.features(scene.batch(CALIBRATED_ON)[0]))
    calibrated = ledger.peak.parts
    seen = scene.batch(scene.share)  # the loop holds its batch until the next one

    def loss() -> Tensor:
        media, ids = seen
        with model_from_config.head_apart(ledger, model.llm):
            return mean_loss(*model(scene.features(media), ids, ids))

    return [
        calibrated,
        fake_training_step.measure_training_step(ledger, model, scene.tuning, loss, seen).parts,
    ]


def evaluation(scene: Scene, model: Captioner, *, trains: bool) -> tuple[list[Parts], str]:
    """Peaks of the evaluation and of the looks between epochs; and what could not be rehearsed."""
    params, size = scene.params, scene.params.evaluate_batch
    found = shown(scene, model, size, size)
    looks: list[Parts] = []
    if trains and params.evaluate_every_epochs:
        some = min(size, LOSS_SAMPLE), min(size, params.evaluate_sample)
        looks = found if some == (size, size) else shown(scene, model, *some)
        trained = [p for p in model.parameters() if p.requires_grad]
        looks = [one | {OPTIMIZER: 2 * sum(p.nbytes for p in trained)} for one in looks]
    judge, lacking = model_from_config.judge(params)
    if judge is not None:  # it stays when the next subset's captions are made
        found = [one | {JUDGE: book(scene.ledger, judge, lambda _: JUDGE)} for one in found]
        scene.ledger.reset_peak()
        with scene.ledger.part(JUDGE):
            model_from_config.judged(judge, scene.most.frames)
        peak = scene.ledger.peak.parts
        found.append(peak)
        between = params.monitor == "siglip" and Monitor.from_params(params).active
        if looks and between:
            looks.append(peak | {OPTIMIZER: looks[0][OPTIMIZER]})
    return [*found, *looks], lacking


@torch.no_grad()
def shown(scene: Scene, model: Captioner, losses: int, captions: int) -> list[Parts]:
    """Peaks of the loss of so many media at once, and of their captions."""
    ledger = scene.ledger
    model.eval()
    ledger.reset_peak()
    media, ids = scene.batch(losses)
    with model_from_config.head_apart(ledger, model.llm), fake_training_step.autocast(scene.tuning):
        model(scene.features(media), ids, ids)
    found = [ledger.peak.parts]
    media, _ = scene.batch(captions)
    ledger.reset_peak()
    with model_from_config.head_apart(ledger, model.llm), fake_training_step.autocast(scene.tuning):
        speak(scene, model, media)
    return [*found, ledger.peak.parts]


def speak(scene: Scene, model: Captioner, media: Tensor) -> None:
    """The prompt of a batch, and the last word of captions that never end."""
    cache = fake_training_step.TrackedCache.create(scene.ledger)
    inputs = model.prompt(scene.features(media))
    token = model.following(inputs, cache)
    if scene.params.max_new_tokens == 1:
        return
    for place, layer in enumerate(cache.layers):
        batch, heads, _, wide = layer.keys.shape
        words = torch.zeros(
            batch, heads, scene.params.max_new_tokens - 2, wide, dtype=layer.keys.dtype
        )
        cache.update(words, words, place)
    word = model.llm.get_input_embeddings()(token)[:, None].to(inputs.dtype)
    del inputs
    model.following(word, cache)


def host(
    want: MemoryQuery, scene: Scene, files: tuple[int, int], phases: dict[Phase, Parts]
) -> Parts:
    """Bytes of host memory. `files`: of the language model's, half precision, and the tower's."""
    params, shape = scene.params, scene.tower.shape
    a_frame = 3 * shape.image_size**2
    if params.feature_cache:
        a_frame = shape.patches * shape.width * getattr(torch, params.feature_dtype).itemsize
    found = fake_training_step.estimate_host_memory(
        want, RUNTIME_BYTES, files[0], scene.most.frames * a_frame, phases
    )
    if "ko" in scene.most.languages:
        found["morphemes of Korean captions"] = KOREAN_BYTES
    if want.target == "cuda":
        found["vision tower, on its way to the GPU"] = files[1]
    return found
