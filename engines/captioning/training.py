"""Training of a captioner in one or several stages: batches, loss, optimizer, validation."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch

from engines import protocol
from engines.captioning.components import resolve_part
from engines.captioning.context import Context
from engines.captioning.data.dataset import CaptioningData
from engines.captioning.data.media import CaptionBatch, CaptionCollator, TokenizedCaptions
from engines.captioning.evaluation.evaluate import Evaluator
from engines.captioning.models.captioner import mean_loss
from engines.captioning.params import Params
from engines.captioning.prepare import CALIBRATION_MEDIA, PreparedCaptioner
from engines.captioning.stages import CaptionStage
from engines.captioning.validation import CaptionValidation
from engines.torchkit.checkpointing.training_identity import TrainingIdentity, fingerprint_samples
from engines.torchkit.data.prefetch import to_device
from engines.torchkit.modeling import lora, quantize
from engines.torchkit.training import (
    compilation,
    cost_forecast,
    export,
    loop,
    timed_training,
    trained_model,
)
from engines.torchkit.training.optimizers import decay_groups
from engines.torchkit.training.stage_position import StagePosition
from engines.torchkit.training.timed_training import TrainingStage
from engines.torchkit.training.training_setup import TrainingSetup

Job = loop.TrainingJob[CaptionBatch]


@dataclass(frozen=True)
class StageSetup:
    """A stage with everything that its training needs."""

    context: Context
    """That of the run with the stage's settings, and its seed."""
    position: StagePosition
    stage: CaptionStage
    course: TrainingSetup
    earlier_parts: frozenset[str]
    """Parts that the stages before train."""
    captions: TokenizedCaptions
    validation: CaptionValidation


def train(
    context: Context, data: CaptioningData, ready: PreparedCaptioner, evaluator: Evaluator
) -> bool:
    """Train and save the model; returns whether this process goes on to evaluate."""
    if context.trained is None:
        ready.model.calibrate(calibration_features(data, ready))
    setups = set_up_stages(context, data, ready, evaluator)
    if context.spec.task == "train" and context.process_group.is_rank_zero:
        for setup in setups:
            setup.validation.check_monitor()
    job = timed_training.train_stages(
        context,
        [make_stage(data, ready, setup) for setup in setups],
        lambda job: send_plan(context, data, ready, job, setups),
        lambda job: estimate_disk(context, data, ready, job),
    )
    if job is None:
        return False
    save(context, data, ready, job)
    return True


def set_up_stages(
    context: Context, data: CaptioningData, ready: PreparedCaptioner, evaluator: Evaluator
) -> list[StageSetup]:
    """The stages of a run in order; one at the position of number 0 without stages."""
    params, samples = (
        context.params,
        fingerprint_samples(data.fingerprint, (data.train.rows, data.media)),
    )
    captions = tokenize_captions(context, data, ready)
    setups: list[StageSetup] = []
    position, earlier = StagePosition(), frozenset[str]()
    for number, stage_params in enumerate(params.stage_params()):
        stage = params.stages[number] if params.stages else CaptionStage()
        if params.stages:
            position = replace(position, number=number + 1, name=stage.name)
        spec = context.spec.model_copy(update={"seed": position.seed(context.spec.seed)})
        stage_context = replace(context, params=stage_params, spec=spec)
        course = TrainingSetup.from_run(stage_context, len(data.train), samples)
        validation = CaptionValidation(stage_context, data, evaluator, ready.model, position.number)
        setups.append(
            StageSetup(stage_context, position, stage, course, earlier, captions, validation)
        )
        earlier |= frozenset(stage_params.trained_parts)
        position = replace(
            position, first_step=position.first_step + course.steps,
            first_epoch=position.first_epoch + course.steps / course.order.steps_per_epoch,
        )  # fmt: skip
    if params.stages:
        batches = [setup.course.order.per_step for setup in setups]
        first = setups[0].course.identity
        identity = TrainingIdentity.of_run(
            params, context.spec.seed, batches, samples, len(data.train), first.model
        )
        setups = [replace(s, course=replace(s.course, identity=identity)) for s in setups]
    return setups


def make_stage(data: CaptioningData, ready: PreparedCaptioner, setup: StageSetup) -> TrainingStage:
    """The stage as `train_stages` takes it."""

    def create_job() -> Job:
        parts = setup.context.params.trained_parts
        used = setup.earlier_parts | set(parts)
        adapters = "lora" in used or setup.context.trained is not None
        ready.model.train_parts(parts, adapters=adapters)
        job = create_training_job(data, ready, setup)
        job.position = setup.position
        job.trained_before = ready.model.parameter_names(setup.earlier_parts)
        return job

    return TrainingStage(setup.position, setup.stage.settings, create_job, setup.validation.restore)


def save(context: Context, data: CaptioningData, ready: PreparedCaptioner, job: Job) -> None:
    """Save what all stages trained, and export the adapters."""
    params, parts = context.params, set[str]()
    for stage in params.stage_params():
        parts |= set(stage.trained_parts)
    ready.model.train_parts(parts)
    if not params.save_model:
        return
    state = {**ready.state, "subset_fingerprint": data.fingerprint}
    trained_model.save_trained_model(context, job, state, base=ready.base)
    if params.export_model and "lora" in parts:
        export.write_adapter(context, ready.model.llm, resolve_part(context, "llm"))


def calibration_features(data: CaptioningData, ready: PreparedCaptioner) -> torch.Tensor:
    """Features [CALIBRATION_MEDIA, F, N, D] of training media, the same ones in every run."""
    rows = data.train.select_evenly(CALIBRATION_MEDIA).rows
    return ready.encode_features(ready.items.gather(rows).to(ready.tower.precision.device))


