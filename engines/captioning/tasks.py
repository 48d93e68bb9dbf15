"""The phases of a captioning run in their order, from spec to metrics."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import torch

from engines import protocol
from engines.captioning.components import resolve_part
from engines.captioning.context import Context
from engines.captioning.data.dataset import CaptioningData, read_data
from engines.captioning.data.media import CaptionBatch, CaptionCollator, TokenizedCaptions
from engines.captioning.evaluation.evaluate import Evaluator
from engines.captioning.evaluation.image_text_score import ImageTextScorer
from engines.captioning.models.captioner import mean_loss
from engines.captioning.models.vision import VisionTower
from engines.captioning.params import ARCHITECTURE_PARAMS, Params
from engines.captioning.prepare import CALIBRATION_MEDIA, PreparedCaptioner, prepare
from engines.captioning.validation import CaptionValidation
from engines.emitter import Emitter, EngineError
from engines.protocol import RunSpec
from engines.torchkit.checkpointing.training_identity import fingerprint_samples
from engines.torchkit.data.prefetch import to_device
from engines.torchkit.modeling import quantize
from engines.torchkit.runtime import device, run_setup
from engines.torchkit.training import (
    compilation,
    cost_forecast,
    export,
    loop,
    timed_training,
    trained_model,
)
from engines.torchkit.training.early_stopping import Monitor
from engines.torchkit.training.optimizers import decay_groups
from engines.torchkit.training.training_setup import TrainingSetup

Job = loop.TrainingJob[CaptionBatch]


def run(spec: RunSpec, emit: Emitter, run_dir: Path) -> None:
    """Train on the subset and evaluate, only evaluate, or only caption."""
    params = Params.model_validate(spec.params)
    context = resolve_model(run_setup.begin_run(spec, params, emit, run_dir))
    target = context.device
    device.set_convolution_benchmark(fixed=True)  # every pass of the towerhas one shape
    with context.process_group.rank_zero_first(emit):
        emit.phase("build")
        tower = VisionTower(resolve_part(context, "vision"), context.params, context.precision)
        data = read_data(context, tower.shape.image_size)
        device.report_memory(emit, "build", target)
        ready = prepare(context, data, tower)
    device.report_memory(emit, "load", target)
    if context.trained is not None:
        trained_model.check_base_weights(context.trained, ready.state["base_weights"])
        trained_model.load_trained_weights(ready.model, context.trained)
    evaluator = Evaluator(context, ready, ImageTextScorer(context, data.pixels, data.train, ready))
    if spec.task in ("train", "probe"):
        if not train(context, data, ready, evaluator):
            return
    else:
        send_plan(context, data, ready, None)
    evaluate_splits(context, data, evaluator)
    device.report_memory(emit, "generate", target)


def train(
    context: Context, data: CaptioningData, ready: PreparedCaptioner, evaluator: Evaluator
) -> bool:
    """Train and save the model; returns whether this process goes on to evaluate."""
    params, emit = context.params, context.emit
    if context.trained is None:
        ready.model.calibrate(calibration_features(data, ready))
    validation = CaptionValidation(context, data, evaluator, ready.model)
    job = create_training_job(context, data, ready, validation)
    cost_probe = cost_forecast.create_cost_probe(
        context.spec, job, params.timing_warmup_steps, emit
    )
    if cost_probe is not None:  # a cost probe validates and evaluates nothing
        job.after_epoch = None
    elif context.process_group.is_rank_zero:
        validation.check_monitor()
    send_plan(context, data, ready, job, validation.monitor)
    if not timed_training.train(
        context, job, cost_probe, lambda: estimate_disk(context, data, ready, job)
    ):
        return False
    validation.restore()
    if params.save_model:
        state = {**ready.state, "subset_fingerprint": data.fingerprint}
        trained_model.save_trained_model(context, job, state, base=ready.base)
        if params.export_model and params.lora_rank:
            export.write_adapter(context, ready.model.llm, resolve_part(context, "llm"))
    return True


def resolve_model(context: Context) -> Context:
    """The context with the trained model that its spec names, if any.

    Raises:
        EngineError: the run that trained it left no checkpoint, or nothing was trained.
    """
    if context.entry.family != "run" and context.spec.task in ("evaluate", "infer"):
        raise EngineError(
            f"model '{context.spec.model}': its projector was never trained; name a run's "
            "model, run:<id>, or use task = train"
        )
    return trained_model.resolve_trained_model(context, ARCHITECTURE_PARAMS)


def calibration_features(data: CaptioningData, ready: PreparedCaptioner) -> torch.Tensor:
    """Features [CALIBRATION_MEDIA, F, N, D] of training media, the same ones in every run."""
    rows = data.train.select_evenly(CALIBRATION_MEDIA).rows
    return ready.encode_features(ready.items.gather(rows).to(ready.tower.precision.device))


def create_training_job(
    context: Context, data: CaptioningData, ready: PreparedCaptioner, validation: CaptionValidation
) -> Job:
    """The training of the run as the loop takes it: batches, loss, optimizer, validation."""
    params, model, process_group = context.params, ready.model, context.process_group
    samples = fingerprint_samples(data.fingerprint, (data.train.rows, data.media))
    course = TrainingSetup.from_run(context, len(data.train), samples)
    captions = tokenize_captions(context, data, ready)
    gatherer = CaptionCollator(ready.items, data.train.rows, captions, context.spec.seed)

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
    job.after_epoch = validation.after_epoch if validation.enabled else None
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
    job: Job | None,
    monitor: Monitor | None = None,
) -> None:
    """Send the Plan message of the run: steps, batch sizes, parameters, facts."""
    params, model = context.params, ready.model
    trainable = sum(p.numel() for p in model.parameters() if p.requires_grad)
    facts = {
        **ready.facts,
        **trained_model.facts(context),
        "precision": context.precision.description,
        **context.pipeline.facts,
        "optimizer": f"AdamW{', fused' if params.fused else ''}",
        "schedule": f"linear warm-up, then {params.schedule}",
        "gradient_checkpointing": "non-reentrant" if params.gradient_checkpointing else "off",
        **(monitor.facts() if monitor and job and job.after_epoch else {}),
    }
    order = job.loader.order if job else None
    context.emit.send(
        protocol.Plan(
            steps=job.steps if job else 0,
            samples=len(data.train) if job else sum(map(len, data.splits)),
            epochs=job.steps / order.steps_per_epoch if job and order else 0,
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


def evaluate_splits(context: Context, data: CaptioningData, evaluator: Evaluator) -> None:
    """Evaluate a sample of the training media, then all splits; `infer`: caption every medium."""
    params = context.params
    if context.spec.task == "infer":
        evaluator.caption_split(data.splits[0], data.listed)
        return
    if context.spec.task == "train" and params.evaluate_train:
        evaluator.evaluate_split(data.train.select_evenly(params.evaluate_train), "train")
    for split in data.splits:
        evaluator.evaluate_split(split.select_evenly(params.evaluate_limit), split.name)