def create_training_job(data: CaptioningData, ready: PreparedCaptioner, setup: StageSetup) -> Job:
    """The training of a stage as the loop takes it: batches, loss, optimizer, validation."""
    context, course, validation = setup.context, setup.course, setup.validation
    params, model, process_group = context.params, ready.model, context.process_group
    gatherer = CaptionCollator(ready.items, data.train.rows, setup.captions, context.spec.seed)

    def example() -> Any:
        some = to_device(gatherer(np.zeros(1, np.int64), 0), context.device)
        with context.precision.autocast():
            return model(ready.encode_features(some.media), some.ids, some.labels)

    caption = process_group.wrap(model, example)
    if params.compile:
        model.projector.compile()

    def forward(batch: CaptionBatch) -> loop.LossOutput:
        local_losses = caption(ready.encode_features(batch.media), batch.ids, batch.labels)
        summed, tokens = (process_group.gather(part, len(batch)) for part in local_losses)
        return loop.LossOutput(mean_loss(summed, tokens), validation.latest, len(batch))

    job = course.create_job(model, gatherer, forward)
    job.optimizer = build_optimizer(params, ready)
    if params.compile:
        job.prepare = compilation.compile_on_first_batch(job)
    if params.schedule == "constant":
        job.lr_at = lambda step: params.lr * min(1.0, (step + 1) / max(1, course.warmup))
    validates = validation.enabled and context.spec.task == "train"  # no cost probe
    job.after_epoch = validation.after_epoch if validates else None
    return job


def build_optimizer(params: Params, ready: PreparedCaptioner) -> torch.optim.AdamW:
    """AdamW over projector and adapters; the projector's groups are scaled to `projector_lr`."""
    model, scale = ready.model, (params.projector_lr or params.lr) / params.lr
    groups = decay_groups(model.projector.named_parameters(), params.weight_decay)
    for group in groups:
        group["lr_scale"] = scale
    groups += decay_groups(model.llm.named_parameters(), params.weight_decay)
    return torch.optim.AdamW(groups, lr=params.lr, betas=(0.9, params.beta2), fused=params.fused)


def tokenize_captions(
    context: Context, data: CaptioningData, ready: PreparedCaptioner
) -> TokenizedCaptions:
    """The training captions as token ids; emits a notice with the number of truncated ones."""
    longest, cut = context.params.max_length, 0
    captions = []
    for texts in data.train.captions.references:
        encoded = [ready.template.encode(text, longest) for text in texts]
        cut += sum(was_cut for _, was_cut in encoded)
        captions.append([ids for ids, _ in encoded])
    if cut:
        context.emit.notice("texts-truncated", f"{cut} captions were cut at {longest} tokens", cut)
    return TokenizedCaptions(captions)


def send_plan(
    context: Context,
    data: CaptioningData,
    ready: PreparedCaptioner,
    job: Job | None = None,
    setups: Sequence[StageSetup] = (),
) -> None:
    """Send the Plan message: steps, batch sizes, parameters, facts.

    `job`: the training that begins, one of the stages `setups`; None: nothing is trained.
    """
    model = ready.model
    setup = next((s for s in setups if job and s.position == job.position), None)
    params = setup.context.params if setup else context.params
    trainable = sum(p.numel() for p in model.parameters() if p.requires_grad)
    facts = {
        **ready.facts,
        **trained_model.facts(context),
        "precision": context.precision.description,
        **context.pipeline.facts,
        "optimizer": f"AdamW{', fused' if params.fused else ''}",
        "schedule": f"linear warm-up, then {params.schedule}",
        "gradient_checkpointing": "non-reentrant" if params.gradient_checkpointing else "off",
        **(_stage_facts(ready, setup, job, len(setups)) if setup and job else {}),
    }
    order = job.loader.order if job else None
    context.emit.send(
        protocol.Plan(
            steps=sum(s.course.steps for s in setups),
            samples=len(data.train) if job else sum(map(len, data.splits)),
            epochs=sum(s.course.steps / s.course.order.steps_per_epoch for s in setups),
            warmup_steps=min(params.timing_warmup_steps, job.steps) if job else 0,
            effective_batch=order.per_step if order else params.eval_batch_size,
            micro_batch=order.batch if order else params.eval_batch_size,
            parameters=quantize.logical_parameters(model),
            trainable_parameters=trainable if job else 0,
            subset_fingerprint=data.fingerprint,
            model_revision=ready.revision,
            facts=facts,
        )
    )


def _stage_facts(
    ready: PreparedCaptioner, setup: StageSetup, job: Job, count: int
) -> dict[str, str]:
    """What is trained, its stage, and the monitor of its validation."""
    facts = {"trainable": lora.list_trainable(ready.model)}
    if setup.position.number:
        facts["stage"] = f"{setup.position.title} of {count}"
    return facts | (setup.validation.monitor.facts() if job.after_epoch else {})


def estimate_disk(
    context: Context, data: CaptioningData, ready: PreparedCaptioner, job: Job
) -> dict[str, int]:
    """Bytes that a full run keeps on disk, by what they are; caches are shared with other runs."""
    params = context.params
    on_the_way = params.checkpoint_every > 0 or params.checkpoint_minutes > 0
    exported = export.adapter_bytes(ready.model) * (params.save_model and params.export_model)
    return {
        **cost_forecast.checkpoint_bytes(job, kept=params.save_model, on_the_way=on_the_way),
        **({"adapter folder": exported} if exported else {}),
        "image cache": data.pixels.nbytes,
        **({"feature cache": ready.items.nbytes} if params.feature_cache else {}),
    }
